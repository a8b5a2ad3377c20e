//! Object headers and global heaps, read without the HDF5 library.
//!
//! The library runs for ever when an object of a global heap claims to have no size (2.2.0, `H5HG__cache_heap_deserialize`).
//! Texts of variable length and virtual datasets are in such heaps, so these are looked at here before the library does.
//! (HDF5 file format specification, IV.A "Data Object Headers" and III.E "Global Heap".)

use std::collections::HashMap;

use crate::{file::OpenFile, virtual_dataset::MAX_PARTS};

/// Largest heap, in bytes.
const MAX_HEAP: u64 = 64 << 20;
/// Largest header, all its pieces together, in bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Largest number of pieces of one header.
const MAX_PIECES: usize = 1024;

const LINK_INFO: u16 = 2;
const LAYOUT: u16 = 8;
const ATTRIBUTE: u16 = 12;
const CONTINUATION: u16 = 16;
const SYMBOL_TABLE: u16 = 17;
/// A layout's class of data within the header.
const COMPACT: u8 = 0;
/// A layout's class of virtual datasets.
const VIRTUAL: u8 = 3;

/// What a header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Group,
    Dataset,
    /// A named type, or something unknown.
    Other,
}

/// What the header at `address` describes; `None` when it is damaged.
pub(crate) fn kind(file: &OpenFile, address: u64) -> Option<Kind> {
    let messages = messages(file, address)?;
    let has = |kind: u16| messages.iter().any(|(found, _)| *found == kind);
    Some(match (has(LAYOUT), has(SYMBOL_TABLE) || has(LINK_INFO)) {
        (true, _) => Kind::Dataset,
        (false, true) => Kind::Group,
        (false, false) => Kind::Other,
    })
}

/// The values of the dataset at `address`, when they lie within its header; `None` when they do not, or it is damaged.
pub(crate) fn compact_data(file: &OpenFile, address: u64) -> Option<Vec<u8>> {
    let messages = messages(file, address)?;
    let (_, layout) = messages.iter().find(|(kind, _)| *kind == LAYOUT)?;
    match layout.as_slice() {
        [version, COMPACT, rest @ ..] if *version >= 3 => Some(rest.get(2..2 + number(rest, 0, 2)? as usize)?.to_vec()),
        _ => None,
    }
}

/// Whether the library can open the dataset whose header is at `address`: it is not virtual, or the list of its parts is
/// sound.
pub(crate) fn can_be_opened(file: &OpenFile, address: u64) -> bool {
    let is_sound = |layout: &[u8]| match layout {
        [version, VIRTUAL, list @ ..] if *version >= 3 => {
            number(list, 0, 8) == Some(u64::MAX) || parts(file, list).is_some_and(|parts| parts <= MAX_PARTS as u64)
        }
        _ => true,
    };
    messages(file, address)
        .is_some_and(|messages| messages.iter().filter(|(kind, _)| *kind == LAYOUT).all(|(_, layout)| is_sound(layout)))
}

/// How many parts the list of a virtual dataset claims to have; `None` when its heap is damaged. The library makes room for
/// all of them before it looks at the first. `reference` is the place of the list in a heap (format specification, VII.F
/// "Global Heap Block for Virtual Datasets").
fn parts(file: &OpenFile, reference: &[u8]) -> Option<u64> {
    let heap = heap(file, number(reference, 0, 8)?)?;
    let list = heap.objects.get(&u16::try_from(number(reference, 8, 4)?).ok()?)?;
    number(list, 1, 8)
}

/// The bytes of the attribute `name` of the object at `address`, as they are in its header; `None` when it is not there or
/// damaged.
pub(crate) fn attribute(file: &OpenFile, address: u64, name: &str) -> Option<Vec<u8>> {
    let messages = messages(file, address)?;
    let mut attributes = messages.iter().filter(|(kind, _)| *kind == ATTRIBUTE);
    attributes.find_map(|(_, bytes)| value(bytes, name)).map(<[u8]>::to_vec)
}

