//! Object headers and global heaps, read without the HDF5 library.
//!
//! The library runs for ever when an object of a global heap claims to have no size (2.2.0, `H5HG__cache_heap_deserialize`).
//! Texts of variable length and virtual datasets are in such heaps, so these are looked at here before the library does.
//! (HDF5 file format specification, IV.A "Data Object Headers" and III.E "Global Heap".)

use crate::file::OpenFile;

/// Most bytes of one piece of a header, and of a heap.
const MAX_BYTES: u64 = 64 << 20;
/// Most pieces of one header.
const MAX_PIECES: usize = 1024;

const LAYOUT: u16 = 8;
const ATTRIBUTE: u16 = 12;
const CONTINUATION: u16 = 16;
/// A layout's class of virtual datasets.
const VIRTUAL: u8 = 3;

/// Whether the library can open the dataset whose header is at `address`: it is not virtual, or its heap is sound.
pub(crate) fn can_be_opened(file: &OpenFile, address: u64) -> bool {
    let Some(messages) = messages(file, address) else { return true };
    let layout = messages.into_iter().find(|(kind, _)| *kind == LAYOUT).map(|(_, bytes)| bytes);
    match layout.as_deref() {
        Some([version, VIRTUAL, heap @ ..]) if *version >= 3 => {
            number(heap, 0, 8).is_none_or(|heap| heap == u64::MAX || objects(file, heap).is_some())
        }
        _ => true,
    }
}

/// The text of variable length that the attribute `name` of the object at `address` holds; `None` when it is not found or
/// damaged.
pub(crate) fn variable_text(file: &OpenFile, address: u64, name: &str) -> Option<String> {
    let messages = messages(file, address)?;
    let reference = messages.iter().filter(|(kind, _)| *kind == ATTRIBUTE).find_map(|(_, bytes)| value(bytes, name))?;
    let (length, heap, index) = (number(reference, 0, 4)?, number(reference, 4, 8)?, number(reference, 12, 4)?);
    let (_, bytes) = objects(file, heap)?.into_iter().find(|(found, _)| u64::from(*found) == index)?;
    let text = bytes.get(..usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// The value in an attribute message, when the attribute has this name.
fn value<'a>(message: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let version = *message.first()?;
    let sizes = [2, 4, 6].map(|at| number(message, at, 2).map_or(usize::MAX, |size| size as usize));
    let begin = if version == 3 { 9 } else { 8 };
    // Version 1 fills each part up to eight bytes.
    let [name_bytes, type_bytes, space_bytes] =
        sizes.map(|size| if version == 1 { size.next_multiple_of(8) } else { size });
    let found = message.get(begin..begin + sizes[0])?.strip_suffix(b"\0")?;
    let rest = message.get(begin + name_bytes + type_bytes + space_bytes..)?;
    (found == name.as_bytes()).then_some(rest)
}

/// The messages of the header at `address`, each with its type; `None` when it is damaged.
fn messages(file: &OpenFile, address: u64) -> Option<Vec<(u16, Vec<u8>)>> {
    let start = file.bytes_at(address, 16)?;
    let is_old = start[0] == 1;
    // The offset and the length of each piece, and whether messages have a number of their own.
    let (first, has_order) = if is_old {
        ((address + 16, number(&start, 8, 4)?), false)
    } else {
        let flags = *start.strip_prefix(b"OHDR\x02")?.first()?;
        let times = if flags & 0x20 == 0 { 0 } else { 16 };
        let phases = if flags & 0x10 == 0 { 0 } else { 4 };
        let width = 1 << (flags & 3);
        let at = address + 6 + times + phases;
        ((at + width, number(&file.bytes_at(at, width)?, 0, width as usize)?), flags & 4 != 0)
    };
    let mut pieces = vec![first];
    let mut messages = Vec::new();
    let mut next = 0;
    while let Some(&(offset, length)) = pieces.get(next) {
        next += 1;
        let bytes = file.bytes_at(offset, length.min(MAX_BYTES + 1))?;
        let mut rest = bytes.as_slice();
        while let Some((kind, message, behind)) = split_message(rest, is_old, has_order) {
            rest = behind;
            if kind == CONTINUATION && pieces.len() < MAX_PIECES {
                let (offset, length) = (number(message, 0, 8)?, number(message, 8, 8)?);
                // New pieces begin with a signature and end with a checksum.
                pieces.push(if is_old { (offset, length) } else { (offset.checked_add(4)?, length.checked_sub(8)?) });
            } else {
                messages.push((kind, message.to_vec()));
            }
        }
    }
    Some(messages)
}

/// The type and the content of the first message, and what follows it.
fn split_message(bytes: &[u8], is_old: bool, has_order: bool) -> Option<(u16, &[u8], &[u8])> {
    let (kind, length, begin) = if is_old {
        (number(bytes, 0, 2)?, number(bytes, 2, 2)?, 8)
    } else {
        (number(bytes, 0, 1)?, number(bytes, 1, 2)?, if has_order { 6 } else { 4 })
    };
    let (message, behind) = bytes.get(begin..)?.split_at_checked(length as usize)?;
    Some((kind as u16, message, behind))
}

/// The objects of the global heap at `address`, each with its index; `None` when the library could not go through it.
fn objects(file: &OpenFile, address: u64) -> Option<Vec<(u16, Vec<u8>)>> {
    let start = file.bytes_at(address, 16)?;
    let size = number(start.strip_prefix(b"GCOL\x01")?, 3, 8)?;
    let heap = file.bytes_at(address, size.min(MAX_BYTES + 1))?;
    let mut objects = Vec::new();
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
            objects.push((index, object.get(16..16 + size)?.to_vec()));
        }
        rest = behind;
    }
    Some(objects)
}

/// A little-endian number of at most 8 bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
