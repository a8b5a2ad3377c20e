//! Training the detection network with labels, or with the images alone (docs/protocol.md, "POST /seg/train" and
//! "POST /seg/reset"; docs/method.md, "Training data and loop").
//!
//! Three threads work at once: one cuts crops, the device makes steps, and a third one saves the model after each epoch. So
//! the device waits neither for crops nor for the disk.

mod batches;
mod crops;
mod live;
mod pairs;
mod pretrain;
mod prior;
mod progress;
mod request;
mod saver;
mod schedule;

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use elephant_checkpoint::{Checkpoint, Provenance};
use elephant_memory::{Memory, Need, Reservation};
use elephant_model::{ModelError, ModelInTraining, SegmentationModel, TrainableModel, TrainingOptions};
use elephant_types::{Coded, ErrorCode, NetworkTask, NetworkType, Numerics, TaskContext, TaskEvent, TrainingStep};
use elephant_volume::{Dataset, FrameSource};
use tracing::Span;

use self::{
    batches::{BatchSource, LabelledCrops},
    crops::Crops,
    pairs::LabelledPairs,
    progress::EpochLog,
    saver::{ModelFiles, Saver, Snapshot},
    schedule::{BatchEvent, Schedule},
};
pub use self::{
    live::LiveTrainings,
    pretrain::{Pretraining, pretrain},
    prior::PriorTraining,
    request::{CropOptions, MAX_CROPS, MAX_LEARNING_RATE, TrainRequest, TrainingMode},
};
use crate::{
    FlowLabels, Labels, Models, PipelineError, UpdateFlowLabels, Workspace, frames::open_dataset, scalars::ScalarLog,
};

/// Epochs that end so soon after the last snapshot do without one of their own, except in a live training: a snapshot
/// copies all parameters.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// Parameters that can change during training, and where the followed timepoint is shown.
pub trait TrainingControl: Sync {
    /// What was set since the training began.
    fn overrides(&self) -> TrainingOverrides;

    /// Shows that a live training learns from this timepoint now, updated last of several; `None` while it waits for the
    /// next.
    fn show_followed_timepoint(&self, timepoint: Option<usize>);
}

/// Parameters that take the place of those of the request, where they are set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingOverrides {
    /// Learning rate of Adam.
    pub learning_rate: Option<f64>,
    /// Crops of each timepoint in one epoch.
    pub crops_per_timepoint: Option<u32>,
}

/// Trains the models of a workspace.
pub struct Trainer {
    workspace: Workspace,
    models: Arc<Models>,
    network: Arc<dyn SegmentationModel>,
    trainable: Arc<dyn TrainableModel>,
    labels: Labels,
    flow_labels: FlowLabels,
    live: LiveTrainings,
    memory: Memory,
    numerics: Numerics,
}

