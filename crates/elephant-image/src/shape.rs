//! From the moments of a detected nucleus centre to the ellipsoid of the whole nucleus (docs/method.md,
//! "From probabilities to spots").

use elephant_types::Numerics;

use crate::{Region, eigen::symmetric_eigen, original};

/// How semi-axes follow from moments, over the `N` axes of the image: (z, y, x) or (y, x).
#[derive(Clone, Debug)]
pub(crate) struct ShapeRules<const N: usize> {
    /// Voxel edge lengths in micrometres.
    pub voxel_um: [f64; N],
    /// The radius of the detected centre over the radius of the nucleus.
    pub c_ratio: f64,
    /// Nuclei with a smaller semi-axis are dropped.
    pub r_min_um: f64,
    /// Larger semi-axes are cut to this.
    pub r_max_um: f64,
    /// Whether the network saw each plane on its own, so that the centres it marks are not shrunk along the first axis.
    pub planes_apart: bool,
    /// Which rules to follow; see `docs/numerics.md`.
    pub numerics: Numerics,
}

/// Below this share of the largest eigenvalue, one that would be zero in exact arithmetic is rounding.
pub(crate) const FLAT: f64 = 1e-12;

impl<const N: usize> ShapeRules<N> {
    /// The fewest voxels a component may have: those of a ball, or disc, of radius `r_min_um * c_ratio`.
    pub(crate) fn least_voxels(&self) -> f64 {
        let radius = self.r_min_um * self.c_ratio;
        let size = if N == 2 {
            std::f64::consts::PI * radius.powi(2)
        } else {
            4.0 / 3.0 * std::f64::consts::PI * radius.powi(3)
        };
        size / self.voxel_um.iter().product::<f64>()
    }

    /// The covariance in µm² of the ellipsoid whose centre the region marks, with semi-axes equal to the square roots of
    /// its eigenvalues; or `None` for a single voxel and for ellipsoids that are too thin.
    pub(crate) fn covariance_um2(&self, region: &Region) -> Option<[[f64; N]; N]> {
        let edges = self.scaled_edges_um(region);
        let exact = scaled_covariance(region, edges);
        let (values, vectors) = match self.numerics {
            Numerics::Original => original::principal_axes(region, edges, exact),
            Numerics::Corrected => symmetric_eigen(exact),
        };
        let largest = values[N - 1];
        // The negation also drops what overflowed to NaN.
        if !(largest > 0.0 && largest.is_finite()) {
            return None;
        }
        let mut variances = [0.0; N];
        for (index, variance) in variances.iter_mut().enumerate() {
            let direction: [f64; N] = std::array::from_fn(|axis| vectors[axis][index]);
            let radius = self.radius(index, values[index], largest, direction)?;
            *variance = radius.min(self.r_max_um).powi(2);
        }
        let mut covariance = [[0.0; N]; N];
        for a in 0..N {
            for b in a..N {
                covariance[a][b] = (0..N).map(|k| vectors[a][k] * variances[k] * vectors[b][k]).sum();
                covariance[b][a] = covariance[a][b];
            }
        }
        // A radius that overflowed and that no `r_max_um` cut.
        covariance.iter().flatten().all(|entry| entry.is_finite()).then_some(covariance)
    }

    /// The edges of a voxel in µm by which moments are scaled.
    fn scaled_edges_um(&self, region: &Region) -> [f64; N] {
        let extent = region.moments().extent();
        std::array::from_fn(|axis| {
            let flattened = if self.planes_apart && axis == 0 { self.c_ratio } else { 1.0 };
            self.stretch(self.voxel_um[axis], extent[3 - N + axis]) * flattened
        })
    }

    /// The original stretches an axis on which the voxels span `planes` planes, to make up for centres that training
    /// draws with a strict boundary. But moments of voxel centres are not too small: the stretch happens to cancel the
    /// missing factor of [`radii_per_deviation`](Self::radii_per_deviation) for centres of about eight planes, and
    /// exceeds it for smaller ones.
    fn stretch(&self, edge_um: f64, planes: u32) -> f64 {
        match self.numerics {
            Numerics::Original => edge_um * (f64::from(planes) + 1.0) / f64::from(planes),
            Numerics::Corrected => edge_um,
        }
    }

