//! Training over HTTP: progress, stopping, continuing, live updates of labels, and refused requests.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{path::Path, process::Command};

use common::{BINARY, DemoMovie, demo_dataset, training};
use elephant_checkpoint::{Checkpoint, last_step};
use elephant_testkit::{TestServer, eventually, eventually_some};
use serde_json::{Value, json};

struct Fixture {
    server: TestServer,
    movie: DemoMovie,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    Fixture { server, movie, _folder: folder }
}

impl Fixture {
    fn request(&self, changes: &Value) -> Value {
        let mut request = training(&self.movie, 1);
        for (key, value) in changes.as_object().unwrap() {
            request[key] = value.clone();
        }
        request
    }

    fn train(&self, changes: &Value) -> elephant_testkit::Reply {
        self.server.post_json("/seg/train", &self.request(changes))
    }

    fn update(&self, t: usize) -> elephant_testkit::Reply {
        let mut spot = training(&self.movie, 1)["spots"][0].clone();
        spot["t"] = t.into();
        let body = json!({"dataset_name": "fly", "scales": self.movie.scales, "spots": [spot], "is_livemode": true});
        self.server.post_json("/seg/update", &body)
    }

    /// The newest training, after `is_there` has become true for it.
    fn wait_for(&self, is_there: impl Fn(&Value) -> bool) -> Value {
        eventually_some("the training has that state", || {
            let jobs = self.server.get("/api/v1/jobs?kind=train&limit=1").json();
            let id = jobs[0]["id"].as_u64()?;
            let job = self.server.get(&format!("/api/v1/jobs/{id}")).json();
            is_there(&job).then_some(job)
        })
    }

    fn wait_for_step(&self, step: u64) -> Value {
        self.wait_for(|job| job["progress"]["step"].as_u64().is_some_and(|done| done >= step))
    }

    fn state(&self) -> Value {
        self.server.get("/state/process").json()["state"].clone()
    }

    fn abort(&self) {
        assert_eq!(self.server.post_json("/state/process", &json!({"state": 0})).status, 200);
    }

    fn model(&self) -> Checkpoint {
        Checkpoint::read(&self.model_path()).unwrap()
    }

    fn model_path(&self) -> std::path::PathBuf {
        self.server.workspace().join("models/detection.pth")
    }
}

#[test]
fn a_training_learns_and_the_next_one_continues() {
    let fixture = fixture();
    let before = fixture.model();
    let request = json!({"n_epochs": 6, "n_crops": 2, "batch_size": 2.0, "lr": 1.0e-3, "seed": 1, "auto_bg_thresh": 0.1,
        "aug_scale_factor_base": 0.2, "aug_rotation_angle": 12.5, "aug_contrast": 0.5, "log_interval": 4});
    assert_eq!(fixture.train(&request).json(), json!({"completed": true}));
    let first = fixture.wait_for(|job| job["status"] == "completed");
    let losses = |job: &Value| -> Vec<f64> {
        job["losses"].as_array().unwrap().iter().map(|point| point["loss"].as_f64().unwrap()).collect()
    };
    assert_eq!(losses(&first).len(), 6);
    assert!(first["losses"][0]["parts"]["center_dice_loss"].is_number(), "{first}");
    assert_ne!(fixture.model().fingerprint(), before.fingerprint());
    let logs = fixture.server.workspace().join("logs/detection_log");
    assert_eq!(last_step(&logs).unwrap(), Some(5));
    let optimizer = |model: &Checkpoint| {
        elephant_checkpoint::OptimizerState::read(model, &fixture.model_path().with_file_name(".detection.pth.adam"))
    };
    assert_eq!(optimizer(&fixture.model()).unwrap().unwrap().step, 6);
    assert_eq!(fixture.train(&request).json(), json!({"completed": true}));
    let second = fixture.wait_for(|job| job["id"] != first["id"] && job["status"] == "completed");
    assert!(losses(&second).iter().sum::<f64>() < losses(&first).iter().sum::<f64>(), "{first} {second}");
    assert_eq!(last_step(&logs).unwrap(), Some(11));
    assert_eq!(optimizer(&fixture.model()).unwrap().unwrap().step, 12);
    assert_eq!(fixture.state(), 0);
}

