//! Intensities as the network expects them (docs/method.md, "Input normalisation").

use ndarray::{ArrayViewMut3, Axis, Zip};
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

    /// The range from `min` to `max`.
    pub fn new(min: f32, max: f32) -> Self {
        Self { min, max }
    }

    /// The range of the given voxels.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a f32>) -> Self {
        values.into_iter().fold(Self::EMPTY, |range, &value| range.and(Self { min: value, max: value }))
    }

    /// The range of the voxels of both ranges.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The range after `excess` was subtracted from every intensity.
    #[must_use]
    pub fn minus(self, excess: f32) -> Self {
        Self { min: self.min - excess, max: self.max - excess }
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
}
