//! Labels over HTTP: the original's volumes to the last voxel, wrong requests, simultaneous requests, and a killed
//! server.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::Duration,
};

use common::{BINARY, demo_dataset};
use elephant_testkit::{TestServer, eventually, golden, read_json, shared};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::{ArrayD, Axis, IxDyn};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A frame of one of the label stores.
fn frame(dataset: &Dataset, store: Store, t: usize) -> ArrayD<u8> {
    let store = dataset.store(store);
    let mut size = store.shape().to_vec();
    size[0] = 1;
    let mut start = vec![0; size.len()];
    start[0] = t;
    let mut frame = ArrayD::zeros(IxDyn(&size));
    store.read(&start, frame.view_mut()).expect("the server's store is readable");
    frame.index_axis_move(Axis(0), 0)
}

fn sha256(frame: &ArrayD<u8>) -> Value {
    let bytes: Vec<u8> = frame.iter().copied().collect();
    let digest = Sha256::digest(bytes);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>().into()
}

/// The client's request for a case of the reference data.
fn client_request(case: &Value, dataset: &str, spots: &Value) -> Value {
    let mut request = json!({
        "dataset_name": dataset, "auto_bg_thresh": case["auto_bg_thresh"], "c_ratio": case["c_ratio"], "reset": false,
        "spots": spots, "is_3d": dataset == "tiny", "is_livemode": false, "use_memmap": true
    });
    if let Some(scales) = case["scales_zyx"].as_array() {
        request["scales"] = scales.iter().rev().cloned().collect();
    }
    request
}

