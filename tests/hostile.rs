//! Wrong and malicious requests: they are refused with a clear reason, nothing is lost, and the server keeps working.

#![allow(clippy::disallowed_methods)]

mod common;

use std::io::{Read, Write};

use common::{BINARY, demo_dataset, demo_movie};
use elephant_testkit::{TestServer, golden};
use serde_json::{Value, json};

struct Fixture {
    server: TestServer,
    predict: Value,
    _folder: tempfile::TempDir,
}

/// A server with a dataset `fly` of 4 × 16 × 48 × 48 voxels and a model.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--versatile-3d", "/nonexistent/versatile3d.pth"]);
    let movie = demo_dataset(&server, "fly");
    let predict = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    Fixture { server, predict, _folder: folder }
}

impl Fixture {
    /// A prediction request with some fields changed.
    fn predict_with(&self, changes: &Value) -> (u16, String) {
        let mut body = self.predict.clone();
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        let reply = self.server.post_json("/seg/predict", &body);
        (reply.status, if reply.status == 200 { String::new() } else { reply.error() })
    }

    fn assert_alive(&self) {
        assert_eq!(self.predict_with(&json!({})).0, 200);
        assert_eq!(self.server.get("/state/process").json()["state"], 0);
    }
}

#[test]
fn wrong_predictions_are_refused_with_a_reason() {
    let fixture = fixture();
    for (changes, status, reason) in [
        (json!({"dataset_name": "bee"}), 404, "POST /dataset/generate"),
        (json!({"model_name": "missing.pth"}), 404, "POST /seg/reset"),
        (json!({"timepoint": 4}), 404, "no timepoint 4"),
        (json!({"timepoint": -1}), 400, "timepoint"),
        (json!({"timepoint": 1e300}), 400, "timepoint"),
        (json!({"is_3d": false}), 400, "is_3d"),
        (json!({"use_2d": true}), 400, "2-D"),
        (json!({"crop_box": [0, 0, 0, 49, 48, 16]}), 400, "crop box"),
        (json!({"crop_box": [48, 0, 0, 1, 1, 1]}), 400, "crop box"),
        (json!({"crop_box": [0, 0, 0, 0, 48, 16]}), 400, "crop box"),
        (json!({"crop_box": [-1, 0, 0, 8, 8, 8]}), 400, "crop_box"),
        (json!({"crop_box": [9e15, 0, 0, 9e15, 8, 8]}), 400, "crop box"),
        (json!({"patch": [0, 8, 8]}), 400, "patch"),
        (json!({"patch": [8]}), 400, "patch"),
        (json!({"input_size": [0, 8, 8]}), 400, "input size"),
        (json!({"input_size": [100_000, 100_000, 100_000]}), 413, "memory"),
        (json!({"input_size": [9e15, 9e15, 9e15]}), 413, "memory"),
        (json!({"batch_size": 9e15, "patch": [48, 48, 16]}), 200, ""),
        (json!({"scales": [1, 1]}), 200, ""),
        (json!({"scales": [1, 1, -1]}), 400, "scales"),
        (json!({"scales": ["a", 1, 1]}), 400, "scales"),
        (json!({"c_ratio": 0}), 400, "c_ratio"),
        (json!({"p_thresh": 2}), 400, "p_thresh"),
        (json!({"p_thresh": 1}), 200, ""),
        (json!({"r_min": 9, "r_max": 1}), 400, "r_max"),
        (json!({"patch": [384, 384, 24], "is_pad": true}), 200, ""),
        (json!({"n_keep_axials": -1}), 200, ""),
        (json!({"n_keep_axials": 5}), 200, ""),
        (json!({"batch_size": 0}), 200, ""),
    ] {
        let (got, error) = fixture.predict_with(&changes);
        assert_eq!(got, status, "{changes}: {error}");
        assert!(error.contains(reason), "{changes}: {error}");
    }
    fixture.assert_alive();
}

