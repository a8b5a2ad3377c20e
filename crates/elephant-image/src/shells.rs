//! Concentric shells of an ellipsoid: how near a voxel is to the centre, for drawing cells that touch
//! (docs/method.md, "CTC export").

use std::ops::Range;

use crate::{Ellipsoid, Raster};

/// How many ellipsoids lie in each other.
const SHELLS: u8 = 16;

/// How much smaller each is than the one around it, in semi-axes of the outermost.
const STEP: f64 = 0.05;

/// Squared distances that differ from a shell's boundary by less than this share are computed as the shell rounds them.
const ROUNDING: f64 = 1e-9;

/// Above this ratio of what is added to what results, rounding may exceed [`ROUNDING`].
const MOST_CANCELLATION: f64 = 1e5;

/// An ellipsoid and 15 smaller ones inside it, whose semi-axes are 0.95, 0.9, … 0.25 of its own. Each has a least number of
/// voxels, as [`Ellipsoid::raster`] says.
#[derive(Clone, Debug)]
pub struct Shells {
    all: Vec<Shell>,
    /// A box that holds the voxels of all of them.
    bounds: [Range<usize>; 3],
    /// Squared distances in semi-axes of the outermost shell, from which on voxels are outside of all.
    outside: f64,
    order: Order,
}

/// How the shells lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Each is inside the one before it.
    Nested,
    /// Some have grown to the least number of voxels.
    Any,
    /// One distance is too inexact to tell about all of them.
    Inexact,
}

#[derive(Clone, Debug)]
struct Shell {
    raster: Raster,
    /// Squared distances in semi-axes of the outermost shell: below the first a voxel is inside, from the second on outside.
    certain: [f64; 2],
}

impl Shells {
    /// The shells of an ellipsoid in an image of this shape (z, y, x), each with at least `min_voxels` voxels. `None` when
    /// one has no raster: the squares of its semi-axes underflow `f64`.
    pub fn new(ellipsoid: &Ellipsoid, shape: [usize; 3], min_voxels: usize) -> Option<Self> {
        let rasters = (0..SHELLS).map(|index| {
            let shell = ellipsoid.scaled(1.0 - f64::from(index) * STEP).grown_to(shape, min_voxels);
            shell.raster(shape, min_voxels)
        });
        let rasters = rasters.collect::<Option<Vec<_>>>()?;
        let mut bounds = rasters[0].bounds().clone();
        for raster in &rasters[1..] {
            for (all, one) in bounds.iter_mut().zip(raster.bounds()) {
                *all = all.start.min(one.start)..all.end.max(one.end);
            }
        }
        let outer = rasters[0].clone();
        let shells = rasters.into_iter().map(|raster| {
            let boundary = raster.limit() * (raster.radii_um()[2] / outer.radii_um()[2]).powi(2);
            Shell { certain: [boundary * (1.0 - ROUNDING), boundary * (1.0 + ROUNDING)], raster }
        });
        let shells: Vec<Shell> = shells.collect();
        let has_grown =
            |(outer, inner): (&Shell, &Shell)| inner.raster.limit() > 1.0 || inner.certain[1] > outer.certain[0];
        let order = if outer.cancellation() > MOST_CANCELLATION {
            Order::Inexact
        } else if outer.limit() > 1.0 || shells.iter().zip(&shells[1..]).any(has_grown) {
            Order::Any
        } else {
            Order::Nested
        };
        let outside = shells.iter().map(|shell| shell.certain[1]).fold(0.0, f64::max);
        // Exact distances may be smaller than the quick one then.
        let outside = if order == Order::Inexact { f64::INFINITY } else { outside };
        Some(Self { all: shells, bounds, outside, order })
    }

    /// A box that holds all voxels of the shells, along (z, y, x).
    pub fn bounds(&self) -> &[Range<usize>; 3] {
        &self.bounds
    }

    /// Visits the voxels of row (z, y) inside the outermost shell or another one, from left to right: their x, and the
    /// innermost shell that they are in, from 1 to 16.
    pub fn visit_row(&self, z: usize, y: usize, mut visit: impl FnMut(usize, u8)) {
        let distance_at = self.all[0].raster.quick_distances_in_row(z, y);
        for x in self.bounds[2].clone() {
            let distance = distance_at(x);
            let depth = match self.order {
                _ if distance >= self.outside => continue,
                Order::Nested => self.depth_of_nested(distance, [z, y, x]),
                Order::Any => self.depth(|shell| shell.contains(distance, [z, y, x])),
                Order::Inexact => self.depth(|shell| shell.raster.contains(z, y, x)),
            };
            if depth > 0 {
                visit(x, depth);
            }
        }
    }

