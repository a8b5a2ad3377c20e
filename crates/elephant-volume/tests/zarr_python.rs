//! Stores of the other implementation, and ours read by it. `tests/golden/dataset/make_zarr.py` says what is in the files.

#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path, process::Command};

use elephant_testkit::golden;
use elephant_types::{Coded, ErrorCode};
use elephant_volume::{ArrayStore, DataType, Dataset, DatasetShape, Element, Store, VolumeError};
use half::f16;
use ndarray::{Array4, ArrayD, IxDyn};
use sha2::{Digest, Sha256};

fn open(name: &str) -> Result<ArrayStore, VolumeError> {
    ArrayStore::open(&golden("dataset/zarr/arrays").join(name))
}

fn read<T: Element>(array: &ArrayStore) -> Result<Vec<T>, VolumeError> {
    let mut out = ArrayD::from_elem(array.shape(), T::from_f64(1.0));
    array.read(&vec![0; array.shape().len()], out.view_mut())?;
    Ok(out.into_raw_vec_and_offset().0)
}

/// The elements that `make_zarr.py` writes; `fill` where nothing was written.
fn expected<T: Element>(fill: u32) -> Vec<T> {
    let is_byte = T::TYPE == DataType::U8;
    let element = |(t, y, x): (u32, u32, u32)| {
        let value = if t == 2 && y < 4 && x < 4 { fill } else { t * 1000 + y * 50 + x };
        T::from_f64(f64::from(if is_byte { value % 256 } else { value }))
    };
    (0..3).flat_map(|t| (0..5).flat_map(move |y| (0..7).map(move |x| (t, y, x)))).map(element).collect()
}

#[test]
fn arrays_of_zarr_python_are_read() {
    for (name, fill) in
        [("default", 0), ("uncompressed", 0), ("slash", 0), ("blosclz", 0), ("lz4hc_bits", 0), ("fill_7", 7)]
    {
        assert_eq!(read::<u16>(&open(name).unwrap()).unwrap(), expected::<u16>(fill), "{name}");
    }
    assert_eq!(read::<u8>(&open("uint8").unwrap()).unwrap(), expected::<u8>(0));
    assert_eq!(read::<f16>(&open("float16").unwrap()).unwrap(), expected::<f16>(0));
    assert_eq!(read::<f32>(&open("float32").unwrap()).unwrap(), expected::<f32>(0));
}

#[test]
fn arrays_that_cannot_be_read_say_why() {
    for (name, feature) in [
        ("zstd", "blosc with \"zstd\""),
        ("zlib", "\"zlib\""),
        ("fortran", "order \"F\""),
        ("big_endian", "\">u2\""),
        ("int64", "\"<i8\""),
        ("delta", "filters"),
    ] {
        let error = open(name).unwrap_err();
        assert!(matches!(error, VolumeError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(feature), "{error}");
    }
    for name in ["group", "nothing"] {
        let error = open(name).unwrap_err();
        assert!(matches!(error, VolumeError::Missing { .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::NotFound);
    }
}

#[test]
fn metadata_are_byte_for_byte_those_of_zarr_python() {
    let shape = |timepoints, frame: [usize; 3], is_3d| DatasetShape { timepoints, frame, is_3d };
    for (stores, shape) in [
        ("zarr/stores_3d", shape(2, [3, 4, 5], true)),
        ("zarr/stores_2d", shape(4, [1, 6, 7], false)),
        ("zarr/stores_one", shape(1, [3, 4, 5], true)),
        ("zarr/stores_large", shape(3, [2, 1500, 2000], true)),
        ("original", shape(8, [32, 96, 96], true)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        Dataset::create(folder.path(), shape, DataType::U16).unwrap();
        for store in Store::ALL {
            let text = |folder: &Path| fs::read_to_string(folder.join(store.folder()).join(".zarray")).unwrap();
            assert_eq!(text(folder.path()), text(&golden("dataset").join(stores)), "{stores} {store:?}");
            assert_eq!(fs::read_dir(folder.path().join(store.folder())).unwrap().count(), 1, "nothing but .zarray");
        }
        assert_eq!(Dataset::open(folder.path()).unwrap().shape(), shape);
    }
}

#[test]
fn chunks_are_byte_for_byte_the_originals() {
    let original = Dataset::open(&golden("dataset/original")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ours = Dataset::create(folder.path(), original.shape(), DataType::U16).unwrap();
    for (start, sum) in [
        ([0, 0, 0, 0], "0c1cd7200e53b2cd6d311b37910b575e35f5510c3762a25acb49bf1424fa8738"),
        ([7, 31, 0, 0], "adcbfcdcca3dd2a69ff4d2012adf4f08b25f3b0a14907bfbbd82feb9963fafc0"),
    ] {
        let mut plane = ArrayD::<u16>::zeros(IxDyn(&[1, 1, 96, 96]));
        original.store(Store::Images).read(&start, plane.view_mut()).unwrap();
        let bytes: Vec<_> = plane.iter().flat_map(|voxel| voxel.to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), sum);
        ours.store(Store::Images).write(&start, plane.view()).unwrap();
        let file = |folder: &Path| fs::read(folder.join(format!("imgs.zarr/{}.{}.0.0", start[0], start[1]))).unwrap();
        assert_eq!(file(folder.path()), file(&golden("dataset/original")));
    }
}

#[test]
fn zarr_python_reads_what_is_written_here() {
    let Some(python) = elephant_testkit::peer_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shape = DatasetShape { timepoints: 2, frame: [3, 1030, 5], is_3d: true };
    let dataset = Dataset::create(folder.path(), shape, DataType::U8).unwrap();
    let images = ArrayD::from_shape_fn(IxDyn(&[2, 3, 1030, 5]), |i| (i[0] * 90 + i[1] * 30 + i[2] + i[3] * 5) as u8);
    dataset.store(Store::Images).write(&[0; 4], images.view()).unwrap();
    let classes = Array4::from_shape_fn((3, 2, 4, 3), |(c, z, y, x)| (c * 100 + z * 30 + y * 5 + x) as f32 / 8.0);
    let staging = tempfile::tempdir_in(folder.path()).unwrap();
    let writer = dataset.probability_writer(1, [1, 1022, 2], [2, 4, 3], staging).unwrap();
    writer.write(0, classes.view()).unwrap();
    writer.publish().unwrap();
    let script = r"
import sys, numpy, zarr
store = lambda name: zarr.open(sys.argv[1] + '/' + name + '.zarr', 'r')
t, z, y, x = numpy.indices((2, 3, 1030, 5))
images = store('imgs')
assert images.dtype == numpy.uint8 and images.chunks == (1, 1, 1024, 5), images.info
assert (images[:] == (t * 90 + z * 30 + y + x * 5) % 256).all()
expected = numpy.zeros((2, 3, 1030, 5, 3), 'f2')
z, y, x, c = numpy.indices((2, 4, 3, 3))
expected[1, 1:3, 1022:1026, 2:5] = (c * 100 + z * 30 + y * 5 + x) / 8
outputs = store('seg_outputs')
assert outputs.dtype == numpy.float16 and (outputs[:] == expected).all()
assert outputs.nchunks_initialized == 2 * 2 * 3, outputs.nchunks_initialized
assert (store('flow_hashes')[:] == numpy.array([b'0'])).all()
assert not store('flow_labels')[:].any() and store('flow_labels').shape == (1, 4, 3, 1030, 5)
";
    let output = Command::new(python).args(["-c", script]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
