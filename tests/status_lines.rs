//! What the Java client shows of a refusal: the text of the status line, in large letters over the image, and for some
//! statuses and routes also the body's `error`. The user should read each reason once, completely and briefly.

#![allow(clippy::disallowed_methods)]

mod common;

use std::io::{Read, Write};

use common::{BINARY, demo_dataset, training};
use elephant_testkit::TestServer;
use serde_json::{Value, json};

/// Number of characters that fit into the client's overlay.
const MAX_CHARS: usize = 64;

/// A refusal as it is received.
#[derive(Debug)]
struct Refusal {
    status: u16,
    reason: String,
    error: String,
}

fn send(server: &TestServer, method: &str, path: &str, content_type: &str, body: &[u8]) -> Refusal {
    let mut stream = elephant_testkit::connect(server.address());
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").unwrap();
    write!(stream, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n").unwrap();
    // A refusal may arrive before the end of a long body has been sent.
    let _ = stream.write_all(body);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {reply}"));
    let mut line = head.lines().next().unwrap().splitn(3, ' ').skip(1);
    let (status, reason) = (line.next().unwrap().parse().unwrap(), line.next().unwrap().to_owned());
    let error = serde_json::from_str::<Value>(body).map(|body| body["error"].as_str().unwrap_or_default().to_owned());
    Refusal { status, reason, error: error.unwrap_or_default() }
}

fn post(server: &TestServer, path: &str, body: &Value) -> Refusal {
    send(server, "POST", path, "application/json", body.to_string().as_bytes())
}

fn assert_short(what: &str, refusal: &Refusal) {
    let reason = &refusal.reason;
    assert!(refusal.status >= 400, "{what}: {refusal:?}");
    assert!(reason.len() <= MAX_CHARS && reason.is_ascii() && !reason.is_empty(), "{what}: {refusal:?}");
    assert!(!reason.ends_with("...") && !reason.ends_with([',', ':', ';', ' ']), "{what}: {refusal:?}");
    assert!(!refusal.error.is_empty(), "{what}: {refusal:?}");
}

fn server() -> (TestServer, tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--versatile-3d", "/nonexistent/versatile3d.pth"]);
    let movie = demo_dataset(&server, "fly");
    let predict = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    (server, folder, predict)
}

fn with(body: &Value, changes: &Value) -> Value {
    let mut body = body.clone();
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn predictions_have_the_reason_in_the_status_line() {
    let (server, _folder, predict) = server();
    let long = "Größe ".repeat(25);
    for (changes, status, reason) in [
        (json!({"dataset_name": "bee"}), 404, "the dataset does not exist: bee"),
        (json!({"dataset_name": long.trim()}), 404, "the dataset does not exist"),
        (json!({"dataset_name": format!("/{}", "x".repeat(200))}), 400, "this field is not valid: dataset_name"),
        (json!({"model_name": "missing.pth"}), 404, "the model does not exist: missing.pth"),
        (json!({"model_name": format!("{}.pth", "x".repeat(200))}), 404, "the model does not exist"),
        (json!({"timepoint": 4}), 404, "there is no timepoint 4; the dataset fly has 4, counted from 0"),
        (json!({"timepoint": -1}), 400, "timepoint must be 0 or more"),
        (json!({"is_3d": false}), 400, "the dataset is 3-D but the request says 2-D"),
        (json!({"use_2d": true}), 400, "the model is a 3-D network, but a 2-D one was asked for"),
        (json!({"crop_box": [0, 0, 0, 49, 48, 16]}), 400, "the crop box is not inside the image"),
        (json!({"crop_box": [0, 0, 0]}), 400, "crop_box must have 6 numbers"),
        (json!({"input_size": [9e15, 9e15, 9e15]}), 413, ""),
        (json!({"scales": [1, 1, -1]}), 400, "scales must be three positive numbers"),
        (json!({"p_thresh": "x".repeat(300)}), 400, "this field is not valid: p_thresh"),
        (json!({"p_thresh": 2}), 400, ""),
        (json!({"c_ratio": 0}), 400, ""),
        (json!({"r_min": 9, "r_max": 1}), 400, ""),
        (json!({"patch": [0, 8, 8]}), 400, ""),
        (json!({"input_size": [0, 8, 8]}), 400, ""),
    ] {
        let refusal = post(&server, "/seg/predict", &with(&predict, &changes));
        assert_short(&changes.to_string(), &refusal);
        assert_eq!(refusal.status, status, "{changes}: {refusal:?}");
        assert!(reason.is_empty() || refusal.reason == reason, "{changes}: {refusal:?}");
        assert!(!["Bad Request", "Payload Too Large"].contains(&refusal.reason.as_str()), "{changes}: {refusal:?}");
    }
}

#[test]
fn resets_have_the_reason_in_the_status_line() {
    let (server, _folder, _) = server();
    let reset = |changes: &Value| {
        let body = with(&json!({"model_name": "detection.pth", "is_3d": true, "url": null}), changes);
        post(&server, "/seg/reset", &body)
    };
    let long = format!("https://evil.example.org/{}.pth", "x".repeat(200));
    for (changes, reason) in [
        (json!({"url": "http://github.com/a.pth"}), "the model's address must start with https"),
        (json!({"url": long}), "the model's host is not allowed: evil.example.org"),
        (json!({"url": "https://evil.example.org/a.pth"}), "the model's host is not allowed: evil.example.org"),
        (json!({"url": "no address"}), "the model's address is not a URL: no address"),
        (json!({"url": "Versatile"}), ""),
        (json!({"nmodels": 0}), "nmodels must be 1 to 64"),
        (json!({"dataset_name": "fly", "n_crops": -1}), "n_crops should be 0 or more"),
        (json!({"dataset_name": "bee"}), "the dataset does not exist: bee"),
        (json!({"model_name": "detection.pth/x"}), ""),
        (json!({"model_name": format!("{}/../x", "x".repeat(200))}), "this field is not valid: model_name"),
    ] {
        let refusal = reset(&changes);
        assert_short(&changes.to_string(), &refusal);
        assert!(reason.is_empty() || refusal.reason == reason, "{changes}: {refusal:?}");
    }
    // A pickle that would call os.system: protocol 2, GLOBAL os.system, ("true",), REDUCE.
    let evil = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    for (file, reason) in [
        (&b"hello"[..], "not a PyTorch checkpoint"),
        (b"", "not a PyTorch checkpoint"),
        (b"PK\x03\x04", ""),
        (evil, ""),
    ] {
        let data = br#"{"model_name": "detection.pth", "is_3d": true, "url": null}"#;
        let head = "--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n";
        let next = "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pth\"\r\n\r\n";
        let body = [head.as_bytes(), data, next.as_bytes(), file, b"\r\n--b--\r\n"].concat();
        let refusal = send(&server, "POST", "/seg/reset", "multipart/form-data; boundary=b", &body);
        assert_short(&file.escape_ascii().to_string(), &refusal);
        assert!(reason.is_empty() || refusal.reason == reason, "{refusal:?}");
        assert_ne!(refusal.reason, "Bad Request", "{refusal:?}");
    }
}

#[test]
fn a_refusal_of_a_large_file_names_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pth\"\r\n\r\n";
    let mut body = head.as_bytes().to_vec();
    body.resize((256 << 20) + 100, 0);
    let refusal = send(&server, "POST", "/seg/reset", "multipart/form-data; boundary=b", &body);
    assert_eq!((refusal.status, refusal.reason.as_str()), (413, "the file is larger than 256 MiB"), "{refusal:?}");
}

#[test]
fn a_reason_that_the_client_reads_from_the_body_is_not_in_the_status_line() {
    let (server, _folder, _) = server();
    for (path, body) in [
        ("/dataset/check", json!({"dataset_name": "fly"})),
        ("/dataset/check", json!([])),
        ("/seg/update", json!({"dataset_name": "fly", "c_ratio": 0})),
        ("/seg/update", json!({"dataset_name": "/fly"})),
        ("/update/seg", json!({"spots": 1})),
        ("/seg/train", json!({"dataset_name": "fly", "spots": []})),
        ("/seg/train", json!({"n_crops": 0, "dataset_name": "fly"})),
        ("/train/seg", json!({"dataset_name": 5})),
    ] {
        let refusal = post(&server, path, &body);
        assert_eq!((refusal.status, refusal.reason.as_str()), (400, "Bad Request"), "{path} {body}: {refusal:?}");
        assert!(!refusal.error.is_empty(), "{path} {body}: {refusal:?}");
    }
    // For their other refusals, and for all refusals of other routes, it shows the status line only.
    let body = json!({"dataset_name": "bee", "spots": [], "reset": true});
    let refusal = post(&server, "/seg/update", &body);
    assert_eq!((refusal.status, refusal.reason.as_str()), (404, "the dataset does not exist: bee"));
}

#[test]
fn failures_have_the_standard_text() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let mut live = training(&movie, 1);
    live["is_livemode"] = true.into();
    std::thread::scope(|scope| {
        let training = scope.spawn(|| server.post_json("/seg/train", &live));
        server.wait_for_state(1);
        for (path, error) in
            [("/seg/reset", "Process is running. Model cannot be reset."), ("/seg/train", "Process is running")]
        {
            let refusal = post(&server, path, &with(&live, &json!({"url": null})));
            let shown = (refusal.status, refusal.reason.as_str(), refusal.error.as_str());
            assert_eq!(shown, (500, "Internal Server Error", error));
        }
        server.post_json("/state/process", &json!({"state": 0}));
        assert_eq!(training.join().unwrap().json()["completed"], false);
    });
}

#[test]
fn missing_routes_are_refused_with_a_text_for_mastodon() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let long = format!("/{}", "x".repeat(300));
    for (method, path, reason) in [
        ("GET", "/no/such", "there is no GET /no/such on this server; see /docs"),
        ("GET", &long, "not on this server (see /docs)"),
        ("GET", "/seg/predict", "/seg/predict does not answer to GET; see /docs"),
    ] {
        let refusal = send(&server, method, path, "application/json", b"{}");
        assert_short(path, &refusal);
        assert_eq!(refusal.reason, reason, "{path}");
    }
}