impl Trainer {
    /// A trainer that uses a network within `memory`, by the rules of `numerics`.
    pub fn new<N: SegmentationModel + TrainableModel + 'static>(
        workspace: &Workspace,
        models: Arc<Models>,
        network: Arc<N>,
        labels: Labels,
        flow_labels: FlowLabels,
        memory: Memory,
        numerics: Numerics,
    ) -> Self {
        Self {
            workspace: workspace.clone(),
            models,
            network: network.clone(),
            trainable: network,
            labels,
            flow_labels,
            live: LiveTrainings::default(),
            memory,
            numerics,
        }
    }

    /// The live trainings, which are to be notified of label updates.
    pub fn live(&self) -> &LiveTrainings {
        &self.live
    }

    /// Trains a model until its epochs are done, or, live, until the task is cancelled. Predictions use the model
    /// after each epoch, or after each second where epochs are shorter. The model's file is replaced every half minute and
    /// when the training stops. The optimiser's state is kept beside it; a later training of the same parameters continues
    /// with it.
    ///
    /// # Errors
    /// When the request is invalid, no crop has a label, the loss is not finite, or a file cannot be written. The model
    /// is then the last one that predictions used, or, if it could not be written, the one before.
    pub fn train(
        &self,
        request: &TrainRequest,
        control: &dyn TrainingControl,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        request.validate()?;
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        check_dimensions(dataset.dataset(), &request.crops)?;
        // Each device has a batch of its own, as with the original's distributed training.
        let batch_size = request.batch_size * self.trainable.device_count()?;
        let network = request.network();
        let files = ModelFiles::of(self.models.require(&request.model, network, context)?);
        let checkpoint = Checkpoint::read(&files.model)?;
        self.network.verify(&checkpoint, network)?;
        let reserve = || self.reserve(&checkpoint, &dataset, &request.crops, batch_size, network, context);
        // Refused before any label changes. Drawing needs memory of its own, so it is not kept until then.
        drop(reserve()?);
        self.draw_labels(request, context)?;
        let _memory = reserve()?;
        let state = files.optimizer_state(&checkpoint);
        let provenance = checkpoint.provenance.clone();
        let model = self.trainable.begin(checkpoint, self.options(request), state, context.cancel_token())?;
        let epochs = match &request.mode {
            TrainingMode::Spots { epochs, .. } | TrainingMode::Links { epochs, .. } => Some(*epochs),
            TrainingMode::Live { .. } => None,
        };
        let mut run = Run {
            model: &*model,
            request,
            control,
            context,
            scalars: ScalarLog::open(&self.log_folder(request)?, request.log_interval),
            log: EpochLog::new(epochs),
            provenance,
            done: 0,
            total: None,
            is_offered: true,
            offered_at: None,
        };
        thread::scope(|scope| {
            let saver = Saver::start(scope, &files, &*self.trainable, self.models.published(), context);
            let schedule = Schedule::new(request, batch_size, &self.live, control);
            let crops = Crops::new(&request.dataset, &dataset, &request.crops, request.seed);
            let (batches, received) = std::sync::mpsc::sync_channel(1);
            let cancel = context.cancel_token();
            // A live training waits for updates without looking whether its batches are still taken.
            let closing = self.live.close_on_drop();
            let mut source = self.batch_source(request, crops);
            let span = Span::current();
            scope.spawn(move || span.in_scope(|| schedule.produce_batches(&mut *source, &batches, cancel)));
            let trained = received.into_iter().try_for_each(|event| run.handle(event, &saver));
            drop(closing);
            // Steps since the last epoch are saved too, unless one failed.
            let is_sound = trained.as_ref().err().is_none_or(|error| error.code() == ErrorCode::Cancelled);
            let offered = if is_sound { run.offer(&saver) } else { Ok(()) };
            let saved = saver.finish();
            run.scalars.flush();
            // A failed thread has stopped the training, so that its error is the reason.
            saved.and(offered).and(trained)
        })
    }

    /// Draws the labels that a training is to learn from, if they come with it.
    fn draw_labels(&self, request: &TrainRequest, context: &TaskContext) -> Result<(), PipelineError> {
        // Its progress is not the training's, but its remarks are.
        let told = context.clone();
        let remarks = move |event: TaskEvent| {
            if event.stage == TaskEvent::NOTE {
                told.tell(event);
            }
        };
        let drawing = TaskContext::watched(context.cancel_token().clone(), remarks);
        match &request.mode {
            TrainingMode::Spots { labels, .. } => self.labels.update(labels, &drawing).map(drop),
            TrainingMode::Links { labels, .. } => {
                let labels = UpdateFlowLabels { keep_axials: Some(request.crops.keep_axials), ..labels.clone() };
                self.flow_labels.update(&labels, &drawing).map(drop)
            }
            TrainingMode::Live { .. } => Ok(()),
        }
    }

    /// The batches that a training learns from.
    fn batch_source<'a>(&'a self, request: &TrainRequest, crops: Crops<'a>) -> Box<dyn BatchSource + Send + 'a> {
        match &request.mode {
            TrainingMode::Links { labels, .. } => {
                let norm_vox = request.crops.keep_axials.flow_norm(labels.max_displacement);
                Box::new(LabelledPairs::new(crops, &self.flow_labels, norm_vox))
            }
            TrainingMode::Spots { .. } | TrainingMode::Live { .. } => Box::new(LabelledCrops::new(crops, &self.labels)),
        }
    }

    /// Sets memory aside for a training, before any crop is cut out.
    fn reserve(
        &self,
        model: &Checkpoint,
        frames: &FrameSource,
        crops: &CropOptions,
        batch_size: usize,
        network: NetworkType,
        context: &TaskContext,
    ) -> Result<Reservation, PipelineError> {
        /// In training: a parameter, its gradient and two moments. A snapshot, or a step that is not taken yet: all but the
        /// gradient; one is being made, one waits to be published, one to be written. And what predictions use.
        const PARAMETER_BYTES: u64 = (4 + 3 * 3 + 1) * size_of::<f32>() as u64;
        /// One batch is being cut out, one waits, and one is in a step.
        const BATCHES: u64 = 3;
        let voxels = crops.voxels(frames.shape()).saturating_mul(batch_size as u64);
        let held =
            voxels.saturating_mul(BATCHES * voxel_bytes(network)).saturating_add(model.value_count() * PARAMETER_BYTES);
        let held = held.saturating_add(frames.reading_bytes());
        let need = Need::until_stopped(held, self.trainable.step_bytes(network.task, voxels, self.numerics)?);
        let reserved = self.memory.reserve(need, context.cancel_token());
        reserved.map_err(PipelineError::memory("use smaller crops or batches"))
    }

    fn options(&self, request: &TrainRequest) -> TrainingOptions {
        TrainingOptions { objective: request.objective(), numerics: self.numerics }
    }

    fn log_folder(&self, request: &TrainRequest) -> Result<PathBuf, PipelineError> {
        Ok(self.workspace.log_folder(&request.log_folder)?)
    }
}

