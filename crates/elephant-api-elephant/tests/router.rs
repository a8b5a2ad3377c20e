//! The protocol without sockets and without libtorch: what each route answers, what it refuses, which jobs exclude each
//! other, and what stops them.

use std::{
    sync::{Arc, Mutex, mpsc::sync_channel},
    time::Duration,
};

use elephant_api_core::{
    LargeBodies,
    testing::{OneDevice, TestReply, TestRouter},
};
use elephant_api_elephant::ElephantApi;
use elephant_jobs::{JobFilter, JobStatus};
use elephant_pipeline::testing::TestWorkspace;
use elephant_testkit::eventually;
use serde_json::{Value, json};

/// How long a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Fixture {
    router: TestRouter,
    workspace: TestWorkspace,
}

fn fixture() -> Fixture {
    let workspace = TestWorkspace::new();
    let api = ElephantApi::new(
        workspace.use_cases.clone(),
        workspace.runner.clone(),
        Arc::new(OneDevice),
        LargeBodies::default(),
    );
    let router = TestRouter::new(vec![api.family()], &workspace.runner, workspace.path());
    Fixture { router, workspace }
}

impl Fixture {
    /// A fixture with the dataset `fly`.
    fn with_dataset() -> Self {
        let fixture = fixture();
        fixture.workspace.add_dataset("fly");
        fixture
    }

    /// Sends a request in the background.
    fn spawn(&self, path: &'static str, body: Value) -> tokio::task::JoinHandle<TestReply> {
        let router = self.router.clone();
        tokio::spawn(async move { router.post(path, &body).await })
    }

    fn statuses(&self) -> Vec<JobStatus> {
        let jobs = self.workspace.runner.jobs().list(&JobFilter::newest(100)).unwrap();
        jobs.into_iter().map(|job| job.status).collect()
    }

    async fn state(&self) -> Value {
        self.router.get("/state/process").await.json()["state"].clone()
    }
}

fn predict() -> Value {
    json!({"dataset_name": "fly", "timepoint": 0, "scales": [1, 1, 2], "n_keep_axials": 2, "r_min": 1, "p_thresh": 0.6})
}

/// A training of one spot for so many epochs.
fn train(epochs: u32) -> Value {
    json!({"dataset_name": "fly", "model_name": "detection.pth", "scales": [1, 1, 2], "crop_size": [16, 16, 4], "n_crops": 1,
        "n_epochs": epochs,
        "spots": [{"t": 0, "pos": [24, 24, 16], "covariance": [9, 0, 0, 0, 9, 0, 0, 0, 9], "tag": "tp"}]})
}

fn assert_error(reply: &TestReply, status: u16, message: &str) {
    let body = reply.json();
    assert_eq!((reply.status.as_u16(), body["error"].as_str()), (status, Some(message)));
    assert_eq!(body["message"], body["error"]);
}

#[tokio::test]
async fn the_state_routes_answer_under_their_old_names_too() {
    let fixture = fixture();
    for path in ["/state/gpus", "/gpus"] {
        let expected = json!([{"id": "0", "name": "a device", "mem_total": 2, "mem_used": 1}]);
        assert_eq!(fixture.router.get(path).await.json(), expected);
    }
    for path in ["/state/process", "/state"] {
        assert_eq!(fixture.router.get(path).await.json(), json!({"success": true, "state": 0}));
        let refused = fixture.router.post(path, &json!({"state": 3})).await;
        assert_error(&refused, 400, "Invalid state: 3");
        assert_eq!(refused.json()["res"], "Invalid state: 3");
    }
    for path in ["/params", "/params/"] {
        let set = fixture.router.post(path, &json!({"lr": 1e-4, "n_crops": 7.0})).await;
        assert_eq!(set.json(), json!({"success": true, "lr": 1e-4, "n_crops": 7}));
        assert_eq!(fixture.router.get(path).await.json(), set.json());
    }
}

