//! Prediction with the 3-D network against PyTorch in Python, same weights, same image, same threads.
//!
//! `cargo bench -p elephant-nn`; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and torch 2.11.

mod common;

use std::{fs, sync::Arc, thread, time::Instant};

use common::{AnyResult, Peer, nuclei, peak_mib, segment};

use elephant_model::{ProbabilityOutput, SegmentationOptions};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision};
use elephant_types::{KeepAxials, NetworkKind, Numerics};
use ndarray::{Array3, Array4};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Multiplications and additions for each voxel at full resolution where every pooling keeps z, without the norms:
/// as PyTorch does them, and with the upsampling folded into the decoder's convolutions.
const PLAIN_FLOP: f64 = 319_000.0;
const FOLDED_FLOP: f64 = 257_300.0;

struct Figure {
    name: &'static str,
    shape: [usize; 3],
    tile: Option<[usize; 3]>,
    n_keep_axials: i64,
    is_pad: bool,
    runs: usize,
}

const FIGURES: [Figure; 2] = [
    Figure { name: "forward 16x384x384", shape: [16, 384, 384], tile: None, n_keep_axials: 4, is_pad: false, runs: 4 },
    Figure {
        name: "tiled 64x384x384",
        shape: [64, 384, 384],
        tile: Some([24, 384, 384]),
        n_keep_axials: 3,
        is_pad: true,
        runs: 3,
    },
];

fn main() -> AnyResult<()> {
    let threads = thread::available_parallelism()?.get();
    let folder = tempfile::tempdir()?;
    // Of a network that has learnt nothing, differences mean nothing; times are the same.
    let model = Arc::new(match elephant_testkit::shared("oracle/trained/seg_tiny.pth") {
        Some(path) => Model::read(&path)?,
        None => Model::random(NetworkKind::Volumetric, 1)?,
    });
    let model_path = folder.path().join("model.pth");
    model.checkpoint().write(&model_path)?;
    let device =
        |precision| DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, threads: Some(threads), precision });
    let bench = Bench { model, single: device(Precision::F32)?, half: device(Precision::Bf16)?, threads, folder };
    println!("unet: {threads} threads, bf16 is computed in {:?}", bench.half.info()?.precision);
    let mut peer = Peer::start("unet_forward.py", &model_path)?;
    for figure in &FIGURES {
        bench.measure(figure, peer.as_mut())?;
    }
    peaks(threads);
    Ok(())
}

struct Bench {
    model: Arc<Model>,
    single: DeviceHandle,
    half: DeviceHandle,
    threads: usize,
    folder: tempfile::TempDir,
}

impl Bench {
    fn measure(&self, figure: &Figure, mut peer: Option<&mut Peer>) -> AnyResult<()> {
        let image = nuclei(figure.shape);
        let mut best = [f64::INFINITY; 4];
        let mut note = |at: usize, seconds: f64| best[at] = best[at].min(seconds);
        for run in 0..figure.runs {
            let (seconds, single) = self.run(&self.single, figure, &image, Numerics::Corrected)?;
            note(0, seconds);
            if run == 0 {
                println!("{}, f32: peak memory of this process {} MiB", figure.name, peak_mib());
            }
            let (seconds, half) = self.run(&self.half, figure, &image, Numerics::Corrected)?;
            note(1, seconds);
            let (seconds, original) = self.run(&self.single, figure, &image, Numerics::Original)?;
            note(2, seconds);
            if let Some(peer) = peer.as_deref_mut() {
                let (seconds, theirs) = self.run_peer(peer, figure, &image)?;
                note(3, seconds);
                if run == 0 {
                    let difference = |ours| largest_difference(ours, &theirs);
                    println!(
                        "{}: largest difference from the peer {:.1e}, original numerics",
                        figure.name,
                        difference(&original)
                    );
                    if figure.tile.is_none() {
                        println!(
                            "{}: {:.1e} corrected, {:.1e} with bf16",
                            figure.name,
                            difference(&single),
                            difference(&half)
                        );
                    }
                    println!("{}: peak memory of the peer {:.0} MiB", figure.name, peer.peak_mib);
                }
            }
        }
        let [single, half, original, theirs] = best.map(|seconds| seconds * 1e3);
        for (kind, ours) in [("f32", single), ("bf16", half), ("f32, original numerics", original)] {
            let name = format!("{}, {kind}", figure.name);
            if theirs.is_finite() {
                println!("{name}: ours {ours:.0} ms, peer {theirs:.0} ms, ratio {:.2}", theirs / ours);
            } else {
                println!("{name}: ours {ours:.0} ms, peer skipped: set ELEPHANT_PEER_PYTHON");
            }
        }
        if figure.n_keep_axials == 4 {
            let voxels = figure.shape.iter().product::<usize>() as f64;
            let rate = |flop: f64, ms: f64| flop * voxels / ms / 1e6;
            println!(
                "{}: {:.0} GFLOP, f32 at {:.0} and bf16 at {:.0} GFLOP/s; the peer has {:.0} GFLOP to do",
                figure.name,
                FOLDED_FLOP * voxels / 1e9,
                rate(FOLDED_FLOP, single),
                rate(FOLDED_FLOP, half),
                PLAIN_FLOP * voxels / 1e9
            );
        }
        Ok(())
    }

