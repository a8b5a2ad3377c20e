//! One frame in, its cells out (contract sections 1.8 and 6).

use std::sync::{Arc, Mutex, PoisonError};

use elephant_image::{Dims, SpotFinder, SpotOptions, find_spots, resize_trilinear, resize_trilinear_into};
use elephant_memory::{Memory, Need};
use elephant_types::{
    CancelToken, DatasetName, KeepAxials, ModelName, NetworkKind, Numerics, ProbabilityOutput, SegmentationOptions,
    SegmentationRequest, Spot, TaskContext, VoxelSize,
};
use elephant_volume::Dataset;
use ndarray::{Array3, Array4, Axis};

use crate::{
    Models, PipelineError, SegmentationModel, Workspace,
    frames::{HeldDataset, check_timepoint, normalized_frame, open_dataset},
    rescaling::Rescaling,
};

/// Voxels along an edge of the rescaled image. No frame has as many.
const LONGEST_EDGE: usize = 1 << 20;

/// Which frame to predict, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The model; a missing one is replaced by the pretrained one.
    pub model: ModelName,
    /// The timepoint, from 0.
    pub timepoint: usize,
    /// Edges of the stored voxels, before any rescaling.
    pub voxel_size: VoxelSize,
    /// Pooling along z.
    pub keep_axials: KeepAxials,
    /// Whether the dataset is 3-D.
    pub is_3d: bool,
    /// Whether a 2-D network looks at each plane of a 3-D dataset.
    pub use_2d: bool,
    /// Whether tiles are padded.
    pub is_pad: bool,
    /// Whether each plane's median is moved to that of the frame first (3-D only).
    pub use_median: bool,
    /// Whether the class probabilities are stored in the dataset.
    pub output_prediction: bool,
    /// Size of the network's class "centre" as a fraction of the cell, in (0, 1].
    pub center_ratio: f64,
    /// Probability of the class "centre" above which a voxel belongs to a cell.
    pub threshold: f64,
    /// Smaller cells are dropped (micrometres).
    pub min_radius_um: f64,
    /// Larger semi-axes are clipped (micrometres).
    pub max_radius_um: f64,
    /// Tile size (z, y, x) in voxels of the rescaled image; `None` computes it in one piece.
    pub patch: Option<[usize; 3]>,
    /// Part of the frame to look at, in stored voxels; `None` is all of it.
    pub crop: Option<CropBox>,
    /// Size (z, y, x) to which the whole frame is rescaled first.
    pub input_size: Option<[usize; 3]>,
    /// Tiles per forward pass, at least 1.
    pub batch_size: usize,
}

impl PredictRequest {
    /// Whether the numbers make sense, as far as can be told without the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field, by the client's name.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let check =
            |is_valid: bool, rule: &str| if is_valid { Ok(()) } else { Err(PipelineError::Invalid(rule.into())) };
        let (min, max) = (self.min_radius_um, self.max_radius_um);
        check(
            self.center_ratio > 0.0 && self.center_ratio <= 1.0,
            "c_ratio must be above 0 and at most 1, usually 0.4",
        )?;
        check((0.0..=1.0).contains(&self.threshold), "p_thresh must be 0 to 1")?;
        check(min.is_finite() && min >= 0.0, "r_min must be 0 or more")?;
        check(max.is_finite() && max > 0.0 && max >= min, "r_max must be above 0 and not below r_min")?;
        check(self.patch.is_none_or(|patch| !patch.contains(&0)), "patch must have edges of at least 1 voxel")?;
        check(self.batch_size >= 1, "batch_size must be at least 1")
    }
}

/// An axis-parallel box of voxels, (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// The first voxel.
    pub origin: [usize; 3],
    /// Edge lengths.
    pub size: [usize; 3],
}

impl CropBox {
    fn whole(shape: [usize; 3]) -> Self {
        Self { origin: [0; 3], size: shape }
    }
}

/// Detects the cells of one frame.
pub struct Predictor {
    workspace: Workspace,
    models: Arc<Models>,
    network: Arc<dyn SegmentationModel>,
    memory: Memory,
    numerics: Numerics,
    /// Held while probabilities are stored.
    writing: Mutex<()>,
}

impl Predictor {
    /// Predicts datasets of `workspace` with its `models` on `network`, within `memory`, by the rules of `numerics`.
    pub fn new(
        workspace: &Workspace,
        models: Arc<Models>,
        network: Arc<dyn SegmentationModel>,
        memory: Memory,
        numerics: Numerics,
    ) -> Self {
        Self { workspace: workspace.clone(), models, network, memory, numerics, writing: Mutex::default() }
    }

