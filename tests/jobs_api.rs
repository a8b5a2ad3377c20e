//! `/api/v1/jobs` and `/ws/events`: listing jobs, cancelling one, and receiving events.

#![allow(clippy::disallowed_methods)]

mod common;

use std::net::TcpStream;

use common::{BINARY, demo_dataset};
use elephant_bdv::BdvWriter;
use elephant_testkit::TestServer;
use elephant_types::VoxelSize;
use ndarray::Array3;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::IntoClientRequest, http::HeaderValue};

fn listen(server: &TestServer) -> WebSocket<TcpStream> {
    let stream = elephant_testkit::connect(server.address());
    tungstenite::client(format!("ws://{}/ws/events", server.address()), stream).unwrap().0
}

/// The next event, or `None` if the server closed the connection.
fn next(socket: &mut WebSocket<TcpStream>) -> Option<Value> {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

#[test]
fn a_job_is_listed_watched_and_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    assert_eq!(server.get("/api/v1/jobs").json(), json!([]));
    let movie = demo_dataset(&server, "fly");
    let mut socket = listen(&server);
    let body = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2,
        "input_size": [1024, 1024, 64], "patch": [128, 128, 16]})
    .to_string();
    let id = std::thread::scope(|scope| {
        let prediction = scope.spawn(|| server.post("/seg/predict", "application/json", body.as_bytes()));
        let started = next(&mut socket).unwrap();
        let id = started["job"].as_u64().unwrap();
        assert_eq!(started, json!({"job": id, "kind": "predict", "subject": "fly", "event": "started"}));
        let progress = next(&mut socket).unwrap();
        assert!(progress["step"].is_u64() && progress["total"].is_u64(), "{progress}");
        assert!(progress["seconds_left"].is_null() || progress["seconds_left"].is_number());
        let path = format!("/api/v1/jobs/{id}");
        let running = server.get(&path).json();
        assert_eq!((&running["status"], &running["ended_at"]), (&json!("running"), &Value::Null));
        assert!(running["progress"]["step"].is_u64(), "{running}");
        let cancelled = server.delete(&path);
        assert_eq!((cancelled.status, &cancelled.json()["id"]), (202, &json!(id)));
        assert_eq!(prediction.join().unwrap().json(), json!({"completed": false, "spots": []}));
        id
    });
    let last = std::iter::from_fn(|| next(&mut socket)).find(|event| event["event"] != "progress").unwrap();
    assert_eq!(last["event"], "cancelled");
    let path = format!("/api/v1/jobs/{id}");
    let again = server.delete(&path);
    assert_eq!((again.status, again.error()), (409, format!("job {id} has ended already: cancelled")));
    let ended = server.get(&path).json();
    assert_eq!((&ended["status"], &ended["losses"]), (&json!("cancelled"), &json!([])));
    assert!(ended["ended_at"].as_f64() >= ended["begun_at"].as_f64());

    let listed = server.get("/api/v1/jobs").json();
    let kinds: Vec<_> = listed.as_array().unwrap().iter().map(|job| job["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["predict", "reset", "generate"], "newest first");
    assert_eq!(server.get("/api/v1/jobs?limit=1").json().as_array().unwrap().len(), 1);
    let filtered = server.get("/api/v1/jobs?kind=reset&status=completed").json();
    assert_eq!(filtered, json!([listed[1]]));
    assert!(server.terminate());
    assert!(next(&mut socket).is_none(), "it says goodbye");
}

#[test]
fn a_generation_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    // A movie that takes some time.
    let dataset = folder.path().join("datasets/fly");
    std::fs::create_dir(&dataset).unwrap();
    let mut movie = BdvWriter::create(&dataset.join("fly.h5"), [4, 64, 64], VoxelSize::new([1.0; 3]).unwrap()).unwrap();
    for t in 0..500 {
        movie.append(Array3::from_elem((4, 64, 64), t).view()).unwrap();
    }
    movie.finish().unwrap();
    let mut socket = listen(&server);
    std::thread::scope(|scope| {
        let generation =
            scope.spawn(|| server.post_json("/dataset/generate", &json!({"dataset_name": "fly", "is_2d": false})));
        let started = next(&mut socket).unwrap();
        assert_eq!((&started["kind"], &started["event"]), (&json!("generate"), &json!("started")));
        assert_eq!(server.delete(&format!("/api/v1/jobs/{}", started["job"])).status, 202);
        let cancelled = generation.join().unwrap();
        assert_eq!((cancelled.status, cancelled.error().as_str()), (409, "the generation was cancelled"));
    });
    assert!(!dataset.join("imgs.zarr").exists());
}

#[test]
fn wrong_queries_are_refused_with_a_clear_text() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    for (query, error) in [
        ("limit=0", "limit must be 1 to 10000, not \"0\""),
        ("limit=x", "limit must be 1 to 10000, not \"x\""),
        (
            "kind=cook",
            "kind must be one of generate, predict, reset, update, train, predict_flow, reset_flow, update_flow, train_flow, track, fit, steer, export, not \"cook\"",
        ),
        ("status=", "status must be one of running, completed, cancelled, failed, interrupted, not \"\""),
        ("page=2", "unknown query parameter \"page\"; known are limit, kind, status"),
    ] {
        let reply = server.get(&format!("/api/v1/jobs?{query}"));
        assert_eq!((reply.status, reply.error().as_str()), (400, error));
    }
    for id in ["1", "x", "99999999999999999999", "-1"] {
        let path = format!("/api/v1/jobs/{id}");
        assert_eq!(server.get(&path).status, 404, "{id}");
        assert_eq!(server.delete(&path).status, 404, "{id}");
    }
    assert_eq!(server.get("/ws/events").status, 400);
}

#[test]
fn foreign_web_pages_cannot_open_a_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--cors-origin", "https://lab.example.org"]);
    let own = server.url().to_owned();
    for (origin, may) in
        [(own.as_str(), true), ("https://lab.example.org", true), ("https://evil.example.org", false), ("null", false)]
    {
        let mut request = format!("ws://{}/ws/events", server.address()).into_client_request().unwrap();
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        let stream = elephant_testkit::connect(server.address());
        assert_eq!(tungstenite::client(request, stream).is_ok(), may, "{origin}");
    }
}
