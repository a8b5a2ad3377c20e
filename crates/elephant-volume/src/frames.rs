//! The one way to the voxels of a dataset's frames.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use elephant_fs::FileVersion;
use elephant_types::CancelToken;
use ndarray::{ArrayViewMut3, ArrayViewMutD, Axis};
use rayon::prelude::*;

use crate::{
    ChunkCache, DataType, Dataset, Extent, Medians, Store, VolumeError,
    intensities::{Histogram, Intensity, Remembered},
};

/// Chunks that are read at once at least, so that all threads have some.
const CHUNKS_AT_ONCE: usize = 32;
/// Bytes of decoded chunks that are kept for the next reader: what a row of tiles of a large frame touches, or two frames
/// that crops are cut from.
const CACHE_BYTES: usize = 256 << 20;

/// Decoded chunks, and intensity ranges and medians, shared by all readers of frames. Clones share state.
#[derive(Clone, Debug)]
pub struct FrameCache {
    chunks: ChunkCache,
    extents: Remembered<BoxKey, Extent>,
    medians: Remembered<BoxKey, Arc<Medians>>,
}

impl Default for FrameCache {
    fn default() -> Self {
        Self { chunks: ChunkCache::new(CACHE_BYTES), extents: Remembered::default(), medians: Remembered::default() }
    }
}

impl FrameCache {
    /// Bytes by which the cache may still grow.
    pub fn room(&self) -> usize {
        self.chunks.room()
    }
}

/// A box of frame `t`, (z, y, x), that lies inside the frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct FrameBox {
    t: usize,
    origin: [usize; 3],
    size: [usize; 3],
}

/// A box in one version of a dataset's images.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct BoxKey {
    images: PathBuf,
    /// Versions of the metadata file and of the folder, which changes when a chunk is replaced in it.
    versions: [FileVersion; 2],
    frame_box: FrameBox,
}

/// The frames of a dataset: their intensities, what is known of these, and their labels. Boxes are given by their origin
/// and size, (z, y, x) in voxels; a 2-D dataset has one plane.
///
/// Chunks go through a [`FrameCache`], which never serves one that was replaced.
#[derive(Debug)]
pub struct FrameSource {
    dataset: Dataset,
    cache: FrameCache,
}

impl FrameSource {
    /// Opens the dataset in `folder`.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open(folder: &Path, cache: &FrameCache) -> Result<Self, VolumeError> {
        Ok(Self { dataset: Dataset::open(folder)?, cache: cache.clone() })
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Size of a frame (z, y, x); z is 1 in 2-D.
    pub fn shape(&self) -> [usize; 3] {
        self.dataset.frame_shape()
    }

    /// The cache of decoded chunks.
    pub(crate) fn chunk_cache(&self) -> &ChunkCache {
        &self.cache.chunks
    }

    /// Reads the intensities of the box of frame `t` that begins at `origin`, as stored. Looks between chunks whether it is
    /// cancelled.
    ///
    /// # Errors
    /// When the box leaves the movie, a chunk is damaged, or the task is cancelled.
    pub fn read(
        &self,
        t: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), VolumeError> {
        let images = self.dataset.store(Store::Images);
        self.check_box(t, origin, out.dim().into())?;
        let (start, out) = (self.dataset.with_time(t, origin), self.with_stored_axes(out));
        let chunks = &self.cache.chunks;
        match images.data_type() {
            DataType::U8 => images.read_cached(chunks, &start, out, |voxel: u8| f32::from(voxel), cancel),
            _ => images.read_cached(chunks, &start, out, |voxel: u16| f32::from(voxel), cancel),
        }
    }