    /// The cells of one frame, in raster order of their first voxel. Waits until there is memory for it.
    ///
    /// # Errors
    /// When the dataset, timepoint, crop or model is not there, does not fit, or the task is cancelled. Nothing is
    /// written then.
    pub fn predict(&self, request: &PredictRequest, context: &TaskContext) -> Result<Vec<Spot>, PipelineError> {
        let dataset = self.open(request)?;
        let frame = dataset.frame_shape();
        let crop = checked_crop(request, frame)?;
        let rescaling = Rescaling::new(frame, checked_input_size(request, frame)?, crop, self.numerics);
        if rescaling.size.contains(&0) {
            return Err(PipelineError::Invalid("the crop box vanishes in the rescaled image; use a larger one".into()));
        }
        // Before anything grows with a single edge.
        if rescaling.size.iter().any(|&edge| edge > LONGEST_EDGE) {
            return Err(PipelineError::TooLarge(format!(
                "too little memory: use a smaller input_size; no edge may have more than {LONGEST_EDGE} voxels"
            )));
        }
        let options = self.segmentation(request);
        let held = held_bytes(crop.size, rescaling.size, request.use_median, options.output);
        let in_turn = self.network.segment_bytes(rescaling.size, &options)?;
        // Before memory is set aside, as it may be fetched from far away.
        let model = self.models.require(&request.model, options.kind, context)?;
        let reserved = self.memory.reserve(Need::while_running(held, in_turn), context.cancel_token());
        let _memory = reserved.map_err(PipelineError::memory("use smaller patches or batches, or a crop box"))?;
        context.check()?;

        let image = prepare(&dataset, request, crop, rescaling.size, context.cancel_token())?;
        context.check()?;
        let probabilities = self.network.segment(&model, SegmentationRequest { image, options }, context)?;
        let spots = self.spots(request, &probabilities, &rescaling, context)?;
        if request.output_prediction {
            let stored = resized_classes(probabilities, crop.size)?;
            context.check()?;
            // Crops that overlap share chunks, which are read, changed and written.
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            dataset.write_probabilities(request.timepoint, crop.origin, stored.view())?;
        }
        Ok(spots)
    }

    fn segmentation(&self, request: &PredictRequest) -> SegmentationOptions {
        SegmentationOptions {
            kind: if request.is_3d && !request.use_2d { NetworkKind::Volumetric } else { NetworkKind::Planar },
            keep_axials: request.keep_axials,
            tile: request.patch,
            is_pad: request.is_pad,
            batch_size: request.batch_size,
            numerics: self.numerics,
            output: if request.output_prediction { ProbabilityOutput::AllClasses } else { ProbabilityOutput::Center },
        }
    }

    fn open(&self, request: &PredictRequest) -> Result<HeldDataset, PipelineError> {
        let name = &request.dataset;
        let dataset = open_dataset(&self.workspace, name)?;
        if dataset.is_3d() != request.is_3d {
            let dims = |is_3d| if is_3d { "3-D" } else { "2-D" };
            return Err(PipelineError::Invalid(format!(
                "the dataset is {} but the request says {}; set is_3d to {} for {name}",
                dims(dataset.is_3d()),
                dims(request.is_3d),
                dataset.is_3d()
            )));
        }
        check_timepoint(&dataset, name, request.timepoint)?;
        Ok(dataset)
    }

    fn spots(
        &self,
        request: &PredictRequest,
        probabilities: &Array4<f32>,
        rescaling: &Rescaling,
        context: &TaskContext,
    ) -> Result<Vec<Spot>, PipelineError> {
        let edges = request.voxel_size.zyx();
        let voxel_size = VoxelSize::new(std::array::from_fn(|d| edges[d] * rescaling.pitch[d]))
            .map_err(|error| PipelineError::Invalid(error.to_string()))?;
        let options = SpotOptions {
            t: request.timepoint,
            voxel_size,
            origin_vox: rescaling.origin,
            c_ratio: request.center_ratio,
            p_thresh: request.threshold,
            r_min_um: request.min_radius_um,
            r_max_um: request.max_radius_um,
            dims: if request.is_3d { Dims::ThreeD } else { Dims::TwoD },
            use_2d: request.use_2d,
            numerics: self.numerics,
        };
        // The class "centre" is the last channel, or the only one.
        let center = probabilities.index_axis(Axis(0), probabilities.len_of(Axis(0)) - 1);
        Ok(find_spots(center, &options, context.cancel_token())?)
    }
}

