//! kill -9 of a process that writes: everything that it has acknowledged is there.

#![allow(clippy::disallowed_methods)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use elephant_project::{Covariance, DetectionTag, NewSpot, Operation, Project, ProjectKind, TrackingTag};

/// Set in the process that is killed: the project's file.
const CHILD: &str = "ELEPHANT_PROJECT_TEST_FILE";

fn spots(t: u32) -> Vec<NewSpot> {
    let spot = |x: u32| NewSpot {
        key: None,
        t,
        center_um: [0.0, 0.0, f64::from(x) * 10.0],
        covariance_um2: Covariance([4.0, 0.0, 0.0, 4.0, 0.0, 4.0]),
        quality: 0.5,
        detection: DetectionTag::default(),
        tracking: TrackingTag::default(),
        flags: 0,
        parent: None,
    };
    (0..50).map(spot).collect()
}

/// The process that is killed: it writes until then, and says each entry that is on the disk.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let project = Project::open(Path::new(&path)).unwrap();
    for t in 0.. {
        let add = [Operation::Add { spots: spots(t % 1000) }];
        let appended = project.append(&"child".parse().unwrap(), None, &add).unwrap();
        println!("acknowledged {}", appended.seq);
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.sqlite");
    drop(Project::create(&path, ProjectKind::Normal).unwrap());
    let mut last = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = last;
        for line in lines {
            let line = line.unwrap();
            // The test runner's own words may stand before it.
            if let Some((_, seq)) = line.rsplit_once("acknowledged ") {
                acknowledged = seq.parse().unwrap();
            }
            // A different number each time, so that the kill comes at different moments.
            if acknowledged >= last + 7 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let project = Project::open(&path).unwrap();
        let info = project.info().unwrap();
        assert!(info.seq >= acknowledged, "round {round}: {} of {acknowledged} are there", info.seq);
        assert_eq!(info.spots as u64, info.seq * 50, "each entry is whole");
        last = info.seq;
    }
}
