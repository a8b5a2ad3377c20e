//! Boxes of arrays, damaged chunks, and readers beside writers.

#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use elephant_volume::{ArrayStore, DataType, Dataset, DatasetShape, Store, VolumeError};
use half::f16;
use ndarray::{Array4, ArrayD, IxDyn, Slice, s};
use proptest::prelude::*;

type Axes = Vec<usize>;

/// An array's shape, its chunks, and boxes in it: first element and size.
fn arrays() -> impl Strategy<Value = (Axes, Axes, Vec<(Axes, Axes)>)> {
    let axis = (1_usize..12, 1_usize..6);
    prop::collection::vec(axis, 1..5).prop_flat_map(|axes| {
        let (shape, chunks): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
        let range = |edge: usize| (0..=edge).prop_flat_map(move |start| (Just(start), 0..=edge - start));
        let ranges =
            shape.iter().map(|&edge| range(edge)).collect::<Vec<_>>().prop_map(|ranges| ranges.into_iter().unzip());
        (Just(shape), Just(chunks), prop::collection::vec(ranges, 1..5))
    })
}

fn slice(array: &mut ArrayD<f32>, start: &[usize], size: &[usize], value: f32) {
    let mut view = array.view_mut();
    for (axis, (&start, &size)) in start.iter().zip(size).enumerate() {
        view.slice_axis_inplace(ndarray::Axis(axis), Slice::from(start..start + size));
    }
    view.iter_mut().enumerate().for_each(|(index, element)| *element = value + index as f32);
}

proptest! {
    #[test]
    fn boxes_written_are_read_back((shape, chunks, boxes) in arrays()) {
        let folder = tempfile::tempdir().unwrap();
        let array = ArrayStore::create(&folder.path().join("a.zarr"), &shape, &chunks, DataType::F32).unwrap();
        let mut model = ArrayD::<f32>::zeros(IxDyn(&shape));
        for (number, (start, size)) in boxes.iter().enumerate() {
            let mut data = ArrayD::<f32>::zeros(IxDyn(size));
            slice(&mut data, &vec![0; size.len()], size, 1000.0 * number as f32);
            slice(&mut model, start, size, 1000.0 * number as f32);
            array.write(start, data.view()).unwrap();
        }
        let reopened = ArrayStore::open(&folder.path().join("a.zarr")).unwrap();
        for (start, size) in boxes.iter().chain([&(vec![0; shape.len()], shape.clone())]) {
            let mut found = ArrayD::<f32>::from_elem(IxDyn(size), -1.0);
            reopened.read(start, found.view_mut()).unwrap();
            let mut expected = model.view();
            for (axis, (&start, &size)) in start.iter().zip(size).enumerate() {
                expected.slice_axis_inplace(ndarray::Axis(axis), Slice::from(start..start + size));
            }
            prop_assert_eq!(found.view(), expected);
        }
    }
}

fn store_probabilities(
    dataset: &Dataset,
    t: usize,
    origin: [usize; 3],
    classes: &Array4<f32>,
) -> Result<(), VolumeError> {
    let (_, z, y, x) = classes.dim();
    let writer = dataset.probability_writer(t, origin, [z, y, x], tempfile::tempdir().unwrap())?;
    for plane in 0..z {
        writer.write(plane, classes.slice(s![.., plane..=plane, .., ..]))?;
    }
    writer.publish()
}