    /// Reads the labels of the box of frame `t` that begins at `origin`, as stored.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_labels(
        &self,
        t: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, u8>,
        cancel: &CancelToken,
    ) -> Result<(), VolumeError> {
        self.check_box(t, origin, out.dim().into())?;
        let (start, out) = (self.dataset.with_time(t, origin), self.with_stored_axes(out));
        let labels = self.dataset.store(Store::SegLabels);
        labels.read_cached(&self.cache.chunks, &start, out, |label: u8| label, cancel)
    }

    /// The lowest and the highest intensity of a box of frame `t`. It is remembered until the images change.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn extent(
        &self,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        cancel: &CancelToken,
    ) -> Result<Extent, VolumeError> {
        let frame_box = self.check_box(t, origin, size)?;
        self.remembered(&self.cache.extents, frame_box, || {
            let planes = match self.dataset.store(Store::Images).data_type() {
                DataType::U8 => self.map_planes(frame_box, Extent::of_values::<u8>, cancel)?,
                _ => self.map_planes(frame_box, Extent::of_values::<u16>, cancel)?,
            };
            Ok(planes.into_iter().fold(Extent::EMPTY, Extent::and))
        })
    }

    /// The medians of a box of frame `t`, which has voxels. They are remembered until the images change.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn medians(
        &self,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        cancel: &CancelToken,
    ) -> Result<Arc<Medians>, VolumeError> {
        let frame_box = self.check_box(t, origin, size)?;
        self.remembered(&self.cache.medians, frame_box, || {
            Ok(Arc::new(match self.dataset.store(Store::Images).data_type() {
                DataType::U8 => self.count::<u8>(frame_box, cancel)?,
                _ => self.count::<u16>(frame_box, cancel)?,
            }))
        })
    }

    /// What was computed of a box, or what `compute` returns, which is remembered if the images cannot change unnoticed.
    fn remembered<V: Clone>(
        &self,
        values: &Remembered<BoxKey, V>,
        frame_box: FrameBox,
        compute: impl FnOnce() -> Result<V, VolumeError>,
    ) -> Result<V, VolumeError> {
        let images = self.dataset.store(Store::Images);
        let folder = images.folder();
        let versions = [FileVersion::of(&folder.join(".zarray"))?, FileVersion::of(folder)?];
        // Judged before the images are read: a version that settles meanwhile may have been replaced before it did. Chunks in
        // folders of their own change without a trace in the store's folder.
        let is_certain = images.has_flat_keys() && versions.iter().all(FileVersion::is_settled);
        if !is_certain {
            return compute();
        }
        let key = BoxKey { images: folder.to_owned(), versions, frame_box };
        if let Some(value) = values.get(&key) {
            return Ok(value);
        }
        let value = compute()?;
        values.insert(key, value.clone());
        Ok(value)
    }

    fn count<T: Intensity>(&self, frame_box: FrameBox, cancel: &CancelToken) -> Result<Medians, VolumeError> {
        let all = Mutex::new(Histogram::new());
        let plane = |values: &[T]| {
            let histogram = Histogram::of_values(values);
            all.lock().unwrap_or_else(PoisonError::into_inner).add(&histogram);
            (Extent::of_values(values), histogram.median())
        };
        let planes = self.map_planes(frame_box, plane, cancel)?;
        let all = all.into_inner().unwrap_or_else(PoisonError::into_inner).median();
        Ok(Medians { planes, all })
    }

    /// Applies `plane` to the stored intensities of each plane of a box, row by row, and returns the results in ascending z.
    fn map_planes<T: Intensity, R: Send>(
        &self,
        frame_box: FrameBox,
        plane: impl Fn(&[T]) -> R + Sync,
        cancel: &CancelToken,
    ) -> Result<Vec<R>, VolumeError> {
        let FrameBox { t, origin, size } = frame_box;
        let images = self.dataset.store(Store::Images);
        let plane_len = size[1] * size[2];
        // A box that does not fit into the cache would drive out what is in it for nothing.
        let is_kept = size_of::<T>().saturating_mul(size[0]).saturating_mul(plane_len) <= self.cache.chunks.capacity();
        let (mut results, mut voxels) = (Vec::with_capacity(size[0]), Vec::new());
        for slab in self.slabs(origin[0]..origin[0] + size[0]) {
            cancel.check()?;
            voxels.resize(slab.len() * plane_len, T::zeroed());
            let start = self.dataset.with_time(t, [slab.start, origin[1], origin[2]]);
            let shape = self.dataset.with_time(1, [slab.len(), size[1], size[2]]);
            let out = ArrayViewMutD::from_shape(shape, &mut voxels).expect("the buffer has the slab's length");
            if is_kept {
                images.read_cached(&self.cache.chunks, &start, out, |value: T| value, cancel)?;
            } else {
                images.read(&start, out)?;
            }
            results.par_extend(voxels.par_chunks_exact(plane_len.max(1)).map(&plane));
        }
        Ok(results)
    }

    /// The planes `z`, cut where the chunks of the images end, so that no chunk is decoded twice. A slab has as few planes as
    /// keep all threads busy, because that is what is in memory at once.
    fn slabs(&self, z: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        // (t, z, y, x), without z in 2-D.
        let depth = match *self.dataset.store(Store::Images).chunks() {
            [_, z, y, x] => {
                let [_, height, width] = self.shape();
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

    /// Bytes that reading frames takes at the most, besides what is read: room for the cache to grow, and the planes that
    /// are scanned at once.
    pub fn reading_bytes(&self) -> u64 {
        let [depth, height, width] = self.shape();
        let longest = self.slabs(0..depth).map(|slab| slab.len()).max().unwrap_or(0);
        let value = self.dataset.store(Store::Images).data_type().size();
        let scanned = [longest, height, width, value].iter().fold(1, |bytes: u64, &n| bytes.saturating_mul(n as u64));
        scanned.saturating_add(self.cache.room() as u64)
    }

    /// The box of frame `t` that begins at `origin` and has `size`.
    ///
    /// # Errors
    /// When it leaves the movie.
    fn check_box(&self, t: usize, origin: [usize; 3], size: [usize; 3]) -> Result<FrameBox, VolumeError> {
        let frame = self.shape();
        let inside = (0..3).all(|axis| origin[axis].checked_add(size[axis]).is_some_and(|end| end <= frame[axis]));
        if inside && t < self.dataset.timepoint_count() {
            return Ok(FrameBox { t, origin, size });
        }
        let store = self.dataset.store(Store::Images).name().to_owned();
        let reason =
            format!("the box {size:?} at {origin:?} of timepoint {t} is not inside {:?}", self.dataset.shape());
        Err(VolumeError::Access { store, reason })
    }

    /// A box (z, y, x) with the axes of the stores: (t, z, y, x), or (t, y, x) in 2-D.
    fn with_stored_axes<'a, T>(&self, view: ArrayViewMut3<'a, T>) -> ArrayViewMutD<'a, T> {
        // A 2-D dataset's stores have no z, which is the axis of the one timepoint then.
        if self.dataset.is_3d() { view.insert_axis(Axis(0)).into_dyn() } else { view.into_dyn() }
    }
}
