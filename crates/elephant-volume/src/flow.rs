//! The stores of displacements: fields of pairs of frames, what they were computed with, and labels.

use half::f16;
use ndarray::{ArrayD, ArrayView4, ArrayViewMut3, ArrayViewMut4, Axis, IxDyn};
use tempfile::TempDir;

use elephant_types::CancelToken;

use crate::{Dataset, FrameSource, StagedBox, Store, VolumeError};

/// What a field was computed with: sixteen bytes of text; zeros where there is no field.
pub type FlowHash = [u8; 16];

impl Dataset {
    /// Axes along which cells move: 3, or 2 in a 2-D dataset. As many channels has a field, in the order x, y, z.
    pub fn flow_channels(&self) -> usize {
        if self.is_3d() { 3 } else { 2 }
    }

    /// Begins to write the field of a pair of frames, of which `pair` is the earlier one. `folder` is an empty folder for the
    /// writer alone.
    ///
    /// # Errors
    /// When there is no such pair.
    pub fn flow_writer(&self, pair: usize, folder: TempDir) -> Result<FlowWriter<'_>, VolumeError> {
        let store = self.store(Store::FlowOutputs);
        let mut shape = store.shape().to_vec();
        shape[0] = 1;
        let start = self.flow_start(pair, 0, [0; 3]);
        Ok(FlowWriter { dataset: self, pair, staged: StagedBox::new(store, &start, &shape, folder)? })
    }

    /// Reads the box of a pair's field that begins at `origin`, (z, y, x), in voxels of displacement along (x, y, z) (2-D: x,
    /// y), into `out`, (channel, z, y, x). Not a number in chunks that were never written.
    ///
    /// # Errors
    /// When the box leaves the movie or a chunk is damaged.
    pub fn read_flow(&self, pair: usize, origin: [usize; 3], out: ArrayViewMut4<'_, f32>) -> Result<(), VolumeError> {
        let start = self.flow_start(pair, 0, origin);
        let out = if self.is_3d() { out.insert_axis(Axis(0)).into_dyn() } else { without_z(out)? };
        self.store(Store::FlowOutputs).read_or(&start, out, f32::NAN, |value: f16| value.to_f32())
    }

    /// What a pair's field was computed with; `None` where there is no field.
    ///
    /// # Errors
    /// When there is no such pair or the store is damaged.
    pub fn flow_hash(&self, pair: usize) -> Result<Option<FlowHash>, VolumeError> {
        let mut hash = ArrayD::from_elem(IxDyn(&[1]), FlowHash::default());
        self.store(Store::FlowHashes).read(&[pair], hash.view_mut())?;
        Ok(hash.first().copied().filter(|hash| *hash != FlowHash::default()))
    }

    /// Notes what a pair's field was computed with; `None` for that there is none. Two writers must take turns, whichever the
    /// pairs. A damaged chunk is replaced, and the fields in it are forgotten.
    ///
    /// # Errors
    /// When there is no such pair or the disk is full.
    pub fn set_flow_hash(&self, pair: usize, hash: Option<FlowHash>) -> Result<(), VolumeError> {
        let store = self.store(Store::FlowHashes);
        store.check_box(&[pair], &[1])?;
        let mut hashes = ArrayD::from_elem(IxDyn(store.shape()), FlowHash::default());
        match store.read(&[0], hashes.view_mut()) {
            Err(VolumeError::Chunk { .. }) => hashes.fill(FlowHash::default()),
            read => read?,
        }
        hashes[[pair]] = hash.unwrap_or_default();
        store.write(&[0], hashes.view())
    }

    /// (pair, channel, z, y, x), or without z in 2-D.
    fn flow_start(&self, pair: usize, channel: usize, zyx: [usize; 3]) -> Vec<usize> {
        [&[pair, channel], &zyx[usize::from(!self.is_3d())..]].concat()
    }
}

/// A 2-D dataset's box (channel, z, y, x) as (pair, channel, y, x).
fn without_z(out: ArrayViewMut4<'_, f32>) -> Result<ndarray::ArrayViewMutD<'_, f32>, VolumeError> {
    if out.len_of(Axis(1)) == 1 {
        return Ok(out.index_axis_move(Axis(1), 0).insert_axis(Axis(0)).into_dyn());
    }
    let reason = format!("a box of {} planes is not in a 2-D dataset", out.len_of(Axis(1)));
    Err(VolumeError::Access { store: Store::FlowOutputs.folder().to_owned(), reason })
}

impl FrameSource {
    /// Reads a channel of the flow labels of a pair, of which `t` is the earlier frame, in the box that begins at `origin`:
    /// components along x, y and, in 3-D, z, then the weight.
    ///
    /// # Errors
    /// As [`read`](Self::read); also when there is no such pair.
    pub fn read_flow_labels(
        &self,
        t: usize,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), VolumeError> {
        let dataset = self.dataset();
        let start = dataset.flow_start(t, channel, origin);
        // (pair, channel, z, y, x), or without z in 2-D, where it is the axis of the one channel.
        let out = out.insert_axis(Axis(0));
        let out = if dataset.is_3d() { out.insert_axis(Axis(0)).into_dyn() } else { out.into_dyn() };
        dataset.store(Store::FlowLabels).read_cached(self.chunk_cache(), &start, out, |value: f32| value, cancel)
    }
}

/// The field of a pair of frames, written aside plane by plane and put into the dataset at once. Dropped before that, it
/// leaves the dataset as it was.
#[derive(Debug)]
pub struct FlowWriter<'a> {
    dataset: &'a Dataset,
    pair: usize,
    staged: StagedBox<'a>,
}

