//! Voxel types of BigDataViewer movies, all read as unsigned 16 bit.

use elephant_hdf5::{Convert, NumberKind, NumberType, StoredNumbers};

use crate::Scale;

/// What the setup of a movie declares about its voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Nothing. BigDataViewer then stores unsigned 16 bit and calls it signed, because Java has no unsigned short: -1
    /// means 65535.
    Undeclared,
    /// Unsigned integers.
    Unsigned,
    /// Numbers as they are stored.
    AsStored,
}

impl Meaning {
    /// The meaning of the voxel type that a setup declares ("uint16", "float32") in its `dataType`.
    pub fn from_declaration(declared: Option<&str>) -> Self {
        match declared {
            None => Self::Undeclared,
            Some(declared) if declared.starts_with("uint") => Self::Unsigned,
            Some(_) => Self::AsStored,
        }
    }

    /// What numbers of a stored type are under this meaning.
    fn kind(self, stored: NumberType) -> NumberKind {
        let is_unsigned = match self {
            Self::Undeclared => stored.size == 2,
            Self::Unsigned => true,
            Self::AsStored => false,
        };
        if stored.kind == NumberKind::Signed && is_unsigned { NumberKind::Unsigned } else { stored.kind }
    }

    /// Whether values may be negative or above 65535.
    pub fn is_wide(self, stored: NumberType) -> bool {
        !matches!((self.kind(stored), stored.size), (NumberKind::Unsigned, 1 | 2))
    }
}

/// Conversion of stored voxels to 16 bit.
pub(crate) struct To16Bit<'a> {
    pub meaning: Meaning,
    pub scale: &'a Scale,
}

impl Convert for To16Bit<'_> {
    type Output = u16;

    fn convert(&self, stored: StoredNumbers<'_>, first: usize, out: &mut [u16]) -> f64 {
        match (self.meaning.kind(stored.number_type), stored.number_type.size) {
            (NumberKind::Unsigned, 1) => {
                out.iter_mut().zip(&stored.bytes[first..]).for_each(|(voxel, &byte)| *voxel = byte.into());
                self.scale.apply(out)
            }
            (NumberKind::Unsigned, 2) => {
                stored.copy_u16(first, out);
                self.scale.apply(out)
            }
            (NumberKind::Signed, 1) => self.round(stored, first, out, |raw| i8::from_le_bytes(raw).into()),
            (NumberKind::Signed, 2) => self.round(stored, first, out, |raw| i16::from_le_bytes(raw).into()),
            (NumberKind::Signed, 4) => self.round(stored, first, out, |raw| i32::from_le_bytes(raw).into()),
            (NumberKind::Signed, _) => self.round(stored, first, out, |raw| i64::from_le_bytes(raw) as f64),
            (NumberKind::Unsigned, 4) => self.round(stored, first, out, |raw| u32::from_le_bytes(raw).into()),
            (NumberKind::Unsigned, _) => self.round(stored, first, out, |raw| u64::from_le_bytes(raw) as f64),
            (NumberKind::Float, 4) => self.round(stored, first, out, |raw| f32::from_le_bytes(raw).into()),
            (NumberKind::Float, _) => self.round(stored, first, out, f64::from_le_bytes),
        }
    }
}

