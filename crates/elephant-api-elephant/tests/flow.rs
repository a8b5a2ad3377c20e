//! Optical flow over a network that gives every voxel the same vector: what is computed how often, what is answered, and
//! what is refused.

#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use elephant_api_core::{
    LargeBodies,
    testing::{OneDevice, TestReply, TestRouter},
};
use elephant_api_elephant::ElephantApi;
use elephant_memory::Memory;
use elephant_pipeline::{FlowPredictor, UseCases, testing::TestWorkspace};
use elephant_types::{Numerics, VoxelSize};
use elephant_volume::{Dataset, Store};
use ndarray::{ArrayD, IxDyn};
use serde_json::{Value, json};

/// Output of the network along x, y, z.
const VECTOR: [f32; 3] = [0.1, -0.05, 0.25];
/// Displacement in voxels that 1 stands for; powers of two leave half precision exact enough.
const MAX_DISPLACEMENT: f64 = 64.0;

struct Fixture {
    router: TestRouter,
    workspace: TestWorkspace,
    voxel_size: VoxelSize,
}

fn router(workspace: &TestWorkspace, use_cases: UseCases) -> TestRouter {
    let api = ElephantApi::new(use_cases, workspace.runner.clone(), Arc::new(OneDevice), LargeBodies::default());
    TestRouter::new(vec![api.family()], &workspace.runner, workspace.path())
}

/// The dataset `fly` of 4 frames of 16 × 48 × 48 voxels.
fn fixture() -> Fixture {
    let workspace = TestWorkspace::new();
    let voxel_size = workspace.add_dataset("fly");
    workspace.network.set_displacement(VECTOR);
    Fixture { router: router(&workspace, workspace.use_cases.clone()), workspace, voxel_size }
}

impl Fixture {
    /// Voxel size (x, y, z).
    fn scales(&self) -> [f64; 3] {
        let [z, y, x] = self.voxel_size.zyx();
        [x, y, z]
    }

    /// A spot at a voxel (x, y, z).
    fn spot(&self, id: i64, voxel: [f64; 3]) -> Value {
        let pos: Vec<f64> = voxel.iter().zip(self.scales()).map(|(at, edge)| at * edge).collect();
        json!({"id": id, "pos": pos, "covariance": [4, 0, 0, 0, 4, 0, 0, 0, 4]})
    }

    /// A request for two cells of frame 2, with changes.
    fn request(&self, changes: &Value) -> Value {
        let mut body = json!({"dataset_name": "fly", "model_name": "flow.pth", "timepoint": 2, "scales": self.scales(),
            "n_keep_axials": 2, "max_displacement": MAX_DISPLACEMENT, "patch": [384, 384, 24], "batch_size": 0,
            "spots": [self.spot(12, [24.0, 24.0, 8.0]), self.spot(-3, [10.0, 30.0, 8.0])]});
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    async fn predict(&self, changes: &Value) -> TestReply {
        self.router.post("/flow/predict", &self.request(changes)).await
    }

    /// The answers for a request, which must succeed.
    async fn answers(&self, changes: &Value) -> Vec<Value> {
        let reply = self.predict(changes).await;
        let body = reply.json();
        assert_eq!((reply.status.as_u16(), &body["completed"]), (200, &json!(true)), "{changes}: {body}");
        body["spots"].as_array().unwrap().clone()
    }

    fn calls(&self) -> u64 {
        self.workspace.network.displacement_calls()
    }

    fn dataset(&self) -> Dataset {
        Dataset::open(&self.workspace.path().join("datasets/fly")).unwrap()
    }
}

/// The displacement that the network's vector stands for, in micrometres, when n levels keep z.
fn displacement(fixture: &Fixture, n: i32) -> [f64; 3] {
    let norm = [MAX_DISPLACEMENT, MAX_DISPLACEMENT, MAX_DISPLACEMENT / 2_f64.powi(n)];
    std::array::from_fn(|axis| f64::from(VECTOR[axis]) * norm[axis] * fixture.scales()[axis])
}

fn assert_near(found: &Value, expected: f64, what: &str) {
    // Half precision, and a few voxels without intensity, where the network gives no displacement.
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 0.02 * expected.abs().max(1.0), "{what}: {found} is not {expected}");
}

fn assert_error(reply: &TestReply, status: u16, part: &str) {
    let body = reply.json();
    let message = body["error"].as_str().unwrap_or_default();
    assert_eq!(reply.status.as_u16(), status, "{part}: {body}");
    assert!(message.contains(part), "{part}: {message}");
}

