//! Faults while a project is written: kill -9, two processes, a full disk.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    collections::{HashMap, HashSet},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use common::{BINARY, demo_dataset, server_on_small_disk};
use elephant_testkit::TestServer;
use serde_json::{Value, json};

const MAIN: &str = "/v1/projects/fly%2Fmain";

fn spots(count: usize, x: f64) -> Value {
    let one = |n: usize| json!({"t": 0, "center_um": [n, 2, x], "covariance_um2": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]});
    (0..count).map(one).collect()
}

/// Adds spots of one entry, all at the same x.
fn add(count: usize, x: f64) -> Value {
    json!({"author": "Ann", "operations": [{"add": {"spots": spots(count, x)}}]})
}

fn project(server: &TestServer) {
    demo_dataset(server, "fly");
    let made = server.post_json("/v1/projects", &json!({"project": "fly/main"}));
    assert_eq!(made.status, 201, "{}", made.text());
}

#[test]
fn acknowledged_operations_outlive_a_kill_and_no_entry_is_half_there() {
    const SPOTS: usize = 7;
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    project(&server);
    let mut acknowledged = HashSet::new();
    let mut next = 0;
    for _ in 0..3 {
        let (url, answered, first) = (format!("{}{MAIN}/operations", server.url()), AtomicU64::new(0), next);
        let entries = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut entries = Vec::new();
                for entry in first.. {
                    let sent = ureq::post(&url)
                        .header("content-type", "application/json")
                        .send(add(SPOTS, entry as f64).to_string().as_bytes());
                    // The server is gone.
                    let Ok(reply) = sent else { break };
                    assert_eq!(reply.status(), 200);
                    entries.push(entry);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                entries
            });
            elephant_testkit::eventually("operations are answered", || answered.load(Ordering::Relaxed) >= 20);
            server.kill();
            client.join().unwrap()
        });
        next = entries.last().unwrap() + 2;
        acknowledged.extend(entries);
        server = TestServer::start(BINARY, folder.path(), &[]);
        let reply = server.get(&format!("{MAIN}/spots")).json();
        let mut found = HashMap::new();
        for spot in reply["spots"].as_array().unwrap() {
            *found.entry(spot["center_um"][2].as_f64().unwrap() as i64).or_insert(0) += 1;
        }
        assert!(found.values().all(|&count| count == SPOTS), "half of an entry: {found:?}");
        assert!(acknowledged.iter().all(|entry| found.contains_key(entry)), "an answered entry is gone");
        // At most the one that was on its way is there without an answer.
        assert!(found.len() <= acknowledged.len() + 3);
    }
    assert_eq!(server.post_json(&format!("{MAIN}/undo"), &json!({"author": "Ann"})).status, 200);
}

#[test]
fn a_second_process_writes_beside_the_server_or_says_who_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    project(&server);
    let table = folder.path().join("truth.csv");
    let header = "t,id,parent,x,y,z,c00,c01,c02,c10,c11,c12,c20,c21,c22";
    std::fs::write(&table, format!("{header}\n0,0,-1,9,9,9,4,0,0,0,4,0,0,0,4\n")).unwrap();
    let import = |name: &str| {
        Command::new(BINARY)
            .args(["import", "fly"])
            .arg(&table)
            .args(["--project", name, "--workspace"])
            .arg(folder.path())
            .output()
            .unwrap()
    };
    // Both at once: the server's own operations go on.
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import("truth"));
        for x in 0..20 {
            let reply = server.post_json(&format!("{MAIN}/operations"), &add(1, f64::from(x)));
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let output = importing.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(server.get("/v1/projects/fly%2Ftruth").json()["spots"], 1);
    let again = import("truth");
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("exists already"));

    let track = Command::new(BINARY).args(["track", "fly", "--workspace"]).arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&track.stderr);
    assert!(!track.status.success());
    assert!(said.contains("is in use by the server on 127.0.0.1") && said.contains("/v1/jobs"), "{said}");
}

#[test]
fn a_full_disk_refuses_an_operation_keeps_the_others_and_goes_on_when_there_is_space() {
    const SPOTS: usize = 20_000;
    const SPARE: &str = "/v1/projects/fly%2Fspare";
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server_on_small_disk(folder.path(), 48) else { return };
    project(&server);
    let operate = |project: &str, x: f64| server.post_json(&format!("{project}/operations"), &add(SPOTS, x));
    let made = server.post_json("/v1/projects", &json!({"project": "fly/spare"}));
    assert_eq!(made.status, 201, "{}", made.text());
    for x in 0..2 {
        assert_eq!(operate(SPARE, f64::from(x)).status, 200);
    }
    let mut entries = 0;
    let refused = loop {
        let reply = operate(MAIN, f64::from(entries));
        if reply.status != 200 {
            break reply;
        }
        entries += 1;
        assert!(entries < 1000, "the disk is never full");
    };
    assert!(entries > 0, "nothing was written before the disk was full");
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(
        refused.json()["message"].as_str().unwrap().contains("the disk is full, free some space"),
        "{}",
        refused.text()
    );
    // In memory, and in the log on the disk.
    let assert_has = |entries: i32| {
        assert_eq!(server.get(MAIN).json()["spots"], entries * SPOTS as i32);
        let log = server.get(&format!("{MAIN}/operations?limit=1000")).json();
        let counts: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["change_count"].clone()).collect();
        assert_eq!(counts, vec![json!(SPOTS); entries as usize]);
    };
    assert_has(entries);

    let deleted = server.delete(SPARE);
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let reply = operate(MAIN, f64::from(entries));
    assert_eq!(reply.status, 200, "there is space again: {}", reply.text());
    assert_has(entries + 1);
    assert!(server.terminate(), "it still ends in order");
}
