//! One CTC mask of 64 × 512 × 512 voxels with 300 cells, against the original's arithmetic in NumPy.
//!
//! `cargo bench -p elephant-export`; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and tifffile.

#![allow(clippy::disallowed_methods)]

use std::{error::Error, io::Read, time::Instant};

use elephant_ctc::read_labels;
use elephant_export::{MaskSpot, Masks, stream_masks};
use elephant_image::Dims;
use elephant_testkit::Peer;
use elephant_types::{SplitMix64, TaskContext, VoxelSize};
use serde_json::json;

const SHAPE: [usize; 3] = [64, 512, 512];
const VOXEL_UM: [f64; 3] = [2.0, 0.5, 0.5];
const CELLS: u16 = 300;
const RUNS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let masks = masks();
    let folder = tempfile::tempdir()?;
    let (task, mask) = (folder.path().join("task.json"), folder.path().join("mask.tif"));
    let spots: Vec<_> = masks
        .spots
        .iter()
        .map(|spot| json!({"center": spot.center_um, "covariance": spot.covariance_um2, "label": spot.label}))
        .collect();
    std::fs::write(&task, json!({"voxel_um": VOXEL_UM, "shape": SHAPE, "spots": spots}).to_string())?;
    let mut peer = Peer::start("export_masks.py", &[task.as_os_str()])?;
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    let mut archive = Vec::new();
    for run in 0..RUNS {
        let begun = Instant::now();
        archive = stream_masks(&masks, Vec::new(), &TaskContext::detached())?.0;
        ours = ours.min(begun.elapsed().as_secs_f64());
        if let Some(peer) = &mut peer {
            let answer = peer.ask(if run == 0 { mask.to_str().ok_or("no text")? } else { "" })?;
            theirs = theirs.min(answer.split(' ').nth(1).ok_or("no time")?.parse()?);
        }
    }
    if peer.is_some() {
        let mut bytes = Vec::new();
        zip::ZipArchive::new(std::io::Cursor::new(&archive))?.by_name("mask000.tif")?.read_to_end(&mut bytes)?;
        let own = folder.path().join("own.tif");
        std::fs::write(&own, bytes)?;
        assert!(read_labels(&own)? == read_labels(&mask)?, "the peer draws the same mask");
        let (ours, theirs) = (ours * 1e3, theirs * 1e3);
        println!("export_masks: ours {ours:.1} ms, peer {theirs:.1} ms, ratio {:.1}", theirs / ours);
    } else {
        println!("export_masks: ours {:.1} ms, peer skipped: set ELEPHANT_PEER_PYTHON", ours * 1e3);
    }
    println!("export_masks: {} bytes", archive.len());
    Ok(())
}

/// Cells of 4 to 7 µm, turned at random, which touch where they like.
fn masks() -> Masks {
    let mut random = SplitMix64::new(7);
    let mut uniform = |low: f64, high: f64| low + (high - low) * random.next_f64();
    let spots = (1..=CELLS).map(|label| {
        let center_um = std::array::from_fn(|axis| uniform(0.05, 0.95) * SHAPE[axis] as f64 * VOXEL_UM[axis]);
        let radii: [f64; 3] = std::array::from_fn(|_| uniform(4.0, 7.0));
        // A rotation from a quaternion.
        let [a, b, c, d] = std::array::from_fn(|_| uniform(-1.0, 1.0));
        let n = (a * a + b * b + c * c + d * d).sqrt();
        let [a, b, c, d] = [a / n, b / n, c / n, d / n];
        let turn = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a - b * b + c * c - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a - b * b - c * c + d * d],
        ];
        let entry = |i: usize, j: usize| (0..3).map(|k| turn[i][k] * turn[j][k] * radii[k] * radii[k]).sum::<f64>();
        let covariance_um2 = std::array::from_fn(|i| std::array::from_fn(|j| entry(i.max(j), i.min(j))));
        MaskSpot { t: 0, center_um, covariance_um2, label }
    });
    Masks {
        shape: SHAPE,
        voxel_size: VoxelSize::new(VOXEL_UM).expect("the edges are positive"),
        dims: Dims::ThreeD,
        timepoints: [0, 0],
        spots: spots.collect(),
    }
}