#[test]
fn names_do_not_leave_the_workspace() {
    let fixture = fixture();
    let server = &fixture.server;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.pth"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), server.workspace().join("models/link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), server.workspace().join("datasets/link")).unwrap();
    let long = "x".repeat(300);
    for name in [
        "..",
        "../fly",
        "/etc/passwd",
        "a/../../b",
        "a\0b",
        "a\\b",
        "",
        ".hidden",
        "link/secret.pth",
        long.as_str(),
        "fly/imgs.zarr",
    ] {
        for (path, body) in [
            ("/seg/predict", json!({"dataset_name": name, "timepoint": 0})),
            ("/seg/predict", json!({"dataset_name": "fly", "model_name": name, "timepoint": 0})),
            ("/dataset/generate", json!({"dataset_name": name})),
            ("/dataset/check", json!({"dataset_name": name, "shape": [1, 1, 1, 1]})),
            ("/seg/reset", json!({"model_name": name, "url": null})),
            ("/download/model", json!({"model_name": name})),
        ] {
            let reply = server.post_json(path, &body);
            assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
            assert!(!reply.error().is_empty());
        }
        for (dataset, file) in [(name, "a.h5"), ("fly", name)] {
            let parts: [(&str, &[u8]); 4] = [
                ("action", b"init"),
                ("dataset_name", dataset.as_bytes()),
                ("file:f", b"x"),
                ("filename", file.as_bytes()),
            ];
            // `link/…` is a new folder in the dataset if it is a file name, and a link if it is a dataset name.
            if (dataset, file) == ("fly", "link/secret.pth") {
                continue;
            }
            let reply = server.post_parts("/upload/image", &parts);
            assert_eq!(reply.status, 400, "{dataset} {file}: {}", reply.text());
        }
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was written outside");
    fixture.assert_alive();
}

#[test]
fn bodies_that_are_not_valid_requests() {
    let fixture = fixture();
    let server = &fixture.server;
    for path in ["/seg/predict", "/dataset/generate", "/dataset/check", "/seg/reset", "/download/model", "/params"] {
        for (content_type, body) in [
            ("application/json", b"" as &[u8]),
            ("application/json", b"{"),
            ("application/json", b"[]"),
            ("application/json", b"nonsense"),
            ("application/json", b"{\"dataset_name\": \"\xff\xfe\"}"),
            ("application/json", b"{} {}"),
            ("application/xml", b"{}"),
            ("", b"{}"),
        ] {
            let reply = server.post(path, content_type, body);
            assert_eq!(reply.status, 400, "{path} {content_type} {}: {}", body.escape_ascii(), reply.text());
            assert!(!reply.error().is_empty());
        }
        let deep = "[".repeat(100_000);
        assert_eq!(server.post(path, "application/json", deep.as_bytes()).status, 400);
    }
    // Long bodies are refused before they are read, also on routes that accept files.
    for (path, content_type) in [
        ("/seg/predict", "application/json"),
        ("/seg/reset", "application/json"),
        ("/reset/seg", "application/json"),
        ("/upload/image", "application/x-www-form-urlencoded"),
    ] {
        let mut stream = elephant_testkit::connect(server.address());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n").unwrap();
        write!(stream, "Content-Length: 2000000\r\n\r\n{{").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 413", "{path}");
    }
    let list = format!("{{\"state\": [{}0]}}", "0,".repeat(10_000));
    let reply = server.post("/state/process", "application/json", list.as_bytes());
    assert!(reply.status == 400 && reply.body.len() < 1000, "{}", reply.text());
    for (content_type, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=b", "x"),
        ("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"action\"\r\n\r\ninit"),
        ("application/x-www-form-urlencoded", "action=complete"),
        ("application/x-www-form-urlencoded", "action=fly&dataset_name=fly&filename=a.h5"),
        ("text/plain", "x"),
    ] {
        let reply = server.post("/upload/image", content_type, body.as_bytes());
        assert_eq!(reply.status, 400, "{content_type} {body}: {}", reply.text());
        assert_eq!(reply.json()["res"], reply.json()["error"]);
    }
    fixture.assert_alive();
}

#[test]
fn uploads_without_a_beginning_or_an_end() {
    let fixture = fixture();
    let server = &fixture.server;
    let form = |action: &str| format!("action={action}&dataset_name=fly&filename=new.h5");
    let send =
        |action: &str| server.post("/upload/image", "application/x-www-form-urlencoded", form(action).as_bytes());
    assert_eq!(send("complete").status, 404);
    assert_eq!(send("cancel").status, 200, "cancelling without an upload is allowed");
    assert_eq!(send("init").status, 400, "a piece is needed");
    // A client that disconnects in the middle of a piece leaves no file.
    let mut stream = elephant_testkit::connect(server.address());
    write!(stream, "POST /upload/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n").unwrap();
    write!(stream, "Content-Type: multipart/form-data; boundary=b\r\n\r\n").unwrap();
    write!(stream, "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhalf").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    assert!(!server.workspace().join("datasets/fly/new.h5").exists());
    let spool = server.workspace().join("datasets/.uploads");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0, "no piece remains: {reply}");
    fixture.assert_alive();
}

