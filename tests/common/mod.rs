//! Shared by the tests over real HTTP.

#![allow(dead_code, reason = "each test uses its part")]

pub mod client;

use std::process::{Command, Stdio};

use elephant_synth::{EmbryoOptions, Preset, write_movie};
use elephant_testkit::{RedisServer, TestServer};
use elephant_types::TaskContext;
use serde_json::{Value, json};

/// The server under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_elephant-server");

/// What the client sends for the first frame of its sample (docs/protocol.md, "POST /seg/predict"), numbers as Java
/// prints them.
pub const CLIENT_PREDICT: &str = r#"{"dataset_name":"dataset","model_name":"detection.pth","n_keep_axials":3,
    "scales":[0.2767553206210389,0.2767553206210389,2.1605444611492426],"c_ratio":0.4,"p_thresh":0.5,"r_min":1,"r_max":5,
    "debug":false,"output_prediction":false,"use_median":false,"is_pad":true,"cache_maxbytes":1073741824,"is_3d":true,
    "use_2d":false,"use_memmap":true,"batch_size":1,"input_size":[256,256,8],"patch":[384,384,24],"timepoint":0}"#;

/// A movie created for a test.
pub struct DemoMovie {
    pub content: Vec<u8>,
    /// (t, z, y, x).
    pub shape: [usize; 4],
    /// (x, y, z).
    pub scales: [f64; 3],
}

/// The smallest synthetic embryo.
pub fn demo_movie() -> DemoMovie {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbryoOptions::preset(Preset::Tiny, 0);
    write_movie(folder.path(), &"movie".parse().unwrap(), &options, &TaskContext::detached()).unwrap();
    let [z, y, x] = options.shape;
    let [dz, dy, dx] = options.voxel_size.zyx();
    DemoMovie {
        content: std::fs::read(folder.path().join("movie.h5")).unwrap(),
        shape: [options.timepoints, z, y, x],
        scales: [dx, dy, dz],
    }
}

/// A running server with a dataset of the smallest synthetic embryo and a random model.
pub fn demo_dataset(server: &TestServer, dataset: &str) -> DemoMovie {
    let movie = demo_movie();
    server.upload(dataset, "movie.h5", &movie.content, 1 << 20);
    let generated = server.post_json("/dataset/generate", &json!({"dataset_name": dataset, "is_2d": false}));
    assert_eq!(generated.status, 200, "{}", generated.text());
    let reset = server.post_json("/seg/reset", &json!({"model_name": "detection.pth", "is_3d": true, "url": null}));
    assert_eq!(reset.status, 200, "{}", reset.text());
    movie
}

/// A training request with one small crop per epoch, for `epochs` epochs.
pub fn training(movie: &DemoMovie, epochs: u32) -> Value {
    let [_, z, y, x] = movie.shape;
    let [dx, dy, dz] = movie.scales;
    let center = [x as f64 * dx / 2.0, y as f64 * dy / 2.0, z as f64 * dz / 2.0];
    json!({"dataset_name": "fly", "model_name": "detection.pth", "scales": movie.scales, "n_keep_axials": 2,
        "crop_size": [32, 32, 8], "n_crops": 1, "n_epochs": epochs, "is_3d": true, "log_dir": "detection_log",
        "spots": [{"t": 0, "pos": center, "covariance": [9, 0, 0, 0, 9, 0, 0, 0, 9], "tag": "tp"}]})
}

/// Runs a test with the arguments for a server that uses a separate Redis, and checks that no job is running at the
/// end.
pub fn with_redis(test: impl FnOnce(&[&str])) {
    let Some(redis) = RedisServer::start() else { return };
    test(&["--redis-url", &redis.url()]);
    assert_eq!(redis.command(&["GET", "state"]), "0");
}

/// Runs a command in a new mount namespace, in which the folder `$1` is a disk of `$2` MiB.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size="$2"m none "$1" && shift 2 && exec "$@""#;

fn on_small_disk(workspace: &std::path::Path, mib: u32) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", SMALL_DISK, "sh"]).arg(workspace).arg(mib.to_string());
    command
}

/// A server on such a disk. `None`, and the test is skipped, if mounting is not permitted.
pub fn server_on_small_disk(workspace: &std::path::Path, mib: u32) -> Option<TestServer> {
    let probe = on_small_disk(workspace, mib).arg("true").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        elephant_testkit::skip("mounting a disk in a namespace is not permitted on this machine");
        return None;
    }
    let mut command = on_small_disk(workspace, mib);
    command.arg(BINARY);
    Some(TestServer::start_by(command, workspace, &[]))
}
