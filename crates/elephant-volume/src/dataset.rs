//! The seven arrays of a dataset (docs/method.md, "Zarr stores").

use std::path::Path;

use half::f16;
use ndarray::{ArrayView4, Axis};
use tempfile::TempDir;

use crate::{ArrayStore, DataType, StagedBox, VolumeError};

/// Longest edge of a chunk in y and x; chunks are one plane deep.
pub const CHUNK_EDGE: usize = 1024;
/// Classes of the segmentation: background, border, centre.
const CLASSES: usize = 3;

/// One of a dataset's arrays. Shapes are (t, z, y, x) and so on; in 2-D datasets z is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Intensities, (t, z, y, x), unsigned 8 or 16 bit.
    Images,
    /// Class probabilities of the segmentation, (t, z, y, x, class).
    SegOutputs,
    /// Segmentation labels, (t, z, y, x).
    SegLabels,
    /// The same as colours, (t, z, y, x, rgb).
    SegLabelsVis,
    /// Displacements to the timepoint before, (t − 1, axis, z, y, x).
    FlowOutputs,
    /// Labels of displacements and their weight, (t − 1, axis + weight, z, y, x).
    FlowLabels,
    /// What the displacements were computed with, (t − 1); never used by the original, but checked for.
    FlowHashes,
}

impl Store {
    /// All stores. The images come last: a folder that has them has everything.
    pub const ALL: [Self; 7] = [
        Self::FlowOutputs,
        Self::FlowHashes,
        Self::FlowLabels,
        Self::SegOutputs,
        Self::SegLabels,
        Self::SegLabelsVis,
        Self::Images,
    ];

    /// The name of the store's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Images => "imgs.zarr",
            Self::SegOutputs => "seg_outputs.zarr",
            Self::SegLabels => "seg_labels.zarr",
            Self::SegLabelsVis => "seg_labels_vis.zarr",
            Self::FlowOutputs => "flow_outputs.zarr",
            Self::FlowLabels => "flow_labels.zarr",
            Self::FlowHashes => "flow_hashes.zarr",
        }
    }

    /// What an element of the store is; `None` for the images, which are 8 or 16 bit.
    pub fn data_type(self) -> Option<DataType> {
        match self {
            Self::Images => None,
            Self::SegOutputs | Self::FlowOutputs => Some(DataType::F16),
            Self::SegLabels | Self::SegLabelsVis => Some(DataType::U8),
            Self::FlowLabels => Some(DataType::F32),
            Self::FlowHashes => Some(DataType::Bytes16),
        }
    }
}

/// The size of a movie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetShape {
    /// Timepoints.
    pub timepoints: usize,
    /// Size of a frame (z, y, x); z is 1 in 2-D.
    pub frame: [usize; 3],
    /// Whether the stores have a z axis.
    pub is_3d: bool,
}

impl DatasetShape {
    /// The axes of a frame: (z, y, x) or (y, x).
    pub fn spatial(&self) -> &[usize] {
        &self.frame[usize::from(!self.is_3d)..]
    }

    /// The shape of a store.
    pub fn of(&self, store: Store) -> Vec<usize> {
        let (times, pairs) = (self.timepoints, self.timepoints.saturating_sub(1));
        let spatial = self.spatial();
        let flow = |channels| [&[pairs, channels], spatial].concat();
        match store {
            Store::Images | Store::SegLabels => [&[times], spatial].concat(),
            Store::SegOutputs | Store::SegLabelsVis => [&[times], spatial, &[CLASSES]].concat(),
            Store::FlowOutputs => flow(spatial.len()),
            Store::FlowLabels => flow(spatial.len() + 1),
            Store::FlowHashes => vec![pairs],
        }
    }

    /// The chunk shape of a store.
    fn chunks_of(&self, store: Store) -> Vec<usize> {
        let [_, y, x] = self.frame;
        let plane = [1, y.min(CHUNK_EDGE), x.min(CHUNK_EDGE)];
        let plane = &plane[usize::from(!self.is_3d)..];
        match store {
            Store::Images | Store::SegLabels => [&[1], plane].concat(),
            Store::SegOutputs | Store::SegLabelsVis => [&[1], plane, &[1]].concat(),
            Store::FlowOutputs | Store::FlowLabels => [&[1, 1], plane].concat(),
            Store::FlowHashes => vec![self.timepoints.saturating_sub(1)],
        }
    }

    /// The size of a movie whose images have the shape (t, z, y, x) or (t, y, x).
    pub fn from_images(shape: &[usize]) -> Option<Self> {
        match *shape {
            [timepoints, z, y, x] => Some(Self { timepoints, frame: [z, y, x], is_3d: true }),
            [timepoints, y, x] => Some(Self { timepoints, frame: [1, y, x], is_3d: false }),
            _ => None,
        }
    }
}

/// A dataset's stores, opened together.
#[derive(Debug)]
pub struct Dataset {
    shape: DatasetShape,
    /// In the order of [`Store::ALL`].
    stores: Vec<ArrayStore>,
}

