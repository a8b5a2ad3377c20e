//! A part of a frame as the network reads it: box by box, normalised, and rescaled where that is asked for.

use std::{ops::Range, sync::Arc};

use elephant_image::{ImageError, Resampling};
use elephant_model::{ImageSource, ModelError};
use elephant_types::CancelToken;
use elephant_volume::FrameSource;
use ndarray::{Array3, ArrayViewMut3, Axis};

use crate::frames::{CropBox, Normalization};

/// Stored voxels from which planes of a rescaled box are computed at once, unless one plane takes more.
const MAX_SOURCE_VOXELS: usize = 16 << 20;

/// The network's input (docs/method.md, "Input normalisation"). Nothing of it is in memory but what the frame cache
/// keeps.
pub(crate) struct NetworkInput {
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

    /// Bytes that reading a box takes at the most, besides the box, where `crop` is rescaled to `size`, both (z, y, x).
    pub fn reading_bytes(crop: [usize; 3], size: [usize; 3]) -> u64 {
        if crop == size {
            return 0;
        }
        // A plane lies between two planes.
        let two_planes = [2, crop[1], crop[2]].iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
        two_planes.max(MAX_SOURCE_VOXELS as u64).saturating_mul(size_of::<f32>() as u64)
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
        let [_, rows, columns]: [Range<usize>; 3] =
            std::array::from_fn(|axis| resampling.source(axis, origin[axis]..origin[axis] + size[axis]));
        let most_planes = MAX_SOURCE_VOXELS / (rows.len() * columns.len()).max(1);
        let mut rest = out;
        let mut z = origin[0];
        while rest.len_of(Axis(0)) > 0 {
            let source = |count: usize| resampling.source(0, z..z + count);
            let fitting = (2..=rest.len_of(Axis(0))).take_while(|&count| source(count).len() <= most_planes);
            let count = fitting.last().unwrap_or(1);
            let planes = source(count);
            let source_origin = [planes.start, rows.start, columns.start];
            let mut image = Array3::zeros((planes.len(), rows.len(), columns.len()));
            self.read_stored(source_origin, image.view_mut(), cancel)?;
            let (part, after) = rest.split_at(Axis(0), count);
            let resampled = resampling.resample(image.view(), source_origin, part, [z, origin[1], origin[2]], cancel);
            resampled.map_err(|error| ModelError::from_coded(&error))?;
            (rest, z) = (after, z + count);
        }
        Ok(())
    }
}
