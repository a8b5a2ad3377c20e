//! Where the voxels of a rescaled image lie in the stored one (docs/method.md, "Input normalisation").

use elephant_image::resampled_pitch;
use elephant_types::Numerics;

use crate::{PipelineError, frames::CropBox};

/// Voxels along an edge of the rescaled image. No frame has as many.
const LONGEST_EDGE: usize = 1 << 20;

/// A part of a frame, rescaled for the network; all (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rescaling {
    /// Size of the rescaled part in voxels.
    pub size: [usize; 3],
    /// Stored voxels that one rescaled voxel spans.
    pub pitch: [f64; 3],
    /// Centre of the first rescaled voxel, in rescaled voxels from the centre of the frame's first voxel.
    pub origin: [f64; 3],
}

impl Rescaling {
    /// As [`new`](Self::new), for the size that a request asks for; `None` for the frame's own. In 2-D there is one plane.
    ///
    /// # Errors
    /// When a size has an edge of 0 voxels or one that no frame has.
    pub fn checked(
        frame: [usize; 3],
        input: Option<[usize; 3]>,
        is_3d: bool,
        crop: CropBox,
        numerics: Numerics,
    ) -> Result<Self, PipelineError> {
        let input = input.unwrap_or(frame);
        let input = if is_3d { input } else { [1, input[1], input[2]] };
        if input.contains(&0) {
            return Err(PipelineError::Invalid(
                "the input size has an edge of 0 voxels; use rescale factors above 0".into(),
            ));
        }
        let rescaling = Self::new(frame, input, crop, numerics);
        if rescaling.size.contains(&0) {
            return Err(PipelineError::Invalid("the crop box vanishes in the rescaled image; use a larger one".into()));
        }
        // Before anything grows with a single edge.
        if rescaling.size.iter().any(|&edge| edge > LONGEST_EDGE) {
            return Err(PipelineError::TooLarge(format!(
                "too little memory: use a smaller input_size; no edge may have more than {LONGEST_EDGE} voxels"
            )));
        }
        Ok(rescaling)
    }

