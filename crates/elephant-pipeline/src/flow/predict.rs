//! Where the cells of one frame were in the frame before (docs/protocol.md, "POST /flow/predict"; docs/method.md, "Flow
//! network").
//!
//! The network sees a pair of frames once. Its field is kept in the dataset with a hash of everything that determines it, so
//! that later requests for the pair cost no forward pass, also after a restart.

use std::{ops::Range, path::Path, sync::Arc};

use elephant_image::{Dims, FieldMeans};
use elephant_memory::{Memory, Need};
use elephant_model::{FlowModel, FlowOptions, ImageSource, ModelError};
use elephant_types::{CancelToken, Coded, ErrorCode, NetworkType, Numerics, TaskContext};
use elephant_volume::{FlowWriter, FrameSource, VolumeError};
use half::f16;
use ndarray::ArrayViewMut3;

use super::{
    FlowAnswer, PredictFlowRequest,
    cache::{Fields, ModelContent},
    field::{Field, field_bytes, read_stored},
};
use crate::{
    Models, PipelineError, Workspace,
    frames::{CropBox, HeldDataset, Normalization, check_dimensions, check_timepoint, open_dataset},
    predict::NetworkInput,
    rescaling::Rescaling,
};

/// Predicts displacements of cells.
pub struct FlowPredictor {
    workspace: Workspace,
    models: Arc<Models>,
    network: Arc<dyn FlowModel>,
    memory: Memory,
    numerics: Numerics,
    fields: Fields,
}

impl FlowPredictor {
    /// Predicts datasets of `workspace` with its `models` on `network`, within `memory`, by the rules of `numerics`.
    pub fn new(
        workspace: &Workspace,
        models: Arc<Models>,
        network: Arc<dyn FlowModel>,
        memory: Memory,
        numerics: Numerics,
    ) -> Self {
        Self { workspace: workspace.clone(), models, network, memory, numerics, fields: Fields::default() }
    }

    /// Where the cells of a request were in the frame before, in the order of the request. Cells outside the image stay
    /// where they are. Waits until there is memory for it; without cells inside the image there is no forward pass.
    ///
    /// With a crop, the field of the whole pair is used where the dataset has it. Otherwise the network sees a box of the
    /// crop's size: the crop if all cells are in it, else one around the cells, else, if they do not fit into it, everything.
    ///
    /// # Errors
    /// When the dataset, timepoint or model is not there, does not fit, a cell has no ellipsoid, or the task is cancelled.
    pub fn predict(
        &self,
        request: &PredictFlowRequest,
        context: &TaskContext,
    ) -> Result<Vec<FlowAnswer>, PipelineError> {
        request.validate()?;
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        check_dimensions(dataset.dataset(), &request.dataset, request.is_3d)?;
        check_timepoint(dataset.dataset(), &request.dataset, request.timepoint)?;
        let mut means = means(&dataset, request)?;
        if let Some(bounds) = means.bounds() {
            self.fill(&dataset, request, &bounds, &mut means, context)?;
        }
        let displacements = means.finish();
        let answers = request.spots.iter().zip(displacements).map(|(spot, mean)| {
            let voxel = request.voxel_size.zyx();
            let displacement: [f64; 3] = std::array::from_fn(|axis| {
                let mean = match self.numerics {
                    // NumPy's mean of half-precision numbers.
                    Numerics::Original => f16::from_f64(mean[axis]).to_f64(),
                    Numerics::Corrected => mean[axis],
                };
                mean * voxel[axis]
            });
            let mut center_um: [f64; 3] = std::array::from_fn(|axis| spot.center_um[axis] + displacement[axis]);
            if !request.is_3d {
                center_um[0] = 0.0;
            }
            let squared_um2 = displacement.iter().map(|part| part * part).sum();
            FlowAnswer { id: spot.id, center_um, squared_um2 }
        });
        Ok(answers.collect())
    }

