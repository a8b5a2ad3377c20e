//! Frames through the cache: the same voxels as without it, also after another writer has replaced them.

#![allow(clippy::disallowed_methods)]

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use elephant_types::{CancelToken, Coded, ErrorCode};
use elephant_volume::{ArrayStore, DataType, Dataset, DatasetShape, Extent, FrameCache, FrameSource, Store};
use ndarray::{Array3, ArrayD, IxDyn, s};
use proptest::prelude::*;

/// What the cache counts for each chunk besides its elements.
const ENTRY_BYTES: usize = 512;
const SHAPE: DatasetShape = DatasetShape { timepoints: 2, frame: [5, 8, 9], is_3d: true };

/// Makes everything in a store as old as files are that nobody changes now.
fn let_settle(store: &Path) {
    for path in fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).chain([store.to_owned()]) {
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }
}

fn image(seed: usize) -> Array3<u16> {
    Array3::from_shape_fn(SHAPE.frame, |(z, y, x)| (seed * 1000 + 81 * z + 9 * y + x) as u16)
}

fn write(dataset: &Dataset, image: &Array3<u16>) {
    let frame = image.view().insert_axis(ndarray::Axis(0)).into_dyn();
    dataset.store(Store::Images).write(&[1, 0, 0, 0], frame).unwrap();
}

/// A dataset whose images have chunks of this shape.
fn dataset(folder: &Path, chunks: [usize; 3]) -> Dataset {
    Dataset::create(folder, SHAPE, DataType::U16).unwrap();
    let images = folder.join("imgs.zarr");
    fs::remove_dir_all(&images).unwrap();
    let chunks = [&[1], &chunks[..]].concat();
    ArrayStore::create(&images, &SHAPE.of(Store::Images), &chunks, DataType::U16).unwrap();
    let dataset = Dataset::open(folder).unwrap();
    write(&dataset, &image(1));
    let_settle(&images);
    dataset
}

fn read(frames: &FrameSource, t: usize, origin: [usize; 3], size: [usize; 3]) -> Array3<f32> {
    let mut out = Array3::from_elem(size, f32::NAN);
    frames.read(t, origin, out.view_mut(), &CancelToken::default()).unwrap();
    out
}

#[test]
fn a_replaced_chunk_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), [1, 8, 9]);
    let cache = FrameCache::default();
    let room = cache.room();
    let frames = FrameSource::open(folder.path(), &cache).unwrap();
    let never = CancelToken::default();
    for seed in [1, 2, 3] {
        // Twice, the second time from the cache.
        for _ in 0..2 {
            assert_eq!(read(&frames, 1, [0; 3], SHAPE.frame), image(seed).mapv(f32::from));
            let (min, max) = (image(seed)[[0, 0, 0]], image(seed)[[4, 7, 8]]);
            assert_eq!(frames.extent(1, [0; 3], SHAPE.frame, &never).unwrap(), Extent { min, max });
            assert_eq!(frames.medians(1, [0; 3], SHAPE.frame, &never).unwrap().planes[0].0.min, min);
        }
        if seed != 2 {
            assert_eq!(cache.room(), room - 5 * (2 * 8 * 9 + ENTRY_BYTES), "all chunks are kept");
        }
        write(&dataset, &image(seed + 1));
        if seed == 2 {
            let_settle(&folder.path().join("imgs.zarr"));
        }
    }
    fs::remove_file(folder.path().join("imgs.zarr/1.4.0.0")).unwrap();
    assert_eq!(read(&frames, 1, [4, 0, 0], [1, 8, 9]).sum(), 0.0, "a chunk that is gone is blank");
}

#[test]
fn labels_are_those_of_the_last_update() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::create(folder.path(), SHAPE, DataType::U8).unwrap();
    let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
    for label in [1_u8, 2, 3] {
        let all = ArrayD::from_elem(IxDyn(&[1, 5, 8, 9]), label);
        dataset.store(Store::SegLabels).write(&[0, 0, 0, 0], all.view()).unwrap();
        let_settle(&folder.path().join("seg_labels.zarr"));
        for _ in 0..2 {
            let mut out = Array3::zeros((2, 3, 4));
            frames.read_labels(0, [1, 2, 3], out.view_mut(), &CancelToken::default()).unwrap();
            assert!(out.iter().all(|&found| found == label));
        }
    }
}

