//! PyTorch's format before 1.6: five consecutive pickles, then the storages (`torch/serialization.py`, `_legacy_load`).
//!
//! The pickles are a magic number, the protocol version, properties of the writing system, the object, and the keys of
//! the storages. Each storage is its number of elements (8 bytes) followed by the elements.

use std::{collections::HashMap, io::Read};

use crate::{
    Checkpoint, CheckpointError, Dtype,
    interpret::{self, Views},
    pickle::{Node, Pickle},
    views::{self, ByteOrder},
};

/// 0x1950a86a20f9469cfc6c, little endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;
/// Largest total size of the pickles, in bytes; the storages follow.
const MAX_PICKLES_BYTES: usize = 4 << 20;

pub(crate) fn read(mut reader: impl Read, file_length: u64) -> Result<Checkpoint, CheckpointError> {
    let mut file = Vec::new();
    reader.read_to_end(&mut file)?;
    let mut pickles = Pickles { bytes: &file[..file.len().min(MAX_PICKLES_BYTES)], at: 0 };

    // Only one pickle is in memory at a time.
    if !is_magic(&pickles.next()?) {
        return Err(CheckpointError::NotACheckpoint);
    }
    if !is_known_protocol(&pickles.next()?) {
        return Err(CheckpointError::unsupported("another protocol of PyTorch's old format"));
    }
    let order = byte_order(&pickles.next()?);
    let members = interpret::members(&pickles.next()?)?;
    let keys = storage_keys(&pickles.next()?)?;

    let mut storages = storages(&file[pickles.at..], &keys, &members, order)?;
    views::materialise(members, order, file_length, |view| {
        let missing = || CheckpointError::damaged("a storage is missing");
        storages.remove(view.storage_key).map(<[u8]>::to_vec).ok_or_else(missing)
    })
}

struct Pickles<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Pickles<'a> {
    fn next(&mut self) -> Result<Pickle<'a>, CheckpointError> {
        let pickle = Pickle::parse(&self.bytes[self.at..], interpret::is_known_global)?;
        self.at += pickle.length;
        Ok(pickle)
    }
}

fn is_magic(pickle: &Pickle<'_>) -> bool {
    matches!(pickle.node(pickle.root()), Node::BigInt(bytes) if *bytes == MAGIC)
}

fn is_known_protocol(pickle: &Pickle<'_>) -> bool {
    matches!(pickle.node(pickle.root()), Node::Int(PROTOCOL))
}

fn byte_order(system: &Pickle<'_>) -> ByteOrder {
    let Node::Dict(items) = system.node(system.root()) else { return ByteOrder::Little };
    let is_big = items.iter().any(|&(key, value)| {
        matches!((system.node(key), system.node(value)), (Node::Text("little_endian"), Node::Bool(false)))
    });
    if is_big { ByteOrder::Big } else { ByteOrder::Little }
}

fn storage_keys<'a>(pickle: &Pickle<'a>) -> Result<Vec<&'a str>, CheckpointError> {
    let wrong = || CheckpointError::damaged("the list of storages is not a list of names");
    let Node::List(items) = pickle.node(pickle.root()) else { return Err(wrong()) };
    let key = |&id| match pickle.node(id) {
        Node::Text(key) => Ok(*key),
        _ => Err(wrong()),
    };
    items.iter().map(key).collect()
}

/// Splits the rest of the file into storages. The element size of each is known only from the tensors that use it.
fn storages<'a>(
    mut rest: &'a [u8],
    keys: &[&'a str],
    members: &[Views<'_>],
    order: ByteOrder,
) -> Result<HashMap<&'a str, &'a [u8]>, CheckpointError> {
    let dtypes: HashMap<&str, Dtype> =
        members.iter().flatten().map(|(_, view)| (view.storage_key, view.dtype)).collect();
    let mut storages = HashMap::new();
    for &key in keys {
        let truncated = || CheckpointError::damaged("it ends in the middle of a storage");
        let dtype = dtypes.get(key).ok_or_else(|| CheckpointError::damaged("a storage belongs to no tensor"))?;
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let count = match order {
            ByteOrder::Little => u64::from_le_bytes(*count),
            ByteOrder::Big => u64::from_be_bytes(*count),
        };
        let length =
            usize::try_from(count).ok().and_then(|count| count.checked_mul(dtype.size())).ok_or_else(truncated)?;
        let (storage, after) = after.split_at_checked(length).ok_or_else(truncated)?;
        storages.insert(key, storage);
        rest = after;
    }
    Ok(storages)
}
