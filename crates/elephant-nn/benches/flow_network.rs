//! The 3-D flow network against PyTorch in Python, same weights, same frames, same threads: a forward pass, and one step of
//! training (forward, loss, backward, Adam).
//!
//! `cargo bench -p elephant-nn --bench flow_network`, with a part of a figure's name behind `--` for that one alone; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and torch 2.11.

mod common;

use std::{fs, path::Path, sync::Arc, thread, time::Instant};

use common::{AnyResult, Peer, nuclei, peak_mib};
use elephant_model::{
    CollectedPlanes, FlowOptions, ImageSource, ModelInTraining, Objective, Targets, TrainingBatch, TrainingOptions,
};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, NetworkType, Numerics, TaskContext};
use ndarray::{Array4, Array5, Axis};
use serde_json::{Value, json};

/// Displacement in voxels that 1 stands for.
const MAX_DISPLACEMENT: f64 = 80.0;
const FORWARD: (&str, [usize; 3], i64, usize) = ("forward 16x384x384", [16, 384, 384], 4, 4);
/// A small crop, and the client's default one with z kept on every level.
const STEPS: [(&str, [usize; 3], i64, usize); 2] =
    [("step 16x96x96", [16, 96, 96], 2, 6), ("step 16x384x384", [16, 384, 384], 4, 2)];

fn main() -> AnyResult<()> {
    let threads = thread::available_parallelism()?.get();
    let folder = tempfile::tempdir()?;
    let model = Arc::new(Model::random_of(NetworkType::flow(NetworkKind::Volumetric), 1)?);
    let model_path = folder.path().join("model.pth");
    model.checkpoint().write(&model_path)?;
    let device = DeviceHandle::start(DeviceOptions {
        device: DeviceChoice::Cpu,
        threads: Some(threads),
        precision: Precision::F32,
    })?;
    println!("flow network: {threads} threads");
    let bench = Bench { model, device, threads, folder: folder.path() };
    let filter: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| filter.iter().all(|part| name.contains(part));
    if is_wanted(FORWARD.0) {
        bench.forward(Peer::start("flow_network.py", &model_path)?)?;
    }
    for figure in STEPS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        bench.steps(figure, Peer::start("flow_network.py", &model_path)?)?;
    }
    Ok(())
}

struct Bench<'a> {
    model: Arc<Model>,
    device: DeviceHandle,
    threads: usize,
    folder: &'a Path,
}

