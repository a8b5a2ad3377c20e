//! Optical flow over HTTP, with the networks of the server: the original's labels to the last bit, displacements that are
//! computed once and survive a kill, crops, 2-D, and training.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use common::{BINARY, demo_dataset, demo_movie};
use elephant_testkit::{TestServer, golden, read_json};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::{Array4, ArrayD, IxDyn};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// SHA-256 of the labels of a pair, as text.
fn sha256(dataset: &Dataset, t: usize) -> String {
    let store = dataset.store(Store::FlowLabels);
    let (mut size, mut start) = (store.shape().to_vec(), vec![0; store.shape().len()]);
    (size[0], start[0]) = (1, t);
    let mut labels = ArrayD::<f32>::zeros(IxDyn(&size));
    store.read(&start, labels.view_mut()).unwrap();
    let mut digest = Sha256::new();
    labels.iter().for_each(|value| digest.update(value.to_le_bytes()));
    format!("{:x}", digest.finalize())
}

#[test]
fn labels_are_those_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let shape = DatasetShape { timepoints: 8, frame: [32, 96, 96], is_3d: true };
    Dataset::create(&folder.path().join("datasets/tiny"), shape, DataType::U8).unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--numerics", "original"]);
    for case in read_json(&golden("labels/flow_labels.json")).as_array().unwrap() {
        let reset = server.post_json("/flow/update", &json!({"dataset_name": "tiny", "reset": true}));
        assert_eq!(reset.json(), json!({"completed": true}));
        let scales: Value = case["scales_zyx"].as_array().unwrap().iter().rev().cloned().collect();
        let norm: Vec<f64> =
            case["flow_norm_factor_xyz"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        // As the client sends it, and with what it does not send where the case needs it.
        let mut request = json!({"dataset_name": "tiny", "reset": false, "max_displacement": norm[0], "scales": scales,
            "spots": case["spots"], "is_3d": true, "use_memmap": true});
        if norm[2] != norm[0] {
            request["n_keep_axials"] = json!((norm[0] / norm[2]).log2());
        }
        let reply = server.post_json("/flow/update", &request);
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"completed":true}"#), "{}", case["name"]);
        let dataset = Dataset::open(&folder.path().join("datasets/tiny")).unwrap();
        let attributes = serde_json::to_value(dataset.store(Store::FlowLabels).attributes().unwrap()).unwrap();
        for (key, value) in case["attrs"].as_object().unwrap() {
            assert_eq!(&attributes[key], value, "{} {key}", case["name"]);
        }
        for (t, expected) in case["timepoints"].as_object().unwrap() {
            assert_eq!(sha256(&dataset, t.parse().unwrap()), expected["sha256"].as_str().unwrap(), "{t}");
        }
    }
}

/// The files of a pair's field, by their inodes, which change when they are replaced.
fn field_files(workspace: &Path, pair: usize) -> Vec<(String, u64)> {
    let folder = workspace.join("datasets/fly/flow_outputs.zarr");
    let entries = folder.read_dir().unwrap().map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino()));
    let mut files: Vec<_> = files.filter(|(name, _)| name.starts_with(&format!("{pair}."))).collect();
    files.sort();
    files
}

/// The squared radius of cells, which are balls, in square micrometres.
const VARIANCE: f64 = 6.1;

/// A request for cells of the demo movie; places in voxels (x, y, z).
fn request(scales: [f64; 3], places: &[[f64; 3]]) -> Value {
    let spot = |(id, place): (usize, &[f64; 3])| {
        let pos: Vec<f64> = place.iter().zip(scales).map(|(at, edge)| at * edge).collect();
        json!({"pos": pos, "covariance": [VARIANCE, 0, 0, 0, VARIANCE, 0, 0, 0, VARIANCE], "id": id})
    };
    let spots: Vec<Value> = places.iter().enumerate().map(spot).collect();
    json!({"dataset_name": "fly", "model_name": "flow.pth", "debug": false, "output_prediction": false,
        "max_displacement": 80, "scales": scales, "n_keep_axials": 2, "cache_maxbytes": 0, "is_3d": true, "use_memmap": true,
        "batch_size": 1, "patch": [384, 384, 24], "timepoint": 2, "spots": spots})
}

