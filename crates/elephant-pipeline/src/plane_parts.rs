//! Parts of planes that are chunks of their own, in the stores of labels.

use elephant_types::TaskContext;
use elephant_volume::{ArrayStore, ChunkChange, DatasetShape};
use rayon::prelude::*;

use crate::PipelineError;

/// How much is drawn before it is written, in bytes before compression.
const MAX_ENCODED_BYTES: usize = 128 << 20;

/// How the frames of a dataset are cut.
#[derive(Clone, Copy)]
pub(crate) struct PlaneParts {
    pub shape: DatasetShape,
    /// Edges of a part, (y, x), in voxels.
    pub edges: [usize; 2],
}

/// Part of a plane.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub z: usize,
    /// Place in the grid of parts, (y, x).
    pub place: [usize; 2],
}

impl PlaneParts {
    /// Where a part begins in its plane, and its size inside the image, (y, x).
    pub fn area(&self, part: Part) -> ([usize; 2], [usize; 2]) {
        let [_, height, width] = self.shape.frame;
        let origin = [part.place[0] * self.edges[0], part.place[1] * self.edges[1]];
        (origin, [self.edges[0].min(height - origin[0]), self.edges[1].min(width - origin[1])])
    }

    /// Writes what `draw` makes of each part of a frame, in parallel, some parts at a time. `bytes` is the size of all chunks
    /// of a part before compression, `prepare` makes what a thread draws with.
    ///
    /// # Errors
    /// When the disk is full or the task is cancelled. Some chunks may be replaced then.
    pub fn replace<T, Changes>(
        &self,
        bytes: usize,
        context: &TaskContext,
        prepare: impl Fn() -> T + Sync + Send,
        draw: impl Fn(&mut T, Part) -> Result<Changes, PipelineError> + Sync + Send,
    ) -> Result<(), PipelineError>
    where
        Changes: IntoIterator<Item = ChunkChange> + Send,
    {
        for parts in self.of_frame().chunks((MAX_ENCODED_BYTES / bytes).max(1)) {
            let changes = parts.par_iter().map_init(&prepare, |tools, &part| {
                context.check()?;
                draw(tools, part)
            });
            let changes: Vec<_> = changes.collect::<Result<_, PipelineError>>()?;
            for change in changes.into_iter().flatten() {
                change.write()?;
            }
        }
        Ok(())
    }

    /// All parts of a frame.
    fn of_frame(&self) -> Vec<Part> {
        let [planes, height, width] = self.shape.frame;
        let [rows, columns] = [height.div_ceil(self.edges[0]), width.div_ceil(self.edges[1])];
        let plane = move |z| (0..rows).flat_map(move |y| (0..columns).map(move |x| Part { z, place: [y, x] }));
        (0..planes).flat_map(plane).collect()
    }
}

/// The error for a store that is cut in another way than the original's.
pub(crate) fn wrong_chunks(store: &ArrayStore) -> PipelineError {
    let (name, chunks) = (store.name(), store.chunks());
    PipelineError::Invalid(format!(
        "{name} has chunks of {chunks:?} elements, which labels are not written to; generate the dataset again"
    ))
}
