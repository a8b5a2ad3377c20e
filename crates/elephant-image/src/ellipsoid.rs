//! Which voxels are inside an ellipsoid (docs/method.md, "Ellipsoid rasteriser").

use std::ops::Range;

use elephant_types::VoxelSize;

use crate::{Dims, Run, original::symmetric_eigen};

/// How much a shape that is too small grows per attempt.
const GROWTH: f64 = 1.1;

/// An ellipsoid in an image; in 2-D an ellipse in its only plane.
///
/// The semi-axes are the square roots of the covariance's eigenvalues, as Mastodon draws them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ellipsoid {
    center_vox: [f64; 3],
    /// Semi-axes in ascending order; in 2-D the first belongs to z and is not used.
    radii_um: [f64; 3],
    /// Directions of the semi-axes, as columns over (z, y, x).
    axes: [[f64; 3]; 3],
    voxel_um: [f64; 3],
}

impl Ellipsoid {
    /// The ellipsoid with this centre (z, y, x) in micrometres and covariance over (z, y, x) in square micrometres, of
    /// which 2-D uses (y, x) alone. `None` when there is no such ellipsoid: the centre or the covariance is not finite, or
    /// the covariance is not positive definite. Only the covariance's lower triangle is read.
    pub fn new(center_um: [f64; 3], covariance_um2: [[f64; 3]; 3], voxel_size: VoxelSize, dims: Dims) -> Option<Self> {
        let voxel_um = voxel_size.zyx();
        let is_finite = covariance_um2.iter().flatten().chain(&center_um).all(|number| number.is_finite());
        if !is_finite {
            return None;
        }
        // LAPACK's rounding under both numerics: it decides about voxels whose centres lie on the surface, and labels are
        // the original's to the voxel.
        let (variances, axes) = match dims {
            Dims::ThreeD => symmetric_eigen(covariance_um2),
            Dims::TwoD => {
                let [_, [_, yy, yx], [_, xy, xx]] = covariance_um2;
                let ([v0, v1], [[y0, y1], [x0, x1]]) = symmetric_eigen([[yy, yx], [xy, xx]]);
                ([1.0, v0, v1], [[1.0, 0.0, 0.0], [0.0, y0, y1], [0.0, x0, x1]])
            }
        };
        let radii_um = variances.map(f64::sqrt);
        // The comparison fails for NaN too.
        if !radii_um.iter().all(|&radius| radius > 0.0 && radius.is_finite()) {
            return None;
        }
        let center_vox = std::array::from_fn(|axis| match dims {
            Dims::TwoD if axis == 0 => 0.0,
            _ => center_um[axis] / voxel_um[axis],
        });
        center_vox.iter().all(|position: &f64| position.is_finite()).then_some(Self {
            center_vox,
            radii_um,
            axes,
            voxel_um,
        })
    }

    /// The centre (z, y, x) in voxels; the centre of voxel 0 is at 0.
    pub fn center_vox(&self) -> [f64; 3] {
        self.center_vox
    }

