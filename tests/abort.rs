//! The order of predictions, and aborting them.

mod common;

use std::thread::ScopedJoinHandle;

use common::{BINARY, demo_dataset};
use elephant_testkit::{TestServer, eventually};
use serde_json::{Value, json};

struct Fixture {
    server: TestServer,
    _folder: tempfile::TempDir,
    quick: Value,
    /// Many tiles of a rescaled frame: minutes of work.
    long: Value,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let movie = demo_dataset(&server, "fly");
    let quick = json!({"dataset_name": "fly", "timepoint": 0, "scales": movie.scales, "n_keep_axials": 2});
    let mut long = quick.clone();
    long["input_size"] = json!([1024, 1024, 64]);
    long["patch"] = json!([128, 128, 16]);
    Fixture { server, _folder: folder, quick, long }
}

impl Fixture {
    fn predict(&self, body: &Value) -> Value {
        let reply = self.server.post_json("/seg/predict", body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    fn abort(&self) {
        assert_eq!(self.server.post_json("/state/process", &json!({"state": 0})).status, 200);
    }
}

#[test]
fn predictions_wait_for_each_other() {
    let fixture = fixture();
    let alone = fixture.predict(&fixture.quick);
    assert_eq!(alone["completed"], true);
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..6).map(|_| scope.spawn(|| fixture.predict(&fixture.quick))).collect();
        for prediction in together {
            assert_eq!(prediction.join().unwrap(), alone, "no prediction is dropped, and all results are equal");
        }
    });
    assert_eq!(fixture.server.get("/state/process").json()["state"], 0);
}

#[test]
fn an_abort_stops_running_and_waiting_predictions() {
    let fixture = fixture();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.predict(&fixture.long))).collect();
        fixture.server.wait_for_state(2);
        // The state changes with the first of them, so abort until none is left, as a user would.
        eventually("all are stopped", || {
            fixture.abort();
            running.iter().all(ScopedJoinHandle::is_finished)
        });
        for prediction in running {
            assert_eq!(prediction.join().unwrap(), json!({"completed": false, "spots": []}));
        }
    });
    assert_eq!(fixture.server.get("/state/process").json()["state"], 0);
    assert_eq!(fixture.predict(&fixture.quick)["completed"], true, "the next one runs");
}

#[test]
fn a_client_that_disconnects_stops_its_prediction() {
    use std::io::Write;
    let fixture = fixture();
    let body = fixture.long.to_string();
    let mut stream = elephant_testkit::connect(fixture.server.address());
    write!(
        stream,
        "POST /seg/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    fixture.server.wait_for_state(2);
    drop(stream);
    fixture.server.wait_for_state(0);
}

#[test]
fn a_signal_stops_the_server_during_a_prediction() {
    let Fixture { server, long, _folder, .. } = fixture();
    let url = server.url().to_owned();
    let client = std::thread::spawn(move || {
        let body = long.to_string();
        let request = ureq::post(format!("{url}/seg/predict")).config().http_status_as_error(false).build();
        let request = request.header("content-type", "application/json");
        request.send(body.as_bytes()).map(|mut reply| reply.body_mut().read_to_string().unwrap())
    });
    server.wait_for_state(2);
    assert!(server.terminate(), "it ends well");
    let reply = client.join().unwrap().unwrap();
    assert!(reply.contains("the server is stopping"), "{reply}");
}
