//! A session with the state in Redis and progress through RabbitMQ, with outages of both.

#![allow(clippy::disallowed_methods)]

mod common;

use common::{BINARY, client::Client, demo_dataset};
use elephant_testkit::{Broker, RedisServer, TestServer, eventually};
use serde_json::json;

#[test]
fn a_session() {
    let (Some(redis), Some(broker)) = (RedisServer::start(), Broker::new_vhost()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&broker);
    let (mut dataset, mut log) = (client.consume("dataset"), client.consume("log"));
    let server = TestServer::start(BINARY, folder.path(), &["--redis-url", &redis.url(), "--amqp-url", &broker]);
    let movie = demo_dataset(&server, "fly");
    let frames = movie.shape[0];
    for frame in 1..=frames {
        assert_eq!(client.next(&mut dataset), format!(r#"{{"t_max":{frames},"t_current":{frame}}}"#));
    }
    client.await_log(&mut log, "START POST /dataset/generate");
    client.await_log(&mut log, "DONE POST /dataset/generate => [200 OK]");
    let predict = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    assert_eq!(server.post_json("/seg/predict", &predict).json()["completed"], true);
    client.await_log(&mut log, "DONE POST /seg/predict => [200 OK]");
    assert_eq!(server.post_json("/seg/predict", &json!({})).status, 400);
    client.await_log(&mut log, "DONE POST /seg/predict => [400 Bad Request]");
    server.post_json("/params", &json!({"lr": 0.001, "n_crops": 5}));
    assert_eq!(["state", "lr", "n_crops"].map(|key| redis.command(&["GET", key])), ["0", "0.001", "5"]);
    let ready = server.get("/health/readyz").json();
    assert_eq!((&ready["status"], &ready["broker"]), (&json!("ok"), &json!("connected")));
    assert!(ready["state"].as_str().unwrap().starts_with("Redis at "), "{ready}");
    assert!(!folder.path().join("elephant.db").exists(), "the state is not stored twice");
    assert!(server.terminate());
}

#[test]
fn outages_of_the_broker() {
    let Some(broker) = Broker::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--amqp-url", &broker.url()]);
    let movie = demo_dataset(&server, "fly");
    let predict = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let spots = server.post_json("/seg/predict", &predict).json();
    let state = || server.get("/health/readyz").json()["broker"].as_str().unwrap().to_owned();
    eventually("it is connected", || state() == "connected");
    broker.kill();
    for _ in 0..3 {
        assert_eq!(server.post_json("/seg/predict", &predict).json(), spots);
    }
    demo_dataset(&server, "fly2");
    eventually("the outage is noticed", || state().starts_with("down: 127.0.0.1:"));
    assert_eq!(server.get("/health/readyz").status, 200, "the server works without it");
    broker.restart();
    let client = Client::connect(&broker.url());
    let mut log = client.consume("log");
    assert_eq!(server.post_json("/seg/predict", &predict).json(), spots);
    client.await_log(&mut log, "DONE POST /seg/predict => [200 OK]");
}

#[test]
fn redis_is_restarted_during_a_job() {
    let Some(mut redis) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--redis-url", &redis.url()]);
    let movie = demo_dataset(&server, "fly");
    let mut long = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let quick = long.clone();
    long["input_size"] = json!([1024, 1024, 64]);
    long["patch"] = json!([128, 128, 16]);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post_json("/seg/predict", &long));
        server.wait_for_state(2);
        let id = server.get("/api/v1/jobs?limit=1").json()[0]["id"].as_u64().unwrap();
        redis.kill();
        for reply in [
            server.get("/health/readyz"),
            server.get("/state/process"),
            server.get("/params"),
            server.get("/api/v1/jobs"),
            server.post_json("/params", &json!({"lr": 1})),
            server.post_json("/seg/predict", &quick),
        ] {
            assert_eq!(reply.status, 503, "{}", reply.text());
            assert!(reply.error().contains("cannot be reached"), "{}", reply.error());
        }
        assert_eq!(server.get("/health/livez").status, 200);
        let job = server.get(&format!("/api/v1/jobs/{id}")).json();
        assert_eq!(job["status"], "running", "running jobs are known without Redis");
        assert_eq!(server.post_json("/state/process", &json!({"state": 0})).status, 200, "it can be aborted");
        assert_eq!(running.join().unwrap().json(), json!({"completed": false, "spots": []}));
        redis.restart();
        eventually("it is ready", || server.get("/health/readyz").status == 200);
        eventually("the end is recorded", || {
            let job = server.get(&format!("/api/v1/jobs/{id}"));
            job.status == 200 && job.json()["status"] == "cancelled"
        });
        assert_eq!(server.get("/state/process").json()["state"], 0);
        assert_eq!(server.post_json("/seg/predict", &quick).json()["completed"], true);
    });
}
