//! One step of training the 3-D network (forward, loss, backward, Adam) against PyTorch in Python: same weights, same crops,
//! same threads.
//!
//! `cargo bench -p elephant-nn --bench training_step`; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and torch 2.11.

mod common;

use std::{fs, sync::Arc, thread, time::Instant};

use common::{AnyResult, Peer, nuclei, peak_mib};
use elephant_model::{ModelInTraining, Objective, Targets, TrainingBatch, TrainingOptions};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision, Training};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, Numerics};
use ndarray::Axis;
use serde_json::json;

/// The client's default crop, with z kept on every level; and a small one.
const FIGURES: [(&str, [usize; 3], i64, usize); 2] =
    [("step 16x384x384", [16, 384, 384], 4, 3), ("step 16x96x96", [16, 96, 96], 2, 6)];

fn main() -> AnyResult<()> {
    let threads = thread::available_parallelism()?.get();
    let folder = tempfile::tempdir()?;
    let model = Arc::new(Model::random(NetworkKind::Volumetric, 1)?);
    let model_path = folder.path().join("model.pth");
    model.checkpoint().write(&model_path)?;
    let options = DeviceOptions { device: DeviceChoice::Cpu, threads: Some(threads), precision: Precision::F32 };
    let device = DeviceHandle::start(options)?;
    println!("training step: {threads} threads");
    for (name, shape, n_keep_axials, runs) in FIGURES {
        let objective = Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 };
        let options = TrainingOptions { objective, numerics: Numerics::Corrected };
        let training = device.train(model.clone(), options, None, &CancelToken::default())?;
        let mut peer = Peer::start("unet_train.py", &model_path)?;
        let batch = crops(shape, n_keep_axials);
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for run in 0..runs {
            ours = ours.min(step(&training, &batch, run)?);
            if let Some(peer) = &mut peer {
                theirs = theirs.min(peer_step(peer, &batch, folder.path(), n_keep_axials, threads)?);
            }
        }
        match peer {
            Some(peer) => println!(
                "{name}: ours {:.0} ms, peer {:.0} ms, ratio {:.2}; peak memory of the peer {:.0} MiB",
                ours * 1e3,
                theirs * 1e3,
                theirs / ours,
                peer.peak_mib
            ),
            None => println!("{name}: ours {:.0} ms, peer skipped: set ELEPHANT_PEER_PYTHON", ours * 1e3),
        }
        println!("{name}: peak memory of this process {} MiB", peak_mib());
    }
    Ok(())
}

/// Balls with labels: centre, border, and background around them; the rest is not labelled.
fn crops(shape: [usize; 3], n_keep_axials: i64) -> TrainingBatch {
    let images = nuclei(shape).insert_axis(Axis(0));
    let labels = images.mapv(|value| match value {
        value if value > 0.75 => 3,
        value if value > 0.5 => 2,
        value if value < 0.15 => 1,
        _ => 0,
    });
    TrainingBatch::labelled(images, labels, KeepAxials::first(n_keep_axials))
}

fn step(training: &Training, batch: &TrainingBatch, run: usize) -> AnyResult<f64> {
    let batch = batch.clone();
    let start = Instant::now();
    let values = training.step(batch, 1e-3, &CancelToken::default())?;
    let seconds = start.elapsed().as_secs_f64();
    if run == 0 {
        println!("first loss {:.6}", values.total);
    }
    Ok(seconds)
}

#[allow(clippy::disallowed_methods, reason = "temporary files of this run")]
fn peer_step(
    peer: &mut Peer,
    batch: &TrainingBatch,
    folder: &std::path::Path,
    n_keep_axials: i64,
    threads: usize,
) -> AnyResult<f64> {
    let [images, labels] = ["images.f32", "labels.u8"].map(|name| folder.join(name));
    let Targets::Classes(classes) = &batch.targets else { return Err("the targets are not classes".into()) };
    fs::write(&images, batch.inputs.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    fs::write(&labels, classes.iter().copied().collect::<Vec<u8>>())?;
    peer.run(&json!({
        "images": images, "labels": labels, "shape": classes.shape(), "n_keep_axials": n_keep_axials,
        "threads": threads, "dtype": "float32",
    }))
}
