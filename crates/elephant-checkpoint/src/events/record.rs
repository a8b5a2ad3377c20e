//! Records of bytes with checksums (`TensorFlow`'s `TFRecord`, `tensorflow/core/lib/io/record_writer.h`): length as u64,
//! its masked CRC-32C, the bytes, their masked CRC-32C; all little endian.

use std::io::{self, BufRead, Read};

const LENGTH_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// Number of bytes of a record that are read. Scalars are much shorter; longer records begin with their step.
const MAX_BEGINNING: usize = 1 << 16;

/// The record for `data`.
pub(super) fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + LENGTH_BYTES + 2 * CHECKSUM_BYTES);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// The records of a file, one after the other, up to the first one that is cut off or damaged.
pub(super) struct Records<R> {
    reader: R,
    beginning: Vec<u8>,
}

impl<R: BufRead> Records<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, beginning: Vec::new() }
    }

    /// The next record's first bytes; all bytes unless it is very long.
    pub fn next_beginning(&mut self) -> io::Result<Option<&[u8]>> {
        let mut header = [0; LENGTH_BYTES + CHECKSUM_BYTES];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        let (length, checksum) = header.split_at(LENGTH_BYTES);
        if masked_crc(length).to_le_bytes() != *checksum {
            return Ok(None);
        }
        let length = length.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        self.beginning.clear();
        let count = length.min(MAX_BEGINNING as u64);
        let read = self.reader.by_ref().take(count).read_to_end(&mut self.beginning)?;
        let rest = length - count;
        let skipped = io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink())?;
        let mut checksum = [0; CHECKSUM_BYTES];
        if read as u64 != count || skipped != rest || !self.fill(&mut checksum)? {
            return Ok(None);
        }
        // The checksum of long records is not verified.
        let is_sound = rest > 0 || masked_crc(&self.beginning).to_le_bytes() == checksum;
        Ok(is_sound.then_some(&self.beginning))
    }

    /// Fills `bytes`; false at the end of the file.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.reader.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The mask of `TFRecord`: a rotation and an addition, so that checksums of data that contain checksums are not
/// degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ REVERSED_POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn beginnings(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Records::new(bytes);
        let mut found = Vec::new();
        while let Some(beginning) = records.next_beginning().unwrap() {
            found.push(beginning.to_vec());
        }
        found
    }

    #[test]
    fn long_records_are_skipped() {
        let long = vec![7; 3 * MAX_BEGINNING];
        let file = [frame(b"a"), frame(&long), frame(b"b")].concat();
        assert_eq!(beginnings(&file), [b"a".to_vec(), long[..MAX_BEGINNING].to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn a_length_beyond_the_end_of_the_file_ends_the_records() {
        for length in [u64::MAX, 1 << 40, 100] {
            let mut file = frame(b"a");
            file.extend(length.to_le_bytes());
            file.extend(masked_crc(&length.to_le_bytes()).to_le_bytes());
            file.extend(b"some bytes");
            assert_eq!(beginnings(&file), [b"a"]);
        }
    }

    proptest! {
        #[test]
        fn damage_hides_nothing_before_it(
            data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            at: prop::sample::Index,
            byte: u8,
            is_cut: bool,
        ) {
            let frames: Vec<Vec<u8>> = data.iter().map(|data| frame(data)).collect();
            let mut file = frames.concat();
            prop_assert_eq!(&beginnings(&file), &data);
            let at = at.index(file.len());
            if is_cut {
                file.truncate(at);
            } else {
                file[at] = byte;
            }
            let whole = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            }).take_while(|&end| end <= at).count();
            let found = beginnings(&file);
            prop_assert!(found.len() >= whole && found.iter().zip(&data).all(|(found, data)| found == data));
        }
    }
}
