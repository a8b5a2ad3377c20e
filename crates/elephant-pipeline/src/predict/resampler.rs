//! Resampling of a network's result to the stored voxels, plane by plane.

#![allow(clippy::needless_pass_by_value, reason = "array views are handles, passed by value as slices are")]

use std::ops::Range;

use elephant_image::{ImageError, Resampling};
use elephant_types::CancelToken;
use ndarray::{Array4, ArrayView4, Axis, concatenate, s};

use crate::PipelineError;

/// Takes a plane that is complete: its z, and its values (c, 1, y, x).
type Emit<'a> = dyn FnMut(usize, ArrayView4<'_, f32>) -> Result<(), PipelineError> + 'a;

/// Takes planes of a network's result as they come, and gives planes of stored voxels.
pub(crate) struct PlaneResampler {
    resampling: Resampling,
    /// Number of planes to be given.
    depth: usize,
    /// The plane to be given next, (c, 1, y, x).
    plane: Array4<f32>,
    /// Its z.
    next: usize,
    /// The network's last plane, (c, 1, y, x), if the next plane depends on it.
    kept: Array4<f32>,
}

impl PlaneResampler {
    /// From an image of `channels` in the size `seen` to one of `size`, both (z, y, x).
    ///
    /// # Errors
    /// When a size has no voxels.
    pub fn new(channels: usize, seen: [usize; 3], size: [usize; 3]) -> Result<Self, ImageError> {
        Ok(Self {
            resampling: Resampling::new(seen, size)?,
            depth: size[0],
            plane: Array4::zeros((channels, 1, size[1], size[2])),
            next: 0,
            kept: Array4::zeros((channels, 0, seen[1], seen[2])),
        })
    }

    /// Bytes that this takes besides the planes it is given.
    pub fn bytes(channels: usize, seen: [usize; 3], size: [usize; 3]) -> u64 {
        if seen == size {
            return 0;
        }
        let values = |factors: [usize; 4]| factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64));
        // The plane that is kept, that and its neighbour in one array, and the plane to be given.
        let arrays = values([channels, 3, seen[1], seen[2]]).saturating_add(values([channels, 1, size[1], size[2]]));
        arrays.saturating_mul(size_of::<f32>() as u64)
    }

    /// Takes the next planes, (c, z, y, x), which begin at plane `z`, and calls `emit` with each plane that they complete and
    /// its z.
    ///
    /// # Errors
    /// Those of `emit`, and when the task is cancelled.
    pub fn take(
        &mut self,
        z: usize,
        planes: ArrayView4<'_, f32>,
        cancel: &CancelToken,
        emit: &mut Emit<'_>,
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
            emit(self.next, self.plane.view())?;
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
        for (channel, out) in planes.outer_iter().zip(self.plane.outer_iter_mut()) {
            self.resampling.resample(channel, [first, 0, 0], out, [self.next, 0, 0], cancel)?;
        }
        Ok(())
    }
}