    /// Fills in the means of cells that lie within `bounds`, from the dataset or by the network.
    fn fill(
        &self,
        dataset: &HeldDataset,
        request: &PredictFlowRequest,
        bounds: &[Range<usize>; 3],
        means: &mut FieldMeans,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        let (cancel, pair, frame) = (context.cancel_token(), request.pair(), dataset.shape());
        let whole = CropBox::whole(frame);
        let rescaling = Rescaling::checked(frame, request.input_size, request.is_3d, whole, self.numerics)?;
        let model = self.models.require(&request.model, NetworkType::flow(request.kind()), context)?;
        let _turn = self.fields.enter(dataset.folder(), pair, cancel)?;
        let content = self.content(&model)?;
        let (size, folder) = (rescaling.size, dataset.folder());
        let hash = self.fields.hash(dataset.dataset(), folder, &content, request, size, self.numerics)?;
        // A damaged store of hashes or of fields is no reason to fail: the field is computed.
        if dataset.dataset().flow_hash(pair).unwrap_or_default() == Some(hash)
            && let Some(known) = self.stored(dataset, request, cancel)?
        {
            *means = known;
            return Ok(());
        }
        let area = match request.crop {
            Some(crop) if !request.output_prediction => area_around(crop, bounds, frame),
            _ => whole,
        };
        if area != whole {
            let rescaling = Rescaling::checked(frame, request.input_size, request.is_3d, area, self.numerics)?;
            return self.compute(dataset, request, &model, area, rescaling, false, means, context).map(drop);
        }
        let writer = self.compute(dataset, request, &model, whole, rescaling, true, means, context)?;
        // A model that was replaced meanwhile may have given any part of the field.
        let is_same = self.content(&model).is_ok_and(|now| now == content);
        let Some(writer) = writer else { return Ok(()) };
        context.check()?;
        let stored = self.fields.note(dataset.dataset(), pair, None).and_then(|()| {
            writer.publish()?;
            if is_same { self.fields.note(dataset.dataset(), pair, Some(hash)) } else { Ok(()) }
        });
        match stored {
            Err(error) if request.output_prediction || error.code() != ErrorCode::StorageFull => Err(error),
            Err(error) => {
                tracing::warn!(%error, "displacements are not kept for later requests");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The means of cells over the field in the dataset; `None` where that is damaged.
    fn stored(
        &self,
        dataset: &HeldDataset,
        request: &PredictFlowRequest,
        cancel: &CancelToken,
    ) -> Result<Option<FieldMeans>, PipelineError> {
        let need = Need::while_running(field_bytes(3, dataset.shape(), dataset.shape()), 0);
        let _memory = self.memory.reserve(need, cancel).map_err(PipelineError::memory("send fewer spots"))?;
        let mut means = means(dataset, request)?;
        let reason = match read_stored(dataset.dataset(), request.pair(), &mut means, cancel) {
            Ok(true) => return Ok(Some(means)),
            Ok(false) => "parts of them are missing".to_owned(),
            Err(PipelineError::Volume(error @ VolumeError::Chunk { .. })) => error.to_string(),
            Err(error) => return Err(error),
        };
        tracing::warn!(dataset = %request.dataset, pair = request.pair(), reason, "stored displacements are computed again");
        Ok(None)
    }

    fn content(&self, model: &Path) -> Result<ModelContent, PipelineError> {
        self.fields.model_content(model, self.models.published().number(model))
    }

    /// Lets the network compute the field in a box, and returns what puts it into the dataset, if `stores` asks for that.
    #[expect(clippy::too_many_arguments, reason = "they are the state of one request")]
    fn compute<'a>(
        &self,
        dataset: &'a HeldDataset,
        request: &PredictFlowRequest,
        model: &Path,
        area: CropBox,
        rescaling: Rescaling,
        stores: bool,
        means: &'a mut FieldMeans,
        context: &TaskContext,
    ) -> Result<Option<FlowWriter<'a>>, PipelineError> {
        let cancel = context.cancel_token();
        let options = FlowOptions {
            kind: request.kind(),
            keep_axials: request.keep_axials,
            tile: request.patch,
            is_pad: false,
            batch_size: request.batch_size,
            numerics: self.numerics,
        };
        let channels = options.components();
        let held = dataset
            .reading_bytes()
            .saturating_add(2 * NetworkInput::reading_bytes(area.size, rescaling.size))
            .saturating_add(field_bytes(channels, rescaling.size, area.size));
        let in_turn = self.network.displacement_bytes(rescaling.size, &options)?;
        let reserved = self.memory.reserve(Need::while_running(held, in_turn), cancel);
        let _memory = reserved.map_err(PipelineError::memory("use smaller patches or batches"))?;
        context.check()?;
        let earlier = frame_input(dataset, request.pair(), area, rescaling.size, cancel)?;
        let later = frame_input(dataset, request.timepoint, area, rescaling.size, cancel)?;
        let writer = stores.then(|| -> Result<_, PipelineError> {
            let folder = elephant_fs::staging_folder(dataset.folder())?;
            Ok(dataset.dataset().flow_writer(request.pair(), folder)?)
        });
        let norm_vox = request.keep_axials.flow_norm(request.max_displacement);
        let must_store = request.output_prediction;
        let mut field = Field::new(norm_vox, channels, area, rescaling.size, means, writer.transpose()?, must_store)?;
        let pair = Arc::new(FramePair([earlier, later]));
        self.network.displacements(model, pair, &options, &mut field, context)?;
        Ok(field.into_writer())
    }
}

/// The cells of a request, with nothing known of their displacements.
fn means(frames: &FrameSource, request: &PredictFlowRequest) -> Result<FieldMeans, PipelineError> {
    let dims = if request.is_3d { Dims::ThreeD } else { Dims::TwoD };
    let mut builder = FieldMeans::builder(frames.shape(), request.voxel_size, dims);
    for spot in &request.spots {
        builder.add(spot.center_um, spot.covariance_um2).map_err(|reason| {
            PipelineError::Invalid(format!("the displacement of spot {} cannot be computed: {reason}", spot.id))
        })?;
    }
    Ok(builder.build())
}

/// A box of the size of `crop`, cut to the frame, that holds the box `bounds`: the crop itself if it does, else one around
/// `bounds`; the whole frame if `bounds` is larger.
fn area_around(crop: CropBox, bounds: &[Range<usize>; 3], frame: [usize; 3]) -> CropBox {
    let size: [usize; 3] = std::array::from_fn(|axis| crop.size[axis].min(frame[axis]));
    if (0..3).any(|axis| bounds[axis].len() > size[axis]) {
        return CropBox::whole(frame);
    }
    let origin = |axis: usize| {
        let holds = |first: usize| first <= bounds[axis].start && bounds[axis].end <= first.saturating_add(size[axis]);
        let last = frame[axis] - size[axis];
        let first = crop.origin[axis].min(last);
        if holds(first) {
            first
        } else {
            (bounds[axis].start.midpoint(bounds[axis].end)).saturating_sub(size[axis] / 2).min(last)
        }
    };
    CropBox { origin: std::array::from_fn(origin), size }
}

/// A box of one frame as the network sees it, scaled to 0..=1 over the whole frame: as in training, and so that a crop shows
/// the network what the whole frame does.
fn frame_input(
    dataset: &HeldDataset,
    t: usize,
    area: CropBox,
    size: [usize; 3],
    cancel: &CancelToken,
) -> Result<NetworkInput, PipelineError> {
    let normalization = Normalization::new(dataset, t, CropBox::whole(dataset.shape()), false, cancel)?;
    Ok(NetworkInput::new(dataset.frames(), t, area, normalization, size)?)
}

/// Two frames as the channels of one image: the earlier one, then the later one.
struct FramePair([NetworkInput; 2]);

impl ImageSource for FramePair {
    fn shape(&self) -> [usize; 3] {
        self.0[0].shape()
    }