#[test]
fn planes_have_the_medians_of_their_values() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), [2, 3, 4]);
    let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
    let medians = frames.medians(1, [1, 2, 3], [3, 4, 5], &CancelToken::default()).unwrap();
    let median = |values: Vec<u16>| {
        let mut values = values;
        values.sort_unstable();
        f32::from(values[(values.len() - 1) / 2]).midpoint(f32::from(values[values.len() / 2]))
    };
    let part = image(1).slice(s![1..4, 2..6, 3..8]).to_owned();
    for (plane, (extent, found)) in part.outer_iter().zip(&medians.planes) {
        assert_eq!(*found, median(plane.iter().copied().collect()));
        assert_eq!((extent.min, extent.max), (plane[[0, 0]], plane[[3, 4]]));
    }
    assert_eq!(medians.planes.len(), 3);
    assert_eq!(medians.all, median(part.iter().copied().collect()));
}

#[test]
fn what_is_outside_or_cancelled_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), [1, 8, 9]);
    let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
    let cancelled = CancelToken::default();
    cancelled.cancel();
    let mut out = Array3::zeros((2, 3, 4));
    assert_eq!(frames.read(1, [0; 3], out.view_mut(), &cancelled).unwrap_err().code(), ErrorCode::Cancelled);
    assert_eq!(frames.extent(1, [0; 3], [5, 8, 9], &cancelled).unwrap_err().code(), ErrorCode::Cancelled);
    let never = CancelToken::default();
    for (t, origin) in [(2, [0; 3]), (1, [4, 0, 0]), (1, [0, usize::MAX, 0])] {
        assert_eq!(frames.read(t, origin, out.view_mut(), &never).unwrap_err().code(), ErrorCode::InvalidArgument);
        assert_eq!(frames.extent(t, origin, [2, 3, 4], &never).unwrap_err().code(), ErrorCode::InvalidArgument);
        assert_eq!(frames.medians(t, origin, [2, 3, 4], &never).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn a_2_d_dataset_has_one_plane() {
    let folder = tempfile::tempdir().unwrap();
    let shape = DatasetShape { timepoints: 2, frame: [1, 3, 4], is_3d: false };
    let dataset = Dataset::create(folder.path(), shape, DataType::U8).unwrap();
    let frame = ArrayD::from_shape_fn(IxDyn(&[1, 3, 4]), |index| (4 * index[1] + index[2]) as u8);
    dataset.store(Store::Images).write(&[1, 0, 0], frame.view()).unwrap();
    let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
    assert_eq!(read(&frames, 1, [0, 1, 2], [1, 2, 2]).into_raw_vec_and_offset().0, [6.0, 7.0, 10.0, 11.0]);
    let extent = frames.extent(1, [0, 1, 1], [1, 2, 3], &CancelToken::default()).unwrap();
    assert_eq!(extent, Extent { min: 5, max: 11 });
    let mut two_planes = Array3::zeros((2, 3, 4));
    assert!(frames.read(0, [0; 3], two_planes.view_mut(), &CancelToken::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn boxes_are_those_of_the_frame(
        chunks in [1_usize..6, 1_usize..9, 1_usize..10],
        origin in [0_usize..5, 0_usize..8, 0_usize..9],
        end in [0_usize..5, 0_usize..8, 0_usize..9],
    ) {
        let folder = tempfile::tempdir().unwrap();
        dataset(folder.path(), chunks);
        let size: [usize; 3] = std::array::from_fn(|d| end[d].saturating_sub(origin[d]) + 1);
        let [z, y, x] = std::array::from_fn(|d| origin[d]..origin[d] + size[d]);
        let expected = image(1).slice(s![z, y, x]).mapv(f32::from);
        let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
        for _ in 0..2 {
            prop_assert_eq!(read(&frames, 1, origin, size), expected.view());
        }
        let (min, max) = (expected[[0, 0, 0]] as u16, *expected.last().unwrap() as u16);
        prop_assert_eq!(frames.extent(1, origin, size, &CancelToken::default()).unwrap(), Extent { min, max });
    }
}
