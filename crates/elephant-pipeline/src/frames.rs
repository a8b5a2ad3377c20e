//! Datasets and their frames, as prediction and training look at them.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use elephant_fs::FolderLock;
use elephant_image::{median_correction, normalize};
use elephant_types::DatasetName;
use elephant_volume::{Dataset, Store};
use ndarray::Array3;

use crate::{PipelineError, Workspace};

/// The folder of a dataset that was generated.
pub(crate) fn dataset_folder(workspace: &Workspace, name: &DatasetName) -> Result<PathBuf, PipelineError> {
    let folder = workspace.dataset(name)?;
    if elephant_fs::metadata(&folder.join("imgs.zarr"))?.is_none() {
        return Err(PipelineError::NotFound(format!(
            "the dataset {name} does not exist; upload its movie and make it with POST /dataset/generate"
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
    Err(PipelineError::NotFound(format!("the dataset {name} has no timepoint {t}; it has {count}, counted from 0")))
}

/// The part of frame `t` that begins at `origin` and has `size`, both (z, y, x), with intensities scaled to 0..=1 over
/// that part; in 3-D with the medians of its planes made equal before, if that is wanted (contract section 6.1).
pub(crate) fn normalized_frame(
    dataset: &Dataset,
    t: usize,
    origin: [usize; 3],
    size: [usize; 3],
    use_median: bool,
) -> Result<Array3<f32>, PipelineError> {
    let mut image = dataset.read_frame(t, origin, size)?;
    if use_median && dataset.is_3d() {
        median_correction(image.view_mut());
    }
    normalize(image.view_mut());
    Ok(image)
}
