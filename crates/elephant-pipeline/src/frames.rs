//! Opening datasets for prediction, training and label updates, and normalising their intensities.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use elephant_fs::FolderLock;
use elephant_image::IntensityRange;
use elephant_types::{CancelToken, DatasetName};
use elephant_volume::{DataType, Dataset, Extent, FrameSource, Store, VolumeError};
use ndarray::{ArrayViewMut3, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{PipelineError, UseCases, Workspace};

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

/// What a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetInfo {
    /// Its shape (t, z, y, x); z is 1 in 2-D.
    pub shape: [usize; 4],
    /// Whether it is 3-D.
    pub is_3d: bool,
    /// Type of its voxels, by NumPy's name.
    pub data_type: &'static str,
}

impl UseCases {
    /// What a dataset is.
    ///
    /// # Errors
    /// When there is no such dataset, or it is being made.
    pub fn dataset_info(&self, name: &DatasetName) -> Result<DatasetInfo, PipelineError> {
        let held = open_dataset(&self.workspace, name)?;
        let dataset = held.dataset();
        let [z, y, x] = dataset.frame_shape();
        let shape = [dataset.timepoint_count(), z, y, x];
        let is_8_bit = dataset.store(Store::Images).data_type() == DataType::U8;
        let data_type = if is_8_bit { "uint8" } else { "uint16" };
        Ok(DatasetInfo { shape, is_3d: dataset.is_3d(), data_type })
    }
}

/// A dataset that cannot be generated again as long as this exists.
pub(crate) struct HeldDataset {
    frames: Arc<FrameSource>,
    folder: PathBuf,
    _lock: FolderLock,
}

impl HeldDataset {
    /// Its frames, for another thread. They do not keep generations out.
    pub fn frames(&self) -> Arc<FrameSource> {
        self.frames.clone()
    }

    /// The dataset's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Deref for HeldDataset {
    type Target = FrameSource;

    fn deref(&self) -> &FrameSource {
        &self.frames
    }
}

/// Opens a dataset that was generated, and keeps generations out.
///
/// # Errors
/// When there is no such dataset, or a generation of it is running.
pub(crate) fn open_dataset(workspace: &Workspace, name: &DatasetName) -> Result<HeldDataset, PipelineError> {
    let folder = dataset_folder(workspace, name)?;
    let lock = FolderLock::try_share(&folder)?;
    let frames = Arc::new(FrameSource::open(&folder, workspace.frame_cache())?);
    Ok(HeldDataset { frames, folder, _lock: lock })
}

/// Refuses a timepoint that the dataset does not have.
pub(crate) fn check_timepoint(dataset: &Dataset, name: &DatasetName, t: usize) -> Result<(), PipelineError> {
    let count = dataset.timepoint_count();
    if t < count {
        return Ok(());
    }
    Err(PipelineError::NotFound(format!("there is no timepoint {t}; the dataset {name} has {count}, counted from 0")))
}

/// Refuses a request for a 3-D dataset where the dataset is 2-D, and the reverse.
pub(crate) fn check_dimensions(dataset: &Dataset, name: &DatasetName, is_3d: bool) -> Result<(), PipelineError> {
    if dataset.is_3d() == is_3d {
        return Ok(());
    }
    let dims = |is_3d| if is_3d { "3-D" } else { "2-D" };
    let (found, asked) = (dims(dataset.is_3d()), dims(is_3d));
    Err(PipelineError::Invalid(format!(
        "the dataset is {found} but the request says {asked}; set is_3d to {} for {name}",
        dataset.is_3d()
    )))
}

/// An axis-parallel box of voxels, (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropBox {
    /// The first voxel.
    pub origin: [usize; 3],
    /// Edge lengths.
    pub size: [usize; 3],
}

impl CropBox {
    /// All voxels of an image of this shape.
    pub(crate) fn whole(shape: [usize; 3]) -> Self {
        Self { origin: [0; 3], size: shape }
    }
}

/// Normalisation of the stored intensities of a box for the network: to 0..=1, in 3-D optionally with
/// the same median in all planes (docs/method.md, "Input normalisation").
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Normalization {
    /// For each plane of the box how far its median is above that of the box; empty where medians stay as they are.
    excess: Vec<f32>,
    /// The range after that.
    range: IntensityRange,
}

