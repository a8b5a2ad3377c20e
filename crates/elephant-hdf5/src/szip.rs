//! HDF5's szip filter: the Rice coder of CCSDS 121.0-B, as libaec and the szip library write it.
//!
//! A chunk begins with its length (4 bytes, little endian). Its samples, padded to whole blocks at the end of each scan line,
//! are coded block by block; some blocks make a reference interval, and with them the differences begin anew. Values of
//! 32 and 64 bit are coded as bytes: all first bytes, all second ones, and so on.

/// Where the coded samples begin.
const HEADER_BYTES: usize = 4;
/// Largest numbers of samples and of blocks in a scan line of the HDF5 library.
const MAX_SCANLINE: usize = 4096;
const MAX_BLOCKS: usize = 128;
/// Zero blocks are counted within segments of so many blocks.
const SEGMENT_BLOCKS: usize = 64;
/// The count of zero blocks that means "up to the end of the segment".
const REST_OF_SEGMENT: u32 = 5;
/// Largest number that is written as zeros before a one: a sample of 16 bit.
const MAX_UNARY: u32 = 1 << 16;
/// Largest code of a pair of samples.
const MAX_PAIR: u32 = 90;

/// How the values of a dataset are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Szip {
    /// Bytes of a value.
    size: usize,
    is_big_endian: bool,
    /// Whether differences between neighbours are coded.
    has_differences: bool,
    /// Samples of a block.
    block: usize,
    /// Samples of a scan line.
    scanline: usize,
}

impl Szip {
    /// The coding of chunks (z, y, x) of values of `size` bytes, in blocks of `block` samples.
    pub fn new(
        size: usize,
        is_big_endian: bool,
        has_differences: bool,
        block: usize,
        chunk: [usize; 3],
    ) -> Option<Self> {
        let samples: usize = chunk.iter().product();
        // As the library chooses it when it writes (`H5Z__set_local_szip`).
        let scanline = match chunk[2] {
            short if short < block => samples.min(block * MAX_BLOCKS),
            long if long > MAX_SCANLINE => block * MAX_BLOCKS,
            other => other.min(block * MAX_BLOCKS),
        };
        let is_valid = (2..=32).contains(&block) && block.is_multiple_of(2) && scanline > 0;
        is_valid.then_some(Self { size, is_big_endian, has_differences, block, scanline })
    }

    /// Decodes a chunk into `out`, which has room for exactly its values. `None` when the chunk is damaged.
    pub fn decode(self, stored: &[u8], out: &mut [u8]) -> Option<()> {
        let sample_bytes = if self.size > 2 { 1 } else { self.size };
        let samples = out.len() / sample_bytes;
        let mut decoder = Decoder {
            bits: Bits { bytes: stored.get(HEADER_BYTES..)?.iter(), held: 0, count: 0 },
            depth: 8 * sample_bytes as u32,
            block: self.block,
            interval: self.scanline.div_ceil(self.block),
            has_differences: self.has_differences,
        };
        let padded = decoder.interval * self.block;
        let mut line = Vec::with_capacity(padded);
        let mut written = 0;
        while written < samples {
            let count = self.scanline.min(samples - written);
            // The last line may end early, with the block in which its last sample is.
            decoder.read_interval(count, &mut line)?;
            for (index, &sample) in line.get(..count)?.iter().enumerate() {
                self.put(out, written + index, sample);
            }
            written += count;
        }
        Some(())
    }

    fn put(self, out: &mut [u8], index: usize, sample: u32) {
        match self.size {
            1 => out[index] = sample as u8,
            2 => {
                let sample = sample as u16;
                let bytes = if self.is_big_endian { sample.to_be_bytes() } else { sample.to_le_bytes() };
                out[2 * index..2 * index + 2].copy_from_slice(&bytes);
            }
            size => {
                let values = out.len() / size;
                out[index % values * size + index / values] = sample as u8;
            }
        }
    }
}

struct Decoder<'a> {
    bits: Bits<'a>,
    /// Bits of a sample: 8 or 16.
    depth: u32,
    block: usize,
    /// Blocks of a reference interval, which is a scan line.
    interval: usize,
    has_differences: bool,
}

