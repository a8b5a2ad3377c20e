//! A set of voxels with its moments.

use std::ops::Range;

use rayon::prelude::*;

use crate::Moments;

/// Consecutive voxels `x0..x1` of row (z, y); `x0 < x1`. Runs compare in raster order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Plane.
    pub z: u32,
    /// Row in the plane.
    pub y: u32,
    /// First voxel.
    pub x0: u32,
    /// The voxel after the last one.
    pub x1: u32,
}

impl Run {
    /// The voxels `x` of row (z, y), which must not be empty. Indices are below 2^24.
    pub fn new(z: usize, y: usize, x: Range<usize>) -> Self {
        debug_assert!(x.start < x.end, "a run has voxels");
        Self { z: z as u32, y: y as u32, x0: x.start as u32, x1: x.end as u32 }
    }

    /// Its voxels' indices along x.
    pub fn x(self) -> Range<usize> {
        self.x0 as usize..self.x1 as usize
    }

    /// The number of voxels; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a run has voxels")]
    pub fn len(self) -> u64 {
        u64::from(self.x1 - self.x0)
    }

    /// Its voxels (z, y, x) from left to right.
    pub fn voxels(self) -> impl Iterator<Item = [usize; 3]> {
        self.x().map(move |x| [self.z as usize, self.y as usize, x])
    }
}

/// A set of voxels of an image, for instance a connected one: at least one voxel.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    runs: Vec<Run>,
    moments: Moments,
    sum: f64,
}

/// Long regions are summed by several threads.
const RUNS_AT_ONCE: usize = 1 << 13;

impl Region {
    /// The region of these runs, which are in raster order and do not overlap, over which the image sums up to `sum`;
    /// `None` without runs.
    pub fn new(runs: Vec<Run>, sum: f64) -> Option<Self> {
        debug_assert!(runs.is_sorted(), "runs come in raster order");
        let sum_up = |runs: &[Run]| runs.iter().copied().map(Moments::of_run).reduce(Moments::merged);
        let moments = if runs.len() <= RUNS_AT_ONCE {
            sum_up(&runs)
        } else {
            // Moments are exact, so that the order of their summation does not matter.
            runs.par_chunks(RUNS_AT_ONCE).filter_map(sum_up).reduce_with(Moments::merged)
        }?;
        Some(Self { runs, moments, sum })
    }

    /// Its runs in raster order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Its voxels (z, y, x) in raster order.
    pub fn voxels(&self) -> impl Iterator<Item = [usize; 3]> {
        self.runs.iter().flat_map(|run| run.voxels())
    }

    /// Where its voxels are.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The smallest box that holds it, along (z, y, x).
    pub fn bounds(&self) -> [Range<usize>; 3] {
        std::array::from_fn(|axis| self.moments.min[axis] as usize..self.moments.max[axis] as usize + 1)
    }

    /// The sum of the image over its voxels.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The mean of the image over its voxels.
    pub fn mean(&self) -> f64 {
        self.sum / self.moments.voxels as f64
    }
}
