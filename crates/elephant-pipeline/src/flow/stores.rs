//! The store that holds flow labels.

use elephant_image::FlowLabelFrame;
use elephant_types::{CancelToken, TaskContext};
use elephant_volume::{ArrayStore, ChunkChange, ChunkEncoder, Dataset, DatasetShape, Store};
use ndarray::{Array2, s};
use rayon::prelude::*;

use crate::PipelineError;

/// How much is drawn before it is written, in bytes before compression.
const MAX_ENCODED_BYTES: usize = 128 << 20;

/// The store of flow labels, whose chunks are parts of planes of one channel.
pub(super) struct FlowLabelStore<'a> {
    store: &'a ArrayStore,
    shape: DatasetShape,
    /// Components of a displacement, and the weight.
    channels: usize,
    /// Edges of a chunk, (y, x).
    edges: [usize; 2],
}

/// Part of a plane that is a chunk of its own in each channel.
#[derive(Clone, Copy)]
struct Part {
    z: usize,
    /// Place in the grid of chunks, (y, x).
    place: [usize; 2],
}

impl<'a> FlowLabelStore<'a> {
    /// The store of a dataset.
    ///
    /// # Errors
    /// When it is not cut into chunks as the original's is.
    pub fn of(dataset: &'a Dataset) -> Result<Self, PipelineError> {
        let store = dataset.store(Store::FlowLabels);
        let shape = dataset.shape();
        let chunks = store.chunks();
        let edges = match (shape.is_3d, chunks) {
            (true, &[1, 1, 1, y, x]) | (false, &[1, 1, y, x]) if y > 0 && x > 0 => [y, x],
            _ => {
                return Err(PipelineError::Invalid(format!(
                    "{} has chunks of {chunks:?} elements, which labels are not written to; generate the dataset again",
                    store.name()
                )));
            }
        };
        Ok(Self { store, shape, channels: dataset.flow_channels() + 1, edges })
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
        let bytes_per_part = self.channels * self.edges[0] * self.edges[1] * size_of::<f32>();
        for parts in self.parts().chunks((MAX_ENCODED_BYTES / bytes_per_part).max(1)) {
            let changes = parts.par_iter().map_init(
                || self.store.chunk_encoder(),
                |encoder, &part| {
                    context.check()?;
                    let (origin, size) = self.area(part);
                    match frame {
                        Some(frame) if frame.reaches(part.z, origin, size) => {
                            self.draw(t, part, frame, encoder, context.cancel_token())
                        }
                        _ => self.erase(t, part),
                    }
                },
            );
            let changes: Vec<_> = changes.collect::<Result<_, PipelineError>>()?;
            for change in changes.into_iter().flatten() {
                change.write()?;
            }
        }
        Ok(())
    }

    /// All parts of a frame.
    fn parts(&self) -> Vec<Part> {
        let [planes, height, width] = self.shape.frame;
        let [rows, columns] = [height.div_ceil(self.edges[0]), width.div_ceil(self.edges[1])];
        let plane = move |z| (0..rows).flat_map(move |y| (0..columns).map(move |x| Part { z, place: [y, x] }));
        (0..planes).flat_map(plane).collect()
    }

    /// Where a part begins in its plane and its size inside the image, (y, x).
    fn area(&self, part: Part) -> ([usize; 2], [usize; 2]) {
        let [_, height, width] = self.shape.frame;
        let origin = [part.place[0] * self.edges[0], part.place[1] * self.edges[1]];
        (origin, [self.edges[0].min(height - origin[0]), self.edges[1].min(width - origin[1])])
    }

    /// The chunk of a part in a channel.
    fn chunk(&self, t: usize, channel: usize, part: Part) -> Vec<usize> {
        let [y, x] = part.place;
        if self.shape.is_3d { vec![t, channel, part.z, y, x] } else { vec![t, channel, y, x] }
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
        let (origin, [height, width]) = self.area(part);
        let mut numbers = Array2::zeros(self.edges);
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