impl FlowWriter<'_> {
    /// Writes displacements in voxels, (channel, z, y, x), for the planes from `z` on.
    ///
    /// # Errors
    /// When the planes leave the movie or the disk is full.
    #[allow(clippy::needless_pass_by_value, reason = "a view is already a reference")]
    pub fn write(&self, z: usize, planes: ArrayView4<'_, f32>) -> Result<(), VolumeError> {
        let start = self.dataset.flow_start(self.pair, 0, [z, 0, 0]);
        let view = if self.dataset.is_3d() {
            planes.insert_axis(Axis(0)).into_dyn()
        } else {
            planes.index_axis_move(Axis(1), 0).insert_axis(Axis(0)).into_dyn()
        };
        self.staged.write_as(&start, view, f16::from_f32)
    }

    /// Puts the field into the dataset, after all planes were written.
    ///
    /// # Errors
    /// As [`StagedBox::publish`].
    pub fn publish(self) -> Result<(), VolumeError> {
        self.staged.publish::<f16>()
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::CancelToken;
    use ndarray::{Array3, Array4, s};

    use super::*;
    use crate::{DataType, DatasetShape, FrameCache};

    fn dataset(folder: &std::path::Path, is_3d: bool) -> Dataset {
        let frame = [if is_3d { 3 } else { 1 }, 5, 7];
        Dataset::create(folder, DatasetShape { timepoints: 4, frame, is_3d }, DataType::U8).unwrap()
    }

    #[test]
    fn fields_and_hashes_come_back() {
        for is_3d in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let dataset = dataset(folder.path(), is_3d);
            let (channels, depth) = (dataset.flow_channels(), dataset.frame_shape()[0]);
            let field =
                Array4::from_shape_fn((channels, depth, 5, 7), |(c, z, y, x)| (100 * c + 35 * z + 7 * y + x) as f32);
            let writer = dataset.flow_writer(1, tempfile::tempdir_in(folder.path()).unwrap()).unwrap();
            for z in 0..depth {
                writer.write(z, field.slice(s![.., z..=z, .., ..])).unwrap();
            }
            assert_eq!(dataset.flow_hash(1).unwrap(), None);
            writer.publish().unwrap();
            dataset.set_flow_hash(1, Some(*b"0123456789abcdef")).unwrap();
            dataset.set_flow_hash(2, Some([7; 16])).unwrap();
            let reopened = Dataset::open(folder.path()).unwrap();
            let mut found = Array4::zeros((channels, 1, 3, 4));
            reopened.read_flow(1, [depth - 1, 2, 3], found.view_mut()).unwrap();
            assert_eq!(found, field.slice(s![.., depth - 1.., 2.., 3..]));
            assert_eq!(reopened.flow_hash(1).unwrap(), Some(*b"0123456789abcdef"));
            reopened.set_flow_hash(1, None).unwrap();
            assert_eq!((reopened.flow_hash(1).unwrap(), reopened.flow_hash(2).unwrap()), (None, Some([7; 16])));
            assert!(reopened.flow_hash(3).is_err() && reopened.set_flow_hash(3, None).is_err());
            assert!(reopened.flow_writer(3, tempfile::tempdir().unwrap()).is_err());
            assert!(reopened.read_flow(0, [0, 4, 4], found.view_mut()).is_err(), "the box leaves the frame");
            reopened.read_flow(0, [0, 0, 0], found.view_mut()).unwrap();
            assert!(found.iter().all(|value| value.is_nan()), "a pair without a field has no displacements");
        }
    }

    #[test]
    fn labels_are_read_by_channel() {
        for is_3d in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let dataset = dataset(folder.path(), is_3d);
            let store = dataset.store(Store::FlowLabels);
            let mut shape = store.shape().to_vec();
            shape[0] = 1;
            let labels = ArrayD::from_shape_fn(IxDyn(&shape), |at| at[1] as f32);
            let mut start = vec![0; shape.len()];
            start[0] = 2;
            store.write(&start, labels.view()).unwrap();
            let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
            let (cancel, mut out) = (CancelToken::default(), Array3::zeros((1, 2, 3)));
            for channel in 0..=dataset.flow_channels() {
                frames.read_flow_labels(2, channel, [0, 1, 1], out.view_mut(), &cancel).unwrap();
                assert!(out.iter().all(|&value| value == channel as f32));
            }
            assert!(frames.read_flow_labels(3, 0, [0; 3], out.view_mut(), &cancel).is_err());
        }
    }
}