#[tokio::test]
async fn the_cells_of_a_frame_cost_one_forward_pass() {
    let fixture = fixture();
    let answers = fixture.answers(&json!({})).await;
    let moved = displacement(&fixture, 2);
    assert_eq!(answers.iter().map(|answer| &answer["id"]).collect::<Vec<_>>(), [12, -3]);
    for (answer, voxel) in answers.iter().zip([[24.0, 24.0, 8.0], [10.0, 30.0, 8.0]]) {
        for axis in 0..3 {
            let expected = voxel[axis] * fixture.scales()[axis] + moved[axis];
            assert_near(&answer["pos"][axis], expected, "a place");
        }
        assert_near(&answer["sqdisp"], moved.iter().map(|part| part * part).sum(), "a squared length");
    }
    // Each cell by itself, under the old name, too; also with a crop, from the whole frame's field.
    for path in ["/flow/predict", "/predict/flow"] {
        for (index, spot) in fixture.request(&json!({}))["spots"].as_array().unwrap().iter().enumerate() {
            for crop in [json!(null), json!([0, 0, 0, 20, 20, 8])] {
                let reply =
                    fixture.router.post(path, &fixture.request(&json!({"spots": [spot], "crop_box": crop}))).await;
                assert_eq!(reply.json()["spots"], json!([answers[index]]));
            }
        }
    }
    // Options that do not matter: the frame is one tile anyway.
    fixture.answers(&json!({"patch": [50, 50, 50], "batch_size": 4, "output_prediction": true})).await;
    assert_eq!(fixture.calls(), 1);
    // What was computed is in the dataset, in voxels, for other programs.
    let mut field = ArrayD::from_elem(IxDyn(&[1, 3, 1, 1, 1]), half::f16::ZERO);
    fixture.dataset().store(Store::FlowOutputs).read(&[1, 0, 8, 24, 24], field.view_mut()).unwrap();
    let field: Vec<f32> = field.iter().map(|value| value.to_f32()).collect();
    assert!((field[0] - 6.4).abs() < 0.01 && (field[1] + 3.2).abs() < 0.01 && (field[2] - 4.0).abs() < 0.01);
    let other = fixture.answers(&json!({"timepoint": 3})).await;
    assert_eq!((other.len(), fixture.calls()), (2, 2), "another pair");
}

#[tokio::test]
async fn a_field_is_used_again_only_where_nothing_has_changed() {
    let mut fixture = fixture();
    let first = fixture.answers(&json!({})).await;
    let mut calls = 1;
    for changes in [
        json!({"n_keep_axials": 1}),
        json!({"max_displacement": 32}),
        json!({"patch": [32, 32, 8]}),
        json!({"input_size": [24, 24, 8]}),
        json!({"model_name": "other.pth", "n_keep_axials": 0}),
        json!({}),
    ] {
        fixture.answers(&changes).await;
        calls += 1;
        assert_eq!(fixture.calls(), calls, "{changes}");
        fixture.answers(&changes).await;
        assert_eq!(fixture.calls(), calls, "{changes} again");
    }
    // After a restart.
    let mut use_cases = fixture.workspace.use_cases.clone();
    let network = Arc::new(fixture.workspace.network.clone());
    let (models, numerics) = (use_cases.models.clone(), Numerics::Corrected);
    let flow = FlowPredictor::new(&use_cases.workspace, models, network, Memory::default(), numerics);
    use_cases.flow = Arc::new(flow);
    fixture.router = router(&fixture.workspace, use_cases);
    assert_eq!(fixture.answers(&json!({})).await, first);
    assert_eq!(fixture.calls(), calls, "the server was started again");
    // Another model of the same name.
    elephant_model::fake::FakeNetwork::flow_checkpoint(elephant_types::NetworkKind::Volumetric, 5)
        .write(&fixture.workspace.path().join("models/flow.pth"))
        .unwrap();
    fixture.answers(&json!({})).await;
    assert_eq!(fixture.calls(), calls + 1, "the model has changed");
    // Other images.
    assert_eq!(fixture.router.post("/dataset/generate", &json!({"dataset_name": "fly"})).await.status, 200);
    fixture.answers(&json!({})).await;
    assert_eq!(fixture.calls(), calls + 2, "the dataset was made again");
}

