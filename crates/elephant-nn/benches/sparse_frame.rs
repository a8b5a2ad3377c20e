//! Prediction of a frame of which 95 % of the tiles are empty, beside one that is full: light-sheet microscopes often set the
//! background to zero.
//!
//! `cargo bench -p elephant-nn --bench sparse_frame`

#[allow(dead_code)]
mod common;

use std::{sync::Arc, thread, time::Instant};

use common::{AnyResult, nuclei, peak_mib, segment};
use elephant_model::{ProbabilityOutput, SegmentationOptions};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision};
use elephant_types::{KeepAxials, NetworkKind, Numerics};
use ndarray::{Array3, s};

const SHAPE: [usize; 3] = [32, 512, 512];
const TILE: [usize; 3] = [16, 128, 128];
/// Edge of the part that is not empty: 1/20 of the frame.
const FULL: [usize; 3] = [16, 160, 160];

fn main() -> AnyResult<()> {
    let threads = thread::available_parallelism()?.get();
    let options = DeviceOptions { device: DeviceChoice::Cpu, threads: Some(threads), precision: Precision::F32 };
    let device = DeviceHandle::start(options)?;
    let model = Arc::new(Model::random(NetworkKind::Volumetric, 1)?);
    let full = nuclei(SHAPE);
    let mut sparse = Array3::zeros(SHAPE);
    let [z, y, x] = FULL;
    sparse.slice_mut(s![..z, ..y, ..x]).assign(&full.slice(s![..z, ..y, ..x]));
    let options = SegmentationOptions {
        kind: NetworkKind::Volumetric,
        keep_axials: KeepAxials::first(3),
        tile: Some(TILE),
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    };
    let seconds = |image: Array3<f32>| -> AnyResult<f64> {
        let start = Instant::now();
        segment(&device, &model, image, &options)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (sparse, full) = (seconds(sparse)?, seconds(full)?);
    println!("frame {SHAPE:?}, tiles {TILE:?}, {threads} threads: full {full:.1} s, 95 % empty {sparse:.1} s");
    println!("ratio {:.1}; peak memory of this process {} MiB", full / sparse, peak_mib());
    Ok(())
}
