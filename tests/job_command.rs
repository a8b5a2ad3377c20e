//! `elephant-server job`: one request without a server.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{BINARY, demo_movie};
use elephant_testkit::TestServer;
use serde_json::{Value, json};

/// Runs the request, which comes from standard input.
fn run(workspace: &Path, request: &Value) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["job", "-", "--workspace"]).arg(workspace);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_request_is_run_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = folder.path().join("datasets/fly");
    std::fs::create_dir_all(&dataset).unwrap();
    std::fs::write(dataset.join("movie.h5"), demo_movie().content).unwrap();
    let generate = json!({"generate": {"dataset": "fly"}});
    let output = run(folder.path(), &generate);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"ready\":true}\n");
    assert!(dataset.join("imgs.zarr").exists());
    let failed = run(folder.path(), &json!({"erase_labels": {"dataset": "nobody"}}));
    assert!(error(&failed).contains("the dataset does not exist: nobody"));
    let wrong = run(folder.path(), &json!({"generate": {"dataset": "fly", "divsor": 2}}));
    assert!(
        error(&wrong).contains("standard input is not a request: generate.divsor: unknown field `divsor`"),
        "{}",
        error(&wrong)
    );

    let server = TestServer::start(BINARY, folder.path(), &[]);
    let jobs = server.get("/v1/jobs").json();
    let statuses: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failed", "completed"], "its records stay in the workspace");
    let refused = error(&run(folder.path(), &generate));
    assert!(refused.contains("/v1/jobs?wait=true") && refused.contains("the server on 127.0.0.1"), "{refused}");
    let served = server.post_json("/v1/jobs?wait=true", &generate);
    assert_eq!((served.status, &served.json()["result"]), (200, &json!({"ready": true})));
}