#[tokio::test]
async fn a_crop_is_computed_around_the_cells() {
    let fixture = fixture();
    let spot = fixture.spot(1, [40.0, 40.0, 8.0]);
    let moved = displacement(&fixture, 2);
    // A box around the cell, one where the last action was, and one that is too small for it.
    for crop in [json!([28, 28, 0, 20, 20, 16]), json!([0, 0, 0, 20, 20, 16]), json!([39, 39, 7, 2, 2, 2])] {
        let answers = fixture.answers(&json!({"spots": [spot], "crop_box": crop})).await;
        for axis in 0..3 {
            let expected = [40.0, 40.0, 8.0][axis] * fixture.scales()[axis] + moved[axis];
            assert_near(&answers[0]["pos"][axis], expected, "a place");
        }
    }
    // The last one needed the whole frame, which is kept.
    assert_eq!(fixture.calls(), 3);
    fixture.answers(&json!({})).await;
    assert_eq!(fixture.calls(), 3);
    // Where the displacements are to be stored, a crop would leave the rest without.
    fixture
        .answers(
            &json!({"timepoint": 1, "spots": [spot], "crop_box": [28, 28, 0, 20, 20, 16], "output_prediction": true}),
        )
        .await;
    fixture.answers(&json!({"timepoint": 1})).await;
    assert_eq!(fixture.calls(), 4);
}

#[tokio::test]
async fn cells_without_a_place_need_no_network() {
    let fixture = fixture();
    let nothing = json!({"completed": true, "spots": []});
    assert_eq!(fixture.predict(&json!({"spots": []})).await.json(), nothing);
    let far = fixture.spot(7, [4000.0, 40.0, 8.0]);
    let answers = fixture.answers(&json!({"spots": [far]})).await;
    assert_eq!((&answers[0]["pos"], &answers[0]["sqdisp"]), (&far["pos"], &json!(0.0)));
    assert_eq!(fixture.calls(), 0);
    // The dataset and the timepoint must be there all the same.
    assert_error(&fixture.predict(&json!({"spots": [], "dataset_name": "bee"})).await, 404, "bee");
    assert_error(&fixture.predict(&json!({"spots": [], "timepoint": 4})).await, 404, "there is no timepoint 4");
}

#[tokio::test]
async fn wrong_requests_are_refused_with_a_reason() {
    let fixture = fixture();
    let with = |key: &str, value: Value| {
        let mut spot = fixture.spot(12, [24.0, 24.0, 8.0]);
        spot[key] = value;
        json!({"spots": [spot]})
    };
    for (changes, status, part) in [
        (json!({"timepoint": 0}), 400, "timepoint 0 has no frame before it"),
        (json!({"timepoint": 1.5}), 400, "timepoint"),
        (json!({"timepoint": 9_007_199_254_740_991_u64}), 404, "there is no timepoint"),
        (json!({"dataset_name": "../fly"}), 400, "dataset_name"),
        (json!({"is_3d": false}), 400, "set is_3d to true"),
        (json!({"scales": [1, 1]}), 200, ""),
        (json!({"scales": [1, 1, 0]}), 400, "scales"),
        (json!({"max_displacement": -1}), 400, "max_displacement"),
        (json!({"input_size": [0, 48, 16]}), 400, "input size"),
        (json!({"crop_box": [0, 0, 0, 1, 1]}), 400, "crop_box"),
        (json!({"spots": {"id": 1}}), 400, "spots"),
        (with("covariance", json!([0, 0, 0, 0, 0, 0, 0, 0, 0])), 400, "spot 12"),
        (with("covariance", json!([1, 0, 0, 0, 1, 0, 0, 0])), 400, "spots[0].covariance"),
        (with("pos", json!([1, null, 2])), 400, "spots[0].pos[1]"),
        (with("pos", json!([1, 2])), 400, "spots[0].pos"),
        (with("pos", json!([1e300, 2, 3])), 200, ""),
        (with("id", json!("12")), 400, "spots[0].id"),
        (with("id", json!(1e17)), 400, "spots[0].id"),
        (with("id", json!(9_007_199_254_740_991_i64)), 200, ""),
        (with("unknown", json!([1])), 200, ""),
    ] {
        let reply = fixture.predict(&changes).await;
        if status == 200 {
            assert_eq!(reply.status, 200, "{changes}: {}", reply.json());
        } else {
            assert_error(&reply, status, part);
        }
    }
    let detection = fixture.predict(&json!({"model_name": "detection.pth"})).await;
    assert_error(&detection, 400, "3-D flow");
}