#[test]
fn a_live_training_follows_updates_until_it_is_stopped() {
    let fixture = fixture();
    std::thread::scope(|scope| {
        let trained = scope.spawn(|| fixture.train(&json!({"is_livemode": true, "spots": [], "n_crops": 2})));
        fixture.wait_for(|job| job["status"] == "running");
        assert_eq!(fixture.state(), 1);
        assert_eq!(fixture.update(1).json(), json!({"completed": true}));
        let job = fixture.wait_for_step(2);
        assert!(job["progress"]["total"].is_null(), "{job}");
        let params = fixture.server.post_json("/params", &json!({"lr": 1e-5, "n_crops": 3}));
        assert_eq!(params.status, 200);
        assert_eq!(fixture.update(3).json(), json!({"completed": true}));
        fixture.wait_for_step(5);
        let several = json!(
            [0, 1].map(|t| json!({"t": t, "pos": [9, 9, 9], "covariance": [9, 0, 0, 0, 9, 0, 0, 0, 9], "tag": "tp"}))
        );
        let refused = fixture.server.post_json(
            "/seg/update",
            &json!({"dataset_name": "fly", "scales": fixture.movie.scales, "spots": several, "is_livemode": true}),
        );
        assert_eq!((refused.status, refused.error().as_str()), (400, "Livemode should update only a single timepoint"));
        // While it waits for the next update, it is stopped at once.
        fixture.abort();
        assert_eq!(trained.join().unwrap().json(), json!({"completed": false}));
    });
    assert_eq!(fixture.state(), 0);
    let job = fixture.wait_for(|job| job["status"] == "cancelled");
    assert_eq!(job["losses"].as_array().unwrap().len(), 5);
}

#[test]
fn predictions_run_during_a_training_and_an_abort_ends_both() {
    let fixture = fixture();
    let before = fixture.model().fingerprint();
    std::thread::scope(|scope| {
        let trained = scope.spawn(|| fixture.train(&json!({"n_epochs": 100_000, "n_crops": 100})));
        fixture.wait_for_step(1);
        let predict =
            json!({"dataset_name": "fly", "timepoint": 0, "scales": fixture.movie.scales, "n_keep_axials": 2});
        assert_eq!(fixture.server.post_json("/seg/predict", &predict).json()["completed"], true);
        let step = fixture.wait_for_step(0)["progress"]["step"].as_u64().unwrap();
        fixture.wait_for_step(step + 1);
        for path in ["/seg/train", "/seg/reset"] {
            let refused = fixture.server.post_json(path, &fixture.request(&json!({"url": null})));
            assert_eq!(refused.status, 500);
            assert!(refused.error().starts_with("Process is running"), "{}", refused.error());
        }
        let refused = fixture.train(&json!({"spots": []}));
        assert_eq!((refused.status, refused.error().as_str()), (400, "nothing to train"));
        assert_eq!(fixture.state(), 1, "a refused training does not affect the running one");
        fixture.abort();
        assert_eq!(trained.join().unwrap().json(), json!({"completed": false}));
    });
    assert_ne!(fixture.model().fingerprint(), before, "the steps of the unfinished epoch are kept");
    assert_eq!(fixture.state(), 0);
}