    /// The same ellipsoid with its semi-axes multiplied by `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        Self { radii_um: self.radii_um.map(|radius| radius * factor), ..self.clone() }
    }

    /// The ellipsoid, or a larger one if its box in the image has fewer than `min_voxels` voxels, as many as the image
    /// has at most.
    #[must_use]
    pub fn grown_to(&self, shape: [usize; 3], min_voxels: usize) -> Self {
        let count = min_voxels.min(shape.iter().product());
        let mut grown = self.clone();
        while grown.bounds(shape).iter().map(Range::len).product::<usize>() < count {
            let larger = grown.scaled(GROWTH);
            if !larger.radii_um.iter().all(|radius| radius.is_finite()) {
                break;
            }
            grown = larger;
        }
        grown
    }

    /// The voxels whose centres are inside, of an image of this shape (z, y, x). When they are fewer than `min_voxels`, the
    /// boundary moves outwards inside the ellipsoid's box until there are enough. `None` when it cannot: the squares of the
    /// semi-axes underflow `f64`.
    pub fn raster(&self, shape: [usize; 3], min_voxels: usize) -> Option<Raster> {
        let bounds = self.bounds(shape);
        let mut raster = Raster {
            offset: std::array::from_fn(|axis| self.center_vox[axis] - bounds[axis].start as f64),
            bounds,
            along_axes: std::array::from_fn(|k| std::array::from_fn(|axis| self.axes[axis][k] * self.voxel_um[axis])),
            radii_um: self.radii_um,
            limit: 1.0,
        };
        let count = min_voxels.min(raster.bounds.iter().map(Range::len).product());
        raster.limit = raster.limit_for(count)?;
        Some(raster)
    }

    /// Whether a voxel's centre, in an image of this shape (z, y, x), is inside, or the ellipsoid's centre is in a voxel.
    pub fn touches(&self, shape: [usize; 3]) -> bool {
        let is_in_image = (0..3).all(|axis| (-0.5..shape[axis] as f64 - 0.5).contains(&self.center_vox[axis]));
        is_in_image || self.raster(shape, 0).is_some_and(|raster| !raster.is_empty())
    }

    /// The voxels that may be inside, along (z, y, x).
    fn bounds(&self, shape: [usize; 3]) -> [Range<usize>; 3] {
        std::array::from_fn(|axis| {
            let along: f64 = (0..3).map(|k| (self.axes[axis][k] * self.radii_um[k]).abs()).sum();
            let reach = (1.0 / self.voxel_um[axis]) * along;
            let center = self.center_vox[axis];
            // Conversions to integers saturate.
            let first = (center - reach).floor().max(0.0) as usize;
            let last = (center + reach).ceil().min(shape[axis] as f64 - 1.0);
            let end = if last < 0.0 { 0 } else { last as usize + 1 };
            first.min(end)..end
        })
    }
}

/// The voxels of an [`Ellipsoid`], computed when they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster {
    bounds: [Range<usize>; 3],
    /// The centre, from the first voxel of the bounds.
    offset: [f64; 3],
    /// Micrometres along each semi-axis for a step of one voxel along (z, y, x).
    along_axes: [[f64; 3]; 3],
    radii_um: [f64; 3],
    /// Squared distances from the centre, in semi-axes, are below this inside.
    limit: f64,
}

impl Raster {
    /// A box that holds all voxels, along (z, y, x).
    pub fn bounds(&self) -> &[Range<usize>; 3] {
        &self.bounds
    }

    /// The runs of row (z, y) of its bounds, from left to right.
    pub fn runs_in_row(&self, z: usize, y: usize) -> impl Iterator<Item = Run> {
        let (row, bounds) = (self.row(z, y), self.bounds[2].clone());
        let first = bounds.start;
        let is_inside = move |x: &usize| row.distance(x - first) < self.limit;
        let mut rest = bounds;
        std::iter::from_fn(move || {
            let start = rest.find(&is_inside)?;
            let end = rest.find(|x| !is_inside(x)).unwrap_or(rest.end);
            Some(Run::new(z, y, start..end))
        })
    }