    /// The semi-axis in µm along an eigenvector, or `None` when it is shorter than allowed.
    fn radius(&self, index: usize, value: f64, largest: f64, direction: [f64; N]) -> Option<f64> {
        let (value, flat_um) = match self.numerics {
            Numerics::Original if value < 0.0 => return None,
            // The original takes the voxel size of axis number `index`, whichever way the eigenvector points.
            Numerics::Original => (value, self.voxel_um[index]),
            Numerics::Corrected => {
                let value = if value > largest * FLAT { value } else { 0.0 };
                let along = direction.iter().zip(self.voxel_um).map(|(d, edge)| (d * edge).powi(2)).sum::<f64>().sqrt();
                (value, along)
            }
        };
        let radius = self.radii_per_deviation() * value.sqrt() / self.c_ratio;
        let radius = if radius > 0.0 { radius } else { flat_um.max(self.r_min_um) };
        (radius >= self.r_min_um).then_some(radius)
    }

    /// The semi-axis of a homogeneous solid over its standard deviation: 2 for an ellipse, √5 for an ellipsoid. The
    /// original takes 2 for both.
    fn radii_per_deviation(&self) -> f64 {
        if N == 3 && self.numerics == Numerics::Corrected { 5.0_f64.sqrt() } else { 2.0 }
    }
}