#[tokio::test]
async fn a_prediction_is_aborted() {
    let fixture = fixture();
    let gate = fixture.workspace.hold_predictions();
    let (router, body) = (fixture.router.clone(), fixture.request(&json!({})));
    let prediction = tokio::spawn(async move { router.post("/flow/predict", &body).await });
    let gate = tokio::task::spawn_blocking(move || {
        gate.wait_for_arrival();
        gate
    });
    let _gate = gate.await.unwrap();
    assert_eq!(fixture.router.get("/state/process").await.json()["state"], 2);
    fixture.router.post("/state/process", &json!({"state": 0})).await;
    assert_eq!(prediction.await.unwrap().json(), json!({"completed": false, "spots": []}));
    fixture.workspace.network.forget_hook();
    assert_eq!(fixture.dataset().flow_hash(1).unwrap(), None);
    fixture.answers(&json!({})).await;
    assert!(fixture.dataset().flow_hash(1).unwrap().is_some());
}

/// An approved link whose target is at a voxel (x, y, z) and whose source is so many voxels from there.
fn link(fixture: &Fixture, t: usize, voxel: [f64; 3], moved: [f64; 3]) -> Value {
    let mut link = fixture.spot(0, voxel);
    let displacement: Vec<f64> = moved.iter().zip(fixture.scales()).map(|(part, edge)| part * edge).collect();
    link["t"] = json!(t);
    link["displacement"] = json!(displacement);
    link.as_object_mut().unwrap().remove("id");
    link
}

/// The labels of a pair at a voxel (x, y, z): displacement along x, y, z and weight.
fn label(fixture: &Fixture, t: usize, [x, y, z]: [usize; 3]) -> Vec<f32> {
    let mut label = ArrayD::zeros(IxDyn(&[1, 4, 1, 1, 1]));
    fixture.dataset().store(Store::FlowLabels).read(&[t, 0, z, y, x], label.view_mut()).unwrap();
    label.iter().copied().collect()
}

#[tokio::test]
async fn links_become_labels() {
    let fixture = fixture();
    let update = async |spots: Value, path: &str| {
        let body = json!({"dataset_name": "fly", "scales": fixture.scales(), "max_displacement": 64, "reset": false,
            "n_keep_axials": 2, "spots": spots, "is_3d": true, "use_memmap": true});
        fixture.router.post(path, &body).await
    };
    let completed = json!({"completed": true});
    let first = link(&fixture, 0, [24.0, 24.0, 8.0], [8.0, -4.0, 2.0]);
    let last = link(&fixture, 2, [10.0, 30.0, 8.0], [1.0, 0.0, 0.0]);
    let middle = link(&fixture, 1, [10.0, 30.0, 8.0], [1.0, 0.0, 0.0]);
    assert_eq!(update(json!([middle, last]), "/update/flow").await.json(), completed);
    assert_eq!(update(json!([first, last]), "/flow/update").await.json(), completed);
    // 64 voxels stand for 1 in the plane, 16 along z.
    assert_eq!(label(&fixture, 0, [24, 24, 8]), [0.125, -0.0625, 0.125, 1.0]);
    assert_eq!(label(&fixture, 2, [10, 30, 8]), [1.0 / 64.0, 0.0, 0.0, 1.0]);
    assert_eq!(label(&fixture, 0, [10, 30, 8]), [0.0; 4]);
    assert_eq!(label(&fixture, 1, [10, 30, 8]), [0.0; 4], "its approval was taken back");
    let attributes = fixture.dataset().store(Store::FlowLabels).attributes().unwrap();
    let listed: Vec<_> = attributes.iter().map(|(key, value)| format!("{key} {}", value.get())).collect();
    assert_eq!(
        listed,
        [
            "flow.norm.0 [64.0,64.0,16.0]",
            "flow.norm.2 [64.0,64.0,16.0]",
            "label.indices.0 [[8,24,24]]",
            "label.indices.2 [[8,30,10]]",
            "updated true"
        ]
    );
    // A link over two frames belongs to no pair, where that is known.
    let mut skipping = link(&fixture, 1, [24.0, 24.0, 8.0], [8.0, 0.0, 0.0]);
    skipping["target_t"] = json!(3);
    assert_error(&update(json!([skipping]), "/flow/update").await, 400, "every link skips frames");
    assert_eq!(update(json!([skipping, last]), "/flow/update").await.json(), completed);
    assert_eq!(label(&fixture, 1, [24, 24, 8]), [0.0; 4]);

    let with = |key: &str, value: Value| {
        let mut wrong = link(&fixture, 1, [24.0, 24.0, 8.0], [1.0; 3]);
        wrong[key] = value;
        json!([first, wrong])
    };
    for (spots, status, part) in [
        (json!([]), 400, "nothing to update"),
        (with("t", json!(3)), 404, "there is no timepoint after timepoint 3"),
        (with("t", json!(9_007_199_254_740_991_u64)), 404, "there is no timepoint after"),
        (with("t", json!(-1)), 400, "t must be 0 or more"),
        (with("pos", json!([-500, 0, 0])), 400, "the spot of link 2 at timepoint 2 cannot be drawn: it lies outside"),
        (with("covariance", json!([-1, 0, 0, 0, 1, 0, 0, 0, 1])), 400, "positive definite"),
        (with("displacement", json!([1, 2])), 400, "spots[1].displacement"),
    ] {
        assert_error(&update(spots, "/flow/update").await, status, part);
    }
    assert_eq!(label(&fixture, 0, [24, 24, 8])[3], 1.0, "nothing was drawn anew");
    let reset = fixture.router.post("/flow/update", &json!({"dataset_name": "fly", "reset": true})).await;
    assert_eq!(reset.json(), completed);
    assert_eq!(label(&fixture, 0, [24, 24, 8]), [0.0; 4]);
    assert!(fixture.dataset().store(Store::FlowLabels).attributes().unwrap().is_empty());
}

