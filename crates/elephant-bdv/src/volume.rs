//! One volume of a movie: a timepoint of a setup at one resolution level.

use std::ops::Range;

use crate::{
    BdvError, Scale,
    voxels::{Meaning, To16Bit},
};

/// Voxels (z, y, x) of one timepoint, read box by box as unsigned 16 bit.
#[derive(Debug)]
pub struct Volume {
    stored: elephant_hdf5::Volume,
    meaning: Meaning,
}

impl Volume {
    pub(crate) fn new(stored: elephant_hdf5::Volume, meaning: Meaning) -> Self {
        Self { stored, meaning }
    }

    /// The box `region`, (z, y, x), as a volume of its own.
    pub(crate) fn piece(self, region: &[Range<usize>; 3]) -> Result<Self, BdvError> {
        Ok(Self { stored: self.stored.piece(region)?, ..self })
    }

    /// Size (z, y, x) in voxels.
    pub fn shape(&self) -> [usize; 3] {
        self.stored.shape()
    }

    /// Size (z, y, x) of the blocks the voxels are stored in: boxes made of whole ones are read without decoding
    /// anything twice.
    pub fn block(&self) -> [usize; 3] {
        self.stored.block()
    }

    /// Size (z, y, x) that none of the blocks exceeds which are decoded as a whole, however little is read of them.
    pub fn largest_chunk(&self) -> [usize; 3] {
        self.stored.largest_chunk()
    }

    /// Bytes that the voxels take in the file.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.stored_bytes()
    }

    /// Whether its values may be negative or above 65535: signed ones, more than 16 bit, floating-point numbers.
    pub fn is_wide(&self) -> bool {
        self.stored.any_type(&|number_type| self.meaning.is_wide(number_type))
    }

    /// Whether its values are floating-point numbers.
    pub fn is_float(&self) -> bool {
        self.stored.number_type().kind == elephant_hdf5::NumberKind::Float
    }

    /// Reads the box `region`, (z, y, x), into `out`, C order, converted to 16 bit by `scale`. Uses all threads of the
    /// current rayon pool. Returns the largest value before division, negative infinity when there is none.
    ///
    /// # Errors
    /// When the box leaves the volume, `out` has not as many voxels as the box, or the file is damaged.
    pub fn read(&self, region: &[Range<usize>; 3], scale: &Scale, out: &mut [u16]) -> Result<f64, BdvError> {
        Ok(self.stored.read(region, &To16Bit { meaning: self.meaning, scale }, out)?)
    }
}