    /// Rescaling of `crop` when the whole frame of size `frame` is to have the size `input`; no size has a 0.
    ///
    /// The original truncates origin and size of the crop to whole voxels of the rescaled frame. Corrected, its corner
    /// voxels stay where they are, and its size is that which comes closest to the scale of the whole frame.
    pub fn new(frame: [usize; 3], input: [usize; 3], crop: CropBox, numerics: Numerics) -> Self {
        let whole: [f64; 3] = std::array::from_fn(|d| resampled_pitch(frame[d], input[d], numerics));
        match numerics {
            Numerics::Original => {
                // Multiplied by the factor, as the original does, and not divided by its inverse.
                let scale = |values: [usize; 3]| {
                    std::array::from_fn(|d| (values[d] as f64 * (input[d] as f64 / frame[d] as f64)) as usize)
                };
                Self { size: scale(crop.size), pitch: whole, origin: scale(crop.origin).map(|vox| vox as f64) }
            }
            Numerics::Corrected => {
                let size: [usize; 3] = std::array::from_fn(|d| {
                    (((crop.size[d] - 1) as f64 / whole[d]).round() as usize).saturating_add(1)
                });
                let pitch: [f64; 3] = std::array::from_fn(|d| resampled_pitch(crop.size[d], size[d], numerics));
                Self { size, pitch, origin: std::array::from_fn(|d| crop.origin[d] as f64 / pitch[d]) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use elephant_image::{Dims, SpotOptions, find_spots, resize_trilinear};
    use elephant_types::{CancelToken, VoxelSize};
    use ndarray::{Array3, s};

    use super::*;

    const VOXEL_UM: [f64; 3] = [2.0, 0.5, 0.5];

    /// A probability that falls from 1 at `center` to 1/2 at `radius`, all in stored voxels.
    fn blob(frame: [usize; 3], center: [f64; 3], radius: [f64; 3]) -> Array3<f32> {
        Array3::from_shape_fn(frame, |(z, y, x)| {
            let offset =
                [z, y, x].into_iter().zip(center).zip(radius).map(|((at, center), r)| (at as f64 - center) / r);
            (1.0 / (1.0 + offset.map(|d| d * d).sum::<f64>())) as f32
        })
    }

    /// Where the blob is found, in stored voxels, after `crop` was rescaled.
    fn found(image: &Array3<f32>, input: [usize; 3], crop: CropBox, numerics: Numerics) -> [f64; 3] {
        let frame: [usize; 3] = image.dim().into();
        let rescaling = Rescaling::new(frame, input, crop, numerics);
        let [z, y, x] = std::array::from_fn(|d| crop.origin[d]..crop.origin[d] + crop.size[d]);
        let small = resize_trilinear(image.slice(s![z, y, x]), rescaling.size, &CancelToken::default()).unwrap();
        let options = SpotOptions {
            t: 0,
            voxel_size: VoxelSize::new(std::array::from_fn(|d| VOXEL_UM[d] * rescaling.pitch[d])).unwrap(),
            origin_vox: rescaling.origin,
            c_ratio: 0.4,
            p_thresh: 0.5,
            r_min_um: 0.0,
            r_max_um: 1000.0,
            dims: Dims::ThreeD,
            use_2d: false,
            numerics,
        };
        let spots = find_spots(small.view(), &options, &CancelToken::default()).unwrap();
        assert_eq!(spots.len(), 1);
        std::array::from_fn(|d| spots[0].center_um[d] / VOXEL_UM[d])
    }

    /// The largest distance along an axis, in stored voxels.
    fn error(found: [f64; 3], center: [f64; 3]) -> f64 {
        found.iter().zip(center).map(|(found, center)| (found - center).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_blob_rescaled_by_four_comes_back_where_it_was() {
        let frame = [16, 320, 320];
        let crop = CropBox { origin: [0; 3], size: frame };
        for center in [[8.0, 40.0, 40.0], [8.0, 160.0, 280.0], [7.0, 281.0, 279.0]] {
            let image = blob(frame, center, [4.0, 28.0, 28.0]);
            let shift = |numerics| error(found(&image, [16, 80, 80], crop, numerics), center);
            assert!(shift(Numerics::Corrected) < 0.2, "{center:?}: {}", shift(Numerics::Corrected));
            // Up to 3 voxels at the far end.
            let expected = 3.0 * center[1].max(center[2]) / 319.0;
            assert!((shift(Numerics::Original) - expected).abs() < 0.2, "{center:?}: {}", shift(Numerics::Original));
        }
    }

    #[test]
    fn a_crop_box_does_not_move_it_either() {
        let frame = [16, 320, 320];
        let center = [8.0, 161.0, 173.0];
        let image = blob(frame, center, [3.0, 24.0, 24.0]);
        for (origin, size) in
            [([0, 103, 103], [16, 120, 140]), ([1, 121, 103], [14, 90, 111]), ([0; 3], [16, 233, 320])]
        {
            let crop = CropBox { origin, size };
            for input in [[16, 96, 96], [16, 80, 80], [16, 320, 320], [8, 160, 107]] {
                let shift = error(found(&image, input, crop, Numerics::Corrected), center);
                assert!(shift < 0.25, "{crop:?} {input:?}: {shift}");
            }
        }
    }

    #[test]
    fn without_rescaling_nothing_changes() {
        let crop = CropBox { origin: [1, 2, 3], size: [1, 5, 7] };
        for numerics in [Numerics::Original, Numerics::Corrected] {
            let rescaling = Rescaling::new([4, 9, 10], [4, 9, 10], crop, numerics);
            assert_eq!(rescaling, Rescaling { size: crop.size, pitch: [1.0; 3], origin: [1.0, 2.0, 3.0] });
        }
    }

    #[test]
    fn every_crop_has_a_voxel_left() {
        let rescaling = Rescaling::new(
            [4, 100, 100],
            [1, 10, 10],
            CropBox { origin: [3, 50, 99], size: [1, 2, 1] },
            Numerics::Corrected,
        );
        assert_eq!(rescaling.size, [1, 1, 1]);
        assert!(rescaling.origin.iter().all(|value| value.is_finite()));
    }
}
