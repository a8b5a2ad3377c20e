//! The CTC export over HTTP: the original's masks to the voxel, wrong requests, and an abort.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::Path,
};

use common::BINARY;
use elephant_ctc::read_labels;
use elephant_testkit::{Reply, TestServer, read_json, shared};
use elephant_volume::{DataType, Dataset, DatasetShape};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn server(folder: &Path, timepoints: usize, frame: [usize; 3]) -> TestServer {
    let datasets = folder.join("datasets");
    let shape = DatasetShape { timepoints, frame, is_3d: true };
    Dataset::create(&datasets.join("tiny"), shape, DataType::U8).unwrap();
    let shape = DatasetShape { timepoints: 4, frame: [1, 96, 96], is_3d: false };
    Dataset::create(&datasets.join("tiny_2d"), shape, DataType::U8).unwrap();
    TestServer::start(BINARY, folder, &[])
}

/// The files of a reply: its entries are stored as they are, so that the local headers tell all.
fn entries(reply: &Reply) -> BTreeMap<String, Vec<u8>> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let number = |at: usize, bytes: usize| {
        reply.body[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (mut at, mut entries) = (0, BTreeMap::new());
    while reply.body[at..].starts_with(b"PK\x03\x04") {
        let (size, name, extra) = (number(at + 18, 4), number(at + 26, 2), number(at + 28, 2));
        let (name_at, content_at) = (at + 30, at + 30 + name + extra);
        let name = String::from_utf8(reply.body[name_at..name_at + name].to_vec()).unwrap();
        entries.insert(name, reply.body[content_at..content_at + size].to_vec());
        at = content_at + size;
    }
    assert!(reply.body[at..].starts_with(b"PK\x01\x02"));
    entries
}

/// The client's request for a case of the reference data; vectors are x, y, z there too.
fn request(case: &Value) -> Value {
    let scales: Vec<Value> = case["scales_zyx"].as_array().unwrap().iter().rev().cloned().collect();
    json!({
        "dataset_name": case["dataset"], "scales": scales, "spots": case["spots"], "t_start": case["t_start"],
        "t_end": case["t_end"], "is_3d": case["dataset"] == "tiny",
    })
}

#[test]
fn masks_are_those_of_the_original() {
    let Some(manifest) = shared("oracle/ctc/manifest.json") else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8, [32, 96, 96]);
    for (case, path) in
        read_json(&manifest).as_array().unwrap().iter().zip(["/download/ctc", "/export/ctc"].iter().cycle())
    {
        let found = entries(&server.post_json(path, &request(case)));
        let expected = case["entries"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{}", case["name"]);
        for entry in expected {
            let image = folder.path().join("mask.tif");
            fs::write(&image, &found[entry["name"].as_str().unwrap()]).unwrap();
            let labels = read_labels(&image).unwrap();
            let bytes: Vec<u8> = labels.iter().flat_map(|&label| u16::try_from(label).unwrap().to_le_bytes()).collect();
            let digest = format!("{:x}", Sha256::digest(&bytes));
            assert_eq!(entry["sha256"], digest, "{} {}", case["name"], entry["name"]);
        }
    }
}

#[test]
fn what_the_original_fails_on_is_exported_or_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8, [4, 16, 16]);
    let spot = |t: i64, x: f64, value: i64| json!({"t": t, "pos": [x, 8, 2], "covariance": [4, 0, 0, 0, 4, 0, 0, 0, 4], "value": value});
    let export = |spots: Value, range: Value| {
        let body = json!({"dataset_name": "tiny", "scales": [1, 1, 1], "spots": spots, "is_3d": true});
        let mut body = body.as_object().unwrap().clone();
        body.extend(range.as_object().unwrap().clone());
        server.post_json("/download/ctc", &body.into())
    };
    // No spots, spots outside the image and outside the range.
    let blank = entries(&export(json!([]), json!({"t_start": 2, "t_end": 3})));
    assert_eq!(blank.keys().collect::<Vec<_>>(), ["mask002.tif", "mask003.tif"]);
    let range = json!({"t_start": 2, "t_end": 3});
    let outside = export(json!([spot(2, 99.0, 1), spot(3, -50.0, 2), spot(5, 8.0, 3)]), range);
    assert_eq!(entries(&outside), blank);
    assert_eq!(outside.body, export(json!([]), json!({"t_start": 2, "t_end": 3})).body, "the same bytes each time");
    // Without a range, that of the spots.
    let all = entries(&export(json!([spot(1, 8.0, 7), spot(3, 8.0, 7)]), json!({})));
    assert_eq!(all.keys().collect::<Vec<_>>(), ["mask001.tif", "mask002.tif", "mask003.tif"]);
    for (spots, range, word) in [
        (json!([]), json!({}), "nothing to export"),
        (json!([spot(8, 1.0, 1)]), json!({}), "timepoint 8; the dataset has 8"),
        (json!([spot(0, 1.0, 65536)]), json!({}), "1 to 65535"),
        (json!([spot(0, 1.0, 0)]), json!({}), "1 to 65535"),
        (json!([spot(-1, 1.0, 1)]), json!({}), "t must be 0 or more"),
        (json!([]), json!({"t_start": 5, "t_end": 3}), "no timepoint from t_start 5 to 3"),
        (json!([]), json!({"t_start": -1, "t_end": 3}), "t_start must be 0 or more"),
    ] {
        let reply = export(spots, range);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.error().contains(word), "{}", reply.text());
    }
    let missing = server.post_json("/download/ctc", &json!({"dataset_name": "no", "t_start": 0, "t_end": 1}));
    assert_eq!(missing.status, 404);
    assert_eq!(server.get("/state/process").json()["state"], 0);
}

