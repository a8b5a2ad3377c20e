//! Setups, levels, bit depths, gaps, cancellation and refusals of the dataset generation, on the small movies that
//! `tests/golden/dataset/make_h5.py` describes.

#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use elephant_bdv::BdvWriter;
use elephant_pipeline::{GenerateOptions, PipelineError, READY, Summary, check_dataset, generate_dataset};
use elephant_testkit::{golden, shared};
use elephant_types::{CancelToken, Coded, ErrorCode, Progress, TaskContext, VoxelSize};
use elephant_volume::{ArrayStore, DataType, Dataset, DatasetShape, FrameCache, FrameSource, Store};
use ndarray::{Array3, ArrayD};
use tempfile::TempDir;

const SHAPE: [usize; 3] = [5, 7, 9];

/// The voxel that `make_h5.py` writes.
fn voxel(t: usize, setup: usize, level: usize, (z, y, x): (usize, usize, usize)) -> u16 {
    (t * 7919 + setup * 1009 + level * 499 + z * 4001 + y * 211 + x * 13) as u16
}

fn options(movie: &str, folder: &TempDir) -> GenerateOptions {
    GenerateOptions::new(&golden("dataset/h5").join(movie), folder.path())
}

fn generate(options: &GenerateOptions) -> Result<Summary, PipelineError> {
    generate_dataset(options, &TaskContext::detached())
}

fn frame(folder: &Path, t: usize) -> Array3<f32> {
    let frames = FrameSource::open(folder, &FrameCache::default()).unwrap();
    let mut frame = Array3::zeros(frames.shape());
    frames.read(t, [0; 3], frame.view_mut(), &CancelToken::default()).unwrap();
    frame
}

/// The files of all stores in the folder, with their content.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for store in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = store.file_name().into_string().unwrap();
        if store.path().is_dir() && !name.starts_with('.') {
            let chunks = fs::read_dir(store.path()).unwrap().map(Result::unwrap);
            files.extend(chunks.map(|file| {
                (format!("{name}/{}", file.file_name().to_string_lossy()), fs::read(file.path()).unwrap())
            }));
        }
    }
    files.sort();
    files
}

#[test]
fn setups_and_levels_are_chosen() {
    for (setup, level, shape) in [(0, 0, SHAPE), (0, 1, [5, 4, 5]), (1, 0, SHAPE)] {
        let folder = tempfile::tempdir().unwrap();
        let options = GenerateOptions { setup: Some(setup), level, ..options("setups.h5", &folder) };
        let summary = generate(&options).unwrap();
        assert_eq!(summary.shape, DatasetShape { timepoints: 2, frame: shape, is_3d: true });
        let expected = Array3::from_shape_fn(shape, |at| f32::from(voxel(0, setup as usize, level as usize, at)));
        assert_eq!(frame(folder.path(), 0), expected);
        if setup == 1 {
            assert_eq!(frame(folder.path(), 1).sum(), 0.0, "an image that the movie leaves out is blank");
        }
    }
}