    fn channels(&self) -> usize {
        self.0.len()
    }

    fn read(
        &self,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), ModelError> {
        let Some(frame) = self.0.get(channel) else {
            return Err(ModelError::new(ErrorCode::Internal, format!("a pair of frames has no channel {channel}")));
        };
        frame.read(0, origin, out, cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_moved_to_where_the_cells_are() {
        let (frame, size) = ([16, 100, 100], [16, 40, 40]);
        let bounds = |z: Range<usize>, y: Range<usize>, x: Range<usize>| [z, y, x];
        let crop = |y: usize, x: usize| CropBox { origin: [0, y, x], size };
        let inside = bounds(2..8, 12..20, 15..30);
        assert_eq!(area_around(crop(5, 10), &inside, frame), crop(5, 10), "the crop as it was sent");
        // The place of the last action.
        let elsewhere = bounds(2..8, 90..100, 50..60);
        assert_eq!(area_around(crop(5, 10), &elsewhere, frame), crop(60, 35));
        let large = bounds(2..8, 10..20, 10..60);
        assert_eq!(area_around(crop(5, 10), &large, frame), CropBox::whole(frame));
        // Boxes that leave the frame.
        let far = CropBox { origin: [usize::MAX; 3], size: [usize::MAX, 40, 40] };
        assert_eq!(area_around(far, &elsewhere, frame), crop(60, 35));
        assert_eq!(area_around(far, &bounds(0..2, 70..90, 61..99), frame), crop(60, 60));
    }
}
