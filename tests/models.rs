//! Models over HTTP: the built-in networks replace missing models, and every model's origin is reported.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{fs, path::Path};

use common::{BINARY, DemoMovie, demo_movie, training};
use elephant_bdv::BdvWriter;
use elephant_checkpoint::Checkpoint;
use elephant_testkit::TestServer;
use elephant_types::VoxelSize;
use ndarray::Array3;
use serde_json::{Value, json};

/// Allows no host for downloads, as if there were no network.
const OFFLINE: [&str; 2] = ["--model-hosts", "none.invalid"];

fn server_with_movie(arguments: &[&str]) -> (TestServer, DemoMovie, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), arguments);
    let movie = demo_movie();
    server.upload("fly", "movie.h5", &movie.content, 1 << 20);
    let generated = server.post_json("/dataset/generate", &json!({"dataset_name": "fly", "is_2d": false}));
    assert_eq!(generated.status, 200, "{}", generated.text());
    (server, movie, folder)
}

fn predict(server: &TestServer, scales: [f64; 3], more: &Value) -> Value {
    let mut body =
        json!({"dataset_name": "fly", "timepoint": 0, "scales": scales, "n_keep_axials": 2, "r_min": 1, "r_max": 8});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let reply = server.post_json("/seg/predict", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["spots"].clone()
}

fn newest_job(server: &TestServer, kind: &str) -> Value {
    server.get(&format!("/api/v1/jobs?kind={kind}&limit=1")).json()[0].clone()
}

#[test]
fn the_first_prediction_needs_no_model_and_no_network() {
    let (server, movie, _folder) = server_with_movie(&OFFLINE);
    let spots = predict(&server, movie.scales, &json!({}));
    // The smallest embryo has five nuclei.
    let found = spots.as_array().unwrap().len();
    assert!((4..=6).contains(&found), "{spots}");
    let note = newest_job(&server, "predict")["note"].clone();
    assert_eq!(note, "the 3-D network is the built-in one");
    predict(&server, movie.scales, &json!({"use_2d": true, "model_name": "lab/planes.pth"}));
    assert_eq!(newest_job(&server, "predict")["note"], "the 2-D network is the built-in one");

    fs::write(server.workspace().join("models/notes.pth"), "not a model").unwrap();
    let listed = server.get("/api/v1/models").json();
    let models = listed["models"].as_array().unwrap();
    let names: Vec<_> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["detection.pth", "lab/planes.pth", "notes.pth"]);
    let kinds: Vec<_> = models.iter().map(|model| model["kind"].clone()).collect();
    assert_eq!(kinds, [json!("3-D"), json!("2-D"), Value::Null]);
    assert!(models[2]["error"].as_str().is_some_and(|error| !error.is_empty()), "{listed}");
    let built_in = listed["built_in"].as_array().unwrap();
    let tasks: Vec<_> = built_in.iter().map(|model| model["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["detection", "detection", "flow", "flow"], "{listed}");
    for (model, built_in) in models.iter().zip(&built_in[..2]) {
        assert_eq!(model["origin"], built_in["origin"]);
        assert_eq!(model["steps"], built_in["steps"]);
        assert!(model["origin"].as_str().unwrap().contains("synthetic"), "{listed}");
        assert!(model["steps"].as_u64().unwrap() >= 1000 && model["date"].is_number(), "{listed}");
    }
}

#[test]
fn versatile_is_the_built_in_network_if_the_original_cannot_be_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &OFFLINE);
    let reset = json!({"model_name": "detection.pth", "url": "Versatile", "is_3d": true});
    assert_eq!(server.post_json("/seg/reset", &reset).json(), json!({"completed": true}));
    let job = newest_job(&server, "reset");
    let note = job["note"].as_str().unwrap();
    assert!(note.starts_with("the 3-D network is the built-in one, as the original's cannot be had ("), "{note}");
    // There is no replacement for a URL of the caller.
    let url = json!({"model_name": "detection.pth", "url": "https://elsewhere.invalid/a.pth", "is_3d": true});
    assert_eq!(server.post_json("/seg/reset", &url).status, 400);
}

#[test]
fn a_configured_network_replaces_both() {
    let (server, movie, folder) = server_with_movie(&OFFLINE);
    let reset = json!({"model_name": "own.pth", "url": null, "is_3d": true, "seed": 3});
    assert_eq!(server.post_json("/seg/reset", &reset).status, 200);
    let own = folder.path().join("own.pth");
    fs::copy(server.workspace().join("models/own.pth"), &own).unwrap();
    assert!(server.terminate());
    let server = TestServer::start(BINARY, folder.path(), &["--versatile-3d", own.to_str().unwrap()]);
    predict(&server, movie.scales, &json!({}));
    let read = |path: &Path| Checkpoint::read(path).unwrap();
    let taken = read(&server.workspace().join("models/detection.pth"));
    assert_eq!(taken.fingerprint(), read(&own).fingerprint());
    assert_eq!(taken.provenance.unwrap().origin, "random parameters, seed 3");
}

#[test]
fn training_steps_are_counted_from_the_origin() {
    let (server, movie, _folder) = server_with_movie(&OFFLINE);
    let detection = || server.get("/api/v1/models").json()["models"][0].clone();
    let steps = |model: &Value| model["steps"].as_u64().unwrap();
    for epochs in [2, 3] {
        assert_eq!(server.post_json("/seg/train", &training(&movie, epochs)).status, 200);
    }
    let built_in = server.get("/api/v1/models").json()["built_in"][0].clone();
    let trained = detection();
    assert_eq!(trained["origin"], built_in["origin"]);
    assert_eq!(steps(&trained), steps(&built_in) + 5);
}

#[test]
fn nothing_is_found_in_empty_frames() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &OFFLINE);
    let shape = [16, 64, 64];
    let movie = folder.path().join("datasets/fly/fly.h5");
    fs::create_dir_all(movie.parent().unwrap()).unwrap();
    let mut state = 1_u64;
    let noise = |spread: u64| {
        Array3::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The sum of some uniform numbers is approximately normal.
            100 + (0..4).map(|i| (state >> (8 * i)) % spread).sum::<u64>() as u16
        })
    };
    let mut frames = vec![Array3::zeros(shape)];
    frames.extend([2, 40, 255].map(noise));
    let mut writer = BdvWriter::create(&movie, shape, VoxelSize::new([2.0, 0.5, 0.5]).unwrap()).unwrap();
    for frame in &frames {
        writer.append(frame.view()).unwrap();
    }
    writer.finish().unwrap();
    let generated = server.post_json("/dataset/generate", &json!({"dataset_name": "fly", "is_2d": false}));
    assert_eq!(generated.status, 200, "{}", generated.text());
    for t in 0..frames.len() {
        for more in [json!({"timepoint": t}), json!({"timepoint": t, "use_2d": true, "model_name": "planes.pth"})] {
            assert_eq!(predict(&server, [0.5, 0.5, 2.0], &more), json!([]), "frame {t}");
        }
    }
}
