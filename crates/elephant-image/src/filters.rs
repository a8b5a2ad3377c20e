//! Separable filters of volumes.
//!
//! A filter is a symmetric [`Kernel`] for each axis. Beyond the border the outermost voxel is repeated.

use ndarray::{Array3, Axis};
use rayon::prelude::*;

/// Convolves a volume with a Gaussian of the given standard deviations in voxels along (z, y, x), cut at three standard
/// deviations. A standard deviation of 0 leaves an axis as it is. Results are the same on every machine.
pub fn gaussian_blur(image: &mut Array3<f32>, sigma: [f64; 3]) {
    for (axis, &sigma) in sigma.iter().enumerate() {
        convolve(image, Axis(axis), &Kernel::gaussian(sigma));
    }
}

/// Weights of a filter along one axis, which are the same on both sides: from the middle on.
struct Kernel(Vec<f32>);

impl Kernel {
    /// Weights that sum to 1.
    fn gaussian(sigma: f64) -> Self {
        let radius = (3.0 * sigma).ceil() as usize;
        let bell = |i: usize| libm::exp(-0.5 * (i as f64 / sigma.max(1e-9)) * (i as f64 / sigma.max(1e-9)));
        let sum: f64 = 1.0 + 2.0 * (1..=radius).map(bell).sum::<f64>();
        Self((0..=radius).map(|i| (bell(i) / sum) as f32).collect())
    }

    /// The weighted sum of the values of a line around `index`.
    fn apply(&self, line: &[f32], index: usize) -> f32 {
        let mut sum = self.0[0] * line[index];
        for (offset, weight) in self.0.iter().enumerate().skip(1) {
            let before = line[index.saturating_sub(offset)];
            let after = line[(index + offset).min(line.len() - 1)];
            sum += weight * (before + after);
        }
        sum
    }
}

/// Applies a kernel along one axis.
fn convolve(image: &mut Array3<f32>, axis: Axis, kernel: &Kernel) {
    if kernel.0.len() == 1 {
        return; // its only weight is 1
    }
    // Planes across another axis hold whole lines along this one.
    let across = Axis(usize::from(axis == Axis(0)));
    image.axis_iter_mut(across).into_par_iter().for_each(|mut plane| {
        let along = Axis(usize::from(axis == Axis(2)));
        let mut source = Vec::new();
        for mut line in plane.lanes_mut(along) {
            source.clear();
            source.extend(line.iter().copied());
            for (index, value) in line.iter_mut().enumerate() {
                *value = kernel.apply(&source, index);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_becomes_a_gaussian_of_the_same_mass() {
        let sigma = [1.5, 0.8, 2.0];
        let mut image = Array3::zeros((21, 17, 25));
        image[(10, 8, 12)] = 1.0_f32;
        gaussian_blur(&mut image, sigma);
        let mass: f32 = image.sum();
        assert!((mass - 1.0).abs() < 1e-5, "{mass}");
        let mut variance = [0.0; 3];
        for ((z, y, x), &value) in image.indexed_iter() {
            for (axis, away) in [z as f64 - 10.0, y as f64 - 8.0, x as f64 - 12.0].into_iter().enumerate() {
                variance[axis] += away * away * f64::from(value);
            }
        }
        for (variance, sigma) in variance.iter().zip(sigma) {
            // The kernel ends at three standard deviations.
            assert!((variance / (sigma * sigma) - 1.0).abs() < 0.05, "{variance} {sigma}");
        }
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let mut image = Array3::from_elem((1, 4, 5), 3.0_f32);
        gaussian_blur(&mut image, [2.0, 1.0, 0.0]);
        assert!(image.iter().all(|value| (value - 3.0).abs() < 1e-5));
    }

    #[test]
    fn an_axis_without_deviation_stays_as_it_is() {
        let mut image = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (20 * z + 5 * y + x) as f32);
        let before = image.clone();
        gaussian_blur(&mut image, [0.0; 3]);
        assert_eq!(image, before);
    }
}