/// Bytes of the arrays of a prediction at the most, where `crop` is what is read and `input` what the network sees, both
/// (z, y, x). What the network needs besides is its own matter.
fn held_bytes(crop: [usize; 3], input: [usize; 3], use_median: bool, output: ProbabilityOutput) -> u64 {
    const VALUE: u64 = size_of::<f32>() as u64;
    let voxels = |shape: [usize; 3]| shape.iter().fold(1_u64, |product, &edge| product.saturating_mul(edge as u64));
    let (stored, seen) = (voxels(crop), voxels(input));
    let is_resized = crop != input;
    let arrays = |stored_arrays: u64, seen_arrays: u64| {
        let values = stored.saturating_mul(stored_arrays).saturating_add(seen.saturating_mul(seen_arrays));
        values.saturating_mul(VALUE)
    };
    let classes = if output == ProbabilityOutput::AllClasses { 3 } else { 1 };
    let preparing = arrays(1 + u64::from(use_median), u64::from(is_resized));
    let segmenting = arrays(0, 1 + classes);
    let finding = arrays(0, classes).saturating_add(SpotFinder::most_bytes(input));
    let storing = if classes > 1 && is_resized { arrays(classes, classes) } else { 0 };
    preparing.max(segmenting).max(finding).max(storing)
}

fn checked_crop(request: &PredictRequest, frame: [usize; 3]) -> Result<CropBox, PipelineError> {
    let Some(crop) = request.crop else { return Ok(CropBox::whole(frame)) };
    let fits =
        |d: usize| crop.size[d] > 0 && crop.origin[d].checked_add(crop.size[d]).is_some_and(|end| end <= frame[d]);
    if (0..3).all(fits) {
        return Ok(crop);
    }
    let xyz = |values: [usize; 3]| [values[2], values[1], values[0]];
    Err(PipelineError::Invalid(format!(
        "the crop box is not inside the image: it begins at {:?} with the size {:?}, the image has the size {:?} (x, y, z)",
        xyz(crop.origin),
        xyz(crop.size),
        xyz(frame)
    )))
}

fn checked_input_size(request: &PredictRequest, frame: [usize; 3]) -> Result<[usize; 3], PipelineError> {
    let input = request.input_size.unwrap_or(frame);
    let input = if request.is_3d { input } else { [1, input[1], input[2]] };
    if input.contains(&0) {
        return Err(PipelineError::Invalid(
            "the input size has an edge of 0 voxels; use rescale factors above 0".into(),
        ));
    }
    Ok(input)
}

/// The network's input: intensities scaled to 0..=1 over what is read, then rescaled (contract section 6.1).
fn prepare(
    dataset: &Dataset,
    request: &PredictRequest,
    crop: CropBox,
    input_shape: [usize; 3],
    cancel: &CancelToken,
) -> Result<Array3<f32>, PipelineError> {
    let image = normalized_frame(dataset, request.timepoint, crop.origin, crop.size, request.use_median, cancel)?;
    if image.shape() == input_shape {
        return Ok(image);
    }
    Ok(resize_trilinear(image.view(), input_shape)?)
}

/// Class probabilities at the size of the stored voxels.
fn resized_classes(probabilities: Array4<f32>, size: [usize; 3]) -> Result<Array4<f32>, PipelineError> {
    let (classes, z, y, x) = probabilities.dim();
    if [z, y, x] == size {
        return Ok(probabilities);
    }
    let mut resized = Array4::zeros((classes, size[0], size[1], size[2]));
    for (class, mut into) in probabilities.outer_iter().zip(resized.outer_iter_mut()) {
        resize_trilinear_into(class, into.view_mut())?;
    }
    Ok(resized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrays_of_a_prediction_are_counted_at_their_peak() {
        let frame = [64, 1024, 1024];
        let voxels = 64 << 20;
        let held = |crop, input, use_median, output| held_bytes(crop, input, use_median, output) as f64 / voxels as f64;
        // Image and map, or the map and what is found in it.
        assert!((8.0..16.0).contains(&held(frame, frame, false, ProbabilityOutput::Center)));
        assert!(held(frame, frame, false, ProbabilityOutput::AllClasses) >= 16.0);
        assert!(held(frame, [64, 512, 512], true, ProbabilityOutput::Center) >= 9.0);
        assert!(held(frame, [64, 512, 512], false, ProbabilityOutput::AllClasses) >= 15.0);
        assert_eq!(held_bytes([usize::MAX; 3], [usize::MAX; 3], true, ProbabilityOutput::AllClasses), u64::MAX);
    }
}
