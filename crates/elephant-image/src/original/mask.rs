//! The voxels of one region, and their moments rounded as the original rounds them.
//!
//! [`Moments`](crate::Moments) are exact, and enough for all but flat regions in the original's numerics.

use ndarray::Array3;

use crate::Region;

/// Which voxels of its bounding box a region has, (z, y, x).
pub(super) struct Mask(Array3<bool>);

impl Mask {
    /// The mask of a region; `None` if it spans more than [`MOST_VOXELS`](Self::MOST_VOXELS).
    pub(super) fn new(region: &Region) -> Option<Self> {
        let (first, shape) = (region.moments().min, region.moments().extent().map(|edge| edge as usize));
        if shape.iter().try_fold(1_usize, |product, &edge| product.checked_mul(edge))? > Self::MOST_VOXELS {
            return None;
        }
        let mut mask = Array3::from_elem(shape, false);
        for voxel in region.voxels() {
            mask[std::array::from_fn::<_, 3, _>(|axis| voxel[axis] - first[axis] as usize)] = true;
        }
        Some(Self(mask))
    }

    /// The largest bounding box, in voxels. Flat components are specks; this bounds the time for any others.
    const MOST_VOXELS: usize = 1 << 16;

    /// Second central moments over the number of voxels, in the squared unit of the voxel edges.
    ///
    /// Sums run along z, then y, then x, about the centroid (docs/method.md, "From probabilities to spots", step 4), in
    /// the order of NumPy's `dot`.
    pub(super) fn covariance(&self, edges: [f64; 3]) -> [[f64; 3]; 3] {
        let voxels = self.moment(edges, [0.0; 3], [0; 3]);
        let centroid = std::array::from_fn(|axis| self.moment(edges, [0.0; 3], powers(&[axis])) / voxels);
        let second = |a, b| self.moment(edges, centroid, powers(&[a, b])) / voxels;
        std::array::from_fn(|a| std::array::from_fn(|b| second(a, b)))
    }

    /// The sum over the voxels of the product of their distances from `center`, each to a power from 0 to 2.
    fn moment(&self, edges: [f64; 3], center: [f64; 3], powers: [u8; 3]) -> f64 {
        let (nz, ny, nx) = self.0.dim();
        let factor = |axis: usize, n: usize, index: usize| {
            let distance = index as f64 * (edges[axis] * n as f64 / n as f64) - center[axis];
            [1.0, distance, distance * distance][usize::from(powers[axis])]
        };
        sum(nx, |x| {
            let plane = sum(ny, |y| {
                let column = sum(nz, |z| f64::from(u8::from(self.0[[z, y, x]])) * factor(0, nz, z));
                column * factor(1, ny, y)
            });
            plane * factor(2, nx, x)
        })
    }
}

/// How often each axis is in the list.
fn powers(axes: &[usize]) -> [u8; 3] {
    std::array::from_fn(|axis| axes.iter().map(|&a| u8::from(a == axis)).sum())
}

/// The sum of `n` terms in the order of a BLAS dot product that is unrolled four times.
fn sum(n: usize, term: impl Fn(usize) -> f64) -> f64 {
    let unrolled = n / 4 * 4;
    let (mut even, mut odd) = (0.0, 0.0);
    for i in (0..unrolled).step_by(4) {
        even += term(i) + term(i + 2);
        odd += term(i + 1) + term(i + 3);
    }
    for i in unrolled..n {
        even += term(i);
    }
    even + odd
}

#[cfg(test)]
mod tests {
    use elephant_types::CancelToken;
    use proptest::prelude::*;

    use super::*;
    use crate::{Connectivity, find_regions};

    fn regions(image: &Array3<f32>) -> Vec<Region> {
        find_regions(image.view(), 0.5, Connectivity::Corner, &CancelToken::default()).unwrap()
    }

    fn image(planes: &[&[&str]]) -> Array3<f32> {
        let dim = (planes.len(), planes[0].len(), planes[0][0].len());
        Array3::from_shape_fn(dim, |(z, y, x)| f32::from(u8::from(planes[z][y].as_bytes()[x] == b'#')))
    }

    /// Flat components with the covariances that NumPy 2.4.6 sums for them by the steps of the original.
    #[test]
    #[expect(clippy::unreadable_literal, reason = "digits as NumPy prints them")]
    fn covariances_are_those_of_numpy_to_the_last_bit() {
        let covariance = |planes: &[&[&str]], edges| Mask::new(&regions(&image(planes))[0]).unwrap().covariance(edges);
        assert_eq!(
            covariance(&[&["##..", "...."], &["....", ".###"]], [3.0, 0.75, 0.625]),
            [
                [2.1599999999999997, 0.5399999999999999, 0.675],
                [0.5399999999999999, 0.13499999999999998, 0.16875],
                [0.675, 0.16875, 0.40625],
            ],
        );
        let wide: &[&[&str]] = &[&["....##."], &["##...#."], &[".######"]];
        assert_eq!(
            covariance(wide, [2.6666666666666665, 1.0, 0.5714285714285714]),
            [
                [4.231404958677686, 0.0, -0.1511216056670601],
                [0.0, 0.0, 0.0],
                [-0.1511216056670601, 0.0, 1.1927812447292965],
            ],
        );
    }

    #[test]
    fn large_boxes_are_left_out() {
        let line = Array3::from_shape_fn((41, 41, 41), |(z, y, x)| f32::from(u8::from(z == y && y == x)));
        assert!(Mask::new(&regions(&line)[0]).is_none());
    }

    proptest! {
        #[test]
        fn sums_are_the_exact_moments_but_for_rounding(
            bits in prop::collection::vec(prop::bool::weighted(0.15), 6 * 7 * 11),
            edges in prop::array::uniform3(0.1..3.0_f64),
        ) {
            let image = Array3::from_shape_fn((6, 7, 11), |(z, y, x)| f32::from(u8::from(bits[(z * 7 + y) * 11 + x])));
            for region in regions(&image) {
                let rounded = Mask::new(&region).unwrap().covariance(edges);
                let exact = region.moments().covariance();
                for a in 0..3 {
                    for b in 0..3 {
                        let exact = exact[a][b] * edges[a] * edges[b];
                        prop_assert!((rounded[a][b] - exact).abs() < 1e-11, "{} {}", rounded[a][b], exact);
                    }
                }
            }
        }
    }
}
