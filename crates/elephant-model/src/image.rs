//! Images that are read box by box, and results that are passed on plane by plane.

use elephant_types::{CancelToken, ErrorCode};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, ArrayViewMut3, Axis, s};

use crate::ModelError;

/// An image that a network reads tile by tile: intensities scaled to 0..=1.
pub trait ImageSource: Send + Sync {
    /// Size in voxels, (z, y, x); a 2-D image has z = 1.
    fn shape(&self) -> [usize; 3];

    /// Number of channels; a detection network has one input, a flow network two.
    fn channels(&self) -> usize {
        1
    }

    /// Fills `out`, (z, y, x), with the box of `channel` that begins at voxel `origin`, (z, y, x).
    ///
    /// # Errors
    /// When the box is not inside the image, it cannot be read, or the task is cancelled.
    fn read(
        &self,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), ModelError>;
}

/// Takes a network's result, class probabilities or vectors, as it is finished, on the caller's thread.
pub trait PlaneSink {
    /// Takes planes (c, z, y, x) that begin at plane `z` of the image. They come in ascending z without gaps or overlaps.
    ///
    /// # Errors
    /// When they cannot be used, or the task is cancelled; the prediction then ends with this error.
    fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), ModelError>;
}

/// An image in memory, (z, y, x).
impl ImageSource for Array3<f32> {
    fn shape(&self) -> [usize; 3] {
        let (z, y, x) = self.dim();
        [z, y, x]
    }

    fn read(
        &self,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        _: &CancelToken,
    ) -> Result<(), ModelError> {
        if channel > 0 {
            return Err(outside(channel, origin));
        }
        copy_box(&self.view(), channel, origin, out)
    }
}

/// An image of several channels in memory, (c, z, y, x).
impl ImageSource for Array4<f32> {
    fn shape(&self) -> [usize; 3] {
        let (_, z, y, x) = self.dim();
        [z, y, x]
    }

    fn channels(&self) -> usize {
        self.len_of(Axis(0))
    }

    fn read(
        &self,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        _: &CancelToken,
    ) -> Result<(), ModelError> {
        if channel >= self.channels() {
            return Err(outside(channel, origin));
        }
        copy_box(&self.index_axis(Axis(0), channel), channel, origin, out)
    }
}

fn copy_box(
    image: &ArrayView3<'_, f32>,
    channel: usize,
    [z, y, x]: [usize; 3],
    mut out: ArrayViewMut3<'_, f32>,
) -> Result<(), ModelError> {
    let (depth, height, width) = out.dim();
    let is_inside = |start: usize, length: usize, axis: usize| {
        start.checked_add(length).is_some_and(|end| end <= image.len_of(Axis(axis)))
    };
    if !(is_inside(z, depth, 0) && is_inside(y, height, 1) && is_inside(x, width, 2)) {
        return Err(outside(channel, [z, y, x]));
    }
    out.assign(&image.slice(s![z..z + depth, y..y + height, x..x + width]));
    Ok(())
}

fn outside(channel: usize, origin: [usize; 3]) -> ModelError {
    let message = format!("a box at {origin:?} (z, y, x) of channel {channel} is not inside the image");
    ModelError::new(ErrorCode::Internal, message)
}

/// Keeps the whole result for an image in memory.
#[derive(Clone, Debug, Default)]
pub struct CollectedPlanes {
    /// Size of the image, (z, y, x).
    shape: [usize; 3],
    /// (c, z, y, x); empty until the first planes come.
    map: Array4<f32>,
}

impl CollectedPlanes {
    /// A map of an image of `shape` (z, y, x).
    pub fn new(shape: [usize; 3]) -> Self {
        Self { shape, map: Array4::default((0, 0, 0, 0)) }
    }

    /// The result for the image, (c, z, y, x); zeros where no planes came.
    pub fn into_map(self) -> Array4<f32> {
        self.map
    }
}

impl PlaneSink for CollectedPlanes {
    fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, _: &CancelToken) -> Result<(), ModelError> {
        let (classes, count, height, width) = planes.dim();
        let [depth, ..] = self.shape;
        if [height, width] != self.shape[1..] || z + count > depth {
            let message = format!("planes {z} to {} of {height} × {width} voxels do not fit the image", z + count);
            return Err(ModelError::new(ErrorCode::Internal, message));
        }
        if self.map.is_empty() {
            self.map = Array4::zeros((classes, depth, height, width));
        }
        self.map.slice_mut(s![.., z..z + count, .., ..]).assign(&planes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_images() {
        let volume = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (100 * z + 10 * y + x) as f32);
        let two = ndarray::stack(Axis(0), &[volume.view(), (&volume + 1000.0).view()]).unwrap();
        let read = |image: &dyn ImageSource, channel, origin| {
            let mut out = Array3::zeros((1, 2, 3));
            image
                .read(channel, origin, out.view_mut(), &CancelToken::default())
                .map(|()| out.into_raw_vec_and_offset().0)
        };
        let size = |image: &dyn ImageSource| (image.shape(), image.channels());
        assert_eq!((size(&volume), size(&two)), (([3, 4, 5], 1), ([3, 4, 5], 2)));
        let expected = [212.0, 213.0, 214.0, 222.0, 223.0, 224.0];
        assert_eq!(read(&volume, 0, [2, 1, 2]).unwrap(), expected);
        assert_eq!(read(&two, 1, [2, 1, 2]).unwrap(), expected.map(|value| value + 1000.0));
        for (image, channel, origin) in [
            (&volume as &dyn ImageSource, 1, [0, 0, 0]),
            (&volume, 0, [3, 0, 0]),
            (&volume, 0, [0, 3, 0]),
            (&two, 0, [0, 0, usize::MAX]),
            (&two, 2, [0, 0, 0]),
        ] {
            assert!(read(image, channel, origin).unwrap_err().to_string().contains("not inside the image"));
        }
    }

    #[test]
    fn planes_are_collected_in_their_places() {
        let mut collected = CollectedPlanes::new([3, 1, 2]);
        let (never, planes) = (CancelToken::default(), |count, value| Array4::from_elem((2, count, 1, 2), value));
        collected.take(0, planes(1, 0.25).view(), &never).unwrap();
        collected.take(1, planes(2, 0.5).view(), &never).unwrap();
        assert!(collected.take(2, planes(2, 1.0).view(), &never).is_err());
        let map = collected.into_map();
        assert_eq!(map.dim(), (2, 3, 1, 2));
        assert_eq!((map[[1, 0, 0, 1]], map[[0, 1, 0, 0]], map[[1, 2, 0, 1]]), (0.25, 0.5, 0.5));
    }
}
