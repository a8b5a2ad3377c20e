//! Sets of voxels as runs along x, and the connected ones of a thresholded volume.
//!
//! A [`Run`] is a piece of one row; a [`Region`] is a set of runs in raster order with its moments and the sum of the image
//! over it. No label volume is made: memory grows with the foreground, not with the volume.

mod connectivity;
mod finder;
mod overlap;
mod region;
mod sets;
mod slab;

pub use connectivity::Connectivity;
pub use finder::{RegionFinder, find_regions};
pub use overlap::Overlap;
pub use region::{Region, Run};

#[cfg(test)]
mod tests;