    /// The innermost shell that a voxel is in, or 0, if each lies in the one before it.
    fn depth_of_nested(&self, distance: f64, voxel: [usize; 3]) -> u8 {
        let is_inside = |shell: &&Shell| distance < shell.certain[0];
        let depth = self.all.iter().take_while(is_inside).count();
        let is_next = self.all.get(depth).is_some_and(|shell| shell.contains(distance, voxel));
        depth as u8 + u8::from(is_next)
    }

    /// The innermost shell that a voxel is in, or 0.
    fn depth(&self, is_inside: impl Fn(&Shell) -> bool) -> u8 {
        self.all.iter().rposition(is_inside).map_or(0, |index| index as u8 + 1)
    }
}

impl Shell {
    /// Whether a voxel is inside, which has this distance in semi-axes of the outermost shell.
    fn contains(&self, distance: f64, [z, y, x]: [usize; 3]) -> bool {
        let [inside, outside] = self.certain;
        if distance >= outside {
            return false;
        }
        if self.raster.limit() == 1.0 && distance < inside {
            return true;
        }
        self.raster.contains(z, y, x)
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::VoxelSize;
    use ndarray::Array3;
    use proptest::prelude::*;

    use super::*;
    use crate::Dims;

    /// Shell by shell, as the original paints.
    fn painted(ellipsoid: &Ellipsoid, shape: [usize; 3]) -> Option<Array3<u8>> {
        let mut depths = Array3::zeros(shape);
        for (depth, index) in (1..=16).zip(0..) {
            let shell = ellipsoid.scaled(1.0 - f64::from(index) * 0.05).grown_to(shape, 20);
            shell.raster(shape, 20)?.voxels().for_each(|voxel| depths[voxel] = depth);
        }
        Some(depths)
    }

    proptest! {
        #[test]
        fn depths_are_those_of_painting_shell_by_shell(
            center in prop::array::uniform3(-3.0..15.0_f64),
            radii in prop::array::uniform3(0.01..9.0_f64),
            thin in 0..4_i32,
            mix in prop::array::uniform3(-1.0..1.0_f64),
            whole in any::<bool>(),
            is_2d in any::<bool>(),
        ) {
            // Whole numbers put voxels on the boundaries.
            let center = if whole { center.map(f64::round) } else { center };
            let radii = if whole { radii.map(|radius| radius.round().max(1.0)) } else { radii };
            let [a, b, c] = radii.map(|radius| radius * radius);
            let [p, q, r] = if whole { [0.0; 3] } else { [mix[0] * (a * b).sqrt(), mix[1] * (a * c).sqrt(), mix[2] * (b * c).sqrt()] };
            let thin = 100_f64.powi(-thin);
            let covariance = [[a * thin, p * thin.sqrt(), q * thin.sqrt()], [p * thin.sqrt(), b, r], [q * thin.sqrt(), r, c]];
            let (dims, depth) = if is_2d { (Dims::TwoD, 1) } else { (Dims::ThreeD, 7) };
            let shape = [depth, 13, 14];
            let voxel = VoxelSize::new([2.0, 0.5, 0.5]).unwrap();
            let Some(ellipsoid) = Ellipsoid::new(center, covariance, voxel, dims) else { return Ok(()) };
            let (shells, expected) = (Shells::new(&ellipsoid, shape, 20), painted(&ellipsoid, shape));
            prop_assert_eq!(shells.is_none(), expected.is_none());
            let (Some(shells), Some(expected)) = (shells, expected) else { return Ok(()) };
            let mut depths = Array3::zeros(shape);
            let [planes, rows, _] = shells.bounds().clone();
            for (z, y) in planes.flat_map(|z| rows.clone().map(move |y| (z, y))) {
                shells.visit_row(z, y, |x, depth| depths[[z, y, x]] = depth);
            }
            prop_assert_eq!(depths, expected);
        }
    }
}
