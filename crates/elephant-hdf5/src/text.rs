//! Texts, of fixed and of variable length.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    file::OpenFile,
    header::{self, Heap},
};

/// Bytes of a reference to a text of variable length: its length, and its place in a global heap.
pub(crate) const REFERENCE_BYTES: usize = 16;
/// Largest number of texts in one dataset or attribute.
const MAX_TEXTS: usize = 1 << 20;
/// Largest number of bytes of all texts in one dataset or attribute together.
const MAX_BYTES: usize = 64 << 20;

/// The texts of `size` bytes each, without the NULs that fill them up.
pub(crate) fn fixed(bytes: &[u8], size: usize) -> Result<Vec<String>, String> {
    if size == 0 || bytes.len() / size > MAX_TEXTS {
        return Err(format!("it holds more than {MAX_TEXTS} texts"));
    }
    bytes.chunks_exact(size).map(text).collect()
}

/// The texts that references lead to.
pub(crate) fn variable(file: &OpenFile, references: &[u8]) -> Result<Vec<String>, String> {
    if references.len() / REFERENCE_BYTES > MAX_TEXTS {
        return Err(format!("it holds more than {MAX_TEXTS} texts"));
    }
    let mut heaps: HashMap<u64, Heap> = HashMap::new();
    // Heaps do not overlap in a sound file.
    let mut heap_bytes_left = file.len();
    let mut bytes_left = MAX_BYTES;
    let mut texts = Vec::new();
    for reference in references.as_chunks::<REFERENCE_BYTES>().0 {
        let [length, address, index] =
            [(0, 4), (4, 8), (12, 4)].map(|(at, width)| header::number(reference, at, width));
        let (length, address, index) = (length.unwrap_or(0) as usize, address.unwrap_or(0), index.unwrap_or(0));
        if length == 0 || address == 0 {
            texts.push(String::new());
            continue;
        }
        let heap = match heaps.entry(address) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let heap = header::heap(file, address).ok_or("the heap of its texts is damaged")?;
                heap_bytes_left = heap_bytes_left.checked_sub(heap.size).ok_or("the heaps of its texts overlap")?;
                place.insert(heap)
            }
        };
        let object = u16::try_from(index).ok().and_then(|index| heap.objects.get(&index));
        let bytes = object.and_then(|bytes| bytes.get(..length)).ok_or("one of its texts is not in its heap")?;
        bytes_left = bytes_left.checked_sub(length).ok_or("its texts are too long")?;
        texts.push(text(bytes)?);
    }
    Ok(texts)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "it holds a text that is not UTF-8".to_owned())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_removed() {
        assert_eq!(fixed(b"ab\0\0cdefgh  \0\0\0\0", 4).unwrap(), ["ab", "cdef", "gh  ", ""]);
        assert_eq!(fixed(b"", 4).unwrap(), [""; 0]);
        assert!(fixed(b"\xff\0", 2).unwrap_err().contains("not UTF-8"));
        assert!(fixed(b"ab", 0).is_err());
    }
}
