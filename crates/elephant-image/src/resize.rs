//! Resampling by linear interpolation.

use std::ops::Range;

use elephant_types::{CancelToken, Numerics};
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use crate::ImageError;

/// Resampling of an image (z, y, x) to another shape by trilinear interpolation, box by box, such that corner voxels stay
/// corner voxels; with z = 1 before and after, this is bilinear interpolation.
///
/// The numbers are those of PyTorch's `interpolate(mode="trilinear", align_corners=True)` to within 1e-6 of the range of
/// the values, since coordinates are in single precision here too. They do not depend on how the image is cut into boxes.
#[derive(Clone, Debug)]
pub struct Resampling {
    /// For each axis, where every resampled voxel lies in the original.
    axes: [Vec<Sample>; 3],
}

impl Resampling {
    /// Resampling of an image of the shape `from` to the shape `to`.
    ///
    /// # Errors
    /// [`ImageError::EmptyAxis`] when either shape has no voxels.
    pub fn new(from: [usize; 3], to: [usize; 3]) -> Result<Self, ImageError> {
        if from.contains(&0) || to.contains(&0) {
            return Err(ImageError::EmptyAxis { from, to });
        }
        Ok(Self { axes: std::array::from_fn(|axis| samples(from[axis], to[axis])) })
    }

    /// The voxels of the original along `axis` that the resampled voxels `range` are computed from; none for none.
    pub fn source(&self, axis: usize, range: Range<usize>) -> Range<usize> {
        match &self.axes[axis][range] {
            [] => 0..0,
            [first, .., last] => first.low..last.high + 1,
            [only] => only.low..only.high + 1,
        }
    }

    /// Computes the box of the resampled image that begins at `origin` and has the shape of `out`. `image` is the part of
    /// the original that begins at `image_origin`, which contains the [source](Self::source) of the box.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`] between two planes.
    pub fn resample(
        &self,
        image: ArrayView3<'_, f32>,
        image_origin: [usize; 3],
        mut out: ArrayViewMut3<'_, f32>,
        origin: [usize; 3],
        cancel: &CancelToken,
    ) -> Result<(), ImageError> {
        let image = image.as_standard_layout();
        let size: [usize; 3] = out.dim().into();
        let [planes, rows, columns]: [&[Sample]; 3] =
            std::array::from_fn(|axis| &self.axes[axis][origin[axis]..origin[axis] + size[axis]]);
        out.axis_iter_mut(Axis(0)).into_par_iter().zip(planes).try_for_each(|(mut plane, z)| {
            cancel.check()?;
            let rows = plane.axis_iter_mut(Axis(0)).into_par_iter().zip(rows);
            rows.for_each_init(Vec::new, |blended: &mut Vec<f32>, (mut row, y)| {
                let source = |z: usize, y: usize| image.slice(s![z - image_origin[0], y - image_origin[1], ..]);
                blended.clear();
                blended.resize(image.len_of(Axis(2)), 0.0);
                for (z_index, z_weight) in z.terms() {
                    for (y_index, y_weight) in y.terms() {
                        let weight = z_weight * y_weight;
                        for (sum, &value) in blended.iter_mut().zip(source(z_index, y_index)) {
                            *sum += weight * value;
                        }
                    }
                }
                for (value, x) in row.iter_mut().zip(columns) {
                    *value = x.terms().map(|(index, weight)| weight * blended[index - image_origin[2]]).sum();
                }
            });
            Ok(())
        })
    }
}

/// Resamples a whole image (z, y, x) as [`Resampling`] does.
///
/// # Errors
/// [`ImageError::EmptyAxis`] when either shape has no voxels; [`ImageError::Cancelled`].
pub fn resize_trilinear(
    image: ArrayView3<'_, f32>,
    shape: [usize; 3],
    cancel: &CancelToken,
) -> Result<Array3<f32>, ImageError> {
    let resampling = Resampling::new(image.dim().into(), shape)?;
    let mut resized = Array3::zeros(shape);
    resampling.resample(image, [0; 3], resized.view_mut(), [0; 3], cancel)?;
    Ok(resized)
}

/// How many voxels of an axis of length `from` one voxel spans after [`Resampling`] made `to` of them.
///
/// Corner voxels stay corner voxels, so that the lengths between their centres count. The original divides the numbers of
/// voxels instead, which puts the last one up to `from / to - 1` voxels too far.
pub fn resampled_pitch(from: usize, to: usize, numerics: Numerics) -> f64 {
    match numerics {
        Numerics::Corrected if from > 1 && to > 1 => (from - 1) as f64 / (to - 1) as f64,
        _ => from as f64 / to as f64,
    }
}

/// Between which two neighbours a resampled position lies.
#[derive(Clone, Copy, Debug)]
struct Sample {
    low: usize,
    high: usize,
    /// The share of `high`.
    fraction: f32,
}

impl Sample {
    /// Indices with their weights, which sum to 1.
    fn terms(&self) -> impl Iterator<Item = (usize, f32)> {
        [(self.low, 1.0 - self.fraction), (self.high, self.fraction)].into_iter()
    }
}

fn samples(from: usize, to: usize) -> Vec<Sample> {
    let scale = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
    let sample = |index: usize| {
        let position = index as f32 * scale;
        let low = (position as usize).min(from - 1);
        let fraction = (position - low as f32).clamp(0.0, 1.0);
        Sample { low, high: (low + 1).min(from - 1), fraction }
    };
    (0..to).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn boxes_are_the_boxes_of_the_whole(
            from in [1_usize..6, 1_usize..9, 1_usize..9],
            to in [1_usize..9, 1_usize..12, 1_usize..12],
            corner in [0.0..1.0_f64, 0.0..1.0, 0.0..1.0],
            share in [0.0..1.0_f64, 0.0..1.0, 0.0..1.0],
        ) {
            let never = CancelToken::default();
            let image = Array3::from_shape_fn(from, |(z, y, x)| ((7 * z + 5 * y * x + 3 * x) % 11) as f32);
            let whole = resize_trilinear(image.view(), to, &never).unwrap();
            let origin: [usize; 3] = std::array::from_fn(|d| (corner[d] * to[d] as f64) as usize);
            let size: [usize; 3] =
                std::array::from_fn(|d| (1 + (share[d] * (to[d] - origin[d]) as f64) as usize).min(to[d] - origin[d]));
            let resampling = Resampling::new(from, to).unwrap();
            let source: [Range<usize>; 3] = std::array::from_fn(|d| resampling.source(d, origin[d]..origin[d] + size[d]));
            let part = image.slice(s![source[0].clone(), source[1].clone(), source[2].clone()]);
            let mut out = Array3::from_elem(size, f32::NAN);
            let image_origin = source.map(|range| range.start);
            resampling.resample(part, image_origin, out.view_mut(), origin, &never).unwrap();
            let [z, y, x] = std::array::from_fn(|d| origin[d]..origin[d] + size[d]);
            prop_assert_eq!(out, whole.slice(s![z, y, x]));
        }
    }

    #[test]
    fn a_cancelled_resampling_stops() {
        let cancel = CancelToken::default();
        cancel.cancel();
        let resized = resize_trilinear(Array3::zeros((2, 3, 4)).view(), [4, 5, 6], &cancel);
        assert!(matches!(resized, Err(ImageError::Cancelled(_))));
    }
}
