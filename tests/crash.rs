//! kill -9 at bad moments: complete files stay, partial ones are removed, and the server starts again.

#![allow(clippy::disallowed_methods)]

mod common;

use common::{BINARY, demo_dataset, demo_movie};
use elephant_testkit::TestServer;
use serde_json::json;

#[test]
fn killed_while_predicting() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let quick = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let before = server.post_json("/seg/predict", &quick).json();
    let url = server.url().to_owned();
    let mut long = quick.clone();
    long["input_size"] = json!([1024, 1024, 64]);
    long["patch"] = json!([128, 128, 16]);
    long["output_prediction"] = json!(true);
    let client = std::thread::spawn(move || {
        ureq::post(format!("{url}/seg/predict"))
            .header("content-type", "application/json")
            .send(long.to_string().as_bytes())
    });
    server.wait_for_state(2);
    server.kill();
    assert!(client.join().unwrap().is_err());

    let server = TestServer::start(BINARY, folder.path(), &[]);
    assert_eq!(server.get("/state/process").json()["state"], 0, "it is not stuck");
    assert_eq!(server.post_json("/seg/predict", &quick).json(), before, "dataset and model are unchanged");
}

#[test]
fn killed_while_uploading_and_generating() {
    let folder = tempfile::tempdir().unwrap();
    let movie = demo_movie();
    let half = movie.content.len() / 2;
    let parts = |action: &'static [u8], piece: &[u8]| {
        [
            ("action", action.to_vec()),
            ("dataset_name", b"fly".to_vec()),
            ("file:f.h5", piece.to_vec()),
            ("filename", b"fly.h5".to_vec()),
        ]
    };
    let send = |server: &TestServer, action, piece: &[u8]| {
        let parts = parts(action, piece);
        let parts: Vec<(&str, &[u8])> = parts.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        assert_eq!(server.post_parts("/upload/image", &parts).status, 200);
    };
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    send(&server, b"init", &movie.content[..half]);
    server.kill();
    // A piece that was being sent is lost, and the client does not notice it: the upload has to begin again.
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    assert!(!folder.path().join("datasets/fly/fly.h5").exists());
    let append: Vec<_> = parts(b"append", &movie.content[half..]).into();
    let append: Vec<(&str, &[u8])> = append.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    assert_eq!(server.post_parts("/upload/image", &append).status, 404);
    send(&server, b"init", &movie.content[..half]);
    send(&server, b"append", &movie.content[half..]);
    let form = "action=complete&dataset_name=fly&filename=fly.h5";
    assert_eq!(server.post("/upload/image", "application/x-www-form-urlencoded", form.as_bytes()).status, 200);
    assert_eq!(std::fs::read(folder.path().join("datasets/fly/fly.h5")).unwrap(), movie.content);

    let check = json!({"dataset_name": "fly", "shape": movie.shape});
    let generate = json!({"dataset_name": "fly"});
    for round in 0..6 {
        let url = server.url().to_owned();
        let body = generate.to_string();
        let client = std::thread::spawn(move || {
            ureq::post(format!("{url}/dataset/generate"))
                .header("content-type", "application/json")
                .send(body.as_bytes())
        });
        // A different moment each time: after a number of checks of the dataset's folder.
        for _ in 0..round * 40 {
            let _ = std::fs::read_dir(folder.path().join("datasets/fly")).unwrap().count();
        }
        server.kill();
        let _ = client.join().unwrap();
        server = TestServer::start(BINARY, folder.path(), &[]);
        let message = server.post_json("/dataset/check", &check).json()["message"].as_str().unwrap().to_owned();
        let nothing = "/workspace/datasets/fly/imgs.zarr is not found or broken.";
        assert!(message == "ready" || message == nothing, "{message}");
    }
    assert_eq!(server.post_json("/dataset/generate", &generate).status, 200);
    assert_eq!(server.post_json("/dataset/check", &check).json()["message"], "ready");
    let left = std::fs::read_dir(folder.path().join("datasets/fly")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".staging")), "{left:?}");
}