#[test]
fn frames_are_the_timepoints_in_order_or_those_asked_for() {
    for (timepoints, expected) in [
        (None, vec![Some(2), Some(5)]),
        (Some(vec![0, 1, 2, 3, 4, 5]), vec![None, None, Some(2), None, None, Some(5)]),
        (Some(vec![20_210_603, 5, 2]), vec![None, Some(5), Some(2)]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let summary = generate(&GenerateOptions { timepoints, ..options("gaps.h5", &folder) }).unwrap();
        assert_eq!(summary.shape.timepoints, expected.len());
        assert_eq!(summary.blank_frames, expected.iter().filter(|id| id.is_none()).count());
        assert_eq!(check_dataset(folder.path(), "", &[expected.len(), 5, 7, 9]).unwrap(), READY);
        for (t, id) in expected.into_iter().enumerate() {
            let value = |at| id.map_or(0.0, |id: usize| f32::from(voxel(id, 0, 0, at)));
            assert_eq!(frame(folder.path(), t), Array3::from_shape_fn(SHAPE, value), "{t}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let none =
        generate(&GenerateOptions { timepoints: Some(vec![0, 1, 3]), ..options("gaps.h5", &folder) }).unwrap_err();
    assert_eq!(
        none.to_string(),
        "gaps.h5 has no image of setup 0 at the timepoints 0, 1, 3; it has the timepoints 2, 5"
    );
    assert!(generate(&GenerateOptions { timepoints: Some(vec![]), ..options("gaps.h5", &folder) }).is_err());
}

#[test]
fn bits_and_divisor_change_the_values_as_in_the_original() {
    for (is_uint16, divisor, expected) in [
        (Some(false), 1.0, (|value| f64::from(value as u8)) as fn(u16) -> f64),
        (Some(true), 1.0, f64::from),
        (None, 1.0, f64::from),
        (Some(false), 256.0, |value| f64::from(value / 256)),
        (Some(true), 3.0, |value| f64::from(value / 3)),
        // As NumPy has it: 255 // 0.1 is 2549.
        (Some(true), 0.1, |value| f64::from((if value == 0 { 0 } else { u32::from(value) * 10 - 1 }) as u16)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let summary = generate(&GenerateOptions { is_uint16, divisor, ..options("gzip.h5", &folder) }).unwrap();
        let expected = Array3::from_shape_fn(SHAPE, |at| expected(voxel(1, 0, 0, at)) as f32);
        assert_eq!(frame(folder.path(), 1), expected, "{is_uint16:?} {divisor}");
        let largest =
            (0..2).flat_map(|t| Array3::from_shape_fn(SHAPE, |at| voxel(t, 0, 0, at)).into_iter()).max().unwrap();
        let limit = if is_uint16 == Some(false) { 255.0 } else { 65535.0 };
        assert_eq!(summary.max_value, f64::from(largest));
        assert_eq!(summary.is_wrapped, (f64::from(largest) / divisor).floor() > limit, "{is_uint16:?} {divisor}");
    }
}

#[test]
fn eight_bits_become_sixteen_when_a_value_asks_for_them() {
    for (last, is_uint16) in [(255, false), (256, true), (40000, true)] {
        let folder = tempfile::tempdir().unwrap();
        let movie = folder.path().join("movie.h5");
        let voxel_size = VoxelSize::new([1.0; 3]).unwrap();
        let mut writer = BdvWriter::create(&movie, [3, 4, 5], voxel_size).unwrap();
        let values = [0, 50, 100, 150, last];
        for value in values {
            writer.append(Array3::from_elem((3, 4, 5), value).view()).unwrap();
        }
        writer.finish().unwrap();
        let summary = generate(&GenerateOptions::new(&movie, folder.path())).unwrap();
        assert_eq!((summary.is_uint16, summary.is_wrapped, summary.max_value), (is_uint16, false, f64::from(last)));
        for (t, value) in values.into_iter().enumerate() {
            assert_eq!(frame(folder.path(), t), Array3::from_elem((3, 4, 5), f32::from(value)));
        }
    }
}

#[test]
fn two_dimensions_are_the_first_plane() {
    let folder = tempfile::tempdir().unwrap();
    generate(&GenerateOptions { is_2d: true, ..options("scale_offset_gzip.h5", &folder) }).unwrap();
    assert_eq!(check_dataset(folder.path(), "", &[2, 7, 9]).unwrap(), READY);
    let expected = Array3::from_shape_fn((1, 7, 9), |at| f32::from(voxel(1, 0, 0, at)));
    assert_eq!(frame(folder.path(), 1), expected);
}

#[test]
fn movies_in_parts_and_descriptions_are_inputs_too() {
    for movie in ["parts.h5", "described.xml"] {
        let folder = tempfile::tempdir().unwrap();
        generate(&options(movie, &folder)).unwrap();
        assert_eq!(
            frame(folder.path(), 1),
            Array3::from_shape_fn(SHAPE, |at| f32::from(voxel(1, 0, 0, at))),
            "{movie}"
        );
    }
}

#[test]
fn labels_are_wiped_and_other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("movie.h5"), "the user's").unwrap();
    generate(&options("gzip.h5", &folder)).unwrap();
    let fresh = content(folder.path());
    let dataset = Dataset::open(folder.path()).unwrap();
    let labels = dataset.store(Store::SegLabels);
    labels.write(&[0, 0, 0, 0], ArrayD::from_elem(labels.shape(), 1_u8).view()).unwrap();
    assert_ne!(content(folder.path()), fresh);
    generate(&options("gzip.h5", &folder)).unwrap();
    assert_eq!(content(folder.path()), fresh);
    assert_eq!(fs::read_to_string(folder.path().join("movie.h5")).unwrap(), "the user's");
}

#[test]
fn a_failed_or_cancelled_generation_leaves_the_old_dataset() {
    let folder = tempfile::tempdir().unwrap();
    generate(&options("gzip.h5", &folder)).unwrap();
    let old = content(folder.path());
    for (movie, says) in [
        ("sizes_differ.h5", "timepoint 1 of the movie has [4, 7, 9] voxels (z, y, x) and the first one [5, 7, 9]"),
        ("not_gzip.h5", "not valid gzip data"),
        ("text.h5", "not an HDF5 file"),
        ("zstd.h5", "Zstandard"),
        ("nonexistent.h5", "nonexistent.h5"),
    ] {
        let error = generate(&options(movie, &folder)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(content(folder.path()), old, "{movie}");
    }
    for divisor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = generate(&GenerateOptions { divisor, ..options("gzip.h5", &folder) }).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    }
    let cancel = CancelToken::default();
    let trigger = cancel.clone();
    let context = TaskContext::new(cancel, move |_| trigger.cancel());
    let cancelled = generate_dataset(&options("uint8.h5", &folder), &context).unwrap_err();
    assert!(matches!(cancelled, PipelineError::Cancelled(_)), "{cancelled}");
    assert_eq!(content(folder.path()), old);
    let hidden = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".staging"));
    assert_eq!(hidden.count(), 0, "nothing half-made stays");
}

#[test]
fn a_second_generation_is_refused_while_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let inner = options("gzip.h5", &folder);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let codes = Arc::clone(&refused);
    let context = TaskContext::new(CancelToken::default(), move |_| {
        codes.lock().unwrap().push(generate(&inner).map(|_| ()).map_err(|error| error.code()));
    });
    generate_dataset(&options("gzip.h5", &folder), &context).unwrap();
    assert_eq!(*refused.lock().unwrap(), [Err(ErrorCode::Conflict); 2]);
}

