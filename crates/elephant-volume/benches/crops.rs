//! How many training crops per second are read from three frames of 64 × 1024 × 1024 voxels of 16 bit, with and without the
//! cache of decoded chunks: `cargo bench -p elephant-volume --bench crops`.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use elephant_types::CancelToken;
use elephant_volume::{DataType, Dataset, DatasetShape, FrameCache, FrameSource, Store};
use ndarray::{Array3, ArrayD, Axis, IxDyn};

const SHAPE: DatasetShape = DatasetShape { timepoints: 3, frame: [64, 1024, 1024], is_3d: true };
/// What a crop of 16 × 384 × 384 voxels is cut from when it is scaled and rotated.
const SIZE: [usize; 3] = [20, 480, 480];
const CROPS: usize = 60;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dataset = make_dataset(folder.path());
    let cancel = CancelToken::default();
    let uncached = crops_per_second(|t, [z, y, x]| {
        let mut crop = Array3::<f32>::zeros(SIZE).insert_axis(Axis(0)).into_dyn();
        let images = dataset.store(Store::Images);
        images.read_as(&[t, z, y, x], crop.view_mut(), |voxel: u16| f32::from(voxel)).expect("the crop is read");
    });
    let frames = FrameSource::open(folder.path(), &FrameCache::default()).expect("the dataset opens");
    let read = |t, origin| {
        let mut crop = Array3::zeros(SIZE);
        frames.read(t, origin, crop.view_mut(), &cancel).expect("the crop is read");
    };
    let first = crops_per_second(read);
    let warm = crops_per_second(read);
    println!("crops per second: {uncached:.0} without the cache, {first:.0} while it fills, {warm:.0} when it is full");
    let scan = |frames: &FrameSource| {
        let begin = Instant::now();
        frames.extent(0, [0; 3], SHAPE.frame, &cancel).expect("the frame is read");
        begin.elapsed().as_secs_f64() * 1e3
    };
    let cold = scan(&FrameSource::open(folder.path(), &FrameCache::default()).expect("the dataset opens"));
    println!("intensity range of a frame: {cold:.0} ms, {:.3} ms when it is remembered", {
        scan(&frames);
        scan(&frames)
    });
}

/// Reads the same crops in the same order each time.
fn crops_per_second(read: impl Fn(usize, [usize; 3])) -> f64 {
    let mut random = fastrand::Rng::with_seed(1);
    let begin = Instant::now();
    for _ in 0..CROPS {
        let origin = std::array::from_fn(|axis| random.usize(0..=SHAPE.frame[axis] - SIZE[axis]));
        read(random.usize(0..SHAPE.timepoints), origin);
    }
    CROPS as f64 / begin.elapsed().as_secs_f64()
}

/// Noise over a gradient, which compresses as microscopy does.
fn make_dataset(folder: &Path) -> Dataset {
    let dataset = Dataset::create(folder, SHAPE, DataType::U16).expect("the dataset is made");
    let mut random = fastrand::Rng::with_seed(2);
    let [depth, height, width] = SHAPE.frame;
    for t in 0..SHAPE.timepoints {
        for z in 0..depth {
            let plane =
                ArrayD::from_shape_simple_fn(IxDyn(&[1, 1, height, width]), || 100 + z as u16 + random.u16(0..64));
            dataset.store(Store::Images).write(&[t, z, 0, 0], plane.view()).expect("the plane is written");
        }
    }
    // Files that changed just now are not kept in the cache.
    let images = folder.join("imgs.zarr");
    let files = fs::read_dir(&images).expect("the store is listed").map(|entry| entry.expect("an entry").path());
    for path in files.chain([images.clone()]) {
        let minute_ago = SystemTime::now() - Duration::from_mins(1);
        File::open(path).and_then(|file| file.set_modified(minute_ago)).expect("the time is set");
    }
    dataset
}
