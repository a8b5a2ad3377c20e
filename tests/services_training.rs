//! Training during an outage of Redis, and kill -9 during a training with each store.

mod common;

use common::{BINARY, client::Client, demo_dataset, training, with_redis};
use elephant_testkit::{Broker, RedisServer, TestServer, eventually, eventually_some};
use serde_json::{Value, json};

/// The running training, after it has made `steps` steps.
fn running_training(server: &TestServer, steps: u64) -> Value {
    let running = || server.get("/api/v1/jobs?kind=train&status=running").json()[0]["id"].as_u64();
    after(server, eventually_some("a training runs", running), steps)
}

fn after(server: &TestServer, id: u64, steps: u64) -> Value {
    eventually_some(&format!("{steps} steps are made"), || {
        let job = server.get(&format!("/api/v1/jobs/{id}")).json();
        assert_eq!(job["status"], "running", "{job}");
        job["progress"]["step"].as_u64().is_some_and(|step| step >= steps).then_some(job)
    })
}

#[test]
fn a_training_survives_an_outage_of_redis() {
    let Some(mut redis) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--redis-url", &redis.url()]);
    let movie = demo_dataset(&server, "fly");
    let request = training(&movie, 1_000_000);
    std::thread::scope(|scope| {
        let trained = scope.spawn(|| server.post_json("/seg/train", &request));
        let job = running_training(&server, 2);
        let id = job["id"].as_u64().unwrap();
        assert_eq!(redis.command(&["GET", "state"]), "1");
        redis.kill();
        let step = after(&server, id, 0)["progress"]["step"].as_u64().unwrap();
        after(&server, id, step + 3);
        let refused = server.post_json("/seg/train", &request);
        assert_eq!((refused.status, refused.error().as_str()), (500, "Process is running"));
        redis.restart();
        eventually("the state is in Redis again", || redis.command(&["GET", "state"]) == "1");
        let curve = after(&server, id, step + 5)["losses"].as_array().unwrap().clone();
        assert!(curve.len() as u64 >= step + 5);
        assert!(curve.iter().all(|point| point["loss"].is_number() && point["parts"].is_object()));
        assert_eq!(server.delete(&format!("/api/v1/jobs/{id}")).status, 202);
        assert_eq!(trained.join().unwrap().json(), json!({"completed": false}));
        let ended = server.get(&format!("/api/v1/jobs/{id}")).json();
        assert_eq!(ended["status"], "cancelled");
        assert!(ended["losses"].as_array().unwrap().len() >= curve.len(), "the curve is kept");
    });
    assert_eq!(redis.command(&["GET", "state"]), "0");
}

#[test]
fn one_of_fifty_trainings_runs() {
    let Some(redis) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--redis-url", &redis.url()]);
    let request = training(&demo_dataset(&server, "fly"), 1_000_000);
    let replies = std::thread::scope(|scope| {
        let train = || server.post_json("/seg/train", &request);
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(train)).collect();
        // The running one is stopped after all others have been refused.
        let finished = || clients.iter().filter(|client| client.is_finished()).count();
        eventually("all but one are refused", || finished() == 49);
        running_training(&server, 1);
        server.post_json("/state/process", &json!({"state": 0}));
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let (ran, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((ran.len(), refused.len()), (1, 49));
    assert_eq!(ran[0].json(), json!({"completed": false}));
    assert!(refused.iter().all(|reply| reply.status == 500 && reply.error() == "Process is running"));
    let trainings = server.get("/api/v1/jobs?kind=train").json();
    assert_eq!(trainings.as_array().unwrap().len(), 1, "refused trainings are not recorded");
}

#[test]
fn killed_while_training_with_sqlite() {
    killed(&[]);
}

#[test]
fn killed_while_training_with_redis() {
    with_redis(killed);
}

fn killed(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(BINARY, folder.path(), arguments);
    let movie = demo_dataset(&server, "fly");
    let (url, body) = (server.url().to_owned(), training(&movie, 1_000_000).to_string());
    let client = std::thread::spawn(move || {
        let request = ureq::post(format!("{url}/seg/train")).header("content-type", "application/json");
        request.send(body.as_bytes())
    });
    running_training(&server, 1);
    assert_eq!(server.get("/state/process").json()["state"], 1);
    server.kill();
    assert!(client.join().unwrap().is_err());

    let server = TestServer::start(BINARY, folder.path(), arguments);
    assert_eq!(server.get("/state/process").json()["state"], 0, "it is not stuck");
    let interrupted = server.get("/api/v1/jobs?kind=train").json();
    assert_eq!(interrupted[0]["status"], "interrupted", "{interrupted}");
    assert_eq!(server.post_json("/seg/train", &training(&movie, 1)).json(), json!({"completed": true}));
}

#[test]
fn the_client_is_informed_of_each_epoch() {
    let Some(broker) = Broker::new_vhost() else { return };
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&broker);
    let (mut update, mut log) = (client.consume("update"), client.consume("log"));
    let server = TestServer::start(BINARY, folder.path(), &["--amqp-url", &broker]);
    let movie = demo_dataset(&server, "fly");
    assert_eq!(server.post_json("/seg/train", &training(&movie, 2)).json(), json!({"completed": true}));
    assert_eq!(client.next(&mut update), "Model updated");
    client.await_log(&mut log, "START POST /seg/train");
    for epoch in 1..=2 {
        let start = format!("epoch {epoch} / 2: loss ");
        let line = client.await_log(&mut log, &start);
        let loss = line[start.len()..].strip_suffix(", 1 crop");
        assert!(loss.is_some_and(|loss| loss.parse::<f64>().is_ok()), "{line}");
    }
    client.await_log(&mut log, "DONE POST /seg/train => [200 OK]");
}
