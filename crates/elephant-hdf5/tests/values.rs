//! Groups, attributes, texts and numbers against what h5py reads; `tests/golden/hdf5/make_hdf5.py` says what is there.

#![allow(clippy::disallowed_methods)]

use std::{fmt::Write, path::Path};

use elephant_hdf5::{Dataset, Group, Hdf5Error, Hdf5File, Object, Reach, Value};
use elephant_testkit::{golden, read_json, shared};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

fn open(path: &Path) -> Hdf5File {
    Hdf5File::open(path, Reach::Folder).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Type and values, as `make_hdf5.py` writes them, and the bytes of the values in little endian.
fn described(value: &Value) -> (&'static str, serde_json::Value, Vec<u8>) {
    macro_rules! numbers {
        ($name:literal, $values:expr) => {{
            let values: Vec<_> = $values.iter().copied().collect();
            ($name, json!(values), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }};
    }
    match value {
        Value::Bool(values) => {
            let values: Vec<bool> = values.iter().copied().collect();
            ("bool", json!(values), values.iter().map(|&value| value.into()).collect())
        }
        Value::U8(values) => numbers!("u8", values),
        Value::U16(values) => numbers!("u16", values),
        Value::U32(values) => numbers!("u32", values),
        Value::U64(values) => numbers!("u64", values),
        Value::I8(values) => numbers!("i8", values),
        Value::I16(values) => numbers!("i16", values),
        Value::I32(values) => numbers!("i32", values),
        Value::I64(values) => numbers!("i64", values),
        Value::F32(values) => numbers!("f32", values),
        Value::F64(values) => numbers!("f64", values),
        Value::Text(values) => {
            let texts: Vec<&str> = values.iter().map(String::as_str).collect();
            ("text", json!(texts), texts.join("\0").into_bytes())
        }
    }
}

/// All attributes and datasets of a file, by path; those of other types are left out.
fn contents(file: &Hdf5File) -> Result<Vec<(String, Value)>, Hdf5Error> {
    let mut found = Vec::new();
    let mut add = |path: String, value: Result<Option<Value>, Hdf5Error>| match value {
        Ok(value) => found.extend(value.map(|value| (path, value))),
        Err(error) if error.to_string().contains("only numbers, truth values and texts are read") => {}
        Err(error) if error.to_string().contains("have an unusable type") => {}
        Err(error) => panic!("{path}: {error}"),
    };
    let root = file.root()?;
    for name in root.attribute_names()? {
        add(format!("/@{name}"), root.attribute(&name));
    }
    root.walk(|path, object| {
        match object {
            Object::Group(group) => {
                for name in group.attribute_names()? {
                    add(format!("{path}@{name}"), group.attribute(&name));
                }
            }
            Object::Dataset(dataset) => {
                for name in dataset.attribute_names()? {
                    add(format!("{path}@{name}"), dataset.attribute(&name));
                }
                add(path.to_owned(), dataset.read().map(Some));
            }
            Object::Other => {}
        }
        Ok::<_, Hdf5Error>(())
    })?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[test]
fn every_type_and_storage_has_the_values_of_h5py() {
    let expected = read_json(&golden("hdf5/values.json"));
    let expected = expected.as_array().unwrap();
    assert!(expected.len() > 60);
    for name in ["values", "latest"] {
        let file = open(&golden(&format!("hdf5/{name}.h5")));
        let found = contents(&file).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(path, value)| {
                let (kind, values, _) = described(value);
                json!([path, kind, value.shape(), values])
            })
            .collect();
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(found.len(), expected.len(), "{name}");
    }
}

#[test]
fn projects_of_ilastik_have_the_values_of_h5py() {
    let expected = read_json(&golden("hdf5/ilastik.json"));
    for (name, expected) in expected.as_object().unwrap() {
        let Some(path) = shared(&format!("oracle/ilastik/projects/{name}")) else { return };
        let file = open(&path);
        let found = contents(&file).unwrap();
        let mut lines = String::new();
        for (path, value) in &found {
            let (kind, _, bytes) = described(value);
            let shape: Vec<_> = value.shape().iter().map(usize::to_string).collect();
            writeln!(lines, "{path} {kind} [{}] {}", shape.join(", "), hex(&Sha256::digest(bytes))).unwrap();
        }
        assert_eq!(json!(found.len()), expected["values"], "{name}:\n{lines}");
        assert_eq!(json!(hex(&Sha256::digest(lines.as_bytes()))), expected["sha256"], "{name}:\n{lines}");
        let root = file.root().unwrap();
        let workflow = root.dataset("workflowName").unwrap().unwrap().read().unwrap();
        assert_eq!(workflow.text(), Some("Pixel Classification"), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn dataset<'f>(root: &Group<'f>, path: &str) -> Dataset<'f> {
    root.dataset(path).unwrap().unwrap_or_else(|| panic!("{path} is missing"))
}

#[test]
fn values_are_taken_as_plain_numbers_and_texts() {
    let file = open(&golden("hdf5/values.h5"));
    let root = file.root().unwrap();
    let read = |path: &str| dataset(&root, path).read().unwrap();
    assert_eq!(read("numbers/scalar").integers().unwrap().into_raw_vec_and_offset().0, [-7]);
    assert_eq!(read("numbers/f4").integers(), None);
    assert_eq!(read("numbers/u8").floats().unwrap().sum(), 315.0);
    assert_eq!(read("numbers/bool").integers().unwrap().sum(), 2);
    assert_eq!(read("numbers/bool").bool(), None, "there are four");
    assert_eq!(read("texts/variable").text(), Some("Pixel Classification"));
    assert_eq!(read("texts/fixed").text(), None, "there are three");
    assert_eq!(read("texts/fixed").floats(), None);
    assert_eq!(dataset(&root, "numbers/five_axes").shape().unwrap(), [2, 1, 3, 2, 2]);
}

#[test]
fn links_are_followed_within_reach() {
    let file = open(&golden("hdf5/values.h5"));
    let root = file.root().unwrap();
    let other = root.group("other").unwrap().unwrap();
    assert_eq!(other.members().unwrap().len(), 9);
    assert_eq!(dataset(&other, "soft").read().unwrap(), dataset(&root, "numbers/u1").read().unwrap());
    assert_eq!(dataset(&other, "up/other/up/numbers/scalar").read().unwrap().shape(), [0; 0]);
    assert_eq!(dataset(&other, "/numbers/scalar").path(), "/numbers/scalar");
    assert!(other.object("dangling").unwrap().is_none() && root.object("gone/x").unwrap().is_none());
    assert!(matches!(other.object("type"), Ok(Some(Object::Other))));
    for (path, says) in [
        ("round", "go round in circles"),
        ("outside", "needs the partition file \"/etc/passwd\", which is not in its folder"),
        ("soft/x", "cannot read"),
    ] {
        let error = other.object(path).unwrap_err().to_string();
        assert!(error.contains(says), "{path}: {error}");
    }
    assert!(root.dataset("numbers").unwrap_err().to_string().contains("it is not a dataset"));
    assert!(root.group("numbers/u1").unwrap_err().to_string().contains("it is not a group"));
    for (path, says) in [("opaque", "unusable type"), ("compound", "only numbers, truth values and texts are read")] {
        let error = dataset(&other, path).read().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A file that `make` writes with the HDF5 library, damaged by `damage`, and the error of reading all of it.
fn failure(name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = std::fs::read(golden(&format!("hdf5/{name}.h5"))).unwrap();
    damage(&mut bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.h5");
    std::fs::write(&path, bytes).unwrap();
    read_everything(&path).unwrap_err().to_string()
}

/// Reads everything in a file, and stops at the first error.
fn read_everything(path: &Path) -> Result<(), Hdf5Error> {
    let file = Hdf5File::open(path, Reach::Folder)?;
    let is_other = |error: &Hdf5Error| {
        let text = error.to_string();
        text.contains("only numbers, truth values and texts") || text.contains("unusable type")
    };
    file.root()?.walk(|_, object| {
        let outcome = match object {
            Object::Group(group) => {
                group.attribute_names()?.iter().try_for_each(|name| group.attribute(name).map(drop))
            }
            Object::Dataset(dataset) => dataset.read().map(drop),
            Object::Other => Ok(()),
        };
        outcome.or_else(|error| if is_other(&error) { Ok(()) } else { Err(error) })
    })
}

fn positions(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    (0..bytes.len() - pattern.len()).filter(|&at| bytes[at..].starts_with(pattern)).collect()
}

#[test]
fn hostile_files_are_refused() {
    let truncated = failure("values", |bytes| bytes.truncate(bytes.len() / 2));
    assert!(truncated.contains("truncated file"), "{truncated}");
    // The heaps of texts: without a size, beyond the file, with an object that has no end.
    for damage in [[0_u8; 8], [0xff; 8], [0x10, 0, 0, 0, 0, 0, 0, 0x7f]] {
        let error = failure("values", |bytes| {
            for heap in positions(bytes, b"GCOL") {
                bytes[heap + 24..heap + 32].copy_from_slice(&damage);
            }
        });
        assert!(error.contains("the heap of its texts is damaged"), "{error}");
    }
    // A text that claims to have 4 GB: its length is before the address of the heap.
    let error = failure("values", |bytes| {
        let heap = positions(bytes, b"GCOL")[0] as u64;
        for place in positions(bytes, &heap.to_le_bytes()) {
            bytes[place - 4..place].fill(0xff);
        }
    });
    assert!(error.contains("one of its texts is not in its heap"), "{error}");
}

#[test]
fn nested_groups_are_followed_to_a_depth() {
    let folder = tempfile::tempdir().unwrap();
    for (depth, is_read) in [(60, true), (100, false)] {
        let path = folder.path().join(format!("{depth}.h5"));
        let writer = elephant_hdf5::Writer::create(&path, &path).unwrap();
        let mut group = String::new();
        for _ in 0..depth {
            group.push_str("/g");
            writer.group(&group).unwrap();
        }
        writer.close().unwrap();
        let outcome = read_everything(&path);
        assert_eq!(outcome.is_ok(), is_read, "{depth}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("nested more than 64 deep"), "{error}");
        }
        // A path of any length is followed.
        assert!(open(&path).root().unwrap().group(&group).unwrap().is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_damage_makes_it_panic(
        name in prop::sample::select(vec!["values", "latest"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = std::fs::read(golden(&format!("hdf5/{name}.h5"))).unwrap();
        for (place, byte) in damage {
            *place.get_mut(&mut bytes) = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.h5");
        std::fs::write(&path, bytes).unwrap();
        let _ = read_everything(&path);
    }
}
