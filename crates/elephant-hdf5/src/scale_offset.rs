//! HDF5's scale-offset filter, which BigDataViewer applies before gzip: each chunk's values, less their minimum, in as few
//! bits as their range needs. Of floating-point values, some decimal places are kept.
//!
//! A chunk begins with the number of bits (4 bytes, little endian), the length of the minimum (1 byte) and the minimum
//! (little endian, 16 bytes reserved). The values follow from byte 21 as one stream of bits, highest bit first. With all
//! bits set, a value stands for the dataset's fill value. (HDF5 file format specification, "Filter Pipeline Message", and
//! the library's behaviour.)

/// Where the values begin.
pub(crate) const HEADER_BYTES: usize = 21;

/// How the values of a dataset are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScaleOffset {
    /// Bytes of a value: 1, 2, 4 or 8.
    pub size: usize,
    /// The order of bytes in which `unpack` writes.
    pub big_endian: bool,
    /// The bits of the dataset's fill value, unless it has none.
    pub fill: Option<u64>,
    /// Decimal places that were kept, for floating-point values; `None` for integers.
    pub decimals: Option<u8>,
}

impl ScaleOffset {
    /// Unpacks a chunk into `out`, which has room for exactly its values. `None` when the chunk is damaged.
    pub fn unpack(self, packed: &[u8], out: &mut [u8]) -> Option<()> {
        let bits = u32::from_le_bytes(*packed.first_chunk()?);
        let minimum = packed.get(5..5 + usize::from(*packed.get(4)?).min(8))?;
        let minimum = minimum.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let values = packed.get(HEADER_BYTES..)?;
        let full = 8 * self.size as u32;
        if bits > full || (values.len() as u64) * 8 < (out.len() / self.size) as u64 * u64::from(bits) {
            return None;
        }
        if bits == full {
            // Nothing to gain: the values as they are, little endian.
            out.copy_from_slice(&values[..out.len()]);
            if self.big_endian {
                out.chunks_exact_mut(self.size).for_each(<[u8]>::reverse);
            }
            return Some(());
        }
        let mut stream = BitStream { bytes: values.iter(), held: 0, count: 0 };
        let all_bits = (1_u64 << bits) - 1;
        self.write(out, || match (stream.take(bits), self.fill) {
            (value, Some(fill)) if value == all_bits => fill,
            (value, _) => self.value(value, minimum),
        });
        Some(())
    }

    /// The bits of the value that is `steps` above the minimum.
    fn value(self, steps: u64, minimum: u64) -> u64 {
        match (self.decimals, self.size) {
            (None, _) => steps.wrapping_add(minimum),
            (Some(decimals), 4) => {
                let above = steps as f32 / 10_f32.powi(decimals.into());
                (above + f32::from_bits(minimum as u32)).to_bits().into()
            }
            (Some(decimals), _) => (steps as f64 / 10_f64.powi(decimals.into()) + f64::from_bits(minimum)).to_bits(),
        }
    }

    fn write(self, out: &mut [u8], mut next: impl FnMut() -> u64) {
        match (self.size, self.big_endian) {
            (1, _) => out.fill_with(|| next() as u8),
            (2, true) => out.as_chunks_mut().0.fill_with(|| (next() as u16).to_be_bytes()),
            (2, false) => out.as_chunks_mut().0.fill_with(|| (next() as u16).to_le_bytes()),
            (4, true) => out.as_chunks_mut().0.fill_with(|| (next() as u32).to_be_bytes()),
            (4, false) => out.as_chunks_mut().0.fill_with(|| (next() as u32).to_le_bytes()),
            (_, true) => out.as_chunks_mut().0.fill_with(|| next().to_be_bytes()),
            (_, false) => out.as_chunks_mut().0.fill_with(|| next().to_le_bytes()),
        }
    }
}

/// Bits, highest first. Zeros follow the last one.
struct BitStream<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// The next `count` bits, in its lowest places.
    held: u64,
    count: u32,
}

impl BitStream<'_> {
    /// The next bits as a number; 64 at most.
    fn take(&mut self, bits: u32) -> u64 {
        if bits > 32 {
            let high = self.take(bits - 32);
            return high << 32 | self.take(32);
        }
        if self.count < bits {
            // Four bytes at a time; at the end, zeros stand for those that are not there.
            let mut word = [0; 4];
            word.iter_mut().zip(&mut self.bytes).for_each(|(place, byte)| *place = *byte);
            self.held = self.held << 32 | u64::from(u32::from_be_bytes(word));
            self.count += 32;
        }
        self.count -= bits;
        self.held >> self.count & ((1 << bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs values as the library does; `bits` is as many as their range needs, and one value more for the fill value.
    fn pack(values: &[u16], bits: u32, minimum: u16) -> Vec<u8> {
        let mut packed = [&bits.to_le_bytes()[..], &[8], &u64::from(minimum).to_le_bytes(), &[0; 8]].concat();
        let digits: String = values
            .iter()
            .map(|value| format!("{:016b}", value.wrapping_sub(minimum))[16 - bits as usize..].to_owned())
            .collect();
        let bytes = digits.as_bytes().chunks(8).map(|byte| {
            byte.iter().chain(std::iter::repeat(&b'0')).take(8).fold(0, |value, &digit| value << 1 | (digit - b'0'))
        });
        packed.extend(bytes);
        packed
    }

    proptest! {
        #[test]
        fn packed_values_come_back(
            offsets in prop::collection::vec(0_u16..0x7fff, 1..50), bits in 1_u32..16, minimum: u16, big_endian: bool,
        ) {
            let values: Vec<_> = offsets.iter().map(|offset| minimum.wrapping_add(offset % ((1 << bits) - 1))).collect();
            let scale = ScaleOffset { size: 2, big_endian, fill: Some(7), decimals: None };
            let mut out = vec![0; 2 * values.len()];
            prop_assert_eq!(scale.unpack(&pack(&values, bits, minimum), &mut out), Some(()));
            let from_bytes = |pair: &[u8; 2]| if big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
            prop_assert_eq!(out.as_chunks().0.iter().map(from_bytes).collect::<Vec<_>>(), values);
        }

        #[test]
        fn no_bytes_make_it_panic(mut packed: Vec<u8>, bits in 0_u8..70, power in 0_u32..4, values in 0_usize..300, decimals: Option<u8>) {
            if let Some(first) = packed.first_mut() {
                *first = bits;
            }
            let size = 1 << power;
            let scale = ScaleOffset { size, big_endian: false, fill: None, decimals };
            let _ = scale.unpack(&packed, &mut vec![0; size * values]);
        }
    }

    #[test]
    fn all_bits_set_is_the_fill_value() {
        let packed = pack(&[107, 100, 104], 3, 100);
        let mut out = [0; 3];
        let scale = |fill| ScaleOffset { size: 1, big_endian: false, fill, decimals: None };
        scale(Some(9)).unpack(&packed, &mut out).unwrap();
        assert_eq!(out, [9, 100, 104]);
        scale(None).unpack(&packed, &mut out).unwrap();
        assert_eq!(out, [107, 100, 104]);
    }
}