#[tokio::test]
async fn a_dataset_is_checked_and_made() {
    let fixture = fixture();
    let check = json!({"dataset_name": "fly", "shape": [4, 16, 48, 48]});
    let message = async || fixture.router.post("/dataset/check", &check).await.json()["message"].clone();
    assert!(message().await.as_str().unwrap().contains("imgs.zarr is not found"));
    let generate = json!({"dataset_name": "fly"});
    assert_eq!(fixture.router.post("/dataset/generate", &generate).await.status, 204, "there is no movie");
    fixture.workspace.add_movie("fly");
    let made = fixture.router.post("/dataset/generate", &generate).await;
    assert_eq!((made.status.as_u16(), made.json()), (200, json!("")));
    assert_eq!(message().await, "ready");
    let missing = fixture.router.post("/dataset/check", &json!({"shape": [1, 2, 3, 4]})).await;
    assert_error(&missing, 400, "dataset_name key is missing");
    assert_eq!(fixture.statuses(), [JobStatus::Completed; 2]);
}

#[tokio::test]
async fn a_prediction_finds_cells_in_xyz_order() {
    let fixture = Fixture::with_dataset();
    for path in ["/seg/predict", "/predict/seg"] {
        let reply = fixture.router.post(path, &predict()).await.json();
        assert_eq!(reply["completed"], true);
        let spot = &reply["spots"].as_array().unwrap()[0];
        assert_eq!((&spot["t"], spot["pos"].as_array().unwrap().len()), (&json!(0), 3));
        assert_eq!(spot["covariance"].as_array().unwrap().len(), 9);
    }
}

