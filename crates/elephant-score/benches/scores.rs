//! Scores of a folder of 20 frames of 64 × 256 × 256 voxels with 200 cells, against py-ctcmetrics on the same files; and of
//! 100 frames with 1,000 spots.
//!
//! `cargo bench -p elephant-score`; set `ELEPHANT_PEER_PYTHON` to a Python with py-ctcmetrics.

#![allow(clippy::disallowed_methods)]

use std::{error::Error, fs::File, io::BufWriter, path::Path, time::Instant};

use elephant_ctc::{LabelStack, PlaneEncoder, mask_name, write_tracks};
use elephant_score::{Annotated, Report, ScoreOptions, score_folders, score_spots};
use elephant_testkit::Peer;
use elephant_types::{Lineage, Link, SplitMix64, Spot, SpotId, TaskContext, TrackId, TrackRow, VoxelSize};

const FRAMES: u32 = 20;
const SHAPE: [usize; 3] = [64, 256, 256];
const CELLS: u32 = 200;
const RUNS: usize = 5;

type AnyResult<T> = Result<T, Box<dyn Error>>;

fn main() -> AnyResult<()> {
    let root = tempfile::tempdir()?;
    let (truth, result) = (root.path().join("GT"), root.path().join("RES"));
    write_folder(&truth.join("TRA"), "man_track.txt", 0)?;
    write_folder(&result, "res_track.txt", 2)?;
    std::fs::create_dir(truth.join("SEG"))?;
    for frame in 0..FRAMES {
        let tracking = truth.join("TRA").join(mask_name(frame, FRAMES));
        std::fs::copy(&tracking, truth.join(format!("SEG/man_seg{frame:03}.tif")))?;
    }
    let mut peer = Peer::start("scores.py", &[&result, &truth])?;
    let (mut ours, mut one_process, mut all_cores) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let begun = Instant::now();
        let report = score(&truth, &result)?;
        ours = ours.min(begun.elapsed().as_secs_f64());
        let Some(peer) = &mut peer else { continue };
        for (threads, best) in [("1", &mut one_process), ("0", &mut all_cores)] {
            let answer = peer.ask(threads)?;
            let numbers: Vec<f64> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [seconds, tra, chota] = numbers[..] else { return Err("the peer failed".into()) };
            *best = best.min(seconds);
            let same = |ours: Option<f64>, theirs: f64| ours.is_some_and(|ours| (ours - theirs).abs() < 1e-12);
            assert!(
                same(report.challenge.tra, tra) && same(report.association.chota, chota),
                "the peer's scores differ"
            );
        }
    }
    println!("scores of 20 x 64 x 256 x 256: ours {ours:.3} s, {}", highest_memory());
    match peer {
        Some(_) => println!(
            "peer {one_process:.2} s in one process (ratio {:.1}), {all_cores:.2} s with all cores (ratio {:.1})",
            one_process / ours,
            all_cores / ours
        ),
        None => println!("peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
    spots()
}

fn score(truth: &Path, result: &Path) -> AnyResult<Report> {
    let voxel_size = VoxelSize::new([1.0; 3])?;
    Ok(score_folders(truth, result, voxel_size, false, &ScoreOptions::default(), &TaskContext::detached())?)
}

/// Balls that drift, and those of every tenth track not at all with a `shift`; the other ones are shifted by so many voxels.
fn write_folder(folder: &Path, table: &str, shift: i64) -> AnyResult<()> {
    std::fs::create_dir_all(folder)?;
    let is_there = |track: &u32| shift == 0 || !track.is_multiple_of(10);
    let mut random = SplitMix64::new(1);
    let mut edge = |axis: usize| (random.next_u64() % SHAPE[axis] as u64) as i64;
    let starts: Vec<[i64; 3]> = (0..CELLS).map(|_| [edge(0), edge(1), edge(2)]).collect();
    let mut begins = vec![None; CELLS as usize];
    let mut encoder = PlaneEncoder::new();
    for frame in 0..FRAMES {
        let mut labels = vec![0_u16; SHAPE.iter().product()];
        // In reverse, so that the voxels at the centre of a ball that another one covers are still its own.
        for track in (1..=CELLS).rev().filter(is_there) {
            paint(&mut labels, starts[track as usize - 1], i64::from(frame), shift, track as u16);
        }
        let mut present = vec![false; CELLS as usize + 1];
        for &label in &labels {
            present[label as usize] = true;
        }
        for track in 1..=CELLS as usize {
            if present[track] {
                begins[track - 1].get_or_insert((frame, frame)).1 = frame;
            }
        }
        let mut stack = LabelStack::new(SHAPE)?;
        for plane in labels.chunks(SHAPE[1] * SHAPE[2]) {
            stack.push(encoder.encode(plane));
        }
        let path = folder.join(mask_name(frame, FRAMES));
        stack.write(&mut BufWriter::new(File::create(path)?))?;
    }
    let rows = (1..).map_while(TrackId::new).zip(begins);
    let rows = rows.filter_map(|(id, frames)| Some(TrackRow { id, begin: frames?.0, end: frames?.1, parent: None }));
    write_tracks(rows, &mut File::create(folder.join(table))?)?;
    Ok(())
}

fn paint(labels: &mut [u16], start: [i64; 3], frame: i64, shift: i64, label: u16) {
    const RADIUS: i64 = 9;
    let [planes, rows, columns] = SHAPE.map(|edge| edge as i64);
    let centre = [start[0], (start[1] + frame) % rows, (start[2] + frame + shift) % columns];
    for z in (centre[0] - RADIUS).max(0)..(centre[0] + RADIUS).min(planes) {
        for y in (centre[1] - RADIUS).max(0)..(centre[1] + RADIUS).min(rows) {
            for x in (centre[2] - RADIUS).max(0)..(centre[2] + RADIUS).min(columns) {
                let squared = (z - centre[0]).pow(2) + (y - centre[1]).pow(2) + (x - centre[2]).pow(2);
                if squared < RADIUS * RADIUS {
                    labels[((z * rows + y) * columns + x) as usize] = label;
                }
            }
        }
    }
}

fn highest_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    format!("peak memory {}", line.map_or("unknown", str::trim))
}

/// 1,000 cells that drift over 100 frames, all found within a third of their radius.
fn spots() -> AnyResult<()> {
    let mut random = SplitMix64::new(2);
    let mut place = [(); 1000].map(|()| [(); 3].map(|()| random.next_f64() * 100.0));
    let (mut truth, mut found, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for t in 0..100 {
        for (cell, place) in place.iter_mut().enumerate() {
            let covariance_um2 = [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]];
            *place = place.map(|value| value + random.next_f64() - 0.5);
            let noise = place.map(|value| value + random.next_f64() - 0.5);
            if t > 0 {
                let target = (t * 1000 + cell) as u32;
                links.push(Link { source: SpotId(target - 1000), target: SpotId(target) });
            }
            truth.push(Spot { t, center_um: *place, covariance_um2, quality: 1.0 });
            found.push(Spot { t, center_um: noise, covariance_um2, quality: 1.0 });
        }
    }
    let lineage = Lineage::new(truth.iter().map(|spot| spot.t as u32).collect(), links)?;
    let (truth, found) =
        (Annotated { spots: &truth, lineage: &lineage }, Annotated { spots: &found, lineage: &lineage });
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let begun = Instant::now();
        score_spots(&truth, &found, &ScoreOptions::default(), &TaskContext::detached())?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    println!("scores of 100 x 1,000 spots: {best:.3} s");
    Ok(())
}
