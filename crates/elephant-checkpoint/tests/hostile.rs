//! Malicious files cause an error, with little memory and time.

use std::{
    fs,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
};

use elephant_checkpoint::{Checkpoint, CheckpointError, StateDict};
use elephant_testkit::golden;
use proptest::prelude::*;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

fn bytes(name: &str) -> Vec<u8> {
    fs::read(golden(&format!("checkpoint/{name}.pth"))).unwrap()
}

fn read(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::read_from(Cursor::new(bytes))
}

/// A good archive with its entries changed; `None` drops an entry.
fn changed(name: &str, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut source = ZipArchive::new(Cursor::new(bytes(name))).unwrap();
    let mut target = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..source.len() {
        let mut entry = source.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if let Some(content) = change(&name, content) {
            target.start_file(&*name, SimpleFileOptions::default()).unwrap();
            target.write_all(&content).unwrap();
        }
    }
    target.finish().unwrap().into_inner()
}

#[track_caller]
fn assert_damaged(bytes: &[u8], reason: &str) {
    let error = read(bytes).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn storages_of_the_wrong_size_or_missing() {
    let shorter = changed("types", |name, mut content| {
        if name.ends_with("data/0") {
            content.pop();
        }
        Some(content)
    });
    assert_damaged(&shorter, "storage of another size");
    let longer = changed("types", |name, mut content| {
        if name.ends_with("data/0") {
            content.extend([0; 4]);
        }
        Some(content)
    });
    assert_damaged(&longer, "storage of another size");
    let missing = changed("types", |name, content| (!name.ends_with("data/0")).then_some(content));
    assert_damaged(&missing, "zip archive");
}

#[test]
fn an_archive_without_a_pickle_is_not_a_checkpoint() {
    let other = changed("types", |name, content| (!name.ends_with("data.pkl")).then_some(content));
    assert!(matches!(read(&other).unwrap_err(), CheckpointError::NotACheckpoint));
}

#[test]
fn a_tensor_larger_than_the_file_is_refused_before_it_is_allocated() {
    // torch.zeros(1).expand(2^31 - 1, 2^31 - 1), by hand.
    let huge = changed("types", |name, content| {
        let pickle = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86\x89ccollections\nOrderedDict\n)RtRu.";
        Some(if name.ends_with("data.pkl") { pickle.to_vec() } else { content })
    });
    assert_damaged(&huge, "larger than the file");
}

#[test]
fn an_oversized_pickle_is_refused() {
    let long = changed("types", |name, content| {
        Some(if name.ends_with("data.pkl") { vec![b')'; (4 << 20) + 1] } else { content })
    });
    assert!(matches!(read(&long).unwrap_err(), CheckpointError::TooLarge { .. }));
}

#[test]
fn a_false_table_of_contents_causes_no_allocation() {
    // Declares 65,535 entries that start at 0 and have 4 GiB.
    let mut file = b"PK\x03\x04".to_vec();
    file.extend([0; 1000]);
    file.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0");
    assert_damaged(&file, "zip archive");
}

#[test]
fn a_file_truncated_anywhere_is_an_error() {
    for name in ["types", "legacy_types", "ensemble"] {
        let whole = bytes(name);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

/// A file on a disk that fails after some of its bytes.
struct Failing {
    content: Cursor<Vec<u8>>,
    good: u64,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const EIO: i32 = 5;
        let good = self.good.saturating_sub(self.content.position()).min(buffer.len() as u64) as usize;
        let read = self.content.read(&mut buffer[..good])?;
        if read == 0 && self.content.position() >= self.good {
            Err(io::Error::from_raw_os_error(EIO))
        } else {
            Ok(read)
        }
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.content.seek(to)
    }
}

#[test]
fn a_disk_failure_is_not_reported_as_a_damaged_file() {
    for name in ["types", "legacy_types", "ensemble"] {
        let whole = bytes(name);
        for good in (0..whole.len()).step_by(7) {
            let file = Failing { content: Cursor::new(whole.clone()), good: good as u64 };
            let error = Checkpoint::read_from(file).unwrap_err();
            assert!(matches!(error, CheckpointError::Io(_)), "{name} up to {good}: {error}");
        }
    }
}

#[test]
fn the_same_dict_twice_is_not_an_ensemble() {
    let twice = changed("types", |name, content| {
        if !name.ends_with("data.pkl") {
            return Some(content);
        }
        let dict = content.strip_prefix(b"\x80\x02").unwrap().strip_suffix(b".").unwrap();
        Some([b"\x80\x02](", dict, b"r\xff\xff\x00\x00j\xff\xff\x00\x00e."].concat())
    });
    let error = read(&twice).unwrap_err().to_string();
    assert!(error.contains("the same state dict twice"), "{error}");
}

/// A short version of a state dict's pickle is enough to reach every branch.
fn mutated(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let whole = bytes(name);
    let positions = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..8);
    positions.prop_map(move |changes| {
        let mut bytes = whole.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes
    })
}

/// A valid zip archive with a mutated pickle and correct checksums.
fn mutated_description(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6);
    changes.prop_map(move |changes| {
        changed(name, |entry, mut content| {
            if entry.ends_with("data.pkl") {
                for (index, value) in &changes {
                    let at = index.index(content.len());
                    content[at] = *value;
                }
            }
            Some(content)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_archive_never_panics(bytes in mutated("types")) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_mutated_legacy_file_never_panics(bytes in mutated("legacy_types")) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_mutated_description_never_panics(bytes in mutated_description("views")) {
        if let Ok(checkpoint) = read(&bytes) {
            let tensors = checkpoint.members.iter().flat_map(StateDict::iter);
            let total: usize = tensors.map(|(_, tensor)| tensor.bytes().len()).sum();
            prop_assert!(total <= 4 * bytes.len());
        }
    }
}
