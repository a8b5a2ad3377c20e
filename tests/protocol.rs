//! Every route as clients use it: exact bodies, old route names, and requirements of the Java client.

mod common;

use std::io::{BufRead, BufReader, Read, Write};

use common::{BINARY, demo_dataset, demo_movie};
use elephant_testkit::{TestServer, eventually};
use serde_json::json;

fn server(arguments: &[&str]) -> (TestServer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (TestServer::start(BINARY, folder.path(), arguments), folder)
}

#[test]
fn the_devices_are_always_a_valid_list() {
    let (server, _folder) = server(&[]);
    for path in ["/state/gpus", "/gpus"] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200);
        let rows = reply.json();
        let rows = rows.as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            assert!(row["id"].is_string() && row["name"].is_string());
            assert!(row["mem_total"].as_u64().unwrap() >= row["mem_used"].as_u64().unwrap());
        }
    }
    // The client opens a connection each second and sends nothing.
    for _ in 0..20 {
        drop(elephant_testkit::connect(server.address()));
    }
    assert_eq!(server.get("/state/gpus").status, 200);
}

#[test]
fn the_process_state_can_be_read_and_aborted() {
    let (server, _folder) = server(&[]);
    for path in ["/state/process", "/state"] {
        assert_eq!(server.get(path).json(), json!({"success": true, "state": 0}));
        assert_eq!(server.post_json(path, &json!({"state": 0})).json(), json!({"success": true, "state": 0}));
        assert_eq!(server.post_json(path, &json!({"state": 1.0})).json(), json!({"success": true, "state": 1}));
        assert_eq!(server.get(path).json()["state"], 1);
        server.post_json(path, &json!({"state": 0}));
        let refused = server.post_json(path, &json!({"state": 3}));
        assert_eq!((refused.status, refused.json()["res"].as_str()), (400, Some("Invalid state: 3")));
        let wrong_type = server.post(path, "text/plain", b"{\"state\": 0}");
        assert_eq!((wrong_type.status, wrong_type.error().as_str()), (400, "Content-Type should be application/json"));
    }
}