impl Decoder<'_> {
    /// Reads the blocks of an interval that hold its first `count` samples.
    fn read_interval(&mut self, count: usize, line: &mut Vec<u32>) -> Option<()> {
        line.clear();
        while line.len() < count {
            self.read_block(line)?;
        }
        if self.has_differences {
            undo_differences(line, self.depth);
        }
        Some(())
    }

    /// Reads one block, or several that are all zero.
    fn read_block(&mut self, line: &mut Vec<u32>) -> Option<()> {
        let id_bits = if self.depth > 8 { 4 } else { 3 };
        let id = self.bits.take(id_bits)?;
        let end = line.len() + self.block;
        let is_uncompressed = id == (1 << id_bits) - 1;
        let is_paired = id == 0 && self.bits.take(1)? == 1;
        if self.has_differences && line.is_empty() && !is_uncompressed {
            line.push(self.bits.take(self.depth)?);
        }
        if is_uncompressed {
            while line.len() < end {
                line.push(self.bits.take(self.depth)?);
            }
        } else if is_paired {
            self.read_pairs(end, line)?;
        } else if id == 0 {
            let blocks = self.zero_blocks(end / self.block - 1)?;
            line.resize(end + (blocks - 1) * self.block, 0);
        } else {
            self.read_split(id - 1, end, line)?;
        }
        Some(())
    }

    /// Samples whose lowest bits follow after all the others.
    fn read_split(&mut self, low_bits: u32, end: usize, line: &mut Vec<u32>) -> Option<()> {
        let first = line.len();
        while line.len() < end {
            line.push(self.bits.unary()?.checked_shl(low_bits)?);
        }
        if low_bits > 0 {
            for sample in &mut line[first..] {
                *sample = sample.wrapping_add(self.bits.take(low_bits)?);
            }
        }
        Some(())
    }

    /// Pairs of small samples, each pair as one number: it counts the pairs by their sum.
    fn read_pairs(&mut self, end: usize, line: &mut Vec<u32>) -> Option<()> {
        while line.len() < end {
            let code = self.bits.unary().filter(|&code| code <= MAX_PAIR)?;
            let mut sum = 0;
            while (sum + 1) * (sum + 2) / 2 <= code {
                sum += 1;
            }
            let second = code - sum * (sum + 1) / 2;
            // After a reference sample, the first one of the pair is not there.
            if (end - line.len()).is_multiple_of(2) {
                line.push(sum - second);
            }
            line.push(second);
        }
        Some(())
    }

    /// How many blocks from number `block` of the interval on are zero.
    fn zero_blocks(&mut self, block: usize) -> Option<usize> {
        let count = self.bits.unary()? + 1;
        let left = self.interval.checked_sub(block)?;
        let blocks = match count {
            REST_OF_SEGMENT => left.min(SEGMENT_BLOCKS - block % SEGMENT_BLOCKS),
            more if more > REST_OF_SEGMENT => more as usize - 1,
            fewer => fewer as usize,
        };
        (1..=left).contains(&blocks).then_some(blocks)
    }
}

/// The samples of their mapped differences: even ones up, odd ones down, as far as both ways are open.
fn undo_differences(line: &mut [u32], depth: u32) {
    let max = (1_u32 << depth) - 1;
    let Some((&mut first, rest)) = line.split_first_mut() else { return };
    let mut sample = first;
    for difference in rest {
        let half = difference.div_ceil(2);
        let mask = if sample & (max / 2 + 1) == 0 { 0 } else { max };
        sample = if half > mask ^ sample {
            mask ^ *difference
        } else if difference.is_multiple_of(2) {
            sample.wrapping_add(half)
        } else {
            sample.wrapping_sub(half)
        } & max;
        *difference = sample;
    }
}

/// Bits, highest first.
struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// The next `count` bits, in its lowest places.
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// The next bits as a number, 16 at most; `None` when there are no more.
    fn take(&mut self, bits: u32) -> Option<u32> {
        while self.count < bits {
            self.held = self.held << 8 | u64::from(*self.bytes.next()?);
            self.count += 8;
        }
        self.count -= bits;
        Some((self.held >> self.count & ((1 << bits) - 1)) as u32)
    }

    /// The number of zeros before the next one; `None` when there are more than any code has.
    fn unary(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > MAX_UNARY {
                return None;
            }
        }
        Some(zeros)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn differences_are_folded_at_both_ends() {
        for (first, mapped, expected) in [(5, 3, 3), (5, 4, 7), (5, 10, 10), (5, 11, 11), (250, 3, 248), (250, 12, 243)]
        {
            let mut line = [first, mapped];
            undo_differences(&mut line, 8);
            assert_eq!(line[1], expected, "{first} {mapped}");
        }
    }

    #[test]
    fn scan_lines_are_those_of_the_library() {
        for (chunk, block, scanline) in [
            ([4, 16, 16], 8, 16),
            ([4, 3, 5], 8, 60),
            ([1, 1, 5000], 32, 4096),
            ([1, 1, 4000], 8, 1024),
            ([9, 9, 4], 8, 324),
        ] {
            assert_eq!(Szip::new(2, false, true, block, chunk).unwrap().scanline, scanline, "{chunk:?}");
        }
        assert!(Szip::new(2, false, true, 0, [1, 1, 1]).is_none());
    }

    #[test]
    fn zeros_without_end_are_refused() {
        for (zeros, expected) in [(0, Some(0)), (8192, Some(MAX_UNARY)), (8193, None), (100_000, None)] {
            let mut bytes = vec![0; zeros];
            bytes.push(0x80);
            assert_eq!(Bits { bytes: bytes.iter(), held: 0, count: 0 }.unary(), expected, "{zeros}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            stored: Vec<u8>, power in 0_u32..4, half in 1_usize..17, chunk in prop::array::uniform3(1_usize..40),
            has_differences: bool,
        ) {
            let size = 1 << power;
            let szip = Szip::new(size, false, has_differences, 2 * half, chunk).unwrap();
            let _ = szip.decode(&stored, &mut vec![0; size * chunk.iter().product::<usize>()]);
        }
    }
}
