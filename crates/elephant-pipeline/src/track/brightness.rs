//! Brightness of cells, by which the tracker tells them apart.

use std::ops::Range;

use elephant_types::{CancelToken, Spot, VoxelSize};
use elephant_volume::{FrameSource, VolumeError};
use ndarray::Array3;
use rayon::prelude::*;

/// Voxels on each side of the centre, along each axis.
const REACH: usize = 1;

/// The spots of each frame, which stand together, as ranges of their indices.
pub(super) fn frames(spots: &[Spot]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    spots.chunk_by(|a, b| a.t == b.t).map(move |frame| {
        let range = start..start + frame.len();
        start = range.end;
        range
    })
}

/// For each spot the mean intensity around its centre minus the median of its frame, which is the background where cells fill less
/// than half of it. Spots are ordered by timepoint. Those that are `known` are not measured; `measured` is told how many frames
/// are finished.
///
/// # Errors
/// When a frame cannot be read or the task is cancelled.
pub(super) fn intensities(
    dataset: &FrameSource,
    spots: &[Spot],
    voxel_size: VoxelSize,
    known: impl Fn(usize) -> Option<f64>,
    cancel: &CancelToken,
    measured: impl Fn(usize),
) -> Result<Vec<f64>, VolumeError> {
    let mut intensities: Vec<Option<f64>> = (0..spots.len()).map(known).collect();
    for (number, frame) in frames(spots).enumerate() {
        let t = spots[frame.start].t;
        let missing: Vec<usize> = frame.filter(|&index| intensities[index].is_none()).collect();
        if !missing.is_empty() {
            let background = f64::from(dataset.medians(t, [0; 3], dataset.shape(), cancel)?.all);
            let asked: Vec<Spot> = missing.iter().map(|&index| spots[index].clone()).collect();
            for (index, intensity) in missing.into_iter().zip(brightness(dataset, t, &asked, voxel_size, cancel)?) {
                intensities[index] = Some(intensity - background);
            }
        }
        measured(number + 1);
    }
    Ok(intensities.into_iter().map(Option::unwrap_or_default).collect())
}

/// The mean intensity of the 27 voxels around the centre of each spot (9 in 2-D), as stored. A centre outside the image counts as the
/// nearest voxel; voxels outside the image are left out.
///
/// # Errors
/// When the frame cannot be read or the task is cancelled.
fn brightness(
    frames: &FrameSource,
    t: usize,
    spots: &[Spot],
    voxel_size: VoxelSize,
    cancel: &CancelToken,
) -> Result<Vec<f64>, VolumeError> {
    let (shape, edges) = (frames.shape(), voxel_size.zyx());
    let mean = |spot: &Spot| {
        let [z, y, x] = around(spot.center_um, edges, shape);
        let mut voxels = Array3::zeros((z.len(), y.len(), x.len()));
        frames.read(t, [z.start, y.start, x.start], voxels.view_mut(), cancel)?;
        Ok(voxels.iter().map(|&voxel: &f32| f64::from(voxel)).sum::<f64>() / voxels.len() as f64)
    };
    spots.par_iter().map(mean).collect()
}

/// The voxels around a centre.
pub(super) fn around(center_um: [f64; 3], edges: [f64; 3], shape: [usize; 3]) -> [Range<usize>; 3] {
    std::array::from_fn(|d| {
        let center = (center_um[d] / edges[d]).round().clamp(0.0, (shape[d] - 1) as f64) as usize;
        center.saturating_sub(REACH)..(center + REACH + 1).min(shape[d])
    })
}

#[cfg(test)]
mod tests {
    use elephant_volume::{DataType, Dataset, DatasetShape, FrameCache, Store};

    use super::*;

    fn spot(center_um: [f64; 3]) -> Spot {
        let covariance_um2 = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        Spot { t: 1, center_um, covariance_um2, quality: 1.0 }
    }

    #[test]
    fn it_is_the_mean_around_the_centre_within_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let shape = DatasetShape { timepoints: 2, frame: [3, 4, 5], is_3d: true };
        let dataset = Dataset::create(folder.path(), shape, DataType::U16).unwrap();
        let voxel = |z: usize, y: usize, x: usize| (100 * z + 10 * y + x) as u16;
        let frame = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| voxel(z, y, x));
        let images = dataset.store(Store::Images);
        images.write(&[1, 0, 0, 0], frame.view().insert_axis(ndarray::Axis(0)).into_dyn()).unwrap();
        let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
        let spots = [spot([2.0, 1.0, 0.5]), spot([0.0, 0.0, 0.0]), spot([100.0, -7.0, 2.0])];
        let voxel_size = VoxelSize::new([2.0, 0.5, 0.25]).unwrap();
        let found = brightness(&frames, 1, &spots, voxel_size, &CancelToken::default()).unwrap();
        // Means of the boxes z 0..3, y 1..4, x 1..4; z 0..2, y 0..2, x 0..2; z 1..3, y 0..2, x 3..5.
        assert_eq!(found, [122.0, 55.5, 158.5]);
    }
}
