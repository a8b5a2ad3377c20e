//! Whole chunks, attributes, and arrays that are emptied.

#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path};

use elephant_types::{Coded, ErrorCode};
use elephant_volume::{ArrayStore, DataType, VolumeError};
use ndarray::{Array2, ArrayD, IxDyn, s};
use serde_json::{json, value::RawValue};

fn array(folder: &Path) -> ArrayStore {
    ArrayStore::create(&folder.join("a.zarr"), &[5, 7], &[2, 4], DataType::U8).unwrap()
}

fn read(array: &ArrayStore) -> Array2<u8> {
    let mut all = ArrayD::from_elem(IxDyn(array.shape()), 99);
    array.read(&[0, 0], all.view_mut()).unwrap();
    all.into_dimensionality().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.join("a.zarr"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_blank_chunk_has_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let array = array(folder.path());
    let mut encoder = array.chunk_encoder::<u8>();
    for (index, element) in encoder.elements().iter_mut().enumerate() {
        *element = index as u8 + 1;
    }
    encoder.encode(&[1, 1]).unwrap().write().unwrap();
    encoder.encode(&[2, 0]).unwrap().write().unwrap();
    assert_eq!(files(folder.path()), [".zarray", "1.1", "2.0"]);
    let all = read(&array);
    // Parts of the chunks stick out of the array.
    assert_eq!(all.slice(s![2..4, 4..7]), ndarray::arr2(&[[1, 2, 3], [5, 6, 7]]));
    assert_eq!(all.slice(s![4..5, 0..4]), ndarray::arr2(&[[1, 2, 3, 4]]));
    assert_eq!(all.slice(s![0..2, ..]).sum(), 0);

    encoder.elements().fill(0);
    encoder.encode(&[1, 1]).unwrap().write().unwrap();
    encoder.encode(&[0, 0]).unwrap().write().unwrap();
    assert_eq!(files(folder.path()), [".zarray", "2.0"]);
    for outside in [&[3, 0][..], &[0, 2], &[0], &[0, 0, 0], &[usize::MAX, 0]] {
        assert_eq!(encoder.encode(outside).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    assert!(array.chunk_encoder::<u16>().encode(&[0, 0]).is_err());
}

#[test]
fn a_chunk_that_is_as_before_is_left_alone() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let array = array(folder.path());
    let path = folder.path().join("a.zarr/0.1");
    let mut encoder = array.chunk_encoder::<u8>();
    let mut inode_after = |element: u8| {
        encoder.elements().fill(element);
        encoder.elements()[3] = 1;
        encoder.encode(&[0, 1]).unwrap().write().unwrap();
        assert_eq!(read(&array)[[0, 4]], element);
        path.metadata().unwrap().ino()
    };
    let first = inode_after(5);
    assert_eq!(inode_after(5), first);
    assert_ne!(inode_after(6), first);
    fs::write(&path, "damaged").unwrap();
    inode_after(6);
}

#[test]
fn attributes_are_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let array = array(folder.path());
    assert!(array.attributes().unwrap().is_empty());
    let path = folder.path().join("a.zarr/.zattrs");
    // As zarr-python writes it.
    fs::write(&path, "{\n    \"label.indices.3\": [\n        [\n            1,\n            2\n        ]\n    ],\n    \"updated\": true\n}").unwrap();
    let mut attributes = array.attributes().unwrap();
    assert_eq!(serde_json::to_value(&attributes).unwrap()["label.indices.3"], json!([[1, 2]]));
    attributes.insert("label.indices.4".into(), RawValue::from_string("[]".into()).unwrap());
    array.replace_attributes(&attributes).unwrap();
    let read = serde_json::to_value(array.attributes().unwrap()).unwrap();
    assert_eq!(read, json!({"label.indices.3": [[1, 2]], "label.indices.4": [], "updated": true}));
    for damaged in ["", "[1]", "{\"a\":", "\u{0}"] {
        fs::write(&path, damaged).unwrap();
        let error = array.attributes().unwrap_err();
        assert!(matches!(error, VolumeError::Attributes { .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn an_emptied_array_is_as_new() {
    let folder = tempfile::tempdir().unwrap();
    let array = array(folder.path());
    array.write(&[0, 0], Array2::<u8>::ones([5, 7]).view().into_dyn()).unwrap();
    array.replace_attributes(&serde_json::from_str(r#"{"updated": true}"#).unwrap()).unwrap();
    fs::write(folder.path().join("a.zarr/.tmp-killed"), "half").unwrap();
    fs::create_dir(folder.path().join("a.zarr/0")).unwrap();
    array.clear().unwrap();
    assert_eq!(files(folder.path()), [".zarray"]);
    assert_eq!(read(&array).sum(), 0);
    assert!(array.attributes().unwrap().is_empty());
}