#[test]
fn progress_counts_timepoints() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let context = TaskContext::new(CancelToken::default(), move |progress| sink.lock().unwrap().push(progress));
    generate_dataset(&GenerateOptions { setup: Some(1), ..options("setups.h5", &folder) }, &context).unwrap();
    assert_eq!(*seen.lock().unwrap(), [Progress { done: 1, total: 2 }, Progress { done: 2, total: 2 }]);
}

#[test]
fn check_names_the_first_problem() {
    let folder = tempfile::tempdir().unwrap();
    let check = |shape: &[usize]| check_dataset(folder.path(), "/workspace/datasets/lab", shape).unwrap();
    assert_eq!(check(&[2, 5, 7, 9]), "/workspace/datasets/lab/imgs.zarr is not found or broken.");
    generate(&options("gzip.h5", &folder)).unwrap();
    assert_eq!(check(&[2, 5, 7, 9]), READY);
    assert_eq!(check(&[2, 5, 7]), "Invalid shape for imgs.zarr\nExpected: (2, 5, 7) Found: (2, 5, 7, 9)");
    assert_eq!(check(&[2]), "Invalid shape for imgs.zarr\nExpected: (2,) Found: (2, 5, 7, 9)");
    assert_eq!(check(&[]), "Invalid shape for imgs.zarr\nExpected: () Found: (2, 5, 7, 9)");
    let replace = |store: Store, shape: &[usize], data_type| {
        let path = folder.path().join(store.folder());
        fs::remove_dir_all(&path).unwrap();
        ArrayStore::create(&path, shape, shape, data_type).unwrap();
    };
    // From the last that is checked to the first.
    replace(Store::SegLabels, &[2, 5, 7, 9], DataType::U16);
    assert_eq!(check(&[2, 5, 7, 9]), "Invalid dtype for seg_labels.zarr");
    replace(Store::SegOutputs, &[2, 5, 7, 9, 2], DataType::F16);
    assert_eq!(
        check(&[2, 5, 7, 9]),
        "Invalid shape for seg_outputs.zarr\nExpected: (2, 5, 7, 9, 3) Found: (2, 5, 7, 9, 2)"
    );
    fs::write(folder.path().join("flow_labels.zarr/.zarray"), "{").unwrap();
    assert_eq!(check(&[2, 5, 7, 9]), "/workspace/datasets/lab/flow_labels.zarr is not found or broken.");
    replace(Store::FlowHashes, &[2], DataType::Bytes16);
    assert_eq!(check(&[2, 5, 7, 9]), "Invalid shape for flow_hashes.zarr\nExpected: (1,) Found: (2,)");
    fs::remove_dir_all(folder.path().join("flow_outputs.zarr")).unwrap();
    assert_eq!(check(&[2, 5, 7, 9]), "/workspace/datasets/lab/flow_outputs.zarr is not found or broken.");
}

