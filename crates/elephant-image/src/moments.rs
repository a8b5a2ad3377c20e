//! Moments of a set of voxels, up to the second order.

use crate::Run;

/// Exact sums over a set of voxels, from which its centroid and covariance follow without rounding.
///
/// Integers hold every image that [`find_regions`](crate::find_regions) accepts: at most 2^38 voxels, 2^24 along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moments {
    /// How many voxels there are; never 0.
    pub voxels: u64,
    /// Lowest index along (z, y, x).
    pub min: [u32; 3],
    /// Highest index along (z, y, x), inclusive.
    pub max: [u32; 3],
    /// Sum of the indices along (z, y, x).
    first: [u64; 3],
    /// Sums of the products of two indices, in the order of [`PAIRS`].
    second: [u128; 6],
}

/// The pairs of axes whose products are summed.
const PAIRS: [(usize, usize); 6] = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)];

impl Moments {
    /// The moments of the voxels of a run.
    pub fn of_run(run: Run) -> Self {
        let Run { z, y, x0, x1 } = run;
        let (min, max) = ([z, y, x0], [z, y, x1 - 1]);
        let (length, start) = (u64::from(x1 - x0), u64::from(x0));
        let (z, y) = (u64::from(z), u64::from(y));
        let sum_x = length * start + length * (length - 1) / 2;
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        // Σ i² for i in 0..length is triangle · (2 · length − 1) / 3, where one of the factors is divisible by 3.
        let (triangle, odd) = (length * (length - 1) / 2, 2 * length - 1);
        let squares = if triangle.is_multiple_of(3) { product(triangle / 3, odd) } else { product(triangle, odd / 3) };
        // Σ (start + i)² = length · start² + start · length · (length − 1) + Σ i².
        let sum_xx = product(length * start, start + length - 1) + squares;
        Self {
            voxels: length,
            min,
            max,
            first: [z * length, y * length, sum_x],
            second: [
                product(z * z, length),
                product(y * y, length),
                sum_xx,
                product(z * y, length),
                product(z, sum_x),
                product(y, sum_x),
            ],
        }
    }

    /// The moments of the voxels of both sets, which must have none in common.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.merge(&other);
        self
    }

    /// Adds the voxels of `other`, which must not be in this set yet.
    pub fn merge(&mut self, other: &Self) {
        self.voxels += other.voxels;
        for axis in 0..3 {
            self.min[axis] = self.min[axis].min(other.min[axis]);
            self.max[axis] = self.max[axis].max(other.max[axis]);
            self.first[axis] += other.first[axis];
        }
        for (sum, more) in self.second.iter_mut().zip(other.second) {
            *sum += more;
        }
    }

    /// Mean index along (z, y, x).
    pub fn centroid(&self) -> [f64; 3] {
        self.first.map(|sum| sum as f64 / self.voxels as f64)
    }

    /// How many planes the bounding box spans along (z, y, x).
    pub fn extent(&self) -> [u32; 3] {
        std::array::from_fn(|axis| self.max[axis] - self.min[axis] + 1)
    }

    /// Second central moments over the number of voxels, in voxels², (z, y, x). Entries that are zero are exactly 0.
    pub fn covariance(&self) -> [[f64; 3]; 3] {
        let n = u128::from(self.voxels);
        let mut covariance = [[0.0; 3]; 3];
        for (&(a, b), &sum) in PAIRS.iter().zip(&self.second) {
            // n·Σab − Σa·Σb stays below 2^127: n ≤ 2^38, Σab ≤ n·2^48.
            let central = (n * sum) as i128 - (u128::from(self.first[a]) * u128::from(self.first[b])) as i128;
            covariance[a][b] = central as f64 / (n as f64 * n as f64);
            covariance[b][a] = covariance[a][b];
        }
        covariance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_sum_of_its_voxels() {
        let mut voxels = Moments::of_run(Run::new(3, 5, 7..8));
        for x in 8..19 {
            voxels.merge(&Moments::of_run(Run::new(3, 5, x..x + 1)));
        }
        assert_eq!(Moments::of_run(Run::new(3, 5, 7..19)), voxels);
        assert_eq!(voxels.extent(), [1, 1, 12]);
    }

    #[test]
    fn a_box_has_the_variance_of_a_discrete_uniform_distribution() {
        let rows = (100..104).flat_map(|z| (50..57).map(move |y| Run::new(z, y, 1000..1011)));
        let sum = rows.map(Moments::of_run).reduce(Moments::merged).unwrap();
        let variance = |n: f64| (n * n - 1.0) / 12.0;
        assert_eq!(sum.centroid(), [101.5, 53.0, 1005.0]);
        assert_eq!(
            sum.covariance(),
            [[variance(4.0), 0.0, 0.0], [0.0, variance(7.0), 0.0], [0.0, 0.0, variance(11.0)]]
        );
    }

    #[test]
    fn the_largest_accepted_image_does_not_overflow() {
        let (length, far) = (1_usize << 24, (1_usize << 14) - 1);
        let mut sum = Moments::of_run(Run::new(0, 0, 0..length));
        // Doubling stands for the 2^38 voxels of one component that fills the largest image.
        for _ in 0..14 {
            let half = sum.clone();
            sum.merge(&half);
        }
        sum.merge(&Moments::of_run(Run::new(far, far, length - 1..length)));
        assert_eq!(sum.voxels, (1 << 38) + 1);
        let expected = (length as f64).powi(2) / 12.0;
        assert!((sum.covariance()[2][2] / expected - 1.0).abs() < 1e-6);
    }
}
