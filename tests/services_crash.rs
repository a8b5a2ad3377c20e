//! kill -9 with each store: the next start reports the interrupted jobs and is not blocked by them.

#![allow(clippy::disallowed_methods)]

mod common;

use std::process::Command;

use common::{BINARY, demo_dataset, with_redis};
use elephant_testkit::{RedisServer, TestServer, eventually};
use serde_json::json;

#[test]
fn killed_with_sqlite() {
    killed(&[]);
}

#[test]
fn killed_with_redis() {
    with_redis(killed);
}

fn killed(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(BINARY, folder.path(), arguments);
    let movie = demo_dataset(&server, "fly");
    let quick = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let mut long = quick.clone();
    long["input_size"] = json!([1024, 1024, 64]);
    long["patch"] = json!([128, 128, 16]);
    let url = server.url().to_owned();
    let client = std::thread::spawn(move || {
        let request = ureq::post(format!("{url}/seg/predict")).header("content-type", "application/json");
        request.send(long.to_string().as_bytes())
    });
    server.wait_for_state(2);
    server.kill();
    assert!(client.join().unwrap().is_err());

    let log = folder.path().join("log.txt");
    let mut command = Command::new(BINARY);
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = TestServer::start_by(command, folder.path(), arguments);
    assert_eq!(server.get("/state/process").json()["state"], 0, "it is not stuck");
    let interrupted = server.get("/api/v1/jobs?status=interrupted").json();
    let jobs = interrupted.as_array().unwrap();
    assert_eq!(jobs.len(), 1, "{interrupted}");
    assert_eq!((&jobs[0]["kind"], &jobs[0]["subject"]), (&json!("predict"), &json!("fly")));
    assert!(jobs[0]["ended_at"].as_f64() >= jobs[0]["begun_at"].as_f64());
    assert_eq!(server.get("/api/v1/jobs?status=running").json(), json!([]));
    let log_text = std::fs::read_to_string(&log).unwrap();
    assert!(log_text.contains("interrupted when the server was killed"), "{log_text}");
    assert_eq!(server.post_json("/seg/predict", &quick).json()["completed"], true);
    let newest = server.get("/api/v1/jobs?limit=1").json();
    assert_eq!(newest[0]["status"], "completed", "{newest}");
}

#[test]
fn a_server_starts_before_its_redis() {
    let Some(mut redis) = RedisServer::start() else { return };
    redis.kill();
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--redis-url", &redis.url()]);
    assert_eq!(server.get("/health/livez").status, 200);
    assert_eq!(server.get("/health/readyz").status, 503);
    redis.restart();
    eventually("it finds its Redis", || server.get("/health/readyz").status == 200);
    demo_dataset(&server, "fly");
}

#[test]
fn wrong_addresses_are_reported_without_their_passwords() {
    let folder = tempfile::tempdir().unwrap();
    for (option, value, advice) in [
        ("--redis-url", "http://:s3cret@host", "redis://HOST:PORT/DB"),
        ("--redis-url", "redis://:s3cret@host:99999", "redis://HOST:PORT/DB"),
        ("--amqp-url", "amqp://me:s3cret@host:99999", "amqp://USER:PASSWORD@HOST:PORT/VHOST"),
        ("--amqp-url", "amqps://me:s3cret@host", "through a tunnel"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--bind", "127.0.0.1:0", "--workspace"]).arg(folder.path()).args([option, value]);
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(option) && message.contains(advice), "{value}: {message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
}