fn check_case(server: &TestServer, case: &Value) {
    let name = case["name"].as_str().unwrap();
    let dataset = if name == "2d" { "tiny_2d" } else { "tiny" };
    let reset = server.post_json("/seg/update", &json!({"dataset_name": dataset, "reset": true}));
    assert_eq!(reset.status, 200, "{}", reset.text());
    for spots in [&case["first"], &case["spots"]] {
        if !spots.is_null() {
            let reply = server.post_json("/seg/update", &client_request(case, dataset, spots));
            assert_eq!((reply.status, reply.json()), (200, json!({"completed": true})), "{name}");
        }
    }
    let stores = Dataset::open(&server.workspace().join("datasets").join(dataset)).unwrap();
    if !case["attrs"].is_null() {
        let attributes = stores.store(Store::SegLabels).attributes().unwrap();
        assert_eq!(serde_json::to_value(attributes).unwrap(), case["attrs"], "{name}");
    }
    let timepoints = case["timepoints"].as_object().unwrap();
    for t in 0..stores.timepoint_count() {
        let labels = frame(&stores, Store::SegLabels, t);
        let colors = frame(&stores, Store::SegLabelsVis, t);
        match timepoints.get(&t.to_string()) {
            Some(expected) => {
                assert_eq!(sha256(&labels), expected["label"]["sha256"], "{name} {t}");
                if let Some(expected) = expected.get("vis") {
                    assert_eq!(sha256(&colors), expected["sha256"], "{name} {t}, colours");
                }
            }
            None => assert!(labels.iter().chain(&colors).all(|&voxel| voxel == 0), "{name} {t}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[test]
fn labels_are_those_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let datasets = folder.path().join("datasets");
    let planar = DatasetShape { timepoints: 8, frame: [1, 96, 96], is_3d: false };
    Dataset::create(&datasets.join("tiny_2d"), planar, DataType::U8).unwrap();
    let images = shared("oracle/dataset/tiny");
    if let Some(images) = &images {
        copy(images, &datasets.join("tiny"));
    } else {
        let shape = DatasetShape { timepoints: 8, frame: [32, 96, 96], is_3d: true };
        Dataset::create(&datasets.join("tiny"), shape, DataType::U8).unwrap();
    }
    let server = TestServer::start(BINARY, folder.path(), &["--numerics", "original"]);
    let cases = shared("oracle/labels/seg_labels.json").unwrap_or_else(|| golden("labels/seg_labels.json"));
    for case in read_json(&cases).as_array().unwrap() {
        if case["auto_bg_thresh"] == 0 || images.is_some() {
            check_case(&server, case);
        }
    }
}

struct Fixture {
    server: TestServer,
    scales: Value,
    folder: tempfile::TempDir,
}

/// A server with a dataset `fly` of 4 × 16 × 48 × 48 voxels.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    Fixture { server, scales: json!(movie.scales), folder }
}

fn spot(t: usize, tag: &str) -> Value {
    json!({"t": t, "pos": [10.0, 10, 10], "covariance": [9, 0, 0, 0, 9.0, 0, 0, 0, 9], "label": "anna", "id": 12, "tag": tag})
}

impl Fixture {
    fn update(&self, changes: &Value) -> (u16, String) {
        let mut body = json!({"dataset_name": "fly", "scales": self.scales, "spots": [spot(0, "tp")]});
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        let reply = self.server.post_json("/seg/update", &body);
        (reply.status, if reply.status == 200 { reply.text() } else { reply.error() })
    }

    fn dataset(&self) -> Dataset {
        Dataset::open(&self.folder.path().join("datasets/fly")).unwrap()
    }
}

#[test]
fn wrong_updates_are_refused_with_a_reason() {
    let fixture = fixture();
    assert_eq!(fixture.update(&json!({})), (200, r#"{"completed":true}"#.into()));
    let before = frame(&fixture.dataset(), Store::SegLabels, 0);
    assert!(before.iter().any(|&label| label == 3));
    let with = |key: &str, value: Value| {
        let mut wrong = spot(1, "tp");
        wrong[key] = value;
        json!({"spots": [spot(0, "fp"), wrong]})
    };
    for (changes, status, reason) in [
        (json!({"spots": []}), 400, "nothing to update"),
        (
            json!({"is_livemode": true, "spots": [spot(0, "tp"), spot(1, "tp")]}),
            400,
            "Livemode should update only a single timepoint",
        ),
        (json!({"dataset_name": "bee"}), 404, "POST /dataset/generate"),
        (json!({"dataset_name": "../fly"}), 400, "dataset_name"),
        (with("tag", json!("unlabeled")), 400, "\"unlabeled\""),
        (with("pos", json!([-500, 10, 10])), 400, "anna"),
        (with("pos", json!([10, 1e300, 10])), 400, "anna"),
        (with("pos", json!([10, null, 10])), 400, "spots[1].pos"),
        (with("covariance", json!([0, 0, 0, 0, 0, 0, 0, 0, 0])), 400, "anna"),
        (with("covariance", json!([1, 2, 0, 2, 1, 0, 0, 0, 1])), 400, "positive definite"),
        (with("covariance", json!([1])), 400, "spots[1].covariance"),
        (with("t", json!(4)), 404, "no timepoint 4"),
        (with("t", json!(-1)), 400, "t must be 0 or more"),
        (json!({"scales": [0, 1, 1]}), 400, "scales"),
        (json!({"c_ratio": 0}), 400, "c_ratio"),
        (json!({"c_ratio": "0.4"}), 400, "c_ratio"),
        (json!({"auto_bg_thresh": 2}), 400, "auto_bg_thresh"),
        (json!({"spots": 7}), 400, "spots"),
    ] {
        let (found, message) = fixture.update(&changes);
        assert_eq!(found, status, "{changes}: {message}");
        assert!(message.contains(reason), "{changes}: {message}");
    }
    let wrong_type = fixture.server.post("/seg/update", "text/plain", b"{}");
    assert_eq!((wrong_type.status, wrong_type.error().as_str()), (400, "Content-Type should be application/json"));
    assert_eq!(fixture.server.post("/seg/update", "application/json", b"{\"spots\":[").status, 400);
    assert_eq!(frame(&fixture.dataset(), Store::SegLabels, 0), before, "nothing was drawn");
    assert_eq!(fixture.server.get("/state/process").json()["state"], 0);
    // Numbers and names as old clients send them, to the old route.
    let old = json!({"dataset_name": "fly", "auto_bg_thresh": 0, "c_ratio": 3e-1, "spots": [spot(0, "fn")]});
    assert_eq!(fixture.server.post_json("/update/seg", &old).status, 200);
    let live = json!({"is_livemode": true, "spots": [spot(2, "tb"), spot(2, "fb")]});
    assert_eq!(fixture.update(&live).0, 200);
}

#[test]
fn missing_stores_are_named() {
    let fixture = fixture();
    fs::remove_dir_all(fixture.folder.path().join("datasets/fly/seg_labels_vis.zarr")).unwrap();
    let (status, message) = fixture.update(&json!({}));
    assert_eq!(status, 404);
    assert!(message.contains("seg_labels_vis.zarr") && message.contains("generate the dataset again"), "{message}");
}

#[test]
fn all_spots_of_a_dataset_at_once() {
    let fixture = fixture();
    // 5 MB, more than the limit of other routes.
    let spots: Vec<Value> = (0..40_000).map(|index| spot(index % 4, "tn")).collect();
    assert_eq!(fixture.update(&json!({"spots": spots})).0, 200);
    let centroids = fixture.dataset().store(Store::SegLabels).attributes().unwrap();
    let centroids: Vec<[usize; 3]> = serde_json::from_str(centroids["label.indices.3"].get()).unwrap();
    assert_eq!(centroids.len(), 10_000);
    let mut wrong = vec![spot(0, "tn"); 30_000];
    wrong.push(spot(0, "?"));
    let (status, message) = fixture.update(&json!({"spots": wrong}));
    assert!(status == 400 && message.contains("spots[30000].tag"), "{message}");
}

/// Begins a request that announces `length` bytes, and does not send them.
fn announce(server: &TestServer, bytes: u64) -> TcpStream {
    let mut stream = elephant_testkit::connect(server.address());
    let head = format!(
        "POST /seg/update HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{{",
        server.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn status_line(stream: TcpStream) -> String {
    let mut line = String::new();
    // Empty if no reply arrives in time.
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

#[test]
fn large_bodies_share_their_memory() {
    let fixture = fixture();
    let server = &fixture.server;
    let too_large = status_line(announce(server, 300 << 20));
    assert!(too_large.starts_with("HTTP/1.1 413") && too_large.contains("256 MiB"), "{too_large}");
    // The server may accept the first two in either order.
    let mut held = vec![announce(server, 200 << 20)];
    let refused = loop {
        let next = announce(server, 200 << 20);
        next.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        match status_line(next.try_clone().unwrap()) {
            line if line.is_empty() => held.push(next),
            line => break line,
        }
        assert!(held.len() < 5, "one is refused");
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("busy"), "{refused}");
    assert_eq!(fixture.update(&json!({})).0, 200, "ordinary requests are still served");
    drop(held);
    let spots = vec![spot(0, "tn"); 20_000];
    eventually("there is room again", || fixture.update(&json!({"spots": spots})).0 == 200);
}

#[test]
fn updates_do_not_mix() {
    let fixture = fixture();
    // Each frame has one class or the other, never both.
    let everywhere = |tag: &str| {
        let mut spot = spot(0, tag);
        spot["covariance"] = json!([1e6, 0, 0, 0, 1e6, 0, 0, 0, 1e6]);
        json!({"spots": [spot]})
    };
    let completed: usize = thread::scope(|scope| {
        let clients: Vec<_> = ["tb", "tn", "fb", "fp"]
            .map(|tag| {
                let (fixture, request) = (&fixture, everywhere(tag));
                scope.spawn(move || {
                    let replies: Vec<_> = (0..10).map(|_| fixture.update(&request)).collect();
                    for (status, message) in &replies {
                        let is_busy = (*status, message.as_str()) == (400, "Last update is ongoing");
                        assert!(*status == 200 || is_busy, "{status} {message}");
                    }
                    replies.iter().filter(|(status, _)| *status == 200).count()
                })
            })
            .into_iter()
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(completed >= 1);
    let labels = frame(&fixture.dataset(), Store::SegLabels, 0);
    let first = labels[[0, 0, 0]];
    assert!([1, 2, 4, 5].contains(&first) && labels.iter().all(|&label| label == first));
    assert_eq!(fixture.server.get("/state/process").json()["state"], 0);
}

#[test]
fn killed_while_updating() {
    let Fixture { mut server, scales, folder } = fixture();
    for round in 0..8 {
        let tag = if round % 2 == 0 { "tb" } else { "tn" };
        let mut spots: Vec<Value> = (0..4).map(|t| spot(t, tag)).collect();
        for spot in &mut spots {
            spot["covariance"] = json!([400, 0, 0, 0, 400, 0, 0, 0, 400]);
        }
        let body = json!({"dataset_name": "fly", "scales": scales, "spots": spots, "auto_bg_thresh": 0.5}).to_string();
        let url = format!("{}/seg/update", server.url());
        let client = thread::spawn(move || {
            while ureq::post(&url).header("content-type", "application/json").send(body.as_bytes()).is_ok() {}
        });
        // A different moment each time: after a number of checks of the labels.
        let store = folder.path().join("datasets/fly/seg_labels.zarr");
        for _ in 0..round * 30 {
            assert!(store.read_dir().unwrap().count() > 0);
        }
        server.kill();
        client.join().unwrap();
        let dataset = Dataset::open(&folder.path().join("datasets/fly")).unwrap();
        for t in 0..4 {
            assert!(frame(&dataset, Store::SegLabels, t).iter().all(|label| [0, 1, 2].contains(label)));
            assert!(frame(&dataset, Store::SegLabelsVis, t).iter().all(|color| [0, 255].contains(color)));
        }
        dataset.store(Store::SegLabels).attributes().unwrap();
        server = TestServer::start(BINARY, folder.path(), &[]);
    }
    let reset = json!({"dataset_name": "fly", "reset": true});
    assert_eq!(server.post_json("/seg/update", &reset).json(), json!({"completed": true}));
    for store in ["seg_labels.zarr", "seg_labels_vis.zarr"] {
        let left = folder.path().join("datasets/fly").join(store).read_dir().unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".zarray"], "files of killed updates are removed too");
    }
}