impl Bench<'_> {
    fn forward(&self, mut peer: Option<Peer>) -> AnyResult<()> {
        let (name, shape, n_keep_axials, runs) = FORWARD;
        let frames = pair(shape);
        let image: Arc<dyn ImageSource> = Arc::new(frames.index_axis(Axis(0), 0).to_owned());
        let (mut best, mut theirs) = ([f64::INFINITY; 2], f64::INFINITY);
        for run in 0..runs {
            let mut found = Vec::new();
            for (best, numerics) in best.iter_mut().zip([Numerics::Corrected, Numerics::Original]) {
                let (kind, keep_axials) = (NetworkKind::Volumetric, KeepAxials::first(n_keep_axials));
                let options = FlowOptions { kind, keep_axials, tile: None, is_pad: false, batch_size: 1, numerics };
                let mut collected = CollectedPlanes::new(shape);
                let start = Instant::now();
                let context = TaskContext::detached();
                self.device.displacements(self.model.clone(), image.clone(), &options, &mut collected, &context)?;
                *best = best.min(start.elapsed().as_secs_f64());
                found.push(collected.into_map());
            }
            let Some(peer) = &mut peer else { continue };
            let output = self.folder.join("vectors.f32");
            let task = self.task(&frames, n_keep_axials, &json!({ "output": output }))?;
            theirs = theirs.min(peer.run(&task)?);
            if run == 0 {
                let difference = |ours: &Array4<f32>| -> AnyResult<f32> { largest_difference(ours, &output) };
                println!("{name}: largest difference from the peer {:.1e}, original numerics", difference(&found[1])?);
                println!("{name}: {:.1e} corrected; peak memory {} MiB", difference(&found[0])?, peak_mib());
            }
        }
        for (kind, ours) in [("f32", best[0]), ("f32, original numerics", best[1])] {
            print(&format!("{name}, {kind}"), ours, theirs, peer.as_ref());
        }
        Ok(())
    }

    fn steps(&self, figure: (&str, [usize; 3], i64, usize), mut peer: Option<Peer>) -> AnyResult<()> {
        let (name, shape, n_keep_axials, runs) = figure;
        let objective = Objective::Vectors { max_displacement: MAX_DISPLACEMENT, axis_weights: [1.0; 3] };
        let options = TrainingOptions { objective, numerics: Numerics::Corrected };
        let training = self.device.train(self.model.clone(), options, None, &CancelToken::default())?;
        let batch = crops(shape, n_keep_axials);
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for run in 0..runs {
            let crops = batch.clone();
            let start = Instant::now();
            let values = training.step(crops, 1e-3, &CancelToken::default())?;
            ours = ours.min(start.elapsed().as_secs_f64());
            if run == 0 {
                println!("{name}: first loss {:.6}", values.total);
            }
            if let Some(peer) = &mut peer {
                theirs = theirs.min(self.peer_step(peer, &batch, n_keep_axials)?);
            }
        }
        print(name, ours, theirs, peer.as_ref());
        println!("{name}: peak memory of this process {} MiB", peak_mib());
        Ok(())
    }

    fn peer_step(&self, peer: &mut Peer, batch: &TrainingBatch, n_keep_axials: i64) -> AnyResult<f64> {
        let Targets::Vectors { values, weight } = &batch.targets else { return Err("no vectors".into()) };
        let [vectors_file, weight_file] = ["targets.f32", "weight.f32"].map(|name| self.folder.join(name));
        write(&vectors_file, values.iter())?;
        write(&weight_file, weight.iter())?;
        let [z, y, x] = batch.keep_axials.flow_norm(MAX_DISPLACEMENT);
        let more = json!({ "vectors": vectors_file, "weight": weight_file, "norms": [x, y, z] });
        peer.run(&self.task(&batch.inputs, n_keep_axials, &more)?)
    }

    fn task(&self, frames: &Array5<f32>, n_keep_axials: i64, more: &Value) -> AnyResult<Value> {
        let images = self.folder.join("images.f32");
        write(&images, frames.iter())?;
        let (n, _, z, y, x) = frames.dim();
        let mut task = json!({
            "images": images, "shape": [n, z, y, x], "n_keep_axials": n_keep_axials, "threads": self.threads,
        });
        if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
            task.extend(more.clone());
        }
        Ok(task)
    }
}

fn print(name: &str, ours: f64, theirs: f64, peer: Option<&Peer>) {
    let ours = ours * 1e3;
    match peer {
        Some(peer) => println!(
            "{name}: ours {ours:.0} ms, peer {:.0} ms, ratio {:.2}; peak memory of the peer {:.0} MiB",
            theirs * 1e3,
            theirs * 1e3 / ours,
            peer.peak_mib
        ),
        None => println!("{name}: ours {ours:.0} ms, peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
}

#[allow(clippy::disallowed_methods, reason = "temporary files of this run")]
fn write<'a>(path: &Path, values: impl Iterator<Item = &'a f32>) -> AnyResult<()> {
    Ok(fs::write(path, values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?)
}

fn largest_difference(ours: &Array4<f32>, theirs: &Path) -> AnyResult<f32> {
    let bytes = fs::read(theirs)?;
    let theirs = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    Ok(ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

/// Bright balls that move by some voxels, (1, 2, z, y, x).
fn pair(shape: [usize; 3]) -> Array5<f32> {
    let [depth, height, width] = shape;
    let later = nuclei(shape);
    Array5::from_shape_fn((1, 2, depth, height, width), |(_, channel, z, y, x)| {
        if channel == 1 { later[[z, y, x]] } else { later[[z, (y + 3) % height, (x + 5) % width]] }
    })
}

/// A pair with its displacement where it is bright.
fn crops(shape: [usize; 3], n_keep_axials: i64) -> TrainingBatch {
    let inputs = pair(shape);
    let [depth, height, width] = shape;
    let values = Array5::from_shape_fn((1, 3, depth, height, width), |(_, component, ..)| {
        [-5.0, -3.0, 0.0][component] / MAX_DISPLACEMENT as f32
    });
    let weight = inputs.index_axis(Axis(1), 1).mapv(|value| f32::from(value > 0.5));
    let keep_axials = KeepAxials::first(n_keep_axials);
    TrainingBatch { inputs, targets: Targets::Vectors { values, weight }, keep_axials, punishes_false_positives: false }
}