/// Lists more timepoints than fit into memory.
const MANY_TIMEPOINTS: &str = r#"<SpimData version="0.2"><BasePath type="relative">.</BasePath><SequenceDescription>
    <ImageLoader format="bdv.hdf5"><hdf5 type="relative">movie.h5</hdf5></ImageLoader><Timepoints type="range">
    <first>0</first><last>2147483647</last></Timepoints></SequenceDescription></SpimData>"#;

/// A small file that declares a large movie.
fn enormous(name: &str) -> Vec<u8> {
    std::fs::read(golden(&format!("hostile/{name}.h5"))).unwrap()
}

#[test]
fn invalid_movies() {
    let fixture = fixture();
    let server = &fixture.server;
    let movie = demo_movie().content;
    for (name, content) in [
        ("text", b"not a movie".to_vec()),
        ("truncated", movie[..movie.len() / 2].to_vec()),
        ("header", movie[..100].to_vec()),
        ("empty", vec![0; 10]),
        ("blank_wide", enormous("blank_wide")),
        ("blank_deep", enormous("blank_deep")),
        ("chunk_wide", enormous("chunk_wide")),
        ("t_max_wide", enormous("t_max_wide")),
    ] {
        // As if copied there by hand; uploaded files are checked at upload.
        let folder = server.workspace().join("datasets").join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("movie.h5"), &content).unwrap();
        let reply = server.post_json("/dataset/generate", &json!({"dataset_name": name}));
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
        assert!(!folder.join("imgs.zarr").exists());
    }
    for (field, value) in
        [("divisor", json!(0)), ("divisor", json!(-1)), ("setup", json!(7)), ("level", json!(9)), ("setup", json!(-1))]
    {
        let reply = server.post_json("/dataset/generate", &json!({"dataset_name": "fly", field: value}));
        assert_eq!(reply.status, 400, "{field}={value}: {}", reply.text());
    }
    // An .xml that declares 20 million frames of one timepoint is refused.
    let check = json!({"dataset_name": "t_20m", "shape": [20_000_001, 2, 8, 8]});
    let generate = || server.post_json("/dataset/generate", &json!({"dataset_name": "t_20m"})).status;
    server.post_json("/dataset/check", &check);
    let content = enormous("t_20m");
    for (name, content) in [("movie.h5", content.as_slice()), ("movie.xml", MANY_TIMEPOINTS.as_bytes())] {
        server.upload("t_20m", name, content, content.len());
        assert_eq!(generate(), 400, "{name}");
    }
    // A dataset name whose path goes through a file.
    let reply = server.post_json("/seg/reset", &json!({"model_name": "detection.pth/x", "url": null}));
    assert_eq!(reply.status, 400, "{}", reply.text());
    fixture.assert_alive();
}

#[test]
fn invalid_models() {
    let fixture = fixture();
    let server = &fixture.server;
    let good = server.post_json("/download/model", &json!({"model_name": "detection.pth"})).body;
    // A pickle that would call os.system: protocol 2, GLOBAL os.system, ("true",), REDUCE.
    let evil = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.".to_vec();
    let planar = {
        server.post_json("/seg/reset", &json!({"model_name": "planar.pth", "is_3d": false, "url": null}));
        server.post_json("/download/model", &json!({"model_name": "planar.pth"})).body
    };
    let data = br#"{"model_name": "detection.pth", "is_3d": true, "url": null}"#;
    for (name, file) in [
        ("text", b"hello".to_vec()),
        ("empty", Vec::new()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("evil", evil),
        ("2-D for 3-D", planar),
    ] {
        let reply = server.post_parts("/seg/reset", &[("data", data), ("file:x.pth", &file)]);
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
    }
    for url in ["http://github.com/a.pth", "https://evil.example.org/a.pth", "file:///etc/passwd", "nonsense", ""] {
        let reply = server.post_json("/seg/reset", &json!({"model_name": "detection.pth", "url": url}));
        assert_eq!(reply.status, 400, "{url}: {}", reply.text());
    }
    let missing = server.post_json("/seg/reset", &json!({"model_name": "detection.pth", "url": "Versatile"}));
    assert!(missing.status >= 400 && missing.error().contains("/nonexistent/versatile3d.pth"), "{}", missing.text());
    assert_eq!(
        server.post_json("/download/model", &json!({"model_name": "detection.pth"})).body,
        good,
        "the old model stays"
    );
    fixture.assert_alive();
}