    /// Its runs in raster order.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let [planes, rows, _] = self.bounds.clone();
        let rows = planes.flat_map(move |z| rows.clone().map(move |y| (z, y)));
        rows.flat_map(|(z, y)| self.runs_in_row(z, y))
    }

    /// Its voxels (z, y, x) in raster order.
    pub fn voxels(&self) -> impl Iterator<Item = [usize; 3]> {
        self.runs().flat_map(Run::voxels)
    }

    /// Squared distances of voxels of row (z, y) from the centre, by x, in semi-axes; not rounded as the original rounds them.
    pub(crate) fn quick_distances_in_row(&self, z: usize, y: usize) -> impl Fn(usize) -> f64 {
        let (base, center) = (self.row(z, y).base, self.bounds[2].start as f64 + self.offset[2]);
        let base: [f64; 3] = std::array::from_fn(|k| base[k] / self.radii_um[k]);
        let per_x: [f64; 3] = std::array::from_fn(|k| self.along_axes[k][2] / self.radii_um[k]);
        move |x| {
            let dx = x as f64 - center;
            (0..3).map(|k| base[k] + dx * per_x[k]).map(|along| along * along).sum()
        }
    }

    /// Whether a voxel is one of the raster.
    pub(crate) fn contains(&self, z: usize, y: usize, x: usize) -> bool {
        let [planes, rows, columns] = &self.bounds;
        let is_in_bounds = planes.contains(&z) && rows.contains(&y) && columns.contains(&x);
        is_in_bounds && self.row(z, y).distance(x - columns.start) < self.limit
    }

    /// Squared distances are below this inside; at least 1.
    pub(crate) fn limit(&self) -> f64 {
        self.limit
    }

    /// The semi-axes, in ascending order.
    pub(crate) fn radii_um(&self) -> [f64; 3] {
        self.radii_um
    }

    /// How many semi-axes the longest way along the image's axes inside the bounds has, measured along one of them: how much
    /// rounding the distance of a voxel may have gained.
    pub(crate) fn cancellation(&self) -> f64 {
        let extent: [f64; 3] = std::array::from_fn(|axis| {
            let (length, offset) = (self.bounds[axis].len() as f64, self.offset[axis]);
            offset.abs().max((length - offset).abs())
        });
        let along = |k: usize| (0..3).map(|axis| (self.along_axes[k][axis] * extent[axis]).abs()).sum::<f64>();
        (0..3).map(|k| along(k) / self.radii_um[k]).fold(0.0, f64::max)
    }

    fn is_empty(&self) -> bool {
        let rows = from_middle(&self.bounds[0]).flat_map(|z| from_middle(&self.bounds[1]).map(move |y| (z, y)));
        rows.into_iter().all(|(z, y)| self.runs_in_row(z, y).next().is_none())
    }

    /// The first of 1, 1.1, 1.1², … that exceeds the squared distance of at least `count` voxels.
    fn limit_for(&self, count: usize) -> Option<f64> {
        let Some(last) = count.checked_sub(1) else { return Some(1.0) };
        // The smallest distances so far, in ascending order.
        let mut nearest = vec![f64::INFINITY; count];
        'search: for z in from_middle(&self.bounds[0]) {
            for y in from_middle(&self.bounds[1]) {
                let row = self.row(z, y);
                for x in 0..self.bounds[2].len() {
                    let distance = row.distance(x);
                    if distance < nearest[last] {
                        let position = nearest.partition_point(|&nearer| nearer <= distance);
                        nearest[position..].rotate_right(1);
                        nearest[position] = distance;
                    }
                }
                // Mostly after a few rows.
                if nearest[last] < 1.0 {
                    break 'search;
                }
            }
        }
        let farthest = nearest[last];
        let mut limit = 1.0;
        while limit <= farthest && farthest.is_finite() {
            limit *= GROWTH;
        }
        farthest.is_finite().then_some(limit)
    }

    fn row(&self, z: usize, y: usize) -> Row<'_> {
        // The row may be outside the bounds.
        let dz = z as f64 - self.bounds[0].start as f64 - self.offset[0];
        let dy = y as f64 - self.bounds[1].start as f64 - self.offset[1];
        Row { raster: self, base: self.along_axes.map(|[per_z, per_y, _]| dz * per_z + dy * per_y) }
    }
}

/// The numbers of a range from its middle upwards, then those below.
fn from_middle(range: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    let middle = range.start.midpoint(range.end);
    (middle..range.end).chain((range.start..middle).rev())
}

/// One row of a raster.
struct Row<'a> {
    raster: &'a Raster,
    /// Micrometres along each semi-axis, without the contribution of x.
    base: [f64; 3],
}

