//! Voxel types of BigDataViewer files, all read as unsigned 16 bit.

use hdf5_metno::{
    Dataset,
    datatype::ByteOrder,
    types::{IntSize, TypeDescriptor},
};

/// How a voxel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// One unsigned byte.
    U8,
    /// Two bytes, unsigned.
    U16,
    /// Two bytes that the file calls signed. BigDataViewer stores unsigned 16 bit that way, because Java has no unsigned
    /// short: −1 means 65535.
    I16,
}

impl Element {
    /// The voxel type of `dataset` and whether its bytes are little endian.
    pub fn of(dataset: &Dataset) -> Result<(Self, bool), String> {
        let dtype = dataset.dtype().map_err(|error| error.to_string())?;
        let descriptor = dtype.to_descriptor().map_err(|error| error.to_string())?;
        let element = match descriptor {
            TypeDescriptor::Unsigned(IntSize::U1) => Self::U8,
            TypeDescriptor::Unsigned(IntSize::U2) => Self::U16,
            TypeDescriptor::Integer(IntSize::U2) => Self::I16,
            other => return Err(format!("its voxels are {other}; save them as unsigned 8 or 16 bit")),
        };
        Ok((element, element == Self::U8 || dtype.byte_order() == ByteOrder::LittleEndian))
    }

    /// Bytes of one voxel.
    pub fn size(self) -> usize {
        if self == Self::U8 { 1 } else { 2 }
    }

    /// Copies voxels from little-endian bytes, beginning at voxel `at`. In shuffled bytes, all first bytes of the voxels
    /// come before all second ones. The caller sees to it that the voxels are there.
    pub fn copy(self, bytes: &[u8], shuffled: bool, at: usize, out: &mut [u16]) {
        if self == Self::U8 {
            for (voxel, &byte) in out.iter_mut().zip(&bytes[at..]) {
                *voxel = byte.into();
            }
        } else if shuffled {
            let (low, high) = bytes.split_at(bytes.len() / 2);
            for ((voxel, &low), &high) in out.iter_mut().zip(&low[at..]).zip(&high[at..]) {
                *voxel = u16::from_le_bytes([low, high]);
            }
        } else {
            for (voxel, pair) in out.iter_mut().zip(bytes[2 * at..].as_chunks().0) {
                *voxel = u16::from_le_bytes(*pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_and_plain_bytes_give_the_same_voxels() {
        let voxels = [1_u16, 256, 0x8001, 65535];
        let plain: Vec<u8> = voxels.iter().flat_map(|voxel| voxel.to_le_bytes()).collect();
        let shuffled: Vec<u8> = (0..2).flat_map(|byte| voxels.map(|voxel| voxel.to_le_bytes()[byte])).collect();
        for (bytes, is_shuffled) in [(&plain, false), (&shuffled, true)] {
            let mut out = [0; 2];
            Element::I16.copy(bytes, is_shuffled, 2, &mut out);
            assert_eq!(out, voxels[2..]);
        }
    }
}
