//! Voxel types of BigDataViewer files, all read as unsigned 16 bit.

use hdf5_metno::{Dataset, datatype::ByteOrder, types::TypeDescriptor};

use crate::Scale;

/// What kind of number a voxel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// How a voxel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    kind: Kind,
    /// Bytes of one voxel.
    size: usize,
    is_big_endian: bool,
}

/// Voxels as they are in a file. In shuffled bytes, all first bytes of the voxels come before all second ones, and so on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub bytes: &'a [u8],
    pub is_shuffled: bool,
}

impl<'a> Stored<'a> {
    /// Voxels one after the other.
    pub fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, is_shuffled: false }
    }
}

impl Element {
    /// The voxel type of `dataset`, whose setup declares the type `declared` ("int16", "float32") in its `dataType`.
    ///
    /// Without a declaration, BigDataViewer stores unsigned 16 bit and calls it signed, because Java has no unsigned short:
    /// -1 means 65535.
    pub fn of(dataset: &Dataset, declared: Option<&str>) -> Result<Self, String> {
        let dtype = dataset.dtype().map_err(|error| error.to_string())?;
        let descriptor = dtype.to_descriptor().map_err(|error| format!("its voxels have an unusable type: {error}"))?;
        let kind = match descriptor {
            TypeDescriptor::Unsigned(_) => Kind::Unsigned,
            TypeDescriptor::Integer(_) => Kind::Signed,
            TypeDescriptor::Float(_) => Kind::Float,
            other => return Err(format!("its voxels are {other}; save them as integers or floating-point numbers")),
        };
        let size = dtype.size();
        let is_big_endian = match dtype.byte_order() {
            ByteOrder::BigEndian => true,
            ByteOrder::LittleEndian => false,
            _ if size == 1 => false,
            other => return Err(format!("its voxels have the byte order {other:?}; save them as little endian")),
        };
        Ok(Self { kind: meant(kind, size, declared), size, is_big_endian })
    }

    /// The same type in little endian.
    pub fn little_endian(self) -> Self {
        Self { is_big_endian: false, ..self }
    }

    /// Bytes of one voxel.
    pub fn size(self) -> usize {
        self.size
    }

    pub fn is_big_endian(self) -> bool {
        self.is_big_endian
    }

    pub fn is_float(self) -> bool {
        self.kind == Kind::Float
    }

    /// Whether values may be negative or above 65535.
    pub fn is_wide(self) -> bool {
        !matches!((self.kind, self.size), (Kind::Unsigned, 1 | 2))
    }

    /// Converts voxels from a file's bytes, beginning at voxel `at`, to 16 bit. Returns the largest value before division.
    /// The caller sees to it that the voxels are there.
    pub fn copy(self, stored: Stored<'_>, at: usize, scale: &Scale, out: &mut [u16]) -> f64 {
        match (self.kind, self.size) {
            (Kind::Unsigned, 1) => {
                out.iter_mut().zip(&stored.bytes[at..]).for_each(|(voxel, &byte)| *voxel = byte.into());
                scale.apply(out)
            }
            (Kind::Unsigned, 2) => {
                self.copy_pairs(stored, at, out);
                scale.apply(out)
            }
            (Kind::Signed, 1) => self.convert(stored, at, out, scale, |raw| i8::from_le_bytes(raw).into()),
            (Kind::Signed, 2) => self.convert(stored, at, out, scale, |raw| i16::from_le_bytes(raw).into()),
            (Kind::Signed, 4) => self.convert(stored, at, out, scale, |raw| i32::from_le_bytes(raw).into()),
            (Kind::Signed, _) => self.convert(stored, at, out, scale, |raw| i64::from_le_bytes(raw) as f64),
            (Kind::Unsigned, 4) => self.convert(stored, at, out, scale, |raw| u32::from_le_bytes(raw).into()),
            (Kind::Unsigned, _) => self.convert(stored, at, out, scale, |raw| u64::from_le_bytes(raw) as f64),
            (Kind::Float, 4) => self.convert(stored, at, out, scale, |raw| f32::from_le_bytes(raw).into()),
            (Kind::Float, _) => self.convert(stored, at, out, scale, f64::from_le_bytes),
        }
    }

    fn copy_pairs(self, stored: Stored<'_>, at: usize, out: &mut [u16]) {
        if stored.is_shuffled {
            let (first, second) = stored.bytes.split_at(stored.bytes.len() / 2);
            let (low, high) = if self.is_big_endian { (second, first) } else { (first, second) };
            for ((voxel, &low), &high) in out.iter_mut().zip(&low[at..]).zip(&high[at..]) {
                *voxel = u16::from_le_bytes([low, high]);
            }
            return;
        }
        let pairs = stored.bytes[2 * at..].as_chunks().0;
        if self.is_big_endian {
            out.iter_mut().zip(pairs).for_each(|(voxel, &pair)| *voxel = u16::from_be_bytes(pair));
        } else {
            out.iter_mut().zip(pairs).for_each(|(voxel, &pair)| *voxel = u16::from_le_bytes(pair));
        }
    }

