//! Class probabilities on their way from the network into the dataset.

#![allow(clippy::needless_pass_by_value, reason = "array views are handles, passed by value as slices are")]

use std::ops::Range;

use elephant_image::Resampling;
use elephant_types::CancelToken;
use elephant_volume::ProbabilityWriter;
use ndarray::{Array4, ArrayView4, Axis, concatenate, s};

use crate::PipelineError;

/// Takes the probabilities of an image plane by plane, and writes them aside at the size of the stored voxels.
pub(super) struct StoredProbabilities<'a> {
    writer: ProbabilityWriter<'a>,
    rescaled: Option<Rescaled>,
}

/// The state of a resampling to the size of the stored voxels.
struct Rescaled {
    resampling: Resampling,
    /// Number of planes to be stored.
    depth: usize,
    /// The plane to be stored next, (c, 1, y, x).
    plane: Array4<f32>,
    /// Its z.
    next: usize,
    /// The network's last plane, (c, 1, y, x), if the next plane depends on it.
    kept: Array4<f32>,
}

impl<'a> StoredProbabilities<'a> {
    /// Probabilities of `classes` in an image of the size `seen`, to be stored by `writer` in a box of `size`, (z, y, x).
    ///
    /// # Errors
    /// When a size has no voxels.
    pub fn new(
        writer: ProbabilityWriter<'a>,
        classes: usize,
        seen: [usize; 3],
        size: [usize; 3],
    ) -> Result<Self, PipelineError> {
        if seen == size {
            return Ok(Self { writer, rescaled: None });
        }
        let rescaled = Rescaled {
            resampling: Resampling::new(seen, size)?,
            depth: size[0],
            plane: Array4::zeros((classes, 1, size[1], size[2])),
            next: 0,
            kept: Array4::zeros((classes, 0, seen[1], seen[2])),
        };
        Ok(Self { writer, rescaled: Some(rescaled) })
    }

    /// Bytes that this takes besides the planes it is given.
    pub fn bytes(classes: usize, seen: [usize; 3], size: [usize; 3]) -> u64 {
        if seen == size {
            return 0;
        }
        let values = |factors: [usize; 4]| factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64));
        // The plane that is kept, that and its neighbour in one array, and the plane to be stored.
        let arrays = values([classes, 3, seen[1], seen[2]]).saturating_add(values([classes, 1, size[1], size[2]]));
        arrays.saturating_mul(size_of::<f32>() as u64)
    }

    /// Takes the next planes, (c, z, y, x), which begin at plane `z`.
    ///
    /// # Errors
    /// When they cannot be written or the task is cancelled.
    pub fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), PipelineError> {
        match &mut self.rescaled {
            None => Ok(self.writer.write(z, planes)?),
            Some(rescaled) => rescaled.take(z, planes, &self.writer, cancel),
        }
    }

    /// Puts all planes into the dataset.
    ///
    /// # Errors
    /// As [`ProbabilityWriter::publish`].
    pub fn publish(self) -> Result<(), PipelineError> {
        Ok(self.writer.publish()?)
    }
}

impl Rescaled {
    fn take(
        &mut self,
        z: usize,
        planes: ArrayView4<'_, f32>,
        writer: &ProbabilityWriter<'_>,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        let end = z + planes.len_of(Axis(1));
        while self.next < self.depth && self.source().end <= end {
            let source = self.source();
            if source.start < z {
                // The plane before these and their first one.
                let joined = concatenate(Axis(1), &[self.kept.view(), planes.slice(s![.., ..source.end - z, .., ..])]);
                let joined = joined.map_err(|error| PipelineError::Invalid(error.to_string()))?;
                self.resample(joined.view(), source.start, cancel)?;
            } else {
                let part = planes.slice(s![.., source.start - z..source.end - z, .., ..]);
                self.resample(part, source.start, cancel)?;
            }
            writer.write(self.next, self.plane.view())?;
            self.next += 1;
        }
        let first_needed = if self.next < self.depth { self.source().start.clamp(z, end) } else { end };
        self.kept = planes.slice(s![.., first_needed - z.., .., ..]).to_owned();
        Ok(())
    }

    /// The network's planes that the next plane is computed from: one or two.
    fn source(&self) -> Range<usize> {
        self.resampling.source(0, self.next..self.next + 1)
    }

    /// Computes the next plane from the network's planes from `first` on.
    fn resample(
        &mut self,
        planes: ArrayView4<'_, f32>,
        first: usize,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        for (class, out) in planes.outer_iter().zip(self.plane.outer_iter_mut()) {
            self.resampling.resample(class, [first, 0, 0], out, [self.next, 0, 0], cancel)?;
        }
        Ok(())
    }
}
