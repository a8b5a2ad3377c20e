//! Blosc 1, the container in which the stores' chunks are compressed.
//!
//! The only unsafe code of this crate: two calls into C-Blosc, whose arguments are checked here.

use std::ffi::CString;

/// Blosc's header, which is also the most that it adds to incompressible data.
pub(crate) const HEADER_BYTES: usize = 16;

/// Appends the compressed `plain` to `compressed`. `false` when Blosc refuses.
#[allow(unsafe_code, reason = "calls C")]
pub(crate) fn compress(
    plain: &[u8],
    type_size: usize,
    method: &str,
    level: i32,
    shuffle: i32,
    compressed: &mut Vec<u8>,
) -> bool {
    let Ok(method) = CString::new(method) else { return false };
    // numcodecs' automatic choice: bits for single bytes, bytes for everything else.
    let shuffle = match shuffle {
        -1 if type_size == 1 => 2,
        -1 => 1,
        other => other,
    };
    compressed.resize(plain.len() + HEADER_BYTES, 0);
    // SAFETY: both buffers are valid for the lengths given, do not overlap, and the name ends with a NUL. The context
    // call needs no initialisation and shares no state between threads.
    let length = unsafe {
        blosc_src::blosc_compress_ctx(
            level,
            shuffle,
            type_size,
            plain.len(),
            plain.as_ptr().cast(),
            compressed.as_mut_ptr().cast(),
            compressed.len(),
            method.as_ptr(),
            0,
            1,
        )
    };
    compressed.truncate(usize::try_from(length).unwrap_or(0));
    !compressed.is_empty()
}

/// Decompresses into `plain`, which must be exactly as long as the data: no length in the file is trusted.
#[allow(unsafe_code, reason = "calls C")]
pub(crate) fn decompress(compressed: &[u8], plain: &mut [u8]) -> Result<(), &'static str> {
    let header: &[u8; HEADER_BYTES] = compressed.first_chunk().ok_or("it is too short")?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    if field(12) != compressed.len() {
        return Err("it is not as long as it says");
    }
    if field(4) != plain.len() {
        return Err("it holds another number of bytes than a chunk has");
    }
    let mut length = 0;
    // SAFETY: the buffer is valid for the length given.
    let valid =
        unsafe { blosc_src::blosc_cbuffer_validate(compressed.as_ptr().cast(), compressed.len(), &raw mut length) };
    if valid != 0 || length != plain.len() {
        return Err("its header is invalid");
    }
    // SAFETY: both buffers are valid, do not overlap, and the library gets the output's length. The header was
    // validated, which the library asks for before it decompresses foreign data.
    let written = unsafe {
        blosc_src::blosc_decompress_ctx(compressed.as_ptr().cast(), plain.as_mut_ptr().cast(), plain.len(), 1)
    };
    match usize::try_from(written) {
        Ok(written) if written == plain.len() => Ok(()),
        _ => Err("its data is invalid or compressed with another method than lz4"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(words in prop::collection::vec(0_u16..300, 0..5000), level in 0..10, shuffle in -1..3) {
            let plain: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut compressed = Vec::new();
            prop_assert!(compress(&plain, 2, "lz4", level, shuffle, &mut compressed));
            let mut back = vec![1; plain.len()];
            prop_assert_eq!(decompress(&compressed, &mut back), Ok(()));
            prop_assert_eq!(back, plain);
        }

        #[test]
        fn damaged_data_never_leaves_its_buffer(at in 0_usize..2000, byte: u8, cut in 0_usize..3000, length in 0_usize..9000) {
            let plain: Vec<u8> = (0..4000_u32).flat_map(|i| (i * i / 7 % 500).to_le_bytes()[..2].to_vec()).collect();
            let mut compressed = Vec::new();
            prop_assert!(compress(&plain, 2, "lz4", 5, 1, &mut compressed));
            let place = at % compressed.len();
            compressed[place] = byte;
            compressed.truncate(compressed.len().max(cut) - cut.min(compressed.len()) / 2);
            let mut back = vec![0; length];
            let _ = decompress(&compressed, &mut back);
            let mut back = vec![0; plain.len()];
            let _ = decompress(&compressed, &mut back);
        }
    }
}
