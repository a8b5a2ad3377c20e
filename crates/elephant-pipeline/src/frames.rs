//! Datasets and their frames, as prediction and training look at them.

use std::{
    ops::{Deref, Range},
    path::{Path, PathBuf},
};

use elephant_fs::FolderLock;
use elephant_image::{IntensityRange, median_correction};
use elephant_types::{CancelToken, Cancelled, DatasetName};
use elephant_volume::{DataType, Dataset, Store, VolumeError};
use ndarray::{Array3, ArrayViewMut3, Axis, Slice};
use rayon::prelude::*;

use crate::{PipelineError, Workspace};

/// Chunks that are read at once at least, so that all threads have some.
const CHUNKS_AT_ONCE: usize = 32;

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

/// The planes `z`, cut where the chunks of the images end, so that no chunk is decoded twice. A slab has as few planes as keep
/// all threads busy, because the caller looks between slabs whether it is cancelled.
pub(crate) fn slabs(dataset: &Dataset, z: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    // (t, z, y, x), without z in 2-D.
    let depth = match *dataset.store(Store::Images).chunks() {
        [_, z, y, x] => {
            let [_, height, width] = dataset.frame_shape();
            let in_plane = height.div_ceil(y.max(1)).saturating_mul(width.div_ceil(x.max(1)));
            z.max(1).saturating_mul(CHUNKS_AT_ONCE.div_ceil(in_plane.max(1)))
        }
        _ => 1,
    };
    let mut begin = z.start;
    std::iter::from_fn(move || {
        let slab = begin..(begin / depth).saturating_add(1).saturating_mul(depth).min(z.end);
        begin = slab.end;
        (!slab.is_empty()).then_some(slab)
    })
}

/// Reads the intensities of the box of frame `t` that begins at `origin`, (z, y, x), as stored.
fn read_into(dataset: &Dataset, t: usize, origin: [usize; 3], out: ArrayViewMut3<'_, f32>) -> Result<(), VolumeError> {
    let images = dataset.store(Store::Images);
    // A 2-D dataset's store has no z, which is the axis of the one timepoint then.
    let first = usize::from(!dataset.is_3d());
    let start: Vec<usize> = std::iter::once(t).chain(origin[first..].iter().copied()).collect();
    let out = if dataset.is_3d() { out.insert_axis(Axis(0)).into_dyn() } else { out.into_dyn() };
    match images.data_type() {
        DataType::U8 => images.read_as(&start, out, |voxel: u8| f32::from(voxel)),
        _ => images.read_as(&start, out, |voxel: u16| f32::from(voxel)),
    }
}

/// The part of frame `t` that begins at `origin` and has `size`, both (z, y, x), with intensities scaled to 0..=1 over
/// that part; in 3-D with the medians of its planes made equal before, if that is wanted (contract section 6.1). The
/// caller has set the memory aside. Looks again and again whether it is cancelled.
pub(crate) fn normalized_frame(
    dataset: &Dataset,
    t: usize,
    origin: [usize; 3],
    size: [usize; 3],
    use_median: bool,
    cancel: &CancelToken,
) -> Result<Array3<f32>, PipelineError> {
    let mut image = Array3::zeros(size);
    let depth = size[0];
    for slab in slabs(dataset, origin[0]..origin[0] + depth) {
        cancel.check()?;
        let planes = Slice::from(slab.start - origin[0]..slab.end - origin[0]);
        read_into(dataset, t, [slab.start, origin[1], origin[2]], image.slice_axis_mut(Axis(0), planes))?;
    }
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
    use elephant_volume::{ArrayStore, DatasetShape};
    use ndarray::Array4;

    use super::*;

    const SHAPE: DatasetShape = DatasetShape { timepoints: 2, frame: [5, 8, 9], is_3d: true };

    /// A dataset whose images have chunks that are so deep.
    fn with_chunk_depth(folder: &Path, depth: usize) -> Dataset {
        Dataset::create(folder, SHAPE, DataType::U8).unwrap();
        let images = folder.join("imgs.zarr");
        std::fs::remove_dir_all(&images).unwrap();
        ArrayStore::create(&images, &SHAPE.of(Store::Images), &[1, depth, 8, 9], DataType::U8).unwrap();
        Dataset::open(folder).unwrap()
    }

    #[test]
    fn slabs_end_where_chunks_end() {
        let cut =
            |depth, z| slabs(&with_chunk_depth(tempfile::tempdir().unwrap().path(), depth), z).collect::<Vec<_>>();
        assert_eq!(cut(1, 0..70), [0..32, 32..64, 64..70]);
        assert_eq!(cut(3, 100..200), [100..192, 192..200]);
        assert!(cut(3, 96..96).is_empty());
    }

    #[test]
    fn a_part_is_normalised_until_it_is_cancelled() {
        for depth in [1, 2, 5] {
            check_part(depth);
        }
    }

    fn check_part(chunk_depth: usize) {
        let folder = tempfile::tempdir().unwrap();
        let dataset = with_chunk_depth(folder.path(), chunk_depth);
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
