//! The store that holds flow labels.

use elephant_image::FlowLabelFrame;
use elephant_types::{CancelToken, TaskContext};
use elephant_volume::{ArrayStore, ChunkChange, ChunkEncoder, Dataset, Store};
use ndarray::{Array2, s};

use crate::{
    PipelineError,
    plane_parts::{Part, PlaneParts, wrong_chunks},
};

/// The store of flow labels, whose chunks are parts of planes of one channel.
pub(super) struct FlowLabelStore<'a> {
    store: &'a ArrayStore,
    /// Each is a chunk of its own in each channel.
    parts: PlaneParts,
    /// Components of a displacement, and the weight.
    channels: usize,
}

impl<'a> FlowLabelStore<'a> {
    /// The store of a dataset.
    ///
    /// # Errors
    /// When it is not cut into chunks as the original's is.
    pub fn of(dataset: &'a Dataset) -> Result<Self, PipelineError> {
        let store = dataset.store(Store::FlowLabels);
        let shape = dataset.shape();
        let edges = match (shape.is_3d, store.chunks()) {
            (true, &[1, 1, 1, y, x]) | (false, &[1, 1, y, x]) if y > 0 && x > 0 => [y, x],
            _ => return Err(wrong_chunks(store)),
        };
        Ok(Self { store, parts: PlaneParts { shape, edges }, channels: dataset.flow_channels() + 1 })
    }

    /// Replaces all flow labels of pair `t` by the drawing, or removes them. Only chunks with labels have files.
    ///
    /// # Errors
    /// When the disk is full or the task is cancelled. Some chunks may be replaced then.
    pub fn replace(
        &self,
        t: usize,
        frame: Option<&FlowLabelFrame>,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        let bytes = self.channels * self.parts.edges[0] * self.parts.edges[1] * size_of::<f32>();
        self.parts.replace(
            bytes,
            context,
            || self.store.chunk_encoder(),
            |encoder, part| {
                let (origin, size) = self.parts.area(part);
                match frame {
                    Some(frame) if frame.reaches(part.z, origin, size) => {
                        self.draw(t, part, frame, encoder, context.cancel_token())
                    }
                    _ => self.erase(t, part),
                }
            },
        )
    }

    /// The chunk of a part in a channel.
    fn chunk(&self, t: usize, channel: usize, part: Part) -> Vec<usize> {
        let [y, x] = part.place;
        if self.parts.shape.is_3d { vec![t, channel, part.z, y, x] } else { vec![t, channel, y, x] }
    }

    /// The part's labels in all channels.
    fn draw(
        &self,
        t: usize,
        part: Part,
        frame: &FlowLabelFrame,
        encoder: &mut ChunkEncoder<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<Vec<ChunkChange>, PipelineError> {
        let (origin, [height, width]) = self.parts.area(part);
        let mut numbers = Array2::zeros(self.parts.edges);
        frame.draw_numbers(part.z, origin, numbers.slice_mut(s![..height, ..width]), cancel)?;
        (0..self.channels)
            .map(|channel| {
                for (value, &number) in encoder.elements().iter_mut().zip(&numbers) {
                    *value = frame.value(number, channel);
                }
                Ok(encoder.encode(&self.chunk(t, channel, part))?)
            })
            .collect()
    }

    fn erase(&self, t: usize, part: Part) -> Result<Vec<ChunkChange>, PipelineError> {
        (0..self.channels).map(|channel| Ok(self.store.blank_chunk(&self.chunk(t, channel, part))?)).collect()
    }
}