impl Normalization {
    /// The normalisation of a box of frame `t`. With `use_median`, the median of each plane is
    /// first moved to that of the box, unless it is 0 or the dataset is 2-D.
    ///
    /// # Errors
    /// When the box cannot be read or the task is cancelled.
    pub fn new(
        frames: &FrameSource,
        t: usize,
        CropBox { origin, size }: CropBox,
        use_median: bool,
        cancel: &CancelToken,
    ) -> Result<Self, VolumeError> {
        let range = |extent: Extent| IntensityRange::new(extent.min.into(), extent.max.into());
        if !use_median || !frames.dataset().is_3d() {
            return Ok(Self { excess: Vec::new(), range: range(frames.extent(t, origin, size, cancel)?) });
        }
        let medians = frames.medians(t, origin, size, cancel)?;
        let excess = |median: f32| if median > 0.0 { median - medians.all } else { 0.0 };
        let moved = medians.planes.iter().map(|&(extent, median)| range(extent).minus(excess(median)));
        let range = moved.fold(IntensityRange::EMPTY, IntensityRange::and);
        Ok(Self { excess: medians.planes.iter().map(|&(_, median)| excess(median)).collect(), range })
    }

    /// Normalises stored intensities of the box, from its plane `z` on.
    pub fn apply(&self, z: usize, mut image: ArrayViewMut3<'_, f32>) {
        if !self.excess.is_empty() {
            image.axis_iter_mut(Axis(0)).into_par_iter().zip(&self.excess[z..]).for_each(|(mut plane, excess)| {
                plane.mapv_inplace(|value| value - excess);
            });
        }
        self.range.scale(image);
    }
}

#[cfg(test)]
mod tests {
    use elephant_image::normalize;
    use elephant_testkit::{golden, read_npy};
    use elephant_types::{Coded, ErrorCode};
    use elephant_volume::{DataType, DatasetShape, FrameCache};
    use ndarray::{Array3, Ix3, s};

    use super::*;

    fn frames(folder: &Path, image: &Array3<u16>) -> FrameSource {
        let shape = DatasetShape { timepoints: 2, frame: image.dim().into(), is_3d: true };
        let dataset = Dataset::create(folder, shape, DataType::U16).unwrap();
        let frame = image.view().insert_axis(Axis(0)).into_dyn();
        dataset.store(Store::Images).write(&[1, 0, 0, 0], frame).unwrap();
        FrameSource::open(folder, &FrameCache::default()).unwrap()
    }

    fn normalized(frames: &FrameSource, t: usize, part: CropBox, use_median: bool) -> Array3<f32> {
        let cancel = CancelToken::default();
        let normalization = Normalization::new(frames, t, part, use_median, &cancel).unwrap();
        let mut image = Array3::zeros(part.size);
        // In two pieces.
        let (mut front, mut back) = image.view_mut().split_at(Axis(0), 1);
        frames.read(t, part.origin, front.view_mut(), &cancel).unwrap();
        let [z, y, x] = part.origin;
        frames.read(t, [z + 1, y, x], back.view_mut(), &cancel).unwrap();
        normalization.apply(0, front);
        normalization.apply(1, back);
        image
    }

    #[test]
    fn intensities_of_a_box_fill_zero_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let image = Array3::from_shape_fn((5, 8, 9), |(z, y, x)| (400 * z + 3 * y * x % 37) as u16);
        let frames = frames(folder.path(), &image);
        let part = CropBox { origin: [1, 2, 3], size: [4, 5, 6] };
        let mut expected = image.slice(s![1..5, 2..7, 3..9]).mapv(f32::from);
        normalize(expected.view_mut());
        assert_eq!(normalized(&frames, 1, part, false), expected);
        let blank = normalized(&frames, 0, CropBox::whole([5, 8, 9]), false);
        assert!(blank.iter().all(|&value| value == 0.0));
        let outside = CropBox { origin: [1, 2, 3], size: [5, 5, 6] };
        assert!(Normalization::new(&frames, 1, outside, false, &CancelToken::default()).is_err());
    }

    #[test]
    fn equalised_medians_are_those_of_numpy() {
        for name in ["odd", "even"] {
            // Their values are multiples of 1/1000, and stores hold whole numbers.
            let read =
                |name: String| read_npy(&golden("image").join(name)).into_dimensionality::<Ix3>().unwrap() * 1000.0;
            let image = read(format!("median_{name}_input.npy")).mapv(|value| value.round() as u16);
            let mut expected = read(format!("median_{name}.npy"));
            normalize(expected.view_mut());
            let folder = tempfile::tempdir().unwrap();
            let part = CropBox::whole(image.dim().into());
            let found = normalized(&frames(folder.path(), &image), 1, part, true);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{name}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_cancelled_scan_stops() {
        let folder = tempfile::tempdir().unwrap();
        let frames = frames(folder.path(), &Array3::zeros((2, 3, 4)));
        let cancel = CancelToken::default();
        cancel.cancel();
        for use_median in [false, true] {
            let error = Normalization::new(&frames, 1, CropBox::whole([2, 3, 4]), use_median, &cancel).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Cancelled);
        }
    }
}
