//! Class probabilities on their way from the network into the dataset.

use elephant_types::CancelToken;
use elephant_volume::ProbabilityWriter;
use ndarray::ArrayView4;

use super::resampler::PlaneResampler;
use crate::PipelineError;

/// Takes the probabilities of an image plane by plane, and writes them aside at the size of the stored voxels.
pub(super) struct StoredProbabilities<'a> {
    writer: ProbabilityWriter<'a>,
    resampler: Option<PlaneResampler>,
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
        let resampler = if seen == size { None } else { Some(PlaneResampler::new(classes, seen, size)?) };
        Ok(Self { writer, resampler })
    }

    /// Bytes that this takes besides the planes it is given.
    pub fn bytes(classes: usize, seen: [usize; 3], size: [usize; 3]) -> u64 {
        PlaneResampler::bytes(classes, seen, size)
    }

    /// Takes the next planes, (c, z, y, x), which begin at plane `z`.
    ///
    /// # Errors
    /// When they cannot be written or the task is cancelled.
    #[allow(clippy::needless_pass_by_value, reason = "views are passed by value")]
    pub fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), PipelineError> {
        let writer = &self.writer;
        let mut write = |z: usize, planes: ArrayView4<'_, f32>| Ok(writer.write(z, planes)?);
        match &mut self.resampler {
            None => write(z, planes),
            Some(resampler) => resampler.take(z, planes, cancel, &mut write),
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
