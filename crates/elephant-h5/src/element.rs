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
    /// Two bytes, in this order. The file may call them signed: BigDataViewer stores unsigned 16 bit that way, because Java
    /// has no unsigned short, and −1 means 65535.
    U16(ByteOrder),
}

impl Element {
    /// The voxel type of `dataset`.
    pub fn of(dataset: &Dataset) -> Result<Self, String> {
        let dtype = dataset.dtype().map_err(|error| error.to_string())?;
        let descriptor = dtype.to_descriptor().map_err(|error| error.to_string())?;
        match (descriptor, dtype.byte_order()) {
            (TypeDescriptor::Unsigned(IntSize::U1), _) => Ok(Self::U8),
            (
                TypeDescriptor::Unsigned(IntSize::U2) | TypeDescriptor::Integer(IntSize::U2),
                order @ (ByteOrder::LittleEndian | ByteOrder::BigEndian),
            ) => Ok(Self::U16(order)),
            (other, _) => Err(format!("its voxels are {other}; save them as unsigned 8 or 16 bit")),
        }
    }

    /// Bytes of one voxel.
    pub fn size(self) -> usize {
        if self == Self::U8 { 1 } else { 2 }
    }

    /// Copies voxels from a file's bytes, beginning at voxel `at`. In shuffled bytes, all first bytes of the voxels come
    /// before all second ones. The caller sees to it that the voxels are there.
    pub fn copy(self, bytes: &[u8], shuffled: bool, at: usize, out: &mut [u16]) {
        match self {
            Self::U8 => out.iter_mut().zip(&bytes[at..]).for_each(|(voxel, &byte)| *voxel = byte.into()),
            Self::U16(order) if shuffled => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                let (low, high) = if order == ByteOrder::BigEndian { (second, first) } else { (first, second) };
                for ((voxel, &low), &high) in out.iter_mut().zip(&low[at..]).zip(&high[at..]) {
                    *voxel = u16::from_le_bytes([low, high]);
                }
            }
            Self::U16(order) => {
                let pairs = bytes[2 * at..].as_chunks().0;
                if order == ByteOrder::BigEndian {
                    out.iter_mut().zip(pairs).for_each(|(voxel, &pair)| *voxel = u16::from_be_bytes(pair));
                } else {
                    out.iter_mut().zip(pairs).for_each(|(voxel, &pair)| *voxel = u16::from_le_bytes(pair));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_orders_and_shuffles_give_the_same_voxels() {
        let voxels = [1_u16, 256, 0x8001, 65535];
        for order in [ByteOrder::LittleEndian, ByteOrder::BigEndian] {
            let bytes =
                |voxel: u16| if order == ByteOrder::BigEndian { voxel.to_be_bytes() } else { voxel.to_le_bytes() };
            let plain: Vec<u8> = voxels.into_iter().flat_map(bytes).collect();
            let shuffled: Vec<u8> = (0..2).flat_map(|byte| voxels.map(|voxel| bytes(voxel)[byte])).collect();
            for (bytes, is_shuffled) in [(&plain, false), (&shuffled, true)] {
                let mut out = [0; 2];
                Element::U16(order).copy(bytes, is_shuffled, 2, &mut out);
                assert_eq!(out, voxels[2..]);
            }
        }
    }
}