#[tokio::test]
async fn models_for_flow_are_reset_apart_from_those_for_detection() {
    let fixture = fixture();
    for (path, url) in
        [("/flow/reset", json!(null)), ("/reset/flow", json!("built-in")), ("/flow/reset", json!("Versatile"))]
    {
        let body = json!({"model_name": "flow.pth", "n_keep_axials": 3, "is_3d": true, "url": url});
        assert_eq!(fixture.router.post(path, &body).await.json(), json!({"completed": true}), "{url}");
    }
    assert!(fixture.workspace.path().join("models/flow.pth").is_file());
    assert_error(&fixture.router.post("/flow/reset", &json!({"url": null})).await, 400, "model_name key is missing");
    // A model is what its task needs, wherever it comes from.
    let predicted = fixture
        .router
        .post("/seg/predict", &json!({"dataset_name": "fly", "model_name": "flow.pth", "timepoint": 0}))
        .await;
    assert_error(&predicted, 400, "3-D detection");
}

#[tokio::test]
async fn a_damaged_list_of_fields_is_no_reason_to_fail() {
    let fixture = fixture();
    fixture.answers(&json!({})).await;
    std::fs::write(fixture.workspace.path().join("datasets/fly/flow_hashes.zarr/0"), b"damaged").unwrap();
    for calls in [2, 2] {
        fixture.answers(&json!({})).await;
        assert_eq!(fixture.calls(), calls);
    }
}

