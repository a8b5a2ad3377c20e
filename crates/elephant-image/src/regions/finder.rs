//! Connected regions of a thresholded volume that arrives plane by plane.
//!
//! Rows are cut into runs of foreground voxels, and a union-find joins runs that touch. Slabs of rows are searched in
//! parallel and joined in order. What describes a region is summed up at the end, run by run in raster order, so that no
//! result depends on threads or on how the planes are cut into pushes.

use std::sync::atomic::AtomicU64;

use elephant_types::CancelToken;
use ndarray::ArrayView3;
use rayon::prelude::*;

use super::{
    Connectivity, Region, Run,
    sets::DisjointSets,
    slab::{Piece, Rows, Search, Slab, for_each_touching},
};
use crate::ImageError;

/// The regions of the voxels above `threshold` (strictly) in an image (z, y, x), in the raster order of their first
/// voxels. Voxels that are not finite numbers are background. A 2-D image has z = 1.
///
/// ```
/// use elephant_image::{Connectivity, find_regions};
/// use elephant_types::CancelToken;
/// use ndarray::arr3;
///
/// let image = arr3(&[[
///     [0.9_f32, 0.8, 0.0, 0.0, 0.7],
///     [0.0, 0.0, 0.6, 0.0, 0.0],
///     [0.0, 0.0, 0.0, 0.0, 0.9],
/// ]]);
/// let regions = find_regions(image.view(), 0.5, Connectivity::Corner, &CancelToken::default())?;
///
/// // Labelled by their positions in the list, from 1:
/// //   1 1 . . 2
/// //   . . 1 . .
/// //   . . . . 3
/// let voxels: Vec<Vec<_>> = regions.iter().map(|region| region.voxels().collect()).collect();
/// assert_eq!(voxels[0], [[0, 0, 0], [0, 0, 1], [0, 1, 2]]);
/// assert_eq!(voxels[1], [[0, 0, 4]]);
/// assert_eq!(voxels[2], [[0, 2, 4]]);
/// assert_eq!(regions[0].moments().centroid(), [0.0, 1.0 / 3.0, 1.0]);
/// assert_eq!(regions[0].bounds(), [0..1, 0..2, 0..3]);
///
/// // Without neighbours across corners the third voxel of region 1 is a region of its own.
/// assert_eq!(find_regions(image.view(), 0.5, Connectivity::Face, &CancelToken::default())?.len(), 4);
/// # Ok::<(), elephant_image::ImageError>(())
/// ```
///
/// # Errors
/// As [`RegionFinder::new`], [`RegionFinder::push`] and [`RegionFinder::finish`].
pub fn find_regions(
    image: ArrayView3<'_, f32>,
    threshold: f32,
    connectivity: Connectivity,
    cancel: &CancelToken,
) -> Result<Vec<Region>, ImageError> {
    let mut finder = RegionFinder::new(image.dim().into(), threshold, connectivity)?;
    finder.push(image, cancel)?;
    finder.finish(cancel)
}

/// Finds the [`Region`]s of a volume that is given in pieces of one or more planes; see [`find_regions`].
pub struct RegionFinder {
    shape: [usize; 3],
    threshold: f32,
    connectivity: Connectivity,
    /// Planes pushed so far.
    planes: usize,
    slabs: Vec<Slab>,
    /// The runs of all slabs, as far as they are connected.
    sets: DisjointSets,
}

impl RegionFinder {
    /// The largest number of regions; more are noise.
    const MOST_REGIONS: u64 = 1 << 20;

    /// A search in a volume of this shape (z, y, x), none of whose planes is known yet.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`] for more than 2^38 voxels or 2^24 along an axis.
    pub fn new(shape: [usize; 3], threshold: f32, connectivity: Connectivity) -> Result<Self, ImageError> {
        let voxels = shape.iter().try_fold(1_usize, |product, &edge| product.checked_mul(edge));
        if shape.iter().any(|&edge| edge > 1 << 24) || voxels.is_none_or(|voxels| voxels > 1 << 38) {
            return Err(ImageError::TooLarge { shape });
        }
        Ok(Self { shape, threshold, connectivity, planes: 0, slabs: Vec::new(), sets: DisjointSets::default() })
    }

    /// Takes the next planes (z, y, x) of the volume, any number of them.
    ///
    /// # Errors
    /// [`ImageError::UnexpectedPlanes`] for planes of another shape, or more of them than the volume has;
    /// [`ImageError::TooManyPieces`] for noise; [`ImageError::Cancelled`]. The planes are not taken then.
    pub fn push(&mut self, planes: ArrayView3<'_, f32>, cancel: &CancelToken) -> Result<(), ImageError> {
        let [nz, ny, nx] = self.shape;
        let count = planes.dim().0;
        if planes.dim() != (count, ny, nx) || count > nz - self.planes {
            let (given, known) = (planes.dim().into(), self.planes);
            return Err(ImageError::UnexpectedPlanes { planes: given, shape: self.shape, known });
        }
        cancel.check()?;
        if !planes.is_empty() {
            let (rows_at_once, first_row) = (rows_per_slab(self.shape), self.planes * ny);
            let search = Search {
                planes,
                first_row,
                rows: self.rows(),
                threshold: self.threshold,
                found: AtomicU64::new(self.sets.len() as u64),
                most_runs: most_runs(self.shape),
                cancel,
            };
            let end = first_row + count * ny;
            let starts = (0..(count * ny).div_ceil(rows_at_once)).into_par_iter();
            let scan = |index: usize| {
                let start = first_row + index * rows_at_once;
                Slab::scan(&search, start..(start + rows_at_once).min(end))
            };
            let slabs = starts.map(scan).collect::<Result<Vec<_>, _>>()?;
            for (slab, sets) in slabs {
                self.append(slab, &sets);
            }
        }
        self.planes += count;
        Ok(())
    }

