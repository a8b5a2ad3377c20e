//! One frame in, its cells out (docs/protocol.md, "POST /seg/predict"; docs/method.md).
//!
//! The network reads the frame tile by tile, and what it has finished is searched for cells and stored plane by plane, so
//! that memory grows with the size of a plane and with the cells, not with the number of planes.

mod input;
mod request;
mod resampler;
mod storing;

use std::sync::{Arc, Mutex, PoisonError};

use elephant_image::{Dims, SpotFinder, SpotOptions};
use elephant_memory::{Memory, Need};
use elephant_model::{ModelError, PlaneSink, ProbabilityOutput, SegmentationModel, SegmentationOptions};
use elephant_types::{CancelToken, NetworkKind, NetworkType, Numerics, Spot, TaskContext, VoxelSize};
use elephant_volume::FrameSource;
use ndarray::{ArrayView4, Axis};

pub use self::request::PredictRequest;
use self::storing::StoredProbabilities;
pub(crate) use self::{input::NetworkInput, resampler::PlaneResampler};
use crate::{
    Models, PipelineError, Workspace,
    frames::{CropBox, HeldDataset, Normalization, check_dimensions, check_timepoint, open_dataset},
    rescaling::Rescaling,
};

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
    /// Probabilities are stored aside and put into the dataset when all of them are there.
    ///
    /// # Errors
    /// When the dataset, timepoint, crop or model is not there, does not fit, or the task is cancelled. No probabilities
    /// change then, unless the disk fails while they are put into the dataset. A kill at that moment leaves planes of two
    /// predictions; the job's record says that it was interrupted.
    pub fn predict(&self, request: &PredictRequest, context: &TaskContext) -> Result<Vec<Spot>, PipelineError> {
        let cancel = context.cancel_token();
        let dataset = self.open(request)?;
        let frame = dataset.shape();
        let crop = checked_crop(request, frame)?;
        let rescaling = Rescaling::checked(frame, request.input_size, request.is_3d, crop, self.numerics)?;
        let options = self.segmentation(request);
        let held = held_bytes(&dataset, crop.size, rescaling.size, &options);
        let in_turn = self.network.segment_bytes(rescaling.size, &options)?;
        // Before memory is set aside, as it may be fetched from far away.
        let model = self.models.require(&request.model, NetworkType::detection(options.kind), context)?;
        let reserved = self.memory.reserve(Need::while_running(held, in_turn), cancel);
        let _memory = reserved.map_err(PipelineError::memory("use smaller patches or batches, or a crop box"))?;
        context.check()?;

        let finder = SpotFinder::new(rescaling.size, spot_options(request, &rescaling, self.numerics)?)?;
        let normalization = Normalization::new(&dataset, request.timepoint, crop, request.use_median, cancel)?;
        let image = NetworkInput::new(dataset.frames(), request.timepoint, crop, normalization, rescaling.size)?;
        let stored = request.output_prediction.then(|| {
            let folder = elephant_fs::staging_folder(dataset.folder())?;
            let writer = dataset.dataset().probability_writer(request.timepoint, crop.origin, crop.size, folder)?;
            StoredProbabilities::new(writer, options.output.channels(), rescaling.size, crop.size)
        });
        let mut results = Results { finder, stored: stored.transpose()? };
        self.network.segment(&model, Arc::new(image), &options, &mut results, context)?;
        let spots = results.finder.finish(cancel)?;
        if let Some(stored) = results.stored {
            context.check()?;
            // Crops that overlap share chunks, which are read, changed and written.
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            stored.publish()?;
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
        check_dimensions(dataset.dataset(), name, request.is_3d)?;
        check_timepoint(dataset.dataset(), name, request.timepoint)?;
        Ok(dataset)
    }
}

/// Takes the probabilities: finds cells in them, and stores them if asked.
struct Results<'a> {
    finder: SpotFinder,
    stored: Option<StoredProbabilities<'a>>,
}

impl PlaneSink for Results<'_> {
    fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), ModelError> {
        // The class "centre" is the last channel, or the only one.
        let center = planes.index_axis(Axis(0), planes.len_of(Axis(0)) - 1);
        self.finder.push(center, cancel).map_err(|error| ModelError::from_coded(&error))?;
        let Some(stored) = &mut self.stored else { return Ok(()) };
        stored.take(z, planes, cancel).map_err(|error| ModelError::from_coded(&error))
    }
}

fn spot_options(
    request: &PredictRequest,
    rescaling: &Rescaling,
    numerics: Numerics,
) -> Result<SpotOptions, PipelineError> {
    let edges = request.voxel_size.zyx();
    let voxel_size = VoxelSize::new(std::array::from_fn(|d| edges[d] * rescaling.pitch[d]))
        .map_err(|error| PipelineError::Invalid(error.to_string()))?;
    Ok(SpotOptions {
        t: request.timepoint,
        voxel_size,
        origin_vox: rescaling.origin,
        c_ratio: request.center_ratio,
        p_thresh: request.threshold,
        r_min_um: request.min_radius_um,
        r_max_um: request.max_radius_um,
        dims: if request.is_3d { Dims::ThreeD } else { Dims::TwoD },
        use_2d: request.use_2d,
        numerics,
    })
}

/// Bytes that a prediction holds at the most, where `crop` is the size of what is read and `input` that of what the network
/// sees, both (z, y, x). What the network holds besides is its own matter.
fn held_bytes(frames: &FrameSource, crop: [usize; 3], input: [usize; 3], options: &SegmentationOptions) -> u64 {
    let stored = match options.output {
        ProbabilityOutput::Center => 0,
        ProbabilityOutput::AllClasses => StoredProbabilities::bytes(options.output.channels(), input, crop),
    };
    let read = frames.reading_bytes().saturating_add(NetworkInput::reading_bytes(crop, input));
    read.saturating_add(SpotFinder::most_bytes(input)).saturating_add(stored)
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

#[cfg(test)]
mod tests {
    use elephant_types::KeepAxials;
    use elephant_volume::{DataType, Dataset, DatasetShape, FrameCache};

    use super::*;

    #[test]
    fn what_is_held_does_not_grow_with_the_number_of_planes() {
        let held = |planes: usize, output, input: [usize; 2]| {
            let frame = [planes, 2048, 2048];
            let folder = tempfile::tempdir().unwrap();
            let shape = DatasetShape { timepoints: 1, frame, is_3d: true };
            Dataset::create(folder.path(), shape, DataType::U16).unwrap();
            let frames = FrameSource::open(folder.path(), &FrameCache::default()).unwrap();
            let options = SegmentationOptions {
                kind: NetworkKind::Volumetric,
                keep_axials: KeepAxials::first(2),
                tile: Some([16, 384, 384]),
                is_pad: false,
                batch_size: 1,
                numerics: Numerics::Corrected,
                output,
            };
            held_bytes(&frames, frame, [planes, input[0], input[1]], &options)
        };
        for (output, input) in [
            (ProbabilityOutput::Center, [2048; 2]),
            (ProbabilityOutput::AllClasses, [2048; 2]),
            (ProbabilityOutput::AllClasses, [1024; 2]),
        ] {
            // A few bytes are for each row of voxels.
            assert!(held(4096, output, input) - held(512, output, input) < 64 << 20);
            assert!(held(4096, output, input) < 4 << 30);
        }
    }
}