#[tokio::test]
async fn refusals_have_a_status_and_a_reason() {
    let fixture = Fixture::with_dataset();
    let with = |name: &str, value: Value| {
        let mut body = predict();
        body[name] = value;
        body
    };
    for (path, body, status, message) in [
        ("/seg/predict", json!({"timepoint": 0}), 400, "dataset_name key is missing"),
        ("/seg/predict", with("p_thresh", json!(2)), 400, "p_thresh must be 0 to 1"),
        ("/seg/reset", json!({"url": null}), 400, "model_name key is missing"),
        ("/seg/reset", json!({"model_name": "m.pth", "nmodels": 65}), 400, "nmodels must be 1 to 64"),
        ("/seg/update", json!({"dataset_name": "fly", "spots": []}), 400, "nothing to update"),
        ("/seg/train", json!({"dataset_name": "fly", "spots": []}), 400, "nothing to train"),
        ("/nowhere", json!({}), 404, "there is no POST /nowhere on this server; see /docs"),
    ] {
        assert_error(&fixture.router.post(path, &body).await, status, message);
    }
    for (name, value) in [("dataset_name", json!("nobody")), ("timepoint", json!(99))] {
        assert_eq!(fixture.router.post("/seg/predict", &with(name, value)).await.status, 404);
    }
    let wrong_type = fixture.router.call("POST", "/seg/predict", "text/plain", "{}").await;
    assert_error(&wrong_type, 400, "Content-Type should be application/json");
    assert_error(
        &fixture.router.call("PUT", "/seg/reset", "", "").await,
        405,
        "/seg/reset does not answer to PUT; see /docs",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_excludes_a_reset_and_is_stopped_by_an_abort() {
    let fixture = Fixture::with_dataset();
    let (stepped, steps) = sync_channel(1);
    fixture.workspace.network.after_each_step(move |_, _| {
        let _ = stepped.try_send(());
    });
    let training = fixture.spawn("/seg/train", train(1_000_000));
    tokio::task::spawn_blocking(move || steps.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    assert_eq!(fixture.state().await, 1);
    let reset = json!({"model_name": "other.pth", "url": null});
    assert_error(&fixture.router.post("/seg/train", &train(1)).await, 500, "Process is running");
    let refused = fixture.router.post("/seg/reset", &reset).await;
    assert_error(&refused, 500, "Process is running. Model cannot be reset.");
    let predicted = fixture.router.post("/seg/predict", &predict()).await;
    assert_eq!(predicted.json()["completed"], true, "predictions come in between");
    fixture.router.post("/state/process", &json!({"state": 0})).await;
    assert_eq!(training.await.unwrap().json(), json!({"completed": false}));
    assert_eq!(fixture.state().await, 0);
    fixture.workspace.network.forget_hook();
    assert_eq!(fixture.router.post("/seg/reset", &reset).await.json(), json!({"completed": true}));
    assert_eq!(fixture.router.post("/seg/train", &train(2)).await.json(), json!({"completed": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_wait_for_their_turn_and_an_abort_stops_all() {
    let fixture = Fixture::with_dataset();
    let gate = fixture.workspace.hold_predictions();
    let predictions: Vec<_> = (0..4).map(|_| fixture.spawn("/seg/predict", predict())).collect();
    let gate = tokio::task::spawn_blocking(move || {
        gate.wait_for_arrival();
        gate.wait_for_arrival();
        gate
    });
    let _gate = gate.await.unwrap();
    let runner = &fixture.workspace.runner;
    eventually("the others wait", || runner.waiting("predictions") == 2);
    assert_eq!(fixture.workspace.network.segment_calls(), 2);
    assert_eq!(fixture.state().await, 2);
    fixture.router.post("/state/process", &json!({"state": 0})).await;
    for prediction in predictions {
        assert_eq!(prediction.await.unwrap().json(), json!({"completed": false, "spots": []}));
    }
    assert_eq!(fixture.statuses(), [JobStatus::Cancelled; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_leaves_cancels_its_prediction_but_not_its_training() {
    let fixture = Fixture::with_dataset();
    let gate = fixture.workspace.hold_predictions();
    let prediction = fixture.spawn("/seg/predict", predict());
    let _gate = tokio::task::spawn_blocking(move || {
        gate.wait_for_arrival();
        gate
    })
    .await
    .unwrap();
    prediction.abort();
    eventually("the prediction is cancelled", || fixture.statuses() == [JobStatus::Cancelled]);

    let (stepped, steps) = sync_channel(1);
    let (go_on, may_go_on) = sync_channel::<()>(0);
    let may_go_on = Mutex::new(may_go_on);
    fixture.workspace.network.after_each_step(move |_, _| {
        let _ = stepped.try_send(());
        // Disconnected from the second step on.
        let _ = may_go_on.lock().unwrap().recv();
    });
    let training = fixture.spawn("/seg/train", train(2));
    tokio::task::spawn_blocking(move || steps.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    training.abort();
    drop(go_on);
    eventually("the training ends", || fixture.statuses()[0] == JobStatus::Completed);
}

#[tokio::test]
async fn labels_are_drawn_and_erased() {
    let fixture = Fixture::with_dataset();
    let spots = train(1)["spots"].clone();
    let update = json!({"dataset_name": "fly", "scales": [1, 1, 2], "spots": spots});
    assert_eq!(fixture.router.post("/seg/update", &update).await.json(), json!({"completed": true}));
    let labelled = || fixture.workspace.use_cases.labels.centroids(&"fly".parse().unwrap()).unwrap();
    assert_eq!(labelled().keys().copied().collect::<Vec<_>>(), [0]);
    let erase = json!({"dataset_name": "fly", "reset": true});
    assert_eq!(fixture.router.post("/seg/update", &erase).await.json(), json!({"completed": true}));
    assert!(labelled().is_empty());
}

#[tokio::test]
async fn a_model_is_uploaded_and_downloaded() {
    let fixture = fixture();
    let model = std::fs::read(fixture.workspace.path().join("models/detection.pth")).unwrap();
    let mut body =
        b"--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n{\"model_name\": \"a/b.pth\"}\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"m.pth\"\r\n\r\n"
            .to_vec();
    body.extend_from_slice(&model);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let reset = fixture.router.call("POST", "/seg/reset", "multipart/form-data; boundary=b", body).await;
    assert_eq!(reset.json(), json!({"completed": true}));
    let downloaded = fixture.router.post("/download/model", &json!({"model_name": "a/b.pth"})).await;
    assert_eq!((downloaded.status.as_u16(), downloaded.body.starts_with(b"PK")), (200, true));
    let missing = fixture.router.post("/download/model", &json!({"model_name": "nobody.pth"})).await;
    assert_eq!(missing.status, 204);
}

#[tokio::test]
async fn a_stopping_server_refuses_jobs() {
    let fixture = Fixture::with_dataset();
    fixture.workspace.runner.close();
    let refused = fixture.router.post("/seg/predict", &predict()).await;
    assert_error(&refused, 503, "the server is stopping; try again when it is back");
}

#[tokio::test]
async fn replies_carry_the_number_of_their_request() {
    let fixture = fixture();
    assert!(fixture.router.get("/state").await.headers.contains_key("x-request-id"));
    let refused = fixture.router.get("/nowhere").await;
    assert!(refused.headers.contains_key("x-request-id") && refused.status == 404);
}