#[test]
fn an_abort_is_answered_with_204() {
    let folder = tempfile::tempdir().unwrap();
    // Needles through all planes of large images: minutes of work, and few bytes.
    let server = server(folder.path(), 10_000, [64, 1024, 1024]);
    let spots: Vec<Value> = (0..10_000)
        .map(|t| json!({"t": t, "pos": [500, 500, 32], "covariance": [9, 0, 0, 0, 9, 0, 0, 0, 1600], "value": 1}))
        .collect();
    let body = json!({"dataset_name": "tiny", "scales": [1, 1, 1], "spots": spots, "is_3d": true});
    std::thread::scope(|scope| {
        let export = scope.spawn(|| server.post_json("/download/ctc", &body));
        server.wait_for_state(2);
        assert_eq!(server.post_json("/state/process", &json!({"state": 0})).status, 200);
        let reply = export.join().unwrap();
        assert_eq!((reply.status, reply.body.len()), (204, 0));
    });
    assert_eq!(server.get("/state/process").json()["state"], 0);
}

#[test]
fn a_client_that_goes_away_ends_its_export() {
    let folder = tempfile::tempdir().unwrap();
    // Tubes as long as the images are deep, in frames enough for an hour.
    let server = server(folder.path(), 10_000, [64, 1024, 1024]);
    let spots: Vec<Value> = (0..10_000)
        .map(|t| json!({"t": t, "pos": [500, 500, 32], "covariance": [90000, 0, 0, 0, 90000, 0, 0, 0, 1600], "value": 1}))
        .collect();
    let body = json!({"dataset_name": "tiny", "scales": [1, 1, 1], "spots": spots, "is_3d": true}).to_string();
    let mut stream = elephant_testkit::connect(server.address());
    let head = format!(
        "POST /download/ctc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut begun = vec![0; 1 << 20];
    stream.read_exact(&mut begun).unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&begun[..300]));
    drop(stream);
    server.wait_for_state(0);
    assert_ne!(server.get("/v1/jobs").json()[0]["status"], "completed");
}
