//! Cells from a probability map.

use elephant_types::{CancelToken, Numerics, Spot, VoxelSize};
use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::{Connectivity, ImageError, Region, RegionFinder, shape::ShapeRules};

/// Whether an image is a volume or a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dims {
    /// One plane: cells are ellipses at z = 0 with a variance of 1 µm² along z.
    TwoD,
    /// A volume: cells are ellipsoids.
    ThreeD,
}

/// How a probability map becomes cells.
#[derive(Clone, Debug)]
pub struct SpotOptions {
    /// Timepoint of the cells.
    pub t: usize,
    /// Edge lengths of the map's voxels.
    pub voxel_size: VoxelSize,
    /// Where the centre of the map's first voxel lies in the whole image, (z, y, x), in voxels of the map.
    pub origin_vox: [f64; 3],
    /// The radius of the centre that the network marks over the radius of the cell; above 0.
    pub c_ratio: f64,
    /// Voxels above this probability belong to a centre.
    pub p_thresh: f64,
    /// Cells with a shorter semi-axis are dropped.
    pub r_min_um: f64,
    /// Longer semi-axes are cut to this; at least `r_min_um`.
    pub r_max_um: f64,
    /// Volume or plane.
    pub dims: Dims,
    /// Whether the network saw each plane of a volume on its own.
    pub use_2d: bool,
    /// Which rules to follow; see `docs/numerics.md`.
    pub numerics: Numerics,
}

impl SpotOptions {
    fn validate(&self, planes: usize) -> Result<(), ImageError> {
        let check = |name, value: f64, is_valid: bool, rule| {
            if is_valid { Ok(()) } else { Err(ImageError::InvalidOption { name, value, rule }) }
        };
        let (c_ratio, r_min, r_max) = (self.c_ratio, self.r_min_um, self.r_max_um);
        check("p_thresh", self.p_thresh, !self.p_thresh.is_nan(), "it must be a number from 0 to 1")?;
        check("c_ratio", c_ratio, c_ratio.is_finite() && c_ratio > 0.0, "it must be above 0, usually 0.4")?;
        check("r_min", r_min, r_min.is_finite() && r_min >= 0.0, "it must be 0 or more")?;
        check("r_max", r_max, r_max > 0.0 && r_max >= r_min, "it must be above 0 and not below r_min")?;
        if self.dims == Dims::TwoD && planes > 1 {
            return Err(ImageError::NotPlanar { planes });
        }
        Ok(())
    }

    fn shape_rules<const N: usize>(&self) -> ShapeRules<N> {
        let voxel = self.voxel_size.zyx();
        ShapeRules {
            voxel_um: std::array::from_fn(|axis| voxel[3 - N + axis]),
            c_ratio: self.c_ratio,
            r_min_um: self.r_min_um,
            r_max_um: self.r_max_um,
            planes_apart: self.use_2d && N == 3,
            numerics: self.numerics,
        }
    }
}

/// The cells in a map of the probability of "cell centre" (z, y, x): one for each connected region above the threshold
/// that is large enough, in the raster order of their first voxels (docs/method.md, "From probabilities to spots").
///
/// Probabilities that are not finite numbers count as background.
///
/// # Errors
/// As [`SpotFinder::new`], [`SpotFinder::push`] and [`SpotFinder::finish`].
pub fn find_spots(
    center_probability: ArrayView3<'_, f32>,
    options: &SpotOptions,
    cancel: &CancelToken,
) -> Result<Vec<Spot>, ImageError> {
    let mut finder = SpotFinder::new(center_probability.dim().into(), options.clone())?;
    finder.push(center_probability, cancel)?;
    finder.finish(cancel)
}

/// Finds the cells in a probability map that is given in pieces of one or more planes; see [`find_spots`].
pub struct SpotFinder {
    options: SpotOptions,
    regions: RegionFinder,
}

/// Voxels that share a corner belong to the same cell.
const CONNECTIVITY: Connectivity = Connectivity::Corner;

impl SpotFinder {
    /// A search in a map of this shape (z, y, x), none of whose planes is known yet.
    ///
    /// # Errors
    /// [`ImageError::InvalidOption`] or [`ImageError::NotPlanar`] for invalid options; [`ImageError::TooLarge`].
    pub fn new(shape: [usize; 3], options: SpotOptions) -> Result<Self, ImageError> {
        options.validate(shape[0])?;
        // The original compares single-precision numbers.
        let regions = RegionFinder::new(shape, options.p_thresh as f32, CONNECTIVITY)?;
        Ok(Self { options, regions })
    }

    /// Takes the next planes (z, y, x) of the map, any number of them. The cut into pieces does not change the cells.
    ///
    /// # Errors
    /// As [`RegionFinder::push`].
    pub fn push(&mut self, planes: ArrayView3<'_, f32>, cancel: &CancelToken) -> Result<(), ImageError> {
        self.regions.push(planes, cancel)
    }

    /// The cells of all planes, in the raster order of their first voxels.
    ///
    /// # Errors
    /// As [`RegionFinder::finish`].
    pub fn finish(self, cancel: &CancelToken) -> Result<Vec<Spot>, ImageError> {
        let regions = self.regions.finish(cancel)?;
        let spots = match self.options.dims {
            Dims::ThreeD => {
                spots(&regions, &self.options, |region, rules: &ShapeRules<3>| rules.covariance_um2(region))
            }
            Dims::TwoD => spots(&regions, &self.options, |region, rules: &ShapeRules<2>| {
                let [[yy, yx], [xy, xx]] = rules.covariance_um2(region)?;
                Some([[1.0, 0.0, 0.0], [0.0, yy, yx], [0.0, xy, xx]])
            }),
        };
        cancel.check()?;
        Ok(spots)
    }

    /// The most memory in bytes that a search in a map of this shape (z, y, x) takes beside the planes it is given, the
    /// cells included. What it really takes grows with the foreground.
    pub fn most_bytes(shape: [usize; 3]) -> u64 {
        let regions = RegionFinder::most_regions(shape, CONNECTIVITY);
        RegionFinder::most_bytes(shape, CONNECTIVITY).saturating_add(regions * size_of::<Spot>() as u64)
    }
}

fn spots<const N: usize>(
    regions: &[Region],
    options: &SpotOptions,
    covariance_um2: impl Fn(&Region, &ShapeRules<N>) -> Option<[[f64; 3]; 3]> + Sync,
) -> Vec<Spot> {
    let rules: ShapeRules<N> = options.shape_rules();
    let least_voxels = rules.least_voxels();
    let to_spot = |region: &Region| {
        if (region.moments().voxels as f64) < least_voxels {
            return None;
        }
        Some(Spot {
            t: options.t,
            center_um: center_um(region, options),
            covariance_um2: covariance_um2(region, &rules)?,
            quality: region.mean(),
        })
    };
    regions.par_iter().filter_map(to_spot).collect()
}

fn center_um(region: &Region, options: &SpotOptions) -> [f64; 3] {
    let (centroid, voxel) = (region.moments().centroid(), options.voxel_size.zyx());
    let mut center: [f64; 3] = std::array::from_fn(|axis| (options.origin_vox[axis] + centroid[axis]) * voxel[axis]);
    if options.dims == Dims::TwoD {
        center[0] = 0.0;
    }
    center
}
