//! Mutual exclusion: servers of one workspace, readers and generations of one dataset; and stopping the server.

#![allow(clippy::disallowed_methods)]

mod common;

use std::process::Command;

use common::{BINARY, demo_dataset, training};
use elephant_fs::FolderLock;
use elephant_testkit::TestServer;
use serde_json::json;

#[test]
fn a_second_server_on_a_workspace_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let train = training(&movie, 1000);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post_json("/seg/train", &train));
        let is_running =
            || server.get("/api/v1/jobs?status=running").json().as_array().is_some_and(|jobs| !jobs.is_empty());
        elephant_testkit::eventually("a training runs", is_running);

        let second = Command::new(BINARY)
            .args(["serve", "--bind", "127.0.0.1:0", "--workspace"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success(), "{said}");
        assert!(said.contains(&format!("process {}", server.pid())), "the message names the other server: {said}");
        assert!(said.contains("the server on 127.0.0.1"), "{said}");

        let jobs = server.get("/api/v1/jobs?status=running").json();
        assert_eq!(jobs.as_array().unwrap().len(), 1, "the first server's job continues: {jobs}");
        assert_eq!(server.get("/state/process").json()["state"], 1);
        // Its folder for pieces of uploads still exists.
        server.upload("other", "movie.h5", &movie.content, 1 << 20);
        server.post_json("/state/process", &json!({"state": 0}));
        assert_eq!(running.join().unwrap().status, 200);
    });
}

#[test]
fn a_dataset_is_not_read_during_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let dataset = folder.path().join("datasets/fly");
    let predict = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let generate = json!({"dataset_name": "fly", "is_2d": false});

    // As a prediction or training locks it, in this process or another.
    let reading = FolderLock::try_share(&dataset).unwrap();
    let refused = server.post_json("/dataset/generate", &generate);
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("a prediction or a training"), "{}", refused.text());
    assert_eq!(server.post_json("/seg/predict", &predict).status, 200, "readers do not exclude each other");
    drop(reading);

    let making = FolderLock::try_acquire(&dataset, "a dataset generation").unwrap();
    for (path, body) in [("/seg/predict", &predict), ("/seg/train", &training(&movie, 1))] {
        let refused = server.post_json(path, body);
        assert_eq!(refused.status, 409, "{path}: {}", refused.text());
        assert!(refused.text().contains("a dataset generation (process "), "{path}: {}", refused.text());
    }
    drop(making);
    assert_eq!(server.post_json("/dataset/generate", &generate).status, 200);
    assert_eq!(server.post_json("/seg/predict", &predict).status, 200);
}

#[test]
fn jobs_cancelled_by_a_stop_are_not_reported_as_aborted() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let train = training(&movie, 1000);
    let url = server.url().to_owned();
    let client = std::thread::spawn(move || {
        let request = ureq::post(format!("{url}/seg/train")).config().http_status_as_error(false).build();
        let mut reply = request.header("content-type", "application/json").send(train.to_string().as_bytes()).unwrap();
        (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
    });
    let is_running = || server.get("/state/process").json()["state"] == 1;
    elephant_testkit::eventually("the training runs", is_running);
    assert!(server.terminate());
    let (status, text) = client.join().unwrap();
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("the server is stopping"), "{text}");
}