/// The client offers to make a dataset anew when the check finds a problem, and the labels would be lost.
#[test]
fn check_does_not_call_a_store_missing_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    generate(&options("gzip.h5", &folder)).unwrap();
    let labels = folder.path().join(Store::SegLabels.folder());
    let kept = folder.path().join("kept");
    fs::rename(&labels, &kept).unwrap();
    let check = || check_dataset(folder.path(), "", &[2, 5, 7, 9]);
    assert_eq!(check().unwrap(), "/seg_labels.zarr is not found or broken.");
    std::os::unix::fs::symlink("seg_labels.zarr", &labels).unwrap();
    let error = check().unwrap_err();
    assert!(error.to_string().contains("cannot open"), "{error}");
    assert!(!error.to_string().contains("again"), "{error}");
}

#[test]
fn chunks_that_do_not_fit_the_first_volume_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("chunks_differ", "timepoint 1 of the movie has chunks of [1, 9216, 9216] voxels"),
        ("virtual_again", "decoded again and again"),
    ] {
        let movie = golden(&format!("hostile/{name}.h5"));
        let error = generate(&GenerateOptions::new(&movie, folder.path())).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn real_movies_of_other_writers_are_converted() {
    for (movie, setup, shape, max_value) in [
        ("data/constantinpape_pybdv/example.xml", 0, [6, 512, 512], 65535_u16),
        ("data/nvladimus_npy2bdv/kidney.xml", 0, [32, 172, 111], 2921),
        ("data/nvladimus_npy2bdv/kidney.h5", 1, [32, 172, 111], 14820),
        ("data/nvladimus_npy2bdv/kidney_v1.xml", 2, [32, 172, 111], 2266),
        ("data/elephant-track_elephant-client/sample.xml", 0, [8, 256, 256], 255),
    ] {
        let Some(movie) = shared(movie) else { return };
        let folder = tempfile::tempdir().unwrap();
        let summary =
            generate(&GenerateOptions { setup: Some(setup), ..GenerateOptions::new(&movie, folder.path()) }).unwrap();
        assert_eq!((summary.shape.frame, summary.max_value), (shape, f64::from(max_value)), "{}", movie.display());
        let largest = frame(folder.path(), 0).fold(0.0_f32, |max, &value| max.max(value));
        assert_eq!(largest, f32::from(max_value), "{}", movie.display());
    }
}
