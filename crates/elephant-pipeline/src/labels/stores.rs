//! The two stores that hold labels: classes, and the same as colours.

use elephant_image::label_color;
use elephant_types::{CancelToken, TaskContext};
use elephant_volume::{ArrayStore, ChunkChange, ChunkEncoder, Dataset, Store};
use ndarray::{ArrayViewMut2, s};

use super::drawing::Drawing;
use crate::{
    PipelineError,
    plane_parts::{Part, PlaneParts, wrong_chunks},
};

/// Chunks of a part: labels, red, green, blue.
const CHUNKS_PER_PART: usize = 4;

/// The label stores of a dataset, whose chunks have the same edges.
pub(super) struct LabelStores<'a> {
    pub labels: &'a ArrayStore,
    pub colors: &'a ArrayStore,
    /// Each is a chunk of its own among the labels, and three among the colours.
    parts: PlaneParts,
}

impl<'a> LabelStores<'a> {
    /// The stores of a dataset.
    ///
    /// # Errors
    /// When they are not cut into chunks as the original's are.
    pub fn of(dataset: &'a Dataset) -> Result<Self, PipelineError> {
        let (labels, colors) = (dataset.store(Store::SegLabels), dataset.store(Store::SegLabelsVis));
        let &[.., y, x] = labels.chunks() else { return Err(wrong_chunks(labels)) };
        let shape = dataset.shape();
        let ones: &[usize] = if shape.is_3d { &[1, 1] } else { &[1] };
        for (store, expected) in [(labels, [ones, &[y, x]].concat()), (colors, [ones, &[y, x, 1]].concat())] {
            if store.chunks() != expected || y == 0 || x == 0 {
                return Err(wrong_chunks(store));
            }
        }
        Ok(Self { labels, colors, parts: PlaneParts { shape, edges: [y, x] } })
    }

    /// Replaces all labels of timepoint `t` by the drawing, or removes them. Only chunks with labels have files.
    ///
    /// # Errors
    /// When the disk is full or the task is cancelled. Some chunks may be replaced then.
    pub fn replace(&self, t: usize, drawing: Option<&Drawing<'_>>, context: &TaskContext) -> Result<(), PipelineError> {
        self.parts.replace(
            CHUNKS_PER_PART * self.parts.edges[0] * self.parts.edges[1],
            context,
            || (self.labels.chunk_encoder(), self.colors.chunk_encoder()),
            |(labels, colors), part| {
                let (origin, size) = self.parts.area(part);
                match drawing {
                    Some(drawing) if !drawing.is_blank(part.z, origin, size) => {
                        self.draw(t, part, drawing, [labels, colors], context.cancel_token())
                    }
                    _ => self.erase(t, part),
                }
            },
        )
    }

    /// The chunk of a part among the labels; the channel follows among the colours.
    fn chunk(&self, t: usize, part: Part) -> Vec<usize> {
        let [y, x] = part.place;
        if self.parts.shape.is_3d { vec![t, part.z, y, x] } else { vec![t, y, x] }
    }

    /// The part's labels and its three colours.
    fn draw(
        &self,
        t: usize,
        part: Part,
        drawing: &Drawing<'_>,
        [labels, colors]: [&mut ChunkEncoder<'_, u8>; 2],
        cancel: &CancelToken,
    ) -> Result<[ChunkChange; CHUNKS_PER_PART], PipelineError> {
        let (origin, [height, width]) = self.parts.area(part);
        labels.elements().fill(0);
        let mut plane = ArrayViewMut2::from_shape(self.parts.edges, labels.elements())
            .expect("a chunk's buffer has the chunk's size");
        drawing.draw(part.z, origin, plane.slice_mut(s![..height, ..width]), cancel)?;
        let mut chunk = self.chunk(t, part);
        let labelled = labels.encode(&chunk)?;
        chunk.push(0);
        let mut colored = |channel: u8| {
            for (color, &label) in colors.elements().iter_mut().zip(labels.elements().iter()) {
                *color = label_color(label, channel);
            }
            if let Some(last) = chunk.last_mut() {
                *last = channel.into();
            }
            colors.encode(&chunk)
        };
        Ok([labelled, colored(0)?, colored(1)?, colored(2)?])
    }

    fn erase(&self, t: usize, part: Part) -> Result<[ChunkChange; CHUNKS_PER_PART], PipelineError> {
        let chunk = self.chunk(t, part);
        let color = |channel: usize| self.colors.blank_chunk(&[chunk.as_slice(), &[channel]].concat());
        Ok([self.labels.blank_chunk(&chunk)?, color(0)?, color(1)?, color(2)?])
    }
}