/// A training with one link, with changes.
fn training(fixture: &Fixture, changes: &Value) -> Value {
    let mut body = json!({"dataset_name": "fly", "spots": [link(fixture, 1, [24.0, 24.0, 8.0], [8.0, -4.0, 2.0])],
        "model_name": "flow.pth", "debug": false, "batch_size": 1, "n_crops": 2, "n_epochs": 2, "lr": 0.001,
        "max_displacement": 64, "scales": fixture.scales(), "crop_size": [20, 16, 8], "dim_weights": [1, 2, 0.5],
        "n_keep_axials": 2, "aug_scale_factor_base": 0, "aug_rotation_angle": 0, "cache_maxbytes": 0, "log_interval": 0,
        "log_dir": "flow_log", "is_3d": true, "use_memmap": true, "input_size": [48, 48, 16]});
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_training_learns_from_pairs_of_frames() {
    let fixture = fixture();
    let (sender, batches) = std::sync::mpsc::channel();
    fixture.workspace.network.after_each_step(move |_, batch| {
        // The test may have ended.
        let _ = sender.send(batch.clone());
    });
    for path in ["/flow/train", "/train/flow"] {
        let reply = fixture.router.post(path, &training(&fixture, &json!({}))).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"completed": true})));
    }
    let batches: Vec<_> = batches.try_iter().collect();
    assert_eq!(batches.len(), 8, "two epochs of two crops, twice");
    for batch in batches {
        assert_eq!(batch.inputs.dim(), (1, 2, 8, 16, 20));
        assert_ne!(batch.inputs.index_axis(ndarray::Axis(1), 0), batch.inputs.index_axis(ndarray::Axis(1), 1));
        let elephant_model::Targets::Vectors { values, weight } = batch.targets else { panic!("{:?}", batch.targets) };
        assert_eq!((values.dim(), weight.dim()), ((1, 3, 8, 16, 20), (1, 8, 16, 20)));
        let labelled: Vec<_> = weight.indexed_iter().filter(|(_, weight)| **weight > 0.0).map(|(at, _)| at).collect();
        assert!(!labelled.is_empty());
        for (n, z, y, x) in labelled {
            // In one of eight orientations.
            let vector = [0, 1, 2].map(|channel| values[[n, channel, z, y, x]].abs());
            assert_eq!(vector, [0.125, 0.0625, 0.125]);
        }
    }
    assert_eq!(label(&fixture, 1, [24, 24, 8]), [0.125, -0.0625, 0.125, 1.0]);
    let kinds: Vec<_> = fixture.workspace.runner.jobs().list(&elephant_jobs::JobFilter::newest(9)).unwrap();
    assert!(kinds.iter().all(|job| job.kind == "train_flow"));
    assert!(fixture.workspace.path().join("logs/flow_log").is_dir());
    let trained = elephant_checkpoint::Checkpoint::read(&fixture.workspace.path().join("models/flow.pth")).unwrap();
    assert_eq!(elephant_model::fake::FakeNetwork::steps(&trained), Some(8));
    // What was predicted with the model before is not used again.
    fixture.answers(&json!({})).await;
    fixture.router.post("/flow/train", &training(&fixture, &json!({}))).await;
    fixture.answers(&json!({})).await;
    assert_eq!(fixture.calls(), 2);
}

#[tokio::test]
async fn trainings_that_cannot_be_are_refused() {
    let fixture = fixture();
    for (changes, status, part) in [
        (json!({"spots": []}), 400, "nothing to train"),
        (json!({"n_crops": 0}), 400, "n_crops should be a positive number"),
        (json!({"n_epochs": -1}), 400, "n_epochs should be a positive number"),
        (json!({"dim_weights": [0, 0, 0]}), 400, "dim_weights"),
        (json!({"dim_weights": [1]}), 400, "dim_weights"),
        (json!({"max_displacement": 0}), 400, "max_displacement"),
        (json!({"lr": 5}), 400, "lr"),
        (json!({"is_3d": false}), 400, "is_3d"),
        (json!({"dataset_name": "bee"}), 404, "bee"),
        (json!({"model_name": "detection.pth"}), 400, "3-D flow"),
        (json!({"spots": [link(&fixture, 3, [24.0, 24.0, 8.0], [1.0; 3])]}), 404, "no timepoint after"),
    ] {
        assert_error(&fixture.router.post("/flow/train", &training(&fixture, &changes)).await, status, part);
    }
    // While one runs, another and a reset are refused with the original's text, and the first goes on.
    let (begun, begins) = std::sync::mpsc::channel();
    fixture.workspace.network.after_each_step(move |step, _| {
        let _ = begun.send(step);
    });
    let (router, long) = (fixture.router.clone(), training(&fixture, &json!({"n_epochs": 1_000_000})));
    let running = tokio::spawn(async move { router.post("/flow/train", &long).await });
    tokio::task::spawn_blocking(move || {
        begins.recv_timeout(std::time::Duration::from_mins(1)).unwrap();
        begins
    })
    .await
    .map(drop)
    .unwrap();
    assert_error(&fixture.router.post("/flow/train", &training(&fixture, &json!({}))).await, 500, "Process is running");
    assert_error(
        &fixture.router.post("/flow/reset", &json!({"model_name": "flow.pth"})).await,
        500,
        "Process is running",
    );
    assert_error(&fixture.router.post("/seg/reset", &json!({"model_name": "m.pth"})).await, 500, "Process is running");
    assert_eq!(fixture.router.get("/state/process").await.json()["state"], 1);
    // A prediction runs meanwhile, with parameters that no other prediction uses again.
    fixture.answers(&json!({})).await;
    fixture.router.post("/state/process", &json!({"state": 0})).await;
    assert_eq!(running.await.unwrap().json(), json!({"completed": false}));
    fixture.answers(&json!({})).await;
    assert_eq!(fixture.calls(), 2);
}
