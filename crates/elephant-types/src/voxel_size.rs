//! The physical size of a voxel.

use serde::{Deserialize, Serialize};

/// Edge lengths of a voxel in micrometres (or the dataset's own unit), (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct VoxelSize([f64; 3]);

/// A voxel size that no microscope has.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the voxel size {0:?} (z, y, x) must be three positive numbers, from 1e-9 to 1e9")]
pub struct InvalidVoxelSize([f64; 3]);

impl VoxelSize {
    /// A voxel of one micrometre.
    pub const UNIT: Self = Self([1.0; 3]);

    /// A voxel of the given edge lengths (z, y, x).
    ///
    /// # Errors
    /// When an edge is not from 1e-9 to 1e9: metres and nanometres are both possible.
    pub fn new(zyx: [f64; 3]) -> Result<Self, InvalidVoxelSize> {
        if zyx.iter().all(|edge| (1e-9..=1e9).contains(edge)) { Ok(Self(zyx)) } else { Err(InvalidVoxelSize(zyx)) }
    }

    /// The edge lengths (z, y, x).
    pub fn zyx(self) -> [f64; 3] {
        self.0
    }
}

impl TryFrom<[f64; 3]> for VoxelSize {
    type Error = InvalidVoxelSize;

    fn try_from(zyx: [f64; 3]) -> Result<Self, InvalidVoxelSize> {
        Self::new(zyx)
    }
}

impl From<VoxelSize> for [f64; 3] {
    fn from(size: VoxelSize) -> Self {
        size.0
    }
}