/// Second central moments in µm², exact but for their last digits.
fn scaled_covariance<const N: usize>(region: &Region, edges: [f64; N]) -> [[f64; N]; N] {
    let unused = 3 - N; // a 2-D image leaves out z
    let raw = region.moments().covariance();
    std::array::from_fn(|a| std::array::from_fn(|b| raw[unused + a][unused + b] * edges[a] * edges[b]))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::Run;

    fn rules(numerics: Numerics) -> ShapeRules<3> {
        ShapeRules {
            voxel_um: [2.0, 0.5, 0.5],
            c_ratio: 0.4,
            r_min_um: 0.0,
            r_max_um: 1e6,
            planes_apart: false,
            numerics,
        }
    }

    fn region(runs: impl IntoIterator<Item = Run>) -> Region {
        Region::new(runs.into_iter().collect(), 0.0).expect("there are voxels")
    }

    fn solid(z: Range<usize>, y: Range<usize>, x: Range<usize>) -> Region {
        region(z.flat_map(|z| y.clone().map(move |y| (z, y))).map(|(z, y)| Run::new(z, y, x.clone())))
    }

    /// The diagonal of the covariance, when the rest is zero.
    fn diagonal(covariance: [[f64; 3]; 3]) -> [f64; 3] {
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert_eq!(covariance[a][b], 0.0);
        }
        [covariance[0][0], covariance[1][1], covariance[2][2]]
    }

    fn assert_near(found: [f64; 3], expected: [f64; 3]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    /// Numbers of the original for plates one voxel thick: the thickness follows from the first voxel size, z, even where
    /// the plate is thin along y.
    #[test]
    fn the_original_takes_the_wrong_axis_for_flat_shapes() {
        let covariance = |region: &Region| diagonal(rules(Numerics::Original).covariance_um2(region).unwrap());
        assert_near(covariance(&solid(0..1, 0..3, 0..4)), [4.0, 7.407_407_407_407_407, 12.207_031_25]);
        assert_near(covariance(&solid(1..5, 18..19, 2..22)), [195.3125, 4.0, 229.113_281_25]);
    }

    #[test]
    fn flat_shapes_are_one_voxel_thick() {
        let covariance = |region: &Region| diagonal(rules(Numerics::Corrected).covariance_um2(region).unwrap());
        assert_near(covariance(&solid(0..1, 0..3, 0..4)), [4.0, 5.208_333_333_333_333, 9.765_625]);
        assert_near(covariance(&solid(1..5, 18..19, 2..22)), [156.25, 0.25, 259.765_625]);
    }

    #[test]
    fn a_tilted_line_is_flat_though_its_eigenvalues_are_not_quite_zero() {
        let line = region((0..10).map(|i| Run::new(i, 3 * i, 7 * i..7 * i + 1)));
        let covariance = rules(Numerics::Corrected).covariance_um2(&line).unwrap();
        let (values, _) = symmetric_eigen(covariance);
        for value in &values[..2] {
            assert!((0.25 - 1e-9..=4.0).contains(value), "{value}");
        }
    }

    /// Three voxels in a plane, for which the original finds an eigenvalue of −4e-17.
    #[test]
    fn only_the_original_drops_cells_for_rounding() {
        let speck = region([Run::new(0, 0, 1..3), Run::new(1, 1, 0..1)]);
        let covariance = |numerics| rules(numerics).covariance_um2(&speck);
        assert!(covariance(Numerics::Original).is_none());
        let (values, _) = symmetric_eigen(covariance(Numerics::Corrected).unwrap());
        assert!((0.25..=4.0).contains(&values[0]), "{values:?}");
    }

    /// The voxels whose centres are inside an ellipsoid.
    fn ellipsoid(center_um: [f64; 3], axes: &[[f64; 3]; 3], semi_axes_um: [f64; 3], voxel_um: [f64; 3]) -> Region {
        let mut voxels = Vec::new();
        let range = |axis: usize| {
            let reach = semi_axes_um.iter().fold(0.0_f64, |a, &b| a.max(b));
            ((center_um[axis] - reach) / voxel_um[axis]) as usize
                ..((center_um[axis] + reach) / voxel_um[axis]) as usize + 2
        };
        for z in range(0) {
            for y in range(1) {
                for x in range(2) {
                    let away: [f64; 3] = std::array::from_fn(|i| [z, y, x][i] as f64 * voxel_um[i] - center_um[i]);
                    let along = |k: usize| (0..3).map(|i| axes[i][k] * away[i]).sum::<f64>() / semi_axes_um[k];
                    if (0..3).map(|k| along(k).powi(2)).sum::<f64>() < 1.0 {
                        voxels.push(Run::new(z, y, x..x + 1));
                    }
                }
            }
        }
        region(voxels)
    }

    proptest! {
        #[test]
        fn ellipsoids_are_recovered(
            entries in prop::array::uniform6(-1.0..1.0_f64),
            shift in prop::array::uniform3(0.0..2.0_f64),
            semi_axes in prop::array::uniform3(5.0..8.0_f64),
        ) {
            // Any symmetric matrix will do for a random rotation.
            let [a, b, c, d, e, f] = entries;
            let (_, axes) = symmetric_eigen([[a, b, c], [b, d, e], [c, e, f]]);
            let center: [f64; 3] = std::array::from_fn(|i| 10.0 + shift[i]);
            let rules = ShapeRules { c_ratio: 1.0, ..rules(Numerics::Corrected) };
            let region = ellipsoid(center, &axes, semi_axes, rules.voxel_um);
            let (variances, _) = symmetric_eigen(rules.covariance_um2(&region).unwrap());
            let mut expected = semi_axes;
            expected.sort_by(f64::total_cmp);
            for (found, expected) in variances.iter().map(|v| v.sqrt()).zip(expected) {
                prop_assert!((found / expected - 1.0).abs() < 0.08, "{} {:?}", found, expected);
            }
            let mean = |values: &[f64; 3]| values.iter().product::<f64>();
            let volume = mean(&variances).sqrt() / mean(&expected);
            prop_assert!((volume - 1.0).abs() < 0.06, "{}", volume);
        }
    }

    #[test]
    fn one_voxel_has_no_shape() {
        for numerics in [Numerics::Original, Numerics::Corrected] {
            assert!(rules(numerics).covariance_um2(&region([Run::new(3, 4, 5..6)])).is_none());
        }
    }
}