    fn run(
        &self,
        device: &DeviceHandle,
        figure: &Figure,
        image: &Array3<f32>,
        numerics: Numerics,
    ) -> AnyResult<(f64, Array4<f32>)> {
        let options = SegmentationOptions {
            kind: NetworkKind::Volumetric,
            keep_axials: KeepAxials::first(figure.n_keep_axials),
            tile: figure.tile,
            is_pad: figure.is_pad,
            batch_size: 1,
            numerics,
            output: ProbabilityOutput::AllClasses,
        };
        let image = image.clone();
        let start = Instant::now();
        let probabilities = segment(device, &self.model, image, &options)?;
        Ok((start.elapsed().as_secs_f64(), probabilities))
    }

    #[allow(clippy::disallowed_methods, reason = "a temporary file of this run")]
    fn run_peer(&self, peer: &mut Peer, figure: &Figure, image: &Array3<f32>) -> AnyResult<(f64, Array4<f32>)> {
        let [input, output] = ["image.f32", "output.f32"].map(|name| self.folder.path().join(name));
        fs::write(&input, image.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        let seconds = peer.run(&json!({
            "image": input, "shape": figure.shape, "patch": figure.tile, "n_keep_axials": figure.n_keep_axials,
            "is_pad": figure.is_pad, "threads": self.threads, "dtype": "float32", "output": output,
        }))?;
        let [z, y, x] = figure.shape;
        let values = fs::read(&output)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok((seconds, Array4::from_shape_vec((3, z, y, x), values)?))
    }
}

fn largest_difference(a: &Array4<f32>, b: &Array4<f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// How fast this machine convolves at best: many channels, few voxels, everything in the caches.
fn peaks(threads: usize) {
    const CHANNELS: i64 = 256;
    const SIZE: [i64; 3] = [16, 24, 24];
    tch::set_num_threads(threads as i32);
    let _no_grad = tch::no_grad_guard();
    for (name, kind) in [("f32", Kind::Float), ("bf16", Kind::BFloat16)] {
        let [z, y, x] = SIZE;
        let ones = |size: &[i64]| Tensor::ones(size, (kind, Device::Cpu));
        let (image, weight) = (ones(&[1, CHANNELS, z, y, x]), ones(&[CHANNELS, CHANNELS, 3, 3, 3]));
        let run = || {
            let start = Instant::now();
            drop(image.conv3d(&weight, None::<&Tensor>, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1));
            start.elapsed().as_secs_f64()
        };
        let best = (0..20).map(|_| run()).fold(f64::INFINITY, f64::min);
        let flop = (2 * 27 * CHANNELS * CHANNELS * z * y * x) as f64;
        println!("convolution of 256 channels, the bound for the others, {name}: {:.0} GFLOP/s", flop / best / 1e9);
    }
}
