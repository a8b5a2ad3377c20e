//! Cells from a probability map.

use elephant_types::{CancelToken, Numerics, Spot, VoxelSize};
use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::{Component, ImageError, connected_components, mask::Mask, shape::ShapeRules};

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
    /// The timepoint that the cells get.
    pub t: usize,
    /// Voxel edge lengths of the map.
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
    /// Whose numbers: see `docs/numerics.md`.
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

/// The cells in a map of the probability of "cell centre" (z, y, x): one for each connected component above the
/// threshold that is large enough, in the raster order of their first voxels (contract section 6.5).
///
/// Probabilities that are not finite numbers count as background.
///
/// # Errors
/// [`ImageError::InvalidOption`] or [`ImageError::NotPlanar`] for options that mean nothing; [`ImageError::TooLarge`];
/// [`ImageError::Cancelled`].
pub fn find_spots(
    center_probability: ArrayView3<'_, f32>,
    options: &SpotOptions,
    cancel: &CancelToken,
) -> Result<Vec<Spot>, ImageError> {
    options.validate(center_probability.dim().0)?;
    // The original compares single-precision numbers.
    let threshold = options.p_thresh as f32;
    let components = connected_components(center_probability, threshold, cancel)?;
    let spots = match options.dims {
        Dims::ThreeD => {
            let covariance_um2 = |component: &Component, rules: &ShapeRules<3>| {
                rules.covariance_um2(&component.moments, |edges| {
                    Some(Mask::of(&component.moments, center_probability, threshold)?.covariance(edges))
                })
            };
            spots_of(&components, options, covariance_um2)
        }
        Dims::TwoD => {
            let covariance_um2 = |component: &Component, rules: &ShapeRules<2>| {
                let [[yy, yx], [xy, xx]] = rules.covariance_um2(&component.moments, |_| None)?;
                Some([[1.0, 0.0, 0.0], [0.0, yy, yx], [0.0, xy, xx]])
            };
            spots_of(&components, options, covariance_um2)
        }
    };
    cancel.check()?;
    Ok(spots)
}

fn spots_of<const N: usize>(
    components: &[Component],
    options: &SpotOptions,
    covariance_um2: impl Fn(&Component, &ShapeRules<N>) -> Option<[[f64; 3]; 3]> + Sync,
) -> Vec<Spot> {
    let rules: ShapeRules<N> = options.shape_rules();
    let least_voxels = rules.least_voxels();
    let to_spot = |component: &Component| {
        if (component.moments.voxels as f64) < least_voxels {
            return None;
        }
        Some(Spot {
            t: options.t,
            center_um: center_um(component, options),
            covariance_um2: covariance_um2(component, &rules)?,
            quality: component.mean(),
        })
    };
    components.par_iter().filter_map(to_spot).collect()
}

fn center_um(component: &Component, options: &SpotOptions) -> [f64; 3] {
    let (centroid, voxel) = (component.moments.centroid(), options.voxel_size.zyx());
    let mut center: [f64; 3] = std::array::from_fn(|axis| (options.origin_vox[axis] + centroid[axis]) * voxel[axis]);
    if options.dims == Dims::TwoD {
        center[0] = 0.0;
    }
    center
}