impl Dataset {
    /// Makes the seven stores, all blank, in `folder`. `images` is [`DataType::U8`] or [`DataType::U16`].
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn create(folder: &Path, shape: DatasetShape, images: DataType) -> Result<Self, VolumeError> {
        let create = |store: Store| {
            let data_type = store.data_type().unwrap_or(images);
            ArrayStore::create(&folder.join(store.folder()), &shape.of(store), &shape.chunks_of(store), data_type)
        };
        Ok(Self { shape, stores: Store::ALL.into_iter().map(create).collect::<Result<_, _>>()? })
    }

    /// Opens the dataset in `folder` and checks that its stores belong together.
    ///
    /// # Errors
    /// When a store is missing, damaged or of another shape or type than the images ask for.
    pub fn open(folder: &Path) -> Result<Self, VolumeError> {
        let stores: Vec<_> = Store::ALL
            .into_iter()
            .map(|store| ArrayStore::open(&folder.join(store.folder())))
            .collect::<Result<_, _>>()?;
        let images = stores.last().map(ArrayStore::shape).unwrap_or_default();
        let shape = DatasetShape::from_images(images).ok_or_else(|| VolumeError::Mismatch {
            store: Store::Images.folder().to_owned(),
            reason: format!("its shape {images:?} is neither (t, z, y, x) nor (t, y, x)"),
        })?;
        for (store, array) in Store::ALL.into_iter().zip(&stores) {
            check(store, array, shape)?;
        }
        Ok(Self { shape, stores })
    }

    /// The size of the movie.
    pub fn shape(&self) -> DatasetShape {
        self.shape
    }

    /// Timepoints of the movie.
    pub fn timepoint_count(&self) -> usize {
        self.shape.timepoints
    }

    /// Size of a frame (z, y, x); z is 1 in 2-D.
    pub fn frame_shape(&self) -> [usize; 3] {
        self.shape.frame
    }

    /// Whether the stores have a z axis.
    pub fn is_3d(&self) -> bool {
        self.shape.is_3d
    }

    /// One of the arrays.
    pub fn store(&self, store: Store) -> &ArrayStore {
        let index = Store::ALL.iter().position(|&other| other == store).expect("the list has every store");
        &self.stores[index]
    }

    /// Begins to write class probabilities for the box of frame `t` that begins at `origin` and has `size`, both (z, y, x).
    /// `folder` is an empty folder for the writer alone.
    ///
    /// # Errors
    /// When the box leaves the movie.
    pub fn probability_writer(
        &self,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        folder: TempDir,
    ) -> Result<ProbabilityWriter<'_>, VolumeError> {
        let start = [self.with_time(t, origin), vec![0]].concat();
        let shape = [self.with_time(1, size), vec![CLASSES]].concat();
        let staged = StagedBox::new(self.store(Store::SegOutputs), &start, &shape, folder)?;
        Ok(ProbabilityWriter { dataset: self, t, origin, staged })
    }

    /// (t, z, y, x), or (t, y, x) in 2-D.
    pub(crate) fn with_time(&self, t: usize, zyx: [usize; 3]) -> Vec<usize> {
        [&[t], &zyx[usize::from(!self.shape.is_3d)..]].concat()
    }
}

/// Class probabilities of a box of a frame, written aside plane by plane and put into the dataset at once. Dropped before
/// that, they leave the dataset as it was.
#[derive(Debug)]
pub struct ProbabilityWriter<'a> {
    dataset: &'a Dataset,
    t: usize,
    origin: [usize; 3],
    staged: StagedBox<'a>,
}

impl ProbabilityWriter<'_> {
    /// Writes probabilities of all three classes, (class, z, y, x), for the planes of the box from its plane `z` on.
    ///
    /// # Errors
    /// When the planes leave the movie or the disk is full.
    #[allow(clippy::needless_pass_by_value, reason = "a view is already a reference")]
    pub fn write(&self, z: usize, planes: ArrayView4<'_, f32>) -> Result<(), VolumeError> {
        // (class, z, y, x) → (z, y, x, class), with z or, where the stores have no z axis, t in front.
        let mut view = planes.permuted_axes([1, 2, 3, 0]).into_dyn();
        let [first, y, x] = self.origin;
        let start = [self.dataset.with_time(self.t, [first + z, y, x]), vec![0]].concat();
        if self.dataset.is_3d() || view.len_of(Axis(0)) != 1 {
            view = view.insert_axis(Axis(0));
        }
        self.staged.write_as(&start, view, f16::from_f32)
    }

    /// Puts the probabilities into the dataset, after all planes were written.
    ///
    /// # Errors
    /// As [`StagedBox::publish`].
    pub fn publish(self) -> Result<(), VolumeError> {
        self.staged.publish::<f16>()
    }
}

fn check(store: Store, array: &ArrayStore, shape: DatasetShape) -> Result<(), VolumeError> {
    let mismatch = |reason| Err(VolumeError::Mismatch { store: store.folder().to_owned(), reason });
    let expected = shape.of(store);
    if array.shape() != expected {
        return mismatch(format!("its shape is {:?}, {expected:?} is expected", array.shape()));
    }
    let fits = match store.data_type() {
        Some(data_type) => array.data_type() == data_type,
        None => matches!(array.data_type(), DataType::U8 | DataType::U16),
    };
    if fits { Ok(()) } else { mismatch(format!("its data type is {:?}", array.data_type())) }
}