    /// The regions of all planes, in the raster order of their first voxels.
    ///
    /// # Errors
    /// [`ImageError::MissingPlanes`] before all planes were pushed; [`ImageError::TooManyPieces`] for more than 2^20
    /// regions; [`ImageError::Cancelled`].
    pub fn finish(self, cancel: &CancelToken) -> Result<Vec<Region>, ImageError> {
        if self.planes < self.shape[0] {
            return Err(ImageError::MissingPlanes { known: self.planes, shape: self.shape });
        }
        let regions = self.sets.count();
        if regions as u64 > Self::MOST_REGIONS {
            return Err(ImageError::TooManyPieces { pieces: Self::MOST_REGIONS });
        }
        let (ny, numbers) = (self.shape[1], self.sets.into_numbers());
        let mut sizes = vec![0; regions];
        for &number in &numbers {
            sizes[number as usize] += 1;
        }
        let mut parts: Vec<(Vec<Run>, f64)> = sizes.into_iter().map(|size| (Vec::with_capacity(size), 0.0)).collect();
        // Each slab is given free when its runs have found their regions.
        for slab in self.slabs {
            cancel.check()?;
            let numbers = &numbers[slab.first_run..];
            for (row, indices) in slab.runs_by_row() {
                for index in indices {
                    let (runs, sum) = &mut parts[numbers[index] as usize];
                    let Piece { start: x0, end: x1 } = slab.runs[index];
                    runs.push(Run { z: (row / ny) as u32, y: (row % ny) as u32, x0, x1 });
                    *sum += slab.sums[index];
                }
            }
        }
        let regions = parts.into_par_iter().filter_map(|(runs, sum)| Region::new(runs, sum)).collect();
        cancel.check()?;
        Ok(regions)
    }

    /// The most memory in bytes that a search in a volume of this shape (z, y, x) takes beside the planes it is given. What
    /// it really takes grows with the foreground; the limits on runs (an eighth of the voxels, 2^22 to 2^26) and regions
    /// (2^20) bound it.
    pub fn most_bytes(shape: [usize; 3], connectivity: Connectivity) -> u64 {
        let [nz, ny, nx] = shape.map(|edge| edge as u64);
        let rows = nz.saturating_mul(ny);
        let runs = most_runs(shape).min(rows.saturating_mul(nx.div_ceil(2)));
        // Slab and union-find, and the runs of the finished regions.
        let per_run = (size_of::<Piece>() + size_of::<f64>() + size_of::<u32>() + size_of::<Run>()) as u64;
        let per_region = (size_of::<Region>() + size_of::<(Vec<Run>, f64)>() + size_of::<usize>()) as u64;
        let regions = Self::most_regions(shape, connectivity);
        let row_starts = rows.saturating_mul(size_of::<u32>() as u64);
        runs.saturating_mul(per_run).saturating_add(regions * per_region).saturating_add(row_starts)
    }

    /// The largest number of regions that a search in a volume of this shape (z, y, x) may find.
    pub(crate) fn most_regions(shape: [usize; 3], connectivity: Connectivity) -> u64 {
        connectivity.most_regions(shape).min(Self::MOST_REGIONS)
    }

    fn rows(&self) -> Rows {
        Rows { ny: self.shape[1], connectivity: self.connectivity }
    }

    /// Appends a slab, and joins its runs with their neighbours in the slabs before.
    fn append(&mut self, mut slab: Slab, sets: &DisjointSets) {
        let rows = self.rows();
        slab.first_run = self.sets.len();
        self.sets.append(sets);
        let near_boundary = slab.rows.start..slab.rows.end.min(slab.rows.start + rows.ny + 1);
        for row in near_boundary {
            let (runs, first) = slab.runs_of(row);
            if runs.is_empty() {
                continue;
            }
            let first = slab.first_run + first;
            for (neighbour, reach) in rows.earlier_neighbours(row).filter(|&(row, _)| row < slab.rows.start) {
                let other = &self.slabs[self.slabs.partition_point(|other| other.rows.end <= neighbour)];
                let (others, first_other) = other.runs_of(neighbour);
                let first_other = other.first_run + first_other;
                for_each_touching(runs, others, reach, |i, j| self.sets.join(first + i, first_other + j));
            }
        }
        self.slabs.push(slab);
    }
}

/// The largest number of runs in a volume. Images of cells stay far below the limit; noise does not.
fn most_runs(shape: [usize; 3]) -> u64 {
    let voxels = shape.iter().fold(1_u64, |product, &edge| product.saturating_mul(edge as u64));
    (voxels / 8).clamp(1 << 22, 1 << 26)
}

/// Small enough that many threads share the work, thick enough that few regions cross a boundary.
fn rows_per_slab([nz, ny, nx]: [usize; 3]) -> usize {
    const VOXELS: usize = 1 << 18;
    let planes = if nz > 1 { 4 * ny } else { 1 };
    // With so many voxels a slab has at most 2^30 runs.
    let most = ((1 << 31) / nx).max(1);
    (VOXELS / nx).max(planes).clamp(1, most)
}