impl Row<'_> {
    /// The squared distance from the centre, in semi-axes; rounded as the original rounds it.
    #[inline]
    fn distance(&self, x: usize) -> f64 {
        let dx = x as f64 - self.raster.offset[2];
        let along = |k: usize| {
            let share = (self.base[k] + dx * self.raster.along_axes[k][2]) / self.raster.radii_um[k];
            share * share
        };
        along(0) + along(1) + along(2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: [f64; 3] = [1.0; 3];

    fn ball(center: [f64; 3], radius: f64) -> Ellipsoid {
        let variance = radius * radius;
        let covariance = [[variance, 0.0, 0.0], [0.0, variance, 0.0], [0.0, 0.0, variance]];
        Ellipsoid::new(center, covariance, VoxelSize::new(UNIT).unwrap(), Dims::ThreeD).unwrap()
    }

    fn count(ellipsoid: &Ellipsoid, shape: [usize; 3], min_voxels: usize) -> usize {
        ellipsoid.grown_to(shape, min_voxels).raster(shape, min_voxels).unwrap().voxels().count()
    }

    #[test]
    fn covariances_that_are_not_positive_definite_are_refused() {
        let voxel = VoxelSize::new(UNIT).unwrap();
        let diagonal = |zz, yy, xx| [[zz, 0.0, 0.0], [0.0, yy, 0.0], [0.0, 0.0, xx]];
        let new = |center, covariance| Ellipsoid::new(center, covariance, voxel, Dims::ThreeD);
        for covariance in [
            diagonal(0.0, 0.0, 0.0),
            diagonal(1.0, 0.0, 1.0),
            diagonal(1.0, -1.0, 1.0),
            diagonal(1.0, f64::NAN, 1.0),
            diagonal(1.0, f64::INFINITY, 1.0),
            [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        ] {
            assert_eq!(new([1.0; 3], covariance), None, "{covariance:?}");
        }
        assert_eq!(new([f64::NAN, 0.0, 0.0], diagonal(1.0, 1.0, 1.0)), None);
        // In 2-D z does not matter.
        assert!(Ellipsoid::new([9.0, 1.0, 1.0], diagonal(-1.0, 1.0, 1.0), voxel, Dims::TwoD).is_some());
    }

    #[test]
    fn tiny_ellipsoids_get_their_voxels() {
        for radius in [1e-150, 1e-30, 1e-3, 0.5] {
            assert!(count(&ball([2.3, 2.1, 2.0], radius), [5, 5, 5], 9) >= 9, "{radius}");
        }
        // More voxels than the image has.
        assert_eq!(count(&ball([0.0; 3], 0.1), [1, 2, 2], 9), 4);
        assert_eq!(count(&ball([0.0; 3], 0.1), [0, 2, 2], 9), 0);
    }

    #[test]
    fn semi_axes_that_underflow_have_no_raster() {
        let needle = ball([2.3, 2.1, 2.0], 1e-160);
        assert!(needle.raster([5, 5, 5], 9).is_none());
    }

    #[test]
    fn ellipsoids_far_away_are_outside() {
        for center in [-1e300, -20.0, 25.0, 1e300] {
            assert!(!ball([center, 2.0, 2.0], 3.0).touches([5; 3]), "{center}");
        }
        for center in [-1.5, -0.4, 0.0, 4.4, 6.5] {
            assert!(ball([center, 2.0, 2.0], 3.0).touches([5; 3]), "{center}");
        }
        assert!(ball([2.0; 3], 1e-9).touches([5; 3]), "the centre is in the image");
    }

    proptest! {
        #[test]
        fn voxels_are_inside_the_image(
            center in prop::array::uniform3(-1e3..1e3_f64),
            entries in prop::array::uniform6(-10.0..10.0_f64),
            exponent in -300..300_i32,
            shape in prop::array::uniform3(0..12_usize),
        ) {
            let [a, b, c, d, e, f] = entries.map(|entry| entry * 10_f64.powi(exponent));
            let covariance = [[a, b, c], [b, d, e], [c, e, f]];
            let voxel = VoxelSize::new([2.0, 0.5, 0.5]).unwrap();
            let Some(ellipsoid) = Ellipsoid::new(center, covariance, voxel, Dims::ThreeD) else { return Ok(()) };
            ellipsoid.touches(shape);
            if let Some(raster) = ellipsoid.grown_to(shape, 9).raster(shape, 9) {
                let voxels: Vec<_> = raster.voxels().collect();
                prop_assert!(voxels.iter().all(|voxel| (0..3).all(|axis| voxel[axis] < shape[axis])));
                prop_assert!(voxels.is_sorted());
            }
        }
    }
}