#[test]
fn a_model_replaced_during_training_is_not_overwritten() {
    let fixture = fixture();
    let path = fixture.model_path();
    std::thread::scope(|scope| {
        let trained = scope.spawn(|| fixture.train(&json!({"n_epochs": 100_000})));
        fixture.wait_for_step(1);
        let theirs = path.with_file_name("theirs.pth");
        std::fs::copy(&path, &theirs).unwrap();
        std::fs::rename(&theirs, &path).unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        let refused = trained.join().unwrap();
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.error().contains("trained-detection.pth"), "{}", refused.error());
        assert_eq!(path.metadata().unwrap().modified().unwrap(), modified);
        assert_ne!(Checkpoint::read(&path.with_file_name("trained-detection.pth")).unwrap(), fixture.model());
    });
}

#[test]
fn invalid_requests_are_refused() {
    let fixture = fixture();
    let before = fixture.model();
    let spot = |changes: Value| {
        let mut spot = training(&fixture.movie, 1)["spots"][0].clone();
        changes.as_object().unwrap().iter().for_each(|(key, value)| spot[key] = value.clone());
        json!({"spots": [spot]})
    };
    let cases = [
        (json!({"spots": []}), 400, "nothing to train"),
        (json!({"n_crops": 0}), 400, "n_crops should be a positive number"),
        (json!({"n_crops": -1}), 400, "n_crops should be a positive number"),
        (json!({"n_epochs": 0}), 400, "n_epochs should be a positive number"),
        (json!({"lr": 0}), 400, "lr"),
        (json!({"lr": 1e38}), 400, "lr"),
        (json!({"n_crops": 1_000_000_000}), 400, "n_crops"),
        (json!({"crop_size": [1e9, 1e9, 1e9], "input_size": [1e5, 1e5, 1e5]}), 413, "memory"),
        (json!({"crop_size": [1e9, 1e9, 1e9], "input_size": [1e9, 1e9, 1e9]}), 413, "memory"),
        (json!({"input_size": [1, 1, 1]}), 400, "input_size"),
        (json!({"lr": "x"}), 400, "lr"),
        (json!({"lr": null}), 400, "lr"),
        (json!({"batch_size": 100_000}), 400, "batch_size"),
        (json!({"aug_contrast": 1.5}), 400, "contrast should be in [0, 1] but got 1.5"),
        (json!({"aug_scale_factor_base": 1}), 400, "aug_scale_factor_base"),
        (json!({"aug_rotation_angle": -3}), 400, "aug_rotation_angle"),
        (json!({"class_weights": [0, 0, 0]}), 400, "class_weights"),
        (json!({"class_weights": [1, 10]}), 400, "class_weights"),
        (json!({"false_weight": -1}), 400, "false_weight"),
        (json!({"crop_size": [0, 8, 8]}), 400, "crop_size"),
        (json!({"crop_size": [8]}), 400, "crop_size"),
        (json!({"c_ratio": 0}), 400, "c_ratio"),
        (json!({"auto_bg_thresh": 2}), 400, "auto_bg_thresh"),
        (json!({"is_3d": false}), 400, "2-D"),
        (json!({"dataset_name": "../fly"}), 400, "dataset_name"),
        (json!({"dataset_name": "nowhere"}), 404, "nowhere"),
        (json!({"log_dir": "../../etc"}), 400, "log_dir"),
        (spot(json!({"t": 99})), 404, "no timepoint 99"),
        (spot(json!({"tag": "unlabeled"})), 400, "unlabeled"),
        (spot(json!({"pos": [9000, 0, 0]})), 400, "outside"),
        (spot(json!({"covariance": [0, 0, 0, 0, 0, 0, 0, 0, 0]})), 400, "covariance"),
    ];
    for (changes, status, word) in cases {
        let reply = fixture.train(&changes);
        assert_eq!(reply.status, status, "{changes}: {}", reply.text());
        assert!(reply.error().contains(word), "{changes}: {}", reply.error());
        assert_eq!(fixture.state(), 0);
    }
    let huge = json!({"url": null, "crop_size": [1e9, 1e9, 1e9], "input_size": [1e5, 1e5, 1e5]});
    for (changes, status) in [(huge, 413), (json!({"url": null, "n_crops": 1_000_000_000}), 400)] {
        let reply = fixture.server.post_json("/seg/reset", &fixture.request(&changes));
        assert_eq!(reply.status, status, "{changes}: {}", reply.text());
    }
    let params = fixture.server.post_json("/params", &json!({"n_crops": 0}));
    assert_eq!((params.status, params.error().as_str()), (400, "Invalid number of crops: 0"));
    assert_eq!(fixture.model(), before, "the model is unchanged");
    // Old logs may be deleted.
    std::fs::remove_dir_all(fixture.server.workspace().join("logs")).unwrap();
    assert_eq!(fixture.train(&json!({})).status, 200);
    // The label store has been removed.
    let labels = fixture.server.workspace().join("datasets/fly/seg_labels.zarr");
    std::fs::rename(&labels, labels.with_file_name("elsewhere")).unwrap();
    let reply = fixture.train(&json!({}));
    assert!((400..500).contains(&reply.status), "{}", reply.text());
    assert!(reply.error().contains("seg_labels"), "{}", reply.error());
}