/// The value in an attribute message, when the attribute has this name.
fn value<'a>(message: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let version = *message.first()?;
    let size = |at| number(message, at, 2).map(|size| size as usize);
    let sizes = [size(2)?, size(4)?, size(6)?];
    let begin = if version == 3 { 9 } else { 8 };
    // Version 1 fills each part up to eight bytes.
    let [name_bytes, type_bytes, space_bytes] =
        sizes.map(|size| if version == 1 { size.next_multiple_of(8) } else { size });
    let found = message.get(begin..begin + sizes[0])?.strip_suffix(b"\0")?;
    let rest = message.get(begin + name_bytes + type_bytes + space_bytes..)?;
    (found == name.as_bytes()).then_some(rest)
}

/// The messages in the header at `address` that say its layout, its attributes, and whether it is a group's, each with its
/// type; `None` when the header is damaged, or larger than any in use.
fn messages(file: &OpenFile, address: u64) -> Option<Vec<(u16, Vec<u8>)>> {
    let start = file.bytes_at(address, 16)?;
    let is_old = start[0] == 1;
    // The offset and the length of each piece, and the bytes before each message.
    let (first, begin) = if is_old {
        ((address.checked_add(16)?, number(&start, 8, 4)?), 8)
    } else {
        let flags = *start.strip_prefix(b"OHDR\x02")?.first()?;
        let times = if flags & 0x20 == 0 { 0 } else { 16 };
        let phases = if flags & 0x10 == 0 { 0 } else { 4 };
        let width = 1 << (flags & 3);
        let at = address.checked_add(6 + times + phases)?;
        let length = number(&file.bytes_at(at, width)?, 0, width as usize)?;
        // Messages may have a number of their own.
        ((at.checked_add(width)?, length), if flags & 4 == 0 { 4 } else { 6 })
    };
    let mut pieces = vec![first];
    let mut messages = Vec::new();
    let (mut next, mut left) = (0, MAX_HEADER);
    while let Some(&(offset, length)) = pieces.get(next) {
        next += 1;
        left = left.checked_sub(length)?;
        let bytes = file.bytes_at(offset, length)?;
        let mut rest = bytes.as_slice();
        // A gap shorter than a message may be at the end.
        while rest.len() >= begin {
            let (kind, message, behind) = split_message(rest, is_old, begin)?;
            rest = behind;
            match kind {
                CONTINUATION => {
                    let (offset, length) = (number(message, 0, 8)?, number(message, 8, 8)?);
                    // New pieces begin with a signature and end with a checksum.
                    let piece =
                        if is_old { (offset, length) } else { (offset.checked_add(4)?, length.checked_sub(8)?) };
                    if pieces.len() == MAX_PIECES || pieces.iter().any(|(known, _)| *known == piece.0) {
                        return None;
                    }
                    pieces.push(piece);
                }
                LINK_INFO | LAYOUT | ATTRIBUTE | SYMBOL_TABLE => messages.push((kind, message.to_vec())),
                _ => {}
            }
        }
    }
    Some(messages)
}

/// The type and the content of the first message, which follow `begin` bytes, and what follows it.
fn split_message(bytes: &[u8], is_old: bool, begin: usize) -> Option<(u16, &[u8], &[u8])> {
    let (kind, length) = if is_old {
        (number(bytes, 0, 2)?, number(bytes, 2, 2)?)
    } else {
        (number(bytes, 0, 1)?, number(bytes, 1, 2)?)
    };
    let (message, behind) = bytes.get(begin..)?.split_at_checked(length as usize)?;
    Some((kind as u16, message, behind))
}

/// A global heap.
pub(crate) struct Heap {
    /// Bytes that it takes in the file.
    pub size: u64,
    /// Its objects, by index.
    pub objects: HashMap<u16, Vec<u8>>,
}

