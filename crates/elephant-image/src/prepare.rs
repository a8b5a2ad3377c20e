//! Intensities as the network expects them (contract section 6.1).

use ndarray::{ArrayView2, ArrayViewMut3, Axis, Zip};
use rayon::prelude::*;

/// The lowest and the highest intensity of an image or of parts of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntensityRange {
    min: f32,
    max: f32,
}

impl IntensityRange {
    /// The range of no voxels.
    pub const EMPTY: Self = Self { min: f32::INFINITY, max: f32::NEG_INFINITY };

    /// The range of the given voxels.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a f32>) -> Self {
        values.into_iter().fold(Self::EMPTY, |range, &value| range.and(Self { min: value, max: value }))
    }

    /// The range of the voxels of both ranges.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// Shifts and scales intensities so that this range becomes 0..=1; everything becomes 0 when the range has no extent.
    pub fn scale(self, image: ArrayViewMut3<'_, f32>) {
        let span = self.max - self.min;
        let span = if span > 0.0 { span } else { 1.0 };
        Zip::from(image).par_for_each(|value| *value = (*value - self.min) / span);
    }
}

/// Shifts and scales the intensities to 0..=1: x − min, then / max unless that is 0.
pub fn normalize(image: ArrayViewMut3<'_, f32>) {
    let planes = image.axis_iter(Axis(0)).into_par_iter().map(IntensityRange::of);
    let range = planes.reduce(|| IntensityRange::EMPTY, IntensityRange::and);
    range.scale(image);
}

/// Brings the median of each z-plane to that of the whole image, where it is above 0. Call it before [`normalize`].
///
/// A median of an even number of values is the mean of the two in the middle, in single precision.
pub fn median_correction(mut image: ArrayViewMut3<'_, f32>) {
    if image.is_empty() {
        return;
    }
    let global = median_of(image.iter().copied().collect());
    image.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut plane| {
        let median = plane_median(plane.view());
        if median > 0.0 {
            let excess = median - global;
            plane.mapv_inplace(|value| value - excess);
        }
    });
}

fn plane_median(plane: ArrayView2<'_, f32>) -> f32 {
    median_of(plane.iter().copied().collect())
}

/// The median of at least one value.
fn median_of(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    let is_even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    if !is_even {
        return upper;
    }
    let lower = below.iter().copied().max_by(f32::total_cmp).unwrap_or(upper);
    lower.midpoint(upper)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn intensities_fill_zero_to_one() {
        let mut image = array![[[5.0_f32, 7.0], [9.0, 13.0]]];
        normalize(image.view_mut());
        assert_eq!(image, array![[[0.0, 0.25], [0.5, 1.0]]]);
    }

    #[test]
    fn a_flat_image_becomes_zero() {
        for shape in [(2, 3, 4), (0, 3, 4)] {
            let mut image = Array3::from_elem(shape, 77.0);
            normalize(image.view_mut());
            assert!(image.iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn planes_get_the_median_of_the_image() {
        // Medians: plane 0 has (2 + 3) / 2, plane 1 has 0 and stays, the image has (1 + 2) / 2.
        let mut image = array![[[1.0_f32, 2.0], [3.0, 10.0]], [[0.0, 0.0], [0.0, 4.0]]];
        median_correction(image.view_mut());
        assert_eq!(image, array![[[0.0, 1.0], [2.0, 9.0]], [[0.0, 0.0], [0.0, 4.0]]]);
    }

    #[test]
    fn odd_counts_have_a_middle() {
        assert_eq!(median_of(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median_of(vec![-1.0]), -1.0);
        assert_eq!(median_of(vec![4.0, 4.0, 4.0, 5.0]), 4.0);
    }
}
