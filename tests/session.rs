//! A session of the Java client over HTTP: upload, check, generate, reset, predict, download.

mod common;

use common::{BINARY, CLIENT_PREDICT, demo_movie};
use elephant_testkit::{TestServer, shared};
use serde_json::{Value, json};

/// Size of a piece. The client's pieces have 10 MiB; smaller ones split a small file into several pieces.
const CHUNK: usize = 300_000;

/// A movie from a client's point of view.
struct Movie {
    dataset: &'static str,
    name: &'static str,
    content: Vec<u8>,
    /// (t, z, y, x).
    shape: [usize; 4],
    /// (x, y, z).
    scales: [f64; 3],
}

impl Movie {
    fn session(&self, model: Option<Vec<u8>>) -> (TestServer, Value, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let server = TestServer::start(BINARY, folder.path(), &[]);
        let check = json!({"dataset_name": self.dataset, "shape": self.shape});
        let generate = json!({"dataset_name": self.dataset, "is_2d": false});

        let message = server.post_json("/dataset/check", &check).json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("imgs.zarr is not found"), "{message}");
        assert_eq!(server.post_json("/dataset/generate", &generate).status, 204, "there is no movie yet");
        server.upload(self.dataset, self.name, &self.content, CHUNK);
        let generated = server.post_json("/dataset/generate", &generate);
        assert_eq!((generated.status, generated.text().as_str()), (200, "\"\""));
        assert_eq!(server.post_json("/dataset/check", &check).json()["message"], "ready");

        let reset = match model {
            // The parts in the client's order: the JSON first, then the file.
            Some(file) => {
                let data =
                    json!({"dataset_name": self.dataset, "model_name": "detection.pth", "is_3d": true, "url": null});
                server.post_parts("/seg/reset", &[("data", data.to_string().as_bytes()), ("file:a.pth", &file)])
            }
            None => server.post_json("/seg/reset", &json!({"model_name": "detection.pth", "is_3d": true, "url": null})),
        };
        assert_eq!((reset.status, reset.json()), (200, json!({"completed": true})));

        let [_, z, y, x] = self.shape;
        let mut predict: Value = serde_json::from_str(CLIENT_PREDICT).unwrap();
        predict["dataset_name"] = self.dataset.into();
        predict["scales"] = json!(self.scales);
        predict["input_size"] = json!([x, y, z]);
        let reply = server.post_json("/seg/predict", &predict);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["completed"], true);
        (server, predict, folder)
    }
}

#[test]
fn the_real_sample() {
    let Some(sample) = shared("data/elephant-track_elephant-client/sample.h5") else { return };
    let Some(model) = shared("oracle/trained/seg_tiny.pth") else { return };
    let movie = Movie {
        dataset: "dataset",
        name: "sample.h5",
        content: std::fs::read(sample).unwrap(),
        shape: [5, 8, 256, 256],
        scales: [0.276_755_320_621_038_9, 0.276_755_320_621_038_9, 2.160_544_461_149_242_6],
    };
    let (server, mut predict, _folder) = movie.session(Some(std::fs::read(&model).unwrap()));
    for timepoint in 0..5 {
        predict["timepoint"] = timepoint.into();
        let reply = server.post_json("/seg/predict", &predict).json();
        let spots = reply["spots"].as_array().unwrap();
        assert!(!spots.is_empty(), "the trained network finds nuclei at {timepoint}");
        for spot in spots {
            assert_spot(spot, timepoint, &movie);
        }
    }
    let downloaded = server.post_json("/download/model", &json!({"model_name": "detection.pth"}));
    assert_eq!(downloaded.status, 200);
    assert_eq!(&downloaded.body[..2], b"PK");
    // The same prediction around the mouse finds cells inside the box only.
    predict["crop_box"] = json!([20, 30, 1, 128, 100, 6]);
    let reply = server.post_json("/seg/predict", &predict).json();
    for spot in reply["spots"].as_array().unwrap() {
        let x = spot["pos"][0].as_f64().unwrap() / movie.scales[0];
        assert!((20.0..148.0).contains(&x), "{x}");
    }
    assert!(server.terminate(), "it ends well");
}

#[test]
fn a_synthetic_movie() {
    let movie = demo_movie();
    let (server, predict, _folder) = Movie {
        dataset: "lab/fly1",
        name: "fly1.h5",
        content: movie.content,
        shape: movie.shape,
        scales: movie.scales,
    }
    .session(None);
    let first = server.post_json("/seg/predict", &predict).json();
    assert_eq!(first, server.post_json("/seg/predict", &predict).json(), "the same input gives the same answer");
    assert_eq!(first, server.post_json("/predict/seg", &predict).json(), "also under its old name");
}

/// Types exactly as the client reads them (docs/protocol.md, "POST /seg/predict").
fn assert_spot(spot: &Value, timepoint: i32, movie: &Movie) {
    assert!(spot["t"].is_u64() && spot["t"] == timepoint);
    let pos: Vec<f64> = spot["pos"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let [_, z, y, x] = movie.shape;
    for (value, (edge, scale)) in pos.iter().zip([x, y, z].into_iter().zip(movie.scales)) {
        assert!((0.0..=(edge - 1) as f64 * scale).contains(value), "{pos:?}");
    }
    let covariance: Vec<f64> = spot["covariance"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(covariance.len(), 9);
    for (i, j) in [(1, 3), (2, 6), (5, 7)] {
        assert!((covariance[i] - covariance[j]).abs() < 1e-9, "symmetric");
    }
    assert!(covariance[0] > 0.0 && covariance[4] > 0.0 && covariance[8] > 0.0);
    assert!((0.5..=1.0).contains(&spot["quality"].as_f64().unwrap()));
}
