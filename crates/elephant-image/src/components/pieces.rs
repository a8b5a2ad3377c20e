//! A limit on the runs and components of an image, beyond which it is noise.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ImageError;

/// Counts runs and components over all slabs. Images of cells stay far below the limits; noise does not.
#[derive(Default)]
pub(super) struct Pieces {
    runs: AtomicU64,
    components: AtomicU64,
}

impl Pieces {
    /// Components of the slabs, before they are joined.
    pub(super) const MOST_COMPONENTS: u64 = 1 << 20;

    /// Runs of an image with so many voxels.
    pub(super) fn most_runs(voxels: u64) -> u64 {
        (voxels / 8).max(1 << 22)
    }

    pub(super) fn add_runs(&self, count: usize, voxels: usize) -> Result<(), ImageError> {
        Self::add(&self.runs, count, Self::most_runs(voxels as u64))
    }

    pub(super) fn add_components(&self, count: usize) -> Result<(), ImageError> {
        Self::add(&self.components, count, Self::MOST_COMPONENTS)
    }

    fn add(sum: &AtomicU64, count: usize, most: u64) -> Result<(), ImageError> {
        let before = sum.fetch_add(count as u64, Ordering::Relaxed);
        if before + count as u64 > most { Err(ImageError::TooManyPieces { pieces: most }) } else { Ok(()) }
    }
}