#[test]
fn parameters_are_read_as_java_prints_them() {
    let (server, _folder) = server(&[]);
    for path in ["/params", "/params/"] {
        let reply = server.post(path, "application/json; charset=utf-8", br#"{"lr":1,"n_crops":5}"#);
        assert_eq!(reply.json(), json!({"success": true, "lr": 1.0, "n_crops": 5}));
        let reply = server.post(path, "application/json", br#"{"lr":1.0E-4,"n_crops":7.0}"#);
        assert_eq!(reply.json(), json!({"success": true, "lr": 1e-4, "n_crops": 7}));
        assert_eq!(server.get(path).json(), json!({"success": true, "lr": 1e-4, "n_crops": 7}));
        for (body, error) in [
            (r#"{"lr":-1}"#, "Invalid learning rate: -1"),
            (r#"{"lr":"x"}"#, "Invalid learning rate: \"x\""),
            (r#"{"n_crops":-1}"#, "Invalid number of crops: -1"),
            (r#"{"n_crops":1.5}"#, "Invalid number of crops: 1.5"),
        ] {
            let refused = server.post(path, "application/json", body.as_bytes());
            assert_eq!((refused.status, refused.error().as_str()), (400, error));
        }
    }
}

#[test]
fn dataset_requests_name_the_missing_field() {
    let (server, _folder) = server(&[]);
    let check = |body: &serde_json::Value| server.post_json("/dataset/check", body);
    assert_eq!(check(&json!({"shape": [1, 2, 3, 4]})).error(), "dataset_name key is missing");
    assert_eq!(check(&json!({"dataset_name": "d"})).error(), "shape key is missing");
    demo_dataset(&server, "d");
    assert_eq!(check(&json!({"dataset_name": "d", "shape": [4, 16, 48, 48]})).json()["message"], "ready");
    assert_eq!(
        check(&json!({"dataset_name": "d", "shape": [99, 16, 48, 48]})).json()["message"],
        "Invalid shape for imgs.zarr\nExpected: (99, 16, 48, 48) Found: (4, 16, 48, 48)"
    );
}

#[test]
fn models_are_downloaded_completely_or_not_at_all() {
    let (server, _folder) = server(&[]);
    let download = |path: &str| server.post_json(path, &json!({"model_name": "a/b.pth"}));
    assert_eq!((download("/download/model").status, download("/model/download").status), (204, 204));
    server.post_json("/reset/seg", &json!({"model_name": "a/b.pth", "is_3d": false, "url": null, "nmodels": 2}));
    let model = download("/download/model");
    assert_eq!(model.status, 200);
    assert_eq!(model.body, std::fs::read(server.workspace().join("models/a/b.pth")).unwrap());
    // A downloaded model can be uploaded.
    let data = br#"{"model_name": "c.pth", "is_3d": false, "url": null}"#;
    let reset = server.post_parts("/seg/reset", &[("data", data), ("file:b.pth", &model.body)]);
    assert_eq!((reset.status, reset.json()), (200, json!({"completed": true})));
    assert_eq!(server.post_json("/download/model", &json!({"model_name": "c.pth"})).body, model.body);
}

/// The status line of the reply to a JSON body.
fn status_line(server: &TestServer, path: &str, body: &serde_json::Value) -> String {
    let mut stream = elephant_testkit::connect(server.address());
    let body = body.to_string();
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n").unwrap();
    write!(stream, "Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn reasons_reach_the_java_client_in_the_status_line() {
    let (server, _folder) = server(&[]);
    let line = status_line(&server, "/seg/predict", &json!({"dataset_name": "fly", "timepoint": 0}));
    assert_eq!(line, "HTTP/1.1 404 the dataset does not exist: fly\r\n");
    // In ASCII, without loss of information.
    let line = status_line(&server, "/seg/predict", &json!({"dataset_name": "Größe … µ 日", "timepoint": 0}));
    assert_eq!(line, "HTTP/1.1 404 the dataset does not exist: Grosse ... u \\u{65e5}\r\n");
    let line = status_line(&server, "/params", &json!({"lr": "ä".repeat(500)}));
    assert_eq!(line, "HTTP/1.1 400 Invalid learning rate\r\n");
}

#[test]
fn invalid_names_are_refused_with_a_clear_text() {
    let (server, _folder) = server(&[]);
    let check = |name: &str| server.post_json("/dataset/check", &json!({"dataset_name": name, "shape": [1, 1, 1, 1]}));
    for (name, expected) in [
        ("/fly", "dataset_name: the dataset name \"/fly\" is absolute; give it relative to the workspace"),
        ("a/../b", "dataset_name: the dataset name \"a/../b\" would leave its folder; write it without . and .. parts"),
    ] {
        let reply = check(name);
        assert_eq!((reply.status, reply.error().as_str()), (400, expected));
    }
    let broken = server.post("/dataset/check", "application/json", br#"{"dataset_name": "fly", "shape": [1, }"#);
    assert_eq!(broken.status, 400);
    assert!(!broken.error().contains("line"), "{}", broken.error());
    // The name of a dataset may end in a slash.
    let movie = demo_movie();
    server.upload("lab/fly/", "fly.h5", &movie.content, 1 << 20);
    assert_eq!(server.post_json("/dataset/generate", &json!({"dataset_name": "lab/fly/"})).status, 200);
    for name in ["lab/fly", "lab/fly/"] {
        let reply = server.post_json("/dataset/check", &json!({"dataset_name": name, "shape": movie.shape}));
        assert_eq!(reply.json()["message"], "ready");
    }
}

#[test]
fn administrators_find_health_metrics_and_documentation() {
    let (server, _folder) = server(&[]);
    assert_eq!(server.get("/health/livez").status, 200);
    // The server answers before the device has been found.
    eventually("the server is ready", || server.get("/health/readyz").status == 200);
    let document = server.get("/swagger.json").json();
    for route in ["/seg/predict", "/seg/reset", "/dataset/generate", "/upload/image", "/state/gpus", "/download/model"]
    {
        assert!(document["paths"][route].is_object(), "{route} is documented");
    }
    for page in ["/", "/docs", "/docs/"] {
        let reply = server.get(page);
        assert!(reply.status == 200 && reply.text().contains("swagger"), "{page}");
    }
    let mut stream = elephant_testkit::connect(server.address());
    write!(stream, "BREW /health/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut refused = String::new();
    stream.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    let metrics = server.get("/metrics").text();
    for line in [
        r#"elephant_http_requests_total{method="GET",route="/health/livez",status="200"} 1"#,
        r#"elephant_http_requests_total{method="other",route="/health/livez",status="405"} 1"#,
        r#"elephant_http_request_seconds_bucket{route="/health/livez",le="+Inf"} 2"#,
        r#"elephant_jobs_running{kind="train"} 0"#,
        "elephant_predictions_waiting 0",
        "elephant_device_ready 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    assert!(metrics.contains("\nelephant_http_connections ") && !metrics.contains("BREW"), "{metrics}");
    let missing = server.get("/no/such/route");
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("/docs"));
    assert_eq!(server.get("/seg/predict").status, 405);
}

#[test]
fn events_report_the_progress_of_jobs() {
    let (server, _folder) = server(&[]);
    let mut stream = elephant_testkit::connect(server.address());
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut events = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(events.read_line(&mut line).unwrap(), 0, "the stream stays open");
    }
    demo_dataset(&server, "fly");
    let mut seen = Vec::new();
    while !line.contains("\"completed\"") {
        line.clear();
        assert_ne!(events.read_line(&mut line).unwrap(), 0, "the stream stays open");
        if let Some(data) = line.strip_prefix("data: ") {
            seen.push(serde_json::from_str::<serde_json::Value>(data).unwrap());
        }
    }
    assert_eq!(seen[0], json!({"job": 1, "kind": "generate", "subject": "fly", "event": "started"}));
    let steps: Vec<_> = seen.iter().filter(|event| event["event"] == "progress").map(|event| &event["step"]).collect();
    assert_eq!(steps, [1, 2, 3, 4]);
}

#[test]
fn requests_without_the_token_are_refused() {
    let (server, _folder) = server(&["--token", "s3cret"]);
    assert_eq!(server.get("/state/gpus").status, 401);
    assert_eq!(server.get("/health/livez").status, 200);
    let status = |token: &str| {
        let mut stream = elephant_testkit::connect(server.address());
        write!(stream, "GET /state/gpus HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status("s3cret").as_str(), status("s3cre").as_str(), status("s3creT").as_str()), ("200", "401", "401"));
}
