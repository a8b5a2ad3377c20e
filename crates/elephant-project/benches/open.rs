//! A project of a million spots in 100 frames, as tracked: opening it from its snapshot and from its log alone, reading one
//! frame and all of them, tagging a spot, and taking in a prediction of a frame.
//!
//! `cargo bench -p elephant-project --bench open`

#![allow(clippy::disallowed_methods)]

use std::{path::Path, time::Instant};

use elephant_project::{
    Covariance, DetectionTag, LinkState, NewLink, NewSpot, Operation, Project, ProjectKind, SpotKey, TrackingTag,
};
use elephant_types::SplitMix64;

const FRAMES: u32 = 100;
const CELLS: u32 = 10_000;

fn spots(t: u32, random: &mut SplitMix64) -> Vec<NewSpot> {
    let spot = |_| NewSpot {
        key: None,
        t,
        center_um: std::array::from_fn(|_| random.next_f64() * 1000.0),
        covariance_um2: Covariance([4.0, 0.1, 0.2, 4.0, 0.3, 4.0]),
        quality: random.next_f64(),
        detection: DetectionTag::Unlabeled,
        tracking: TrackingTag::default(),
        flags: 0,
        parent: None,
    };
    (0..CELLS).map(spot).collect()
}

fn fill(path: &Path) {
    let project = Project::create(path, ProjectKind::Normal).unwrap();
    let author = "bench".parse().unwrap();
    let mut random = SplitMix64::new(1);
    let mut before: Vec<SpotKey> = Vec::new();
    for t in 0..FRAMES {
        let added = project.append(&author, None, &[Operation::Add { spots: spots(t, &mut random) }]).unwrap().added;
        let links = before.iter().zip(&added).map(|(source, target)| NewLink {
            source: *source,
            target: *target,
            state: LinkState::default(),
            score: Some(0.5),
        });
        let links = Operation::Link { links: links.collect(), replace: false };
        project.append(&author, None, &[links]).unwrap();
        before = added;
    }
}

fn time<T>(what: &str, rounds: usize, mut work: impl FnMut() -> T) {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(work());
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("project, {what}: {:.1} ms", times[rounds / 2] * 1e3);
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let path = folder.path().join("main.sqlite");
    time("making 1,000,000 spots and 990,000 links", 1, || fill(&path));
    let bytes = |extension| path.with_extension(extension).metadata().map_or(0, |it| it.len()) >> 20;
    println!("project, size: {} MiB, its snapshot {} MiB", bytes("sqlite"), bytes("snapshot"));
    time("opening it", 5, || Project::open(&path).unwrap());
    let project = Project::open(&path).unwrap();
    time("reading a frame of 10,000", 5, || project.view(50, 50).unwrap());
    time("reading everything", 3, || project.view_all().unwrap());
    let author = "Ann".parse().unwrap();
    let mut key = 0;
    time("tagging a spot, flushed to the disk", 21, || {
        key += 1;
        let (spots, detection) = (vec![SpotKey(key)], Some(DetectionTag::TruePositive));
        project.append(&author, None, &[Operation::Tag { spots, detection, tracking: None }]).unwrap()
    });
    let mut random = SplitMix64::new(2);
    time("a prediction of 10,000 spots instead of 10,000", 3, || {
        let spots = spots(70, &mut random);
        let predict = Operation::Predict { t: 70, inside: None, spots, suppression_um: 3.0 };
        project.append(&author, None, &[predict]).unwrap()
    });
    drop(project);
    std::fs::remove_file(path.with_extension("snapshot")).unwrap();
    time("opening it from its log alone", 1, || Project::open(&path).unwrap());
}