    /// Converts voxels of `N` bytes; `decode` takes them in little endian.
    fn convert<const N: usize>(
        self,
        stored: Stored<'_>,
        at: usize,
        out: &mut [u16],
        scale: &Scale,
        decode: impl Fn([u8; N]) -> f64,
    ) -> f64 {
        // From one byte of a voxel to the next, and from one voxel to the next.
        let (stride, step) = if stored.is_shuffled { (stored.bytes.len() / N, 1) } else { (1, N) };
        let mut largest = f64::NEG_INFINITY;
        for (index, voxel) in out.iter_mut().enumerate() {
            let first = (at + index) * step;
            let mut raw: [u8; N] = std::array::from_fn(|byte| stored.bytes[first + byte * stride]);
            if self.is_big_endian {
                raw.reverse();
            }
            let value = decode(raw);
            largest = largest.max(value);
            // Not a number and negative ones become 0, too large ones 65535.
            *voxel = scale.quotient(value) as u16;
        }
        largest
    }
}

/// What numbers of a stored kind mean under a declaration.
fn meant(stored: Kind, size: usize, declared: Option<&str>) -> Kind {
    let is_unsigned = match declared {
        Some(declared) => declared.starts_with("uint"),
        None => size == 2,
    };
    if stored == Kind::Signed && is_unsigned { Kind::Unsigned } else { stored }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(element: Element, bytes: &[u8], is_shuffled: bool, scale: &Scale) -> (Vec<u16>, f64) {
        let mut out = vec![1; bytes.len() / element.size];
        let (first, rest) = out.split_at_mut(1);
        let stored = Stored { bytes, is_shuffled };
        let largest = element.copy(stored, 0, scale, first).max(element.copy(stored, 1, scale, rest));
        (out, largest)
    }

    #[test]
    fn every_type_byte_order_and_shuffle_gives_the_values() {
        fn big<const N: usize>(values: [[u8; N]; 4]) -> Vec<Vec<u8>> {
            values.map(|value| value.to_vec()).to_vec()
        }
        let (wide, many) = ([0, 7, 300, 65_535], [0, 7, 200, 255]);
        for (kind, voxels, expected) in [
            (Kind::Unsigned, big(many.map(|value| (value as u8).to_be_bytes())), many),
            (Kind::Unsigned, big(wide.map(|value| (value as u16).to_be_bytes())), wide),
            (Kind::Unsigned, big(wide.map(|value: i32| value.cast_unsigned().to_be_bytes())), wide),
            (Kind::Unsigned, big(wide.map(|value| (value as u64).to_be_bytes())), wide),
            (Kind::Signed, big([-128_i8, -1, 7, 127].map(i8::to_be_bytes)), [0, 0, 7, 127]),
            (Kind::Signed, big([-32768_i16, -1, 7, 32767].map(i16::to_be_bytes)), [0, 0, 7, 32767]),
            (Kind::Signed, big([i32::MIN, -1, 7, 65535].map(i32::to_be_bytes)), [0, 0, 7, 65535]),
            (Kind::Signed, big([i64::MIN, -1, 7, 65535].map(i64::to_be_bytes)), [0, 0, 7, 65535]),
            (Kind::Float, big([f32::NAN, -0.5, 7.9, 65535.9].map(f32::to_be_bytes)), [0, 0, 7, 65535]),
            (Kind::Float, big([f64::NAN, f64::NEG_INFINITY, 7.999, 1.0].map(f64::to_be_bytes)), [0, 0, 7, 1]),
        ] {
            let size = voxels[0].len();
            for is_big_endian in [true, false] {
                let element = Element { kind, size, is_big_endian };
                let ordered = |voxel: &Vec<u8>| {
                    let bytes = voxel.iter().copied();
                    if is_big_endian { bytes.collect() } else { bytes.rev().collect::<Vec<u8>>() }
                };
                let voxels: Vec<_> = voxels.iter().map(ordered).collect();
                let shuffled: Vec<u8> =
                    (0..size).flat_map(|byte| voxels.iter().map(move |voxel| voxel[byte])).collect();
                for (bytes, is_shuffled) in [(voxels.concat(), false), (shuffled, true)] {
                    let (values, largest) = read(element, &bytes, is_shuffled, &Scale::default());
                    assert_eq!(values, expected.map(|value| value as u16), "{element:?} {is_shuffled}");
                    assert_eq!(largest.floor(), f64::from(*expected.iter().max().unwrap()), "{element:?}");
                }
            }
        }
    }

    #[test]
    fn too_large_values_are_told() {
        let element = Element { kind: Kind::Float, size: 4, is_big_endian: false };
        let bytes = [70_000.0_f32, 1.0].map(f32::to_le_bytes).concat();
        assert_eq!(read(element, &bytes, false, &Scale::default()), (vec![65535, 1], 70_000.0));
        assert_eq!(read(element, &bytes, false, &Scale::new(100.0)), (vec![700, 0], 70_000.0));
        let bytes = [f32::INFINITY, 0.5].map(f32::to_le_bytes).concat();
        assert_eq!(read(element, &bytes, false, &Scale::new(0.001)), (vec![65535, 499], f64::INFINITY));
    }

    #[test]
    fn a_declaration_says_what_signed_numbers_mean() {
        for (stored, size, declared, expected) in [
            (Kind::Signed, 2, None, Kind::Unsigned),
            (Kind::Signed, 2, Some("int16"), Kind::Signed),
            (Kind::Signed, 2, Some("uint16"), Kind::Unsigned),
            (Kind::Signed, 4, Some("uint32"), Kind::Unsigned),
            (Kind::Signed, 4, None, Kind::Signed),
            (Kind::Signed, 1, None, Kind::Signed),
            (Kind::Unsigned, 2, Some("int16"), Kind::Unsigned),
            (Kind::Float, 4, Some("uint16"), Kind::Float),
        ] {
            assert_eq!(meant(stored, size, declared), expected, "{stored:?} {size} {declared:?}");
        }
    }
}
