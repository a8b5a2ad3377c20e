//! The labels of one timepoint, part by part of its planes.

use elephant_image::{BACKGROUND, LabelFrame};
use elephant_types::{CancelToken, Cancelled, Numerics};
use ndarray::{Array3, ArrayViewMut2, s};

/// Tagged spots over the background that intensities tell.
pub(super) struct Drawing {
    frame: LabelFrame,
    background: Option<Background>,
}

/// Voxels below a threshold.
pub(super) struct Background {
    /// Intensities of the whole frame, scaled to 0..=1.
    pub image: Array3<f32>,
    /// In single precision, like the image.
    pub threshold: f32,
}

impl Background {
    fn draw(&self, z: usize, [y, x]: [usize; 2], mut labels: ArrayViewMut2<'_, u8>) {
        let (height, width) = labels.dim();
        let part = self.image.slice(s![z, y..y + height, x..x + width]);
        labels.zip_mut_with(&part, |label, &value| *label = BACKGROUND * u8::from(value < self.threshold));
    }
}

impl Drawing {
    pub fn new(
        mut frame: LabelFrame,
        background: Option<Background>,
        numerics: Numerics,
        cancel: &CancelToken,
    ) -> Result<Self, Cancelled> {
        if numerics == Numerics::Original {
            let draw_background = |z, plane: ArrayViewMut2<'_, u8>| {
                if let Some(background) = &background {
                    background.draw(z, [0; 2], plane);
                }
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
    /// [`Cancelled`] between two spots; some are drawn then.
    pub fn draw(
        &self,
        z: usize,
        origin: [usize; 2],
        mut labels: ArrayViewMut2<'_, u8>,
        cancel: &CancelToken,
    ) -> Result<(), Cancelled> {
        if let Some(background) = &self.background {
            background.draw(z, origin, labels.view_mut());
        }
        self.frame.draw(z, origin, labels, cancel)
    }
}