/// The global heap at `address`; `None` when the library could not go through it.
pub(crate) fn heap(file: &OpenFile, address: u64) -> Option<Heap> {
    let start = file.bytes_at(address, 16)?;
    let size = number(start.strip_prefix(b"GCOL\x01")?, 3, 8)?;
    let heap = file.bytes_at(address, size.min(MAX_HEAP + 1))?;
    let mut objects = HashMap::new();
    let mut rest = heap.get(16..)?;
    while rest.len() >= 16 {
        let (index, size) = (number(rest, 0, 2)? as u16, usize::try_from(number(rest, 8, 8)?).ok()?);
        // What is free counts its own header.
        let length = if index == 0 { size } else { size.checked_next_multiple_of(8)?.checked_add(16)? };
        if length == 0 {
            return None;
        }
        let (object, behind) = rest.split_at_checked(length)?;
        if index > 0 {
            objects.insert(index, object.get(16..16 + size)?.to_vec());
        }
        rest = behind;
    }
    Some(Heap { size, objects })
}

/// A little-endian number of at most 8 bytes.
pub(crate) fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use elephant_testkit::golden;

    use super::*;
    use crate::{Hdf5File, Reach};

    /// Where the header under test begins.
    const AT: u64 = 1 << 20;

    /// A header of the first version with these messages.
    fn header(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, content) in messages {
            let [[k0, k1], [l0, l1]] = [kind.to_le_bytes(), (content.len() as u16).to_le_bytes()];
            body.extend([k0, k1, l0, l1, 0, 0, 0, 0]);
            body.extend(content);
        }
        let mut header = vec![1, 0, 0, 0, 1, 0, 0, 0];
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        header
    }

    fn continuation(offset: u64, length: u64) -> (u16, Vec<u8>) {
        (CONTINUATION, [offset.to_le_bytes(), length.to_le_bytes()].concat())
    }

    /// Puts a header behind an HDF5 file and asks.
    fn ask<T>(header: &[u8], about: impl FnOnce(&OpenFile) -> T) -> T {
        let mut bytes = fs::read(golden("dataset/h5/gzip.h5")).unwrap();
        bytes.resize(AT as usize, 0);
        bytes.extend(header);
        bytes.resize(bytes.len() + (1 << 20), 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("movie.h5");
        fs::write(&path, bytes).unwrap();
        about(Hdf5File::open(&path, Reach::Folder).unwrap().main())
    }

    #[test]
    fn headers_that_cannot_be_followed_are_not_opened() {
        let layout = (LAYOUT, vec![4, 1, 0, 0, 0, 0, 0, 0]);
        let many = (0..1100).map(|piece| continuation(AT + (1 << 19) + 8 * piece, 8)).collect::<Vec<_>>();
        let large = (0..100).map(|piece| continuation(piece, AT)).collect::<Vec<_>>();
        let mut cut = header(std::slice::from_ref(&layout));
        cut[18] = 200;
        for (what, header, expected) in [
            ("sound", header(&[layout.clone(), continuation(AT + 512, 64)]), true),
            ("no header", vec![9; 64], false),
            ("a message beyond the end", cut, false),
            ("a piece in itself", header(&[layout.clone(), continuation(AT + 16, 32)]), false),
            ("a piece beyond the file", header(&[layout.clone(), continuation(u64::MAX - 4, 8)]), false),
            ("too many pieces", header(&many), false),
            ("too large", header(&large), false),
            ("a virtual dataset without its heap", header(&[layout.clone(), (LAYOUT, vec![4, VIRTUAL, 0, 0])]), false),
        ] {
            assert_eq!(ask(&header, |file| can_be_opened(file, AT)), expected, "{what}");
        }
    }

    #[test]
    fn attributes_with_hostile_sizes_are_not_found() {
        for version in 0..4 {
            for length in [1, 3, 5, 8, 20] {
                let mut attribute = vec![0xff; length];
                attribute[0] = version;
                let text = ask(&header(&[(ATTRIBUTE, attribute)]), |file| super::attribute(file, AT, "dataType"));
                assert_eq!(text, None, "version {version}, {length} bytes");
            }
        }
    }
}
