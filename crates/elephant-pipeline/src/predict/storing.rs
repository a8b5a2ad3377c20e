//! Class probabilities on their way from the network into the dataset.

use std::ops::Range;

use elephant_image::Resampling;
use elephant_types::CancelToken;
use elephant_volume::ProbabilityWriter;
use ndarray::{Array4, ArrayView4, Axis, concatenate, s};

use crate::PipelineError;

/// Takes the probabilities of an image plane by plane, and writes them aside at the size of the stored voxels.
pub(super) struct StoredProbabilities<'a> {
    writer: ProbabilityWriter<'a>,
    /// Size of the box that is stored, (z, y, x).
    size: [usize; 3],
    rescaled: Option<Rescaled>,
}

/// What is left to do where the network saw an image of another size.
struct Rescaled {
    resampling: Resampling,
    /// Planes (c, z, y, x) of the network that planes to come are computed from.
    kept: Array4<f32>,
    /// The first of these.
    first: usize,
    /// The next plane of the dataset.
    next: usize,
}

impl<'a> StoredProbabilities<'a> {
    /// Probabilities of an image of the size `seen`, of `classes`, to be stored by `writer` in a box of `size`; (z, y, x).
    ///
    /// # Errors
    /// When a size has no voxels.
    pub fn new(
        writer: ProbabilityWriter<'a>,
        classes: usize,
        seen: [usize; 3],
        size: [usize; 3],
    ) -> Result<Self, PipelineError> {
        let rescaled = if seen == size {
            None
        } else {
            let kept = Array4::zeros((classes, 0, seen[1], seen[2]));
            Some(Rescaled { resampling: Resampling::new(seen, size)?, kept, first: 0, next: 0 })
        };
        Ok(Self { writer, size, rescaled })
    }

    /// Bytes that this takes besides the planes it is given, which come `planes` at a time.
    pub fn bytes(classes: usize, seen: [usize; 3], size: [usize; 3], planes: usize) -> u64 {
        if seen == size {
            return 0;
        }
        let values = |factors: [usize; 4]| factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64));
        // Planes that are kept, and once more while others join them; one plane of the dataset.
        let kept = values([2 * classes, planes + 2, seen[1], seen[2]]);
        kept.saturating_add(values([classes, 1, size[1], size[2]])).saturating_mul(size_of::<f32>() as u64)
    }

    /// Takes the next planes, (c, z, y, x).
    ///
    /// # Errors
    /// When they cannot be written or the task is cancelled.
    pub fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), PipelineError> {
        let Some(rescaled) = &mut self.rescaled else { return Ok(self.writer.write(z, planes)?) };
        let Rescaled { resampling, kept, first, next } = rescaled;
        *kept =
            concatenate(Axis(1), &[kept.view(), planes]).map_err(|error| PipelineError::Invalid(error.to_string()))?;
        let end = *first + kept.len_of(Axis(1));
        let classes = kept.len_of(Axis(0));
        let mut plane = Array4::zeros((classes, 1, self.size[1], self.size[2]));
        let source = |resampling: &Resampling, plane: usize| -> Range<usize> { resampling.source(0, plane..plane + 1) };
        while *next < self.size[0] && source(resampling, *next).end <= end {
            let needed = source(resampling, *next);
            for (class, out) in kept.outer_iter().zip(plane.outer_iter_mut()) {
                let image = class.slice_move(s![needed.start - *first..needed.end - *first, .., ..]);
                resampling.resample(image, [needed.start, 0, 0], out, [*next, 0, 0], cancel)?;
            }
            self.writer.write(*next, plane.view())?;
            *next += 1;
        }
        // What the next plane is computed from stays.
        let needed = if *next < self.size[0] { source(resampling, *next).start.min(end) } else { end };
        *kept = kept.slice(s![.., needed - *first.., .., ..]).to_owned();
        *first = needed;
        Ok(())
    }

    /// Puts all planes into the dataset.
    ///
    /// # Errors
    /// As [`ProbabilityWriter::publish`].
    pub fn publish(self) -> Result<(), PipelineError> {
        Ok(self.writer.publish()?)
    }
}