#[test]
fn a_random_model_first_learns_from_images() {
    let fixture = fixture();
    let reset = |n_crops: u32| {
        let mut body = fixture.request(&json!({"url": null, "n_crops": n_crops, "seed": 5}));
        body.as_object_mut().unwrap().remove("spots");
        let reply = fixture.server.post_json("/seg/reset", &body);
        assert_eq!(reply.json(), json!({"completed": true}), "{}", reply.text());
        fixture.model()
    };
    let trained = reset(2);
    assert_eq!(trained.members.len(), 1);
    assert_eq!(reset(2), trained, "the same seed gives the same model");
    assert_ne!(reset(3), trained);
    let jobs = fixture.server.get("/api/v1/jobs?kind=reset&limit=1").json();
    let job = fixture.server.get(&format!("/api/v1/jobs/{}", jobs[0]["id"])).json();
    let losses = job["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 9, "three epochs of three crops");
    assert!(losses[8]["loss"].as_f64() < losses[0]["loss"].as_f64(), "{job}");
    let ensemble = fixture.request(&json!({"url": null, "nmodels": 2, "n_crops": 1}));
    assert_eq!(fixture.server.post_json("/seg/reset", &ensemble).status, 200);
    assert_eq!(fixture.model().members.len(), 2);
    // If it is stopped, it replaces nothing.
    let before = fixture.model();
    std::thread::scope(|scope| {
        let body = fixture.request(&json!({"url": null, "n_crops": 1_000_000}));
        let server = &fixture.server;
        let reset = scope.spawn(move || server.post_json("/seg/reset", &body).json());
        eventually("the reset runs", || {
            fixture.server.get("/api/v1/jobs?kind=reset&status=running&limit=1").json()[0]["id"].is_u64()
        });
        fixture.abort();
        assert_eq!(reset.join().unwrap(), json!({"completed": false}));
    });
    assert_eq!(fixture.model(), before);
}

/// PyTorch's own implementation of the network gives the same probabilities with a model trained here.
#[test]
fn python_predicts_the_same_with_a_trained_model() {
    let Some(python) = elephant_testkit::peer_python() else { return };
    let fixture = fixture();
    assert_eq!(fixture.train(&json!({"n_epochs": 3})).status, 200);
    let predict = json!({"dataset_name": "fly", "timepoint": 2, "scales": fixture.movie.scales, "n_keep_axials": 2,
        "output_prediction": true, "is_pad": false});
    assert_eq!(fixture.server.post_json("/seg/predict", &predict).status, 200);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/compare_prediction.py");
    let dataset = fixture.server.workspace().join("datasets/fly");
    let output = Command::new(python).arg(script).arg(fixture.model_path()).arg(dataset).arg("2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let difference: f64 = text.trim().parse().unwrap();
    // The probabilities are stored in half precision.
    assert!(difference < 1e-4 + 4.9e-4, "{difference}");
}