#[test]
fn displacements_are_computed_once_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let reset = json!({"model_name": "flow.pth", "n_keep_axials": 2, "is_3d": true, "url": null});
    assert_eq!(server.post_json("/flow/reset", &reset).json(), json!({"completed": true}));
    let request = request(movie.scales, &[[24.0, 24.0, 8.0], [10.0, 30.0, 6.0], [900.0, 0.0, 0.0]]);
    let first = server.post_json("/flow/predict", &request);
    assert_eq!(first.status, 200, "{}", first.text());
    let files = field_files(folder.path(), 1);
    assert!(!files.is_empty() && field_files(folder.path(), 0).is_empty());

    // The answers are the means of what is in the dataset.
    let dataset = Dataset::open(&folder.path().join("datasets/fly")).unwrap();
    let [_, depth, height, width] = movie.shape;
    let mut field = Array4::zeros((3, depth, height, width));
    dataset.read_flow(1, [0; 3], field.view_mut()).unwrap();
    let reply = first.json();
    for (index, spot) in request["spots"].as_array().unwrap().iter().enumerate() {
        let center = [0, 1, 2].map(|axis| spot["pos"][axis].as_f64().unwrap());
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for ((_, z, y, x), _) in field.indexed_iter().filter(|((channel, ..), _)| *channel == 0) {
            let away = |axis: usize, at: usize| (at as f64 * movie.scales[axis] - center[axis]).powi(2);
            if away(0, x) + away(1, y) + away(2, z) < VARIANCE {
                (0..3).for_each(|axis| sum[axis] += f64::from(field[[axis, z, y, x]]));
                count += 1.0;
            }
        }
        assert!(index == 2 || count >= 9.0, "{count} voxels");
        let displacement: [f64; 3] = std::array::from_fn(|axis| sum[axis] / f64::max(count, 1.0) * movie.scales[axis]);
        let (answer, square) = (&reply["spots"][index], displacement.iter().map(|part| part * part).sum::<f64>());
        assert_eq!(answer["id"], index);
        for axis in 0..3 {
            let found = answer["pos"][axis].as_f64().unwrap() - center[axis];
            assert!((found - displacement[axis]).abs() < 1e-9, "{answer} {displacement:?}");
        }
        assert!((answer["sqdisp"].as_f64().unwrap() - square).abs() < 1e-9, "{answer}");
        assert!((square > 0.0) == (index < 2), "only the cell outside the image stays where it is");
    }

    assert_eq!(server.post_json("/predict/flow", &request).json(), reply);
    assert_eq!(field_files(folder.path(), 1), files, "nothing was computed");
    server.kill();
    drop(server);
    let server = TestServer::start(BINARY, folder.path(), &[]);
    assert_eq!(server.post_json("/flow/predict", &request).json(), reply);
    assert_eq!(field_files(folder.path(), 1), files, "nothing was computed after the restart");
    // What was deleted or damaged meanwhile is computed again.
    let stored = folder.path().join("datasets/fly/flow_outputs.zarr");
    for spoil in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "damaged").unwrap()] {
        for (name, _) in &field_files(folder.path(), 1) {
            spoil(&stored.join(name));
        }
        assert_eq!(server.post_json("/flow/predict", &request).json(), reply);
        assert_eq!(field_files(folder.path(), 1).len(), files.len());
    }
    for wrong in [json!(1e308), json!(1e-308), json!(0)] {
        let mut other = request.clone();
        other["max_displacement"] = wrong;
        let refused = server.post_json("/flow/predict", &other);
        assert_eq!(refused.status, 400);
        assert!(refused.error().contains("max_displacement must be 0.001 to 10000"), "{}", refused.error());
    }
    let mut other = request.clone();
    other["max_displacement"] = json!(40);
    assert_ne!(server.post_json("/flow/predict", &other).json(), reply);

    // As Backtrack asks, with the box of its last action.
    let mut backtrack = request.clone();
    backtrack["spots"] = json!([request["spots"][0]]);
    backtrack["crop_box"] = json!([0, 0, 0, 32, 32, 16]);
    backtrack["timepoint"] = json!(3);
    let spots = server.post_json("/flow/predict", &backtrack).json()["spots"].clone();
    assert!(spots.as_array().unwrap().len() == 1 && spots[0]["sqdisp"].as_f64().unwrap() > 0.0, "{spots}");
    assert!(field_files(folder.path(), 2).is_empty(), "a crop is not kept");
}

