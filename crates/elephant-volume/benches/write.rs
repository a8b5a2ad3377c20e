//! Writing and reading frames against their floor: compressing the planes in memory, on all cores.

use std::time::Instant;

use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::Array4;
use rayon::prelude::*;

const SHAPE: [usize; 3] = [64, 384, 384];
const FRAMES: usize = 15;
const ROUNDS: usize = 3;

fn main() {
    let frame = camera_noise();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut writing, mut reading, mut compressing) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for round in 0..ROUNDS {
        let shape = DatasetShape { timepoints: FRAMES, frame: SHAPE, is_3d: true };
        let folder = folder.path().join(round.to_string());
        let dataset = Dataset::create(&folder, shape, DataType::U16).expect("a new dataset");
        let images = dataset.store(Store::Images);
        writing = writing.min(seconds(|| {
            for t in 0..FRAMES {
                images.write(&[t, 0, 0, 0], frame.view().into_dyn()).expect("the frame is written");
            }
        }));
        reading = reading.min(seconds(|| {
            for t in 0..FRAMES {
                let mut read = Array4::<f32>::zeros(frame.dim());
                images.read_as(&[t, 0, 0, 0], read.view_mut().into_dyn(), |voxel: u16| f32::from(voxel)).expect("read");
            }
        }));
        compressing = compressing.min(seconds(|| (0..FRAMES).for_each(|_| compress(&frame))));
    }
    let rate = |seconds: f64| (FRAMES * frame.len() * 2) as f64 / seconds / 1e6;
    println!("write frames: {:.0} MB/s", rate(writing));
    println!(
        "write frames, compressing alone: {:.0} MB/s, ours / floor {:.2}",
        rate(compressing),
        writing / compressing
    );
    println!("read frames as f32: {:.0} MB/s of stored voxels", rate(reading));
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// A frame with the noise of a camera, which compresses like a real one's background.
fn camera_noise() -> Array4<u16> {
    let mut state = 1_u64;
    Array4::from_shape_simple_fn((1, SHAPE[0], SHAPE[1], SHAPE[2]), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        90 + ((state >> 40) & 31) as u16 + ((state >> 50) & 31) as u16
    })
}

#[allow(unsafe_code, reason = "calls C")]
fn compress(frame: &Array4<u16>) {
    let plane = SHAPE[1] * SHAPE[2];
    let planes = frame.as_slice().expect("a new array is in C order").par_chunks(plane);
    planes.for_each_init(
        || vec![0_u8; plane * 2 + 16],
        |out, plane| {
            // SAFETY: both buffers are valid for the lengths given and do not overlap.
            let length = unsafe {
                blosc_src::blosc_compress_ctx(
                    5,
                    1,
                    2,
                    plane.len() * 2,
                    plane.as_ptr().cast(),
                    out.as_mut_ptr().cast(),
                    out.len(),
                    c"lz4".as_ptr(),
                    0,
                    1,
                )
            };
            assert!(length > 0);
        },
    );
}
