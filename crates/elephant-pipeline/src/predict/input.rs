//! A part of a frame as the network reads it: box by box, normalised, and rescaled where that is asked for.

use std::sync::Arc;

use elephant_image::{ImageError, Resampling};
use elephant_model::{ImageSource, ModelError};
use elephant_types::CancelToken;
use elephant_volume::FrameSource;
use ndarray::{Array3, ArrayViewMut3};

use crate::frames::{CropBox, Normalization};

/// The network's input (contract section 6.1). Nothing of it is in memory but what the frame cache keeps.
pub(super) struct NetworkInput {
    frames: Arc<FrameSource>,
    timepoint: usize,
    crop: CropBox,
    normalization: Normalization,
    /// Size after rescaling.
    size: [usize; 3],
    /// `None` where the size stays as it is.
    resampling: Option<Resampling>,
}

impl NetworkInput {
    /// The box `crop` of a frame, normalised and then rescaled to `size`, (z, y, x).
    ///
    /// # Errors
    /// When a size has no voxels.
    pub fn new(
        frames: Arc<FrameSource>,
        timepoint: usize,
        crop: CropBox,
        normalization: Normalization,
        size: [usize; 3],
    ) -> Result<Self, ImageError> {
        let resampling = if size == crop.size { None } else { Some(Resampling::new(crop.size, size)?) };
        Ok(Self { frames, timepoint, crop, normalization, size, resampling })
    }

    /// Reads and normalises the box that begins at `origin` in the crop.
    fn read_stored(
        &self,
        origin: [usize; 3],
        mut out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), ModelError> {
        let in_frame = std::array::from_fn(|axis| self.crop.origin[axis] + origin[axis]);
        self.frames
            .read(self.timepoint, in_frame, out.view_mut(), cancel)
            .map_err(|error| ModelError::from_coded(&error))?;
        self.normalization.apply(origin[0], out);
        Ok(())
    }
}

impl ImageSource for NetworkInput {
    fn shape(&self) -> [usize; 3] {
        self.size
    }

    fn read(
        &self,
        _channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), ModelError> {
        let Some(resampling) = &self.resampling else { return self.read_stored(origin, out, cancel) };
        let size: [usize; 3] = out.dim().into();
        let source: [_; 3] =
            std::array::from_fn(|axis| resampling.source(axis, origin[axis]..origin[axis] + size[axis]));
        let source_origin = source.each_ref().map(|range| range.start);
        let mut image = Array3::zeros(source.map(|range| range.len()));
        self.read_stored(source_origin, image.view_mut(), cancel)?;
        let resampled = resampling.resample(image.view(), source_origin, out, origin, cancel);
        resampled.map_err(|error| ModelError::from_coded(&error))
    }
}