/// Bytes of a crop's voxel: intensities and a label, or displacements and a weight.
fn voxel_bytes(network: NetworkType) -> u64 {
    let floats = match network.task {
        NetworkTask::Detection => 1,
        NetworkTask::Flow => 6,
    };
    floats * size_of::<f32>() as u64 + size_of::<u8>() as u64
}

fn check_dimensions(dataset: &Dataset, options: &CropOptions) -> Result<(), PipelineError> {
    if dataset.is_3d() == options.is_3d {
        return Ok(());
    }
    let dims = |is_3d| if is_3d { "3-D" } else { "2-D" };
    let message =
        format!("the dataset is {}, but is_3d asks for a {} network", dims(dataset.is_3d()), dims(options.is_3d));
    Err(PipelineError::Invalid(message))
}

/// The steps of one training.
struct Run<'a> {
    model: &'a dyn ModelInTraining,
    request: &'a TrainRequest,
    control: &'a dyn TrainingControl,
    context: &'a TaskContext,
    scalars: ScalarLog,
    log: EpochLog,
    /// Where the model came from before this training.
    provenance: Option<Provenance>,
    done: u64,
    total: Option<u64>,
    /// No step since the last snapshot that the saver got.
    is_offered: bool,
    /// When that was.
    offered_at: Option<Instant>,
}

impl Run<'_> {
    /// Gives the saver a snapshot, if there was a step since the last one.
    fn offer(&mut self, saver: &Saver<'_>) -> Result<(), PipelineError> {
        if !self.is_offered {
            saver.offer(self.snapshot()?);
            self.is_offered = true;
            self.offered_at = Some(Instant::now());
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot, PipelineError> {
        let (checkpoint, state) = self.model.snapshot()?;
        let before = self.provenance.clone().unwrap_or_else(|| Provenance { origin: "unknown".into(), steps: 0 });
        let provenance = Some(Provenance { steps: before.steps.saturating_add(self.done), ..before });
        Ok(Snapshot { checkpoint: Checkpoint { provenance, ..checkpoint }, state })
    }

    fn handle(&mut self, event: Result<BatchEvent, PipelineError>, saver: &Saver<'_>) -> Result<(), PipelineError> {
        self.context.check()?;
        match event? {
            BatchEvent::EpochBegin { steps_left } => self.total = steps_left.map(|left| self.done + left),
            BatchEvent::Batch(batch) => {
                let crop_count = batch.crop_count();
                let rate = self.control.overrides().learning_rate.unwrap_or(self.request.learning_rate);
                let loss = self.model.step(*batch, rate, self.context.cancel_token())?;
                self.done += 1;
                self.is_offered = false;
                self.scalars.step(self.done, &loss);
                self.log.step(loss.total, crop_count);
                let (done, total) = (self.done, self.total);
                let step = TrainingStep { done, total, loss: loss.total, parts: loss.parts };
                self.context.tell(step);
            }
            BatchEvent::EpochEnd => {
                // After a live epoch comes the person's prediction.
                let is_live = self.total.is_none();
                if is_live || self.offered_at.is_none_or(|offered_at| offered_at.elapsed() >= SNAPSHOT_INTERVAL) {
                    self.offer(saver)?;
                }
                self.scalars.flush();
                if let Some(line) = self.log.end_epoch(Instant::now()) {
                    tracing::info!("{line}");
                }
            }
        }
        if saver.has_failed() { Err(stopped()) } else { Ok(()) }
    }
}

/// The error of a training whose files cannot be written; the writer's own takes its place.
fn stopped() -> PipelineError {
    ModelError::new(ErrorCode::Internal, "the model could not be written").into()
}
