//! Complete predictions over HTTP compared with the original's, for its dataset and models.

#![allow(clippy::disallowed_methods)]

mod common;

use std::path::Path;

use common::BINARY;
use elephant_testkit::{TestServer, read_json, shared};
use serde_json::{Value, json};

fn reversed(values: &Value) -> Value {
    values.as_array().unwrap().iter().rev().cloned().collect()
}

/// The original's arguments (z, y, x) as the client would send them (x, y, z).
fn request(case: &Value) -> Value {
    let arguments = case["args"].as_object().unwrap();
    let mut body = json!({"dataset_name": "tiny", "model_name": Path::new(case["model"].as_str().unwrap()).file_name().unwrap().to_str()});
    for (key, value) in arguments {
        match key.as_str() {
            "scales" | "input_size" => body[key] = reversed(value),
            "patch_size" => body["patch"] = reversed(value),
            "crop_box" => {
                let numbers = value.as_array().unwrap();
                let (origin, size) = numbers.split_at(3);
                body[key] = origin.iter().rev().chain(size.iter().rev()).cloned().collect();
            }
            _ => body[key] = value.clone(),
        }
    }
    body
}

#[test]
fn spots_are_those_of_the_original() {
    let Some(cases) = shared("oracle/detect/detect_spots_e2e.json") else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--numerics", "original"]);
    let dataset = folder.path().join("datasets/tiny");
    copy_folder(&shared("oracle/dataset/tiny").unwrap(), &dataset);
    for model in ["models/seg_3d.pth", "models/seg_2d.pth", "trained/seg_tiny.pth"] {
        let source = shared(&format!("oracle/{model}")).unwrap();
        std::fs::copy(&source, folder.path().join("models").join(source.file_name().unwrap())).unwrap();
    }
    for case in read_json(&cases).as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let reply = server.post_json("/seg/predict", &request(case));
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let (ours, theirs) = (reply.json(), &case["spots"]);
        let (ours, theirs) = (ours["spots"].as_array().unwrap(), theirs.as_array().unwrap());
        assert_eq!(ours.len(), theirs.len(), "{name}: as many spots");
        let scales = reversed(&case["args"]["scales"]);
        for (our, their) in ours.iter().zip(theirs) {
            assert_same(name, our, their, &scales);
        }
    }
}

/// The position agrees to a thousandth of a voxel, and the shape to a thousandth of its size. Where the network has random
/// parameters, its one large component has thousands of voxels near the threshold, and some of them change sides by the
/// rounding of another processor: its position agrees to five thousandths.
fn assert_same(name: &str, our: &Value, their: &Value, scales: &Value) {
    let tolerance = if name.starts_with("random") { 5e-3 } else { 1e-3 };
    for axis in 0..3 {
        let limit = tolerance * number(&scales[axis]);
        assert!(distance(&our["pos"][axis], &their["pos"][axis]) < limit, "{name}: {our} {their}");
    }
    let trace: f64 = [0, 4, 8].iter().map(|&i| number(&their["covariance"][i])).sum();
    for i in 0..9 {
        assert!(distance(&our["covariance"][i], &their["covariance"][i]) < 1e-3 * trace, "{name}: {our} {their}");
    }
    assert!(distance(&our["quality"], &their["quality"]) < 1e-4, "{name}: {our} {their}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn distance(left: &Value, right: &Value) -> f64 {
    (left.as_f64().unwrap() - right.as_f64().unwrap()).abs()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