#[test]
fn frames_of_two_dimensions_have_displacements_in_the_plane() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_movie();
    server.upload("fly", "movie.h5", &movie.content, 1 << 20);
    assert_eq!(server.post_json("/dataset/generate", &json!({"dataset_name": "fly", "is_2d": true})).status, 200);
    // The built-in network answers, as there is no model yet.
    let mut request = request(movie.scales, &[[24.0, 24.0, 8.0]]);
    request["is_3d"] = json!(false);
    let reply = server.post_json("/flow/predict", &request);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = &reply.json()["spots"][0];
    assert_eq!(answer["pos"][2], 0.0);
    assert!(answer["sqdisp"].as_f64().unwrap() > 0.0);
    assert_eq!(server.post_json("/flow/predict", &request).json(), reply.json());
    let link =
        json!({"t": 1, "pos": [10, 10, 0], "covariance": [4, 0, 0, 0, 4, 0, 0, 0, 1], "displacement": [1, -2, 0]});
    let update = json!({"dataset_name": "fly", "scales": movie.scales, "spots": [link], "is_3d": false});
    assert_eq!(server.post_json("/flow/update", &update).json(), json!({"completed": true}));
    let dataset = Dataset::open(&folder.path().join("datasets/fly")).unwrap();
    let [x, y] = [0, 1].map(|axis| (10.0 / movie.scales[axis]).round() as usize);
    let mut label = ArrayD::<f32>::zeros(IxDyn(&[1, 3, 1, 1]));
    dataset.store(Store::FlowLabels).read(&[1, 0, y, x], label.view_mut()).unwrap();
    let expected = [1.0 / movie.scales[0] / 80.0, -2.0 / movie.scales[1] / 80.0, 1.0];
    assert!(label.iter().zip(expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-6), "{label}");
}

#[test]
fn a_flow_network_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let reset = json!({"model_name": "flow.pth", "is_3d": true, "url": null});
    assert_eq!(server.post_json("/flow/reset", &reset).status, 200);
    let model = folder.path().join("models/flow.pth");
    let before = fs::read(&model).unwrap();
    let pos: Vec<f64> = [24.0, 24.0, 8.0].iter().zip(movie.scales).map(|(at, edge)| at * edge).collect();
    let link = json!({"t": 1, "pos": pos, "covariance": [6, 0, 0, 0, 6, 0, 0, 0, 6], "displacement": [1, -0.5, 0.25]});
    let training = json!({"dataset_name": "fly", "spots": [link], "model_name": "flow.pth", "batch_size": 1, "n_crops": 1,
        "n_epochs": 2, "lr": 0.001, "max_displacement": 80, "scales": movie.scales, "crop_size": [32, 32, 8],
        "dim_weights": [1, 1, 1], "n_keep_axials": 2, "log_interval": 1, "log_dir": "flow_log", "is_3d": true});
    let reply = server.post_json("/flow/train", &training);
    assert_eq!((reply.status, reply.json()), (200, json!({"completed": true})), "{}", reply.text());
    assert_ne!(fs::read(&model).unwrap(), before);
    let log = fs::read_dir(folder.path().join("logs/flow_log")).unwrap().next().unwrap().unwrap().path();
    let log = fs::read(log).unwrap();
    for tag in ["train_loss", "instance_loss", "SSIM_loss", "smooth_loss"] {
        assert!(log.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
    let jobs = server.get("/v1/jobs?kind=train_flow").json();
    assert!(jobs.to_string().contains("completed"), "{jobs}");
}
