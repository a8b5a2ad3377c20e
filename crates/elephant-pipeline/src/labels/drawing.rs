//! The labels of one timepoint, part by part of its planes.

use elephant_image::{BACKGROUND, LabelFrame};
use elephant_types::{CancelToken, Numerics};
use elephant_volume::FrameSource;
use ndarray::{Array3, ArrayViewMut2, Axis};

use crate::{
    PipelineError,
    frames::{CropBox, Normalization},
};

/// Tagged spots over the background that intensities tell.
pub(super) struct Drawing<'a> {
    frame: LabelFrame,
    background: Option<Background<'a>>,
}

/// Voxels of a frame below a threshold.
pub(super) struct Background<'a> {
    frames: &'a FrameSource,
    timepoint: usize,
    normalization: Normalization,
    /// In single precision, like the intensities; these range from 0 to 1 over the frame.
    threshold: f32,
}

impl<'a> Background<'a> {
    /// The voxels of a frame whose intensity, scaled to 0..=1 over the frame, is below `threshold`.
    ///
    /// # Errors
    /// When the frame cannot be read or the task is cancelled.
    pub fn new(
        frames: &'a FrameSource,
        timepoint: usize,
        threshold: f32,
        cancel: &CancelToken,
    ) -> Result<Self, PipelineError> {
        let whole = CropBox::whole(frames.shape());
        let normalization = Normalization::new(frames, timepoint, whole, false, cancel)?;
        Ok(Self { frames, timepoint, normalization, threshold })
    }

    fn draw(
        &self,
        z: usize,
        [y, x]: [usize; 2],
        mut labels: ArrayViewMut2<'_, u8>,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        let (height, width) = labels.dim();
        let mut part = Array3::zeros((1, height, width));
        self.frames.read(self.timepoint, [z, y, x], part.view_mut(), cancel)?;
        self.normalization.apply(z, part.view_mut());
        let part = part.index_axis(Axis(0), 0);
        labels.zip_mut_with(&part, |label, &value| *label = BACKGROUND * u8::from(value < self.threshold));
        Ok(())
    }
}

impl<'a> Drawing<'a> {
    /// The spots of `frame` over `background`.
    ///
    /// # Errors
    /// When the background cannot be read or the task is cancelled.
    pub fn new(
        mut frame: LabelFrame,
        background: Option<Background<'a>>,
        numerics: Numerics,
        cancel: &CancelToken,
    ) -> Result<Self, PipelineError> {
        if numerics == Numerics::Original {
            let draw_background = |z, plane: ArrayViewMut2<'_, u8>| match &background {
                Some(background) => background.draw(z, [0; 2], plane, cancel),
                None => Ok(()),
            };
            frame.lose_borders_like_original(draw_background, cancel)?;
        }
        Ok(Self { frame, background })
    }

    /// Whether nothing is drawn in the part of plane `z` that begins at `origin` and has `size`, both (y, x).
    pub fn is_blank(&self, z: usize, origin: [usize; 2], size: [usize; 2]) -> bool {
        self.background.is_none() && !self.frame.reaches(z, origin, size)
    }

    /// Draws the part of plane `z` that begins at `origin`, (y, x), into zeros.
    ///
    /// # Errors
    /// When the background cannot be read, or the task is cancelled between two spots; some are drawn then.
    pub fn draw(
        &self,
        z: usize,
        origin: [usize; 2],
        mut labels: ArrayViewMut2<'_, u8>,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        if let Some(background) = &self.background {
            background.draw(z, origin, labels.view_mut(), cancel)?;
        }
        Ok(self.frame.draw(z, origin, labels, cancel)?)
    }
}