impl To16Bit<'_> {
    /// Converts voxels of `N` bytes; `value` takes them in little endian. Returns the largest value before division.
    fn round<const N: usize>(
        &self,
        stored: StoredNumbers<'_>,
        first: usize,
        out: &mut [u16],
        value: impl Fn([u8; N]) -> f64,
    ) -> f64 {
        let mut largest = f64::NEG_INFINITY;
        stored.decode(first, out, |raw| {
            let value = value(raw);
            largest = largest.max(value);
            // Not a number and negative ones become 0, too large ones 65535.
            self.scale.quotient(value) as u16
        });
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_STORED: Meaning = Meaning::AsStored;

    fn read(number_type: NumberType, bytes: &[u8], is_shuffled: bool, scale: &Scale) -> (Vec<u16>, f64) {
        let mut out = vec![1; bytes.len() / number_type.size];
        let (first, rest) = out.split_at_mut(1);
        let stored = StoredNumbers { number_type, bytes, is_shuffled };
        let convert = To16Bit { meaning: AS_STORED, scale };
        let largest = convert.convert(stored, 0, first).max(convert.convert(stored, 1, rest));
        (out, largest)
    }

    #[test]
    fn every_type_byte_order_and_shuffle_gives_the_values() {
        fn big<const N: usize>(values: [[u8; N]; 4]) -> Vec<Vec<u8>> {
            values.map(|value| value.to_vec()).to_vec()
        }
        let (wide, many) = ([0, 7, 300, 65_535], [0, 7, 200, 255]);
        for (kind, voxels, expected) in [
            (NumberKind::Unsigned, big(many.map(|value| (value as u8).to_be_bytes())), many),
            (NumberKind::Unsigned, big(wide.map(|value| (value as u16).to_be_bytes())), wide),
            (NumberKind::Unsigned, big(wide.map(|value: i32| value.cast_unsigned().to_be_bytes())), wide),
            (NumberKind::Unsigned, big(wide.map(|value| (value as u64).to_be_bytes())), wide),
            (NumberKind::Signed, big([-128_i8, -1, 7, 127].map(i8::to_be_bytes)), [0, 0, 7, 127]),
            (NumberKind::Signed, big([-32768_i16, -1, 7, 32767].map(i16::to_be_bytes)), [0, 0, 7, 32767]),
            (NumberKind::Signed, big([i32::MIN, -1, 7, 65535].map(i32::to_be_bytes)), [0, 0, 7, 65535]),
            (NumberKind::Signed, big([i64::MIN, -1, 7, 65535].map(i64::to_be_bytes)), [0, 0, 7, 65535]),
            (NumberKind::Float, big([f32::NAN, -0.5, 7.9, 65535.9].map(f32::to_be_bytes)), [0, 0, 7, 65535]),
            (NumberKind::Float, big([f64::NAN, f64::NEG_INFINITY, 7.999, 1.0].map(f64::to_be_bytes)), [0, 0, 7, 1]),
        ] {
            let size = voxels[0].len();
            for is_big_endian in [true, false] {
                let number_type = NumberType { kind, size, is_big_endian };
                let ordered = |voxel: &Vec<u8>| {
                    let bytes = voxel.iter().copied();
                    if is_big_endian { bytes.collect() } else { bytes.rev().collect::<Vec<u8>>() }
                };
                let voxels: Vec<_> = voxels.iter().map(ordered).collect();
                let shuffled: Vec<u8> =
                    (0..size).flat_map(|byte| voxels.iter().map(move |voxel| voxel[byte])).collect();
                for (bytes, is_shuffled) in [(voxels.concat(), false), (shuffled, true)] {
                    let (values, largest) = read(number_type, &bytes, is_shuffled, &Scale::default());
                    assert_eq!(values, expected.map(|value| value as u16), "{number_type:?} {is_shuffled}");
                    assert_eq!(largest.floor(), f64::from(*expected.iter().max().unwrap()), "{number_type:?}");
                }
            }
        }
    }

    #[test]
    fn the_largest_value_is_returned_before_clipping() {
        let number_type = NumberType { kind: NumberKind::Float, size: 4, is_big_endian: false };
        let bytes = [70_000.0_f32, 1.0].map(f32::to_le_bytes).concat();
        assert_eq!(read(number_type, &bytes, false, &Scale::default()), (vec![65535, 1], 70_000.0));
        assert_eq!(read(number_type, &bytes, false, &Scale::new(100.0)), (vec![700, 0], 70_000.0));
        let bytes = [f32::INFINITY, 0.5].map(f32::to_le_bytes).concat();
        assert_eq!(read(number_type, &bytes, false, &Scale::new(0.001)), (vec![65535, 499], f64::INFINITY));
    }

    #[test]
    fn a_declaration_says_what_signed_numbers_mean() {
        use NumberKind::{Float, Signed, Unsigned};
        for (kind, size, declared, expected) in [
            (Signed, 2, None, Unsigned),
            (Signed, 2, Some("int16"), Signed),
            (Signed, 2, Some("uint16"), Unsigned),
            (Signed, 4, Some("uint32"), Unsigned),
            (Signed, 4, None, Signed),
            (Signed, 1, None, Signed),
            (Unsigned, 2, Some("int16"), Unsigned),
            (Float, 4, Some("uint16"), Float),
        ] {
            let stored = NumberType { kind, size, is_big_endian: false };
            assert_eq!(Meaning::from_declaration(declared).kind(stored), expected, "{stored:?} {declared:?}");
        }
    }
}
