//! Resampling by linear interpolation.

use elephant_types::Numerics;
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis};
use rayon::prelude::*;

use crate::ImageError;

/// Resamples an image (z, y, x) to another shape by trilinear interpolation, such that corner voxels stay corner voxels;
/// with z = 1 before and after, this is bilinear interpolation.
///
/// The numbers are those of PyTorch's `interpolate(mode="trilinear", align_corners=True)` to within 1e-6 of the range of
/// the values, since coordinates are in single precision here too.
///
/// # Errors
/// [`ImageError::EmptyAxis`] when either shape has no voxels.
pub fn resize_trilinear(image: ArrayView3<'_, f32>, shape: [usize; 3]) -> Result<Array3<f32>, ImageError> {
    let mut resized = Array3::zeros(shape);
    resize_trilinear_into(image, resized.view_mut())?;
    Ok(resized)
}

/// As [`resize_trilinear`], to the shape of `resized`.
///
/// # Errors
/// As [`resize_trilinear`].
pub fn resize_trilinear_into(
    image: ArrayView3<'_, f32>,
    mut resized: ArrayViewMut3<'_, f32>,
) -> Result<(), ImageError> {
    let (from, shape): ([usize; 3], [usize; 3]) = (image.dim().into(), resized.dim().into());
    if from.contains(&0) || shape.contains(&0) {
        return Err(ImageError::EmptyAxis { from, to: shape });
    }
    if from == shape {
        resized.assign(&image);
        return Ok(());
    }
    let image = image.as_standard_layout();
    let [planes, rows, columns]: [Vec<Sample>; 3] = std::array::from_fn(|axis| samples(from[axis], shape[axis]));
    resized.axis_iter_mut(Axis(0)).into_par_iter().zip(&planes).for_each(|(mut plane, z)| {
        let mut blended = vec![0.0; from[2]];
        for (mut row, y) in plane.axis_iter_mut(Axis(0)).zip(&rows) {
            let source = |z: usize, y: usize| image.slice(ndarray::s![z, y, ..]);
            blended.fill(0.0);
            for (z_index, z_weight) in z.terms() {
                for (y_index, y_weight) in y.terms() {
                    let weight = z_weight * y_weight;
                    for (sum, &value) in blended.iter_mut().zip(source(z_index, y_index)) {
                        *sum += weight * value;
                    }
                }
            }
            for (value, x) in row.iter_mut().zip(&columns) {
                *value = x.terms().map(|(index, weight)| weight * blended[index]).sum();
            }
        }
    });
    Ok(())
}

/// How many voxels of an axis of length `from` one voxel spans after [`resize_trilinear`] made `to` of them.
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