#[test]
fn probabilities_go_to_their_box_and_class() {
    for (shape, origin) in [
        (DatasetShape { timepoints: 3, frame: [4, 20, 30], is_3d: true }, [2, 5, 6]),
        (DatasetShape { timepoints: 3, frame: [1, 20, 30], is_3d: false }, [0, 5, 6]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::create(folder.path(), shape, DataType::U8).unwrap();
        let depth = if shape.is_3d { 2 } else { 1 };
        let classes = Array4::from_shape_fn((3, depth, 7, 8), |(c, z, y, x)| (c * 500 + z * 100 + y * 10 + x) as f32);
        store_probabilities(&dataset, 1, origin, &classes).unwrap();
        let outputs = dataset.store(Store::SegOutputs);
        let mut all = ArrayD::from_elem(outputs.shape(), f16::ONE);
        outputs.read(&vec![0; outputs.shape().len()], all.view_mut()).unwrap();
        let all = all.into_shape_with_order((3, shape.frame[0], 20, 30, 3)).unwrap().mapv(f16::to_f32);
        let [z, y, x] = origin;
        for class in 0..3 {
            let found = all.slice(s![1, z..z + depth, y..y + 7, x..x + 8, class]);
            assert_eq!(found, classes.index_axis(ndarray::Axis(0), class));
        }
        assert_eq!(all.sum(), classes.sum(), "and nowhere else");
        assert!(store_probabilities(&dataset, 1, [0, 14, 0], &classes).is_err());
        assert!(store_probabilities(&dataset, 3, origin, &classes).is_err());
    }
}

fn write_constant(array: &ArrayStore, value: u16) {
    array.write(&[0, 0, 0], ArrayD::from_elem(array.shape(), value).view()).unwrap();
}

fn read_all(array: &ArrayStore) -> Result<Vec<u16>, VolumeError> {
    let mut found = ArrayD::<u16>::zeros(array.shape());
    array.read(&[0, 0, 0], found.view_mut())?;
    Ok(found.into_raw_vec_and_offset().0)
}

#[test]
fn damaged_chunks_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let array = ArrayStore::create(&folder.path().join("a.zarr"), &[2, 40, 50], &[1, 40, 50], DataType::U16).unwrap();
    write_constant(&array, 300);
    let path = folder.path().join("a.zarr/1.0.0");
    let good = fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = good.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        damaged
    };
    for damaged in [
        vec![],
        good[..10].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        vec![7; 10000],
        with(4, &u32::MAX.to_le_bytes()), // claims 4 GiB
        with(4, &8_u32.to_le_bytes()),
        with(8, &0_u32.to_le_bytes()),
        with(2, &[0xFF]),
        with(16, &[0xFF; 4]),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = read_all(&array).unwrap_err();
        assert!(error.to_string().contains("the chunk 1.0.0 of a.zarr is damaged"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(read_all(&array).unwrap()[2000..], [0; 2000], "a missing chunk is blank");
    fs::create_dir(&path).unwrap();
    assert!(read_all(&array).is_err());
    assert!(ArrayStore::open(Path::new("/nonexistent/a.zarr")).unwrap_err().to_string().contains("a.zarr is missing"));
    let wrong_type = array.read(&[0, 0, 0], ArrayD::<f32>::zeros(array.shape()).view_mut()).unwrap_err();
    assert!(wrong_type.to_string().contains("it holds U16, not F32"), "{wrong_type}");
}

#[test]
fn a_reader_sees_old_or_new_chunks_never_half() {
    let folder = tempfile::tempdir().unwrap();
    let array =
        ArrayStore::create(&folder.path().join("a.zarr"), &[2, 100, 300], &[1, 100, 300], DataType::U16).unwrap();
    write_constant(&array, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                for chunk in read_all(&array).unwrap().chunks(30000) {
                    assert!(chunk.iter().all(|&value| value == chunk[0]));
                }
                reads += 1;
            }
        });
        (1..200).for_each(|value| write_constant(&array, value));
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(fs::read_dir(folder.path().join("a.zarr")).unwrap().count(), 3, "no temporary file stays");
}

#[test]
fn stores_that_do_not_belong_together_are_refused() {
    let shape = DatasetShape { timepoints: 2, frame: [3, 4, 5], is_3d: true };
    let replace = |store: Store, shape: &[usize], data_type| {
        let folder = tempfile::tempdir().unwrap();
        Dataset::create(folder.path(), MOVIE, DataType::U8).unwrap();
        let path = folder.path().join(store.folder());
        fs::remove_dir_all(&path).unwrap();
        if !shape.is_empty() {
            ArrayStore::create(&path, shape, shape, data_type).unwrap();
        }
        Dataset::open(folder.path()).unwrap_err().to_string()
    };
    let says = |error: String, part: &str| assert!(error.contains(part), "{error}");
    says(replace(Store::SegLabels, &shape.of(Store::SegLabels), DataType::U16), "seg_labels.zarr does not fit");
    says(replace(Store::FlowOutputs, &[1, 2, 3, 4, 5], DataType::F16), "[1, 3, 3, 4, 5] is expected");
    says(replace(Store::Images, &[2, 3], DataType::U8), "neither (t, z, y, x) nor (t, y, x)");
    says(replace(Store::Images, &shape.of(Store::Images), DataType::F32), "its data type is F32");
    says(replace(Store::FlowHashes, &[], DataType::U8), "flow_hashes.zarr is missing");
}

const MOVIE: DatasetShape = DatasetShape { timepoints: 2, frame: [3, 4, 5], is_3d: true };

#[test]
fn only_what_is_not_there_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("imgs.zarr");
    let open = || ArrayStore::open(&store).unwrap_err();
    assert!(matches!(open(), VolumeError::Missing { .. }));
    fs::create_dir(&store).unwrap();
    assert!(matches!(open(), VolumeError::Missing { .. }));
    fs::create_dir(store.join(".zarray")).unwrap();
    let refused = |what: &str| {
        let error = open();
        assert!(matches!(error, VolumeError::Fs(_)), "{what}: {error}");
        assert!(!error.to_string().contains("generate"), "generating would delete labels: {what}: {error}");
    };
    refused("a folder in place of the file");
    fs::remove_dir(store.join(".zarray")).unwrap();
    std::os::unix::fs::symlink(".zarray", store.join(".zarray")).unwrap();
    refused("a link to itself");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "").unwrap();
    refused("a file in place of the folder");
}
