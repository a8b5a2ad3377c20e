//! Writes and reads the frames of a movie with `elephant-volume` and with zarrs, in turns, on the same data: chunks of one
//! plane, unsigned 16 bit, Blosc lz4 with byte shuffle. All chunks are in the page cache. `make bench-zarrs`;
//! `TMPDIR=/dev/shm make bench-zarrs` leaves the disk out.

use std::{sync::Arc, time::Instant};

use elephant_volume::{ArrayStore, DataType};
use ndarray::{Array4, ArrayD};
use zarrs::{
    array::{Array, ArraySubset},
    filesystem::FilesystemStore,
};

/// Voxels of a frame (z, y, x).
const FRAME: [usize; 3] = [64, 384, 384];
const FRAMES: usize = 15;
const ROUNDS: usize = 5;

/// Seconds for all frames, the best round of each.
struct Times {
    write: f64,
    read: f64,
    read_as_f32: f64,
}

impl Times {
    const NONE: Self = Self { write: f64::INFINITY, read: f64::INFINITY, read_as_f32: f64::INFINITY };
}

fn main() {
    let frame = camera_noise();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut ours, mut theirs) = (Times::NONE, Times::NONE);
    for _ in 0..ROUNDS {
        let path = folder.path().join("frames");
        with_elephant_volume(&path, &frame, &mut ours);
        std::fs::remove_dir_all(&path).expect("the array is removed");
        with_zarrs(&path, &frame, &mut theirs);
        std::fs::remove_dir_all(&path).expect("the array is removed");
    }
    let rate = |seconds: f64| (FRAMES * frame.len() * 2) as f64 / seconds / 1e6;
    for (what, ours, theirs) in [
        ("write frames", ours.write, theirs.write),
        ("read frames", ours.read, theirs.read),
        ("read frames as f32", ours.read_as_f32, theirs.read_as_f32),
    ] {
        let (ours, theirs) = (rate(ours), rate(theirs));
        println!("{what}: ours {ours:.0} MB/s, zarrs {theirs:.0} MB/s of voxels, ratio {:.2}", ours / theirs);
    }
}

fn create(path: &std::path::Path) -> ArrayStore {
    std::fs::create_dir(path).expect("a new folder");
    let (shape, chunks) = ([FRAMES, FRAME[0], FRAME[1], FRAME[2]], [1, 1, FRAME[1], FRAME[2]]);
    ArrayStore::create(path, &shape, &chunks, DataType::U16).expect("a new array")
}

fn with_elephant_volume(path: &std::path::Path, frame: &Array4<u16>, best: &mut Times) {
    let store = create(path);
    let write = |t: usize| store.write(&[t, 0, 0, 0], frame.view().into_dyn()).expect("the frame is written");
    best.write = best.write.min(seconds(write));
    best.read = best.read.min(seconds(|t| {
        let mut voxels = Array4::<u16>::zeros(frame.dim());
        store.read(&[t, 0, 0, 0], voxels.view_mut().into_dyn()).expect("the frame is read");
        assert_eq!(voxels[[0, 1, 2, 3]], frame[[0, 1, 2, 3]]);
    }));
    best.read_as_f32 = best.read_as_f32.min(seconds(|t| {
        let mut voxels = Array4::<f32>::zeros(frame.dim());
        store
            .read_as(&[t, 0, 0, 0], voxels.view_mut().into_dyn(), |voxel: u16| voxel.into())
            .expect("the frame is read");
        assert_eq!(voxels[[0, 1, 2, 3]], f32::from(frame[[0, 1, 2, 3]]));
    }));
}

fn with_zarrs(path: &std::path::Path, frame: &Array4<u16>, best: &mut Times) {
    create(path);
    let store = FilesystemStore::new(path).expect("a store");
    let array = Array::open(Arc::new(store), "/").expect("zarrs opens the array");
    let subset = |t: usize| {
        let whole = FRAME.map(|edge| 0..edge as u64);
        ArraySubset::new_with_ranges(&[&[t as u64..t as u64 + 1], whole.as_slice()].concat())
    };
    let voxels = frame.as_slice().expect("a new array is in C order");
    best.write =
        best.write.min(seconds(|t| array.store_array_subset(&subset(t), voxels).expect("the frame is written")));
    best.read = best.read.min(seconds(|t| {
        let voxels: ArrayD<u16> = array.retrieve_array_subset(&subset(t)).expect("the frame is read");
        assert_eq!(voxels[[0, 0, 1, 2].as_slice()], frame[[0, 0, 1, 2]]);
    }));
    best.read_as_f32 = best.read_as_f32.min(seconds(|t| {
        let voxels: ArrayD<u16> = array.retrieve_array_subset(&subset(t)).expect("the frame is read");
        let voxels = voxels.mapv(f32::from);
        assert_eq!(voxels[[0, 0, 1, 2].as_slice()], f32::from(frame[[0, 0, 1, 2]]));
    }));
}

/// Seconds that `work` takes for all frames.
fn seconds(work: impl Fn(usize)) -> f64 {
    let begin = Instant::now();
    (0..FRAMES).for_each(work);
    begin.elapsed().as_secs_f64()
}

/// A frame (1, z, y, x) with the noise of a camera, which compresses like a real one's background.
fn camera_noise() -> Array4<u16> {
    let mut state = 1_u64;
    Array4::from_shape_simple_fn((1, FRAME[0], FRAME[1], FRAME[2]), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        90 + ((state >> 40) & 31) as u16 + ((state >> 50) & 31) as u16
    })
}
