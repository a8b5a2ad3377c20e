//! Datasets and their frames, as prediction and training look at them.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use elephant_fs::FolderLock;
use elephant_image::{IntensityRange, median_correction};
use elephant_types::{CancelToken, Cancelled, DatasetName};
use elephant_volume::{Dataset, Store};
use ndarray::{Array3, Axis};
use rayon::prelude::*;

use crate::{PipelineError, Workspace};

/// The folder of a dataset that was generated.
pub(crate) fn dataset_folder(workspace: &Workspace, name: &DatasetName) -> Result<PathBuf, PipelineError> {
    let folder = workspace.dataset(name)?;
    if elephant_fs::metadata(&folder.join("imgs.zarr"))?.is_none() {
        return Err(PipelineError::NotFound(format!(
            "the dataset does not exist: {name}; upload its movie and make it with POST /dataset/generate"
        )));
    }
    for store in Store::ALL {
        // A store that is a link to the outside is refused.
        workspace.datasets().resolve(AsRef::<Path>::as_ref(name).join(store.folder()))?;
    }
    Ok(folder)
}

/// A dataset that is not generated anew as long as this exists.
pub(crate) struct HeldDataset {
    dataset: Dataset,
    _lock: FolderLock,
}

impl Deref for HeldDataset {
    type Target = Dataset;

    fn deref(&self) -> &Dataset {
        &self.dataset
    }
}

/// Opens a dataset that was generated, and keeps generations out.
///
/// # Errors
/// When there is none, or a generation of it is running.
pub(crate) fn open_dataset(workspace: &Workspace, name: &DatasetName) -> Result<HeldDataset, PipelineError> {
    let folder = dataset_folder(workspace, name)?;
    let lock = FolderLock::try_share(&folder)?;
    Ok(HeldDataset { dataset: Dataset::open(&folder)?, _lock: lock })
}

/// Refuses a timepoint that the dataset does not have.
pub(crate) fn check_timepoint(dataset: &Dataset, name: &DatasetName, t: usize) -> Result<(), PipelineError> {
    let count = dataset.timepoint_count();
    if t < count {
        return Ok(());
    }
    Err(PipelineError::NotFound(format!("there is no timepoint {t}; the dataset {name} has {count}, counted from 0")))
}

/// The part of frame `t` that begins at `origin` and has `size`, both (z, y, x), with intensities scaled to 0..=1 over
/// that part; in 3-D with the medians of its planes made equal before, if that is wanted (contract section 6.1). The
/// caller has set the memory aside. Looks between planes whether it is cancelled.
pub(crate) fn normalized_frame(
    dataset: &Dataset,
    t: usize,
    origin: [usize; 3],
    size: [usize; 3],
    use_median: bool,
    cancel: &CancelToken,
) -> Result<Array3<f32>, PipelineError> {
    let mut image = Array3::zeros(size);
    let [depth, height, width] = size;
    let planes = image.axis_chunks_iter_mut(Axis(0), 1).into_par_iter().enumerate();
    planes.try_for_each(|(z, mut plane)| -> Result<(), PipelineError> {
        cancel.check()?;
        let origin = [origin[0] + z, origin[1], origin[2]];
        plane.assign(&dataset.read_frame(t, origin, [1, height, width])?);
        Ok(())
    })?;
    if use_median && dataset.is_3d() {
        median_correction(image.view_mut());
        cancel.check()?;
    }
    let ranges = (0..depth).into_par_iter().map(|z| {
        cancel.check()?;
        Ok(IntensityRange::of(image.index_axis(Axis(0), z)))
    });
    let range = ranges.try_reduce(|| IntensityRange::EMPTY, |a, b| Ok::<_, Cancelled>(a.and(b)))?;
    image.axis_chunks_iter_mut(Axis(0), 1).into_par_iter().try_for_each(|plane| {
        cancel.check()?;
        range.scale(plane);
        Ok::<_, Cancelled>(())
    })?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use elephant_image::normalize;
    use elephant_types::{Coded, ErrorCode};
    use elephant_volume::{DataType, DatasetShape};
    use ndarray::Array4;

    use super::*;

    #[test]
    fn a_part_is_normalised_plane_by_plane_until_it_is_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let shape = DatasetShape { timepoints: 2, frame: [5, 8, 9], is_3d: true };
        let dataset = Dataset::create(folder.path(), shape, DataType::U8).unwrap();
        let image = Array4::from_shape_fn((1, 5, 8, 9), |(_, z, y, x)| (40 * z + 3 * y * x % 37) as u8);
        dataset.store(Store::Images).write(&[1, 0, 0, 0], image.view().into_dyn()).unwrap();
        let (origin, size) = ([1, 2, 3], [4, 5, 6]);
        for use_median in [false, true] {
            let mut expected = dataset.read_frame(1, origin, size).unwrap();
            if use_median {
                median_correction(expected.view_mut());
            }
            normalize(expected.view_mut());
            let cancel = CancelToken::default();
            let read = || normalized_frame(&dataset, 1, origin, size, use_median, &cancel);
            assert_eq!(read().unwrap(), expected);
            cancel.cancel();
            assert_eq!(read().unwrap_err().code(), ErrorCode::Cancelled);
        }
        let flat = normalized_frame(&dataset, 0, [0; 3], [5, 8, 9], false, &CancelToken::default()).unwrap();
        assert!(flat.iter().all(|&value| value == 0.0));
    }
}
