//! Training the detection network with labels, or with the images alone (contract sections 1.10, 1.11 and 6.10).
//!
//! Three things happen at once: one thread cuts out crops, the device makes steps, and a third thread writes the model
//! after each epoch. So the device never waits for crops or for the disk.

mod crops;
mod live;
mod pretrain;
mod prior;
mod request;
mod saver;
mod schedule;

use std::{path::PathBuf, sync::Arc, thread};

use elephant_checkpoint::{Checkpoint, Provenance};
use elephant_memory::{Memory, Need, Reservation};
use elephant_types::{Coded, ErrorCode, Numerics, TaskContext, TaskEvent, TrainingOptions, TrainingStep};
use elephant_volume::Dataset;

use self::{
    crops::Crops,
    saver::{ModelFiles, Saver, Snapshot},
    schedule::{Lesson, Schedule},
};
pub use self::{
    live::LiveTrainings,
    pretrain::{Pretraining, pretrain},
    prior::PriorTraining,
    request::{CropOptions, Lessons, MAX_CROPS, MAX_LEARNING_RATE, TrainRequest},
};
use crate::{
    Labels, ModelInTraining, Models, PipelineError, SegmentationModel, TrainableModel, Workspace, frames::open_dataset,
    scalars::ScalarLog,
};

/// What may change while a training runs, and who wants to know.
pub trait TrainingControl: Sync {
    /// A learning rate and a number of crops per timepoint that were set since the training began, if any.
    fn changes(&self) -> (Option<f64>, Option<u32>);

    /// A live training learns from this timepoint now; `None` while it waits for the next.
    fn follows(&self, timepoint: Option<usize>);
}

/// Trains the models of a workspace.
pub struct Trainer {
    workspace: Workspace,
    models: Arc<Models>,
    network: Arc<dyn SegmentationModel>,
    trainable: Arc<dyn TrainableModel>,
    labels: Labels,
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
        memory: Memory,
        numerics: Numerics,
    ) -> Self {
        Self {
            workspace: workspace.clone(),
            models,
            network: network.clone(),
            trainable: network,
            labels,
            live: LiveTrainings::default(),
            memory,
            numerics,
        }
    }

    /// Where updates of labels are to be told.
    pub fn live(&self) -> &LiveTrainings {
        &self.live
    }

    /// Trains a model until its epochs are done, or, live, until the task is cancelled. The model's file is replaced
    /// after each epoch and when the training stops; what the optimiser remembers is kept beside it, and a later training
    /// of the same parameters goes on with it.
    ///
    /// # Errors
    /// When the request makes no sense, there is nothing to learn from, the loss is no longer a number, or a file cannot
    /// be written. The model is then the one after the last epoch.
    pub fn train(
        &self,
        request: &TrainRequest,
        control: &dyn TrainingControl,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        request.validate()?;
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        check_dimensions(&dataset, &request.crops)?;
        // Each device has a batch of its own, as with the original's distributed training.
        let batch_size = request.batch_size * self.trainable.device_count()?;
        let _memory = self.reserve(&dataset, &request.crops, batch_size, context)?;
        if let Lessons::Spots { labels, .. } = &request.lessons {
            self.labels.update(labels, &TaskContext::new(context.cancel_token().clone(), |_| {}))?;
        }
        let kind = request.crops.kind();
        let files = ModelFiles::of(self.models.require(&request.model, kind, context)?);
        let checkpoint = Checkpoint::read(&files.model)?;
        self.network.verify(&checkpoint, kind)?;
        let state = files.optimizer_state(&checkpoint);
        let provenance = checkpoint.provenance.clone();
        let model = self.trainable.begin(checkpoint, self.options(request), state, context.cancel_token())?;
        let log = ScalarLog::open(&self.log_folder(request)?, request.log_interval);
        let mut run =
            Run { model: &*model, request, control, context, log, provenance, done: 0, total: None, is_saved: true };
        thread::scope(|scope| {
            let saver = Saver::start(scope, &files, context);
            let schedule = Schedule::new(request, batch_size, &self.live, control);
            let crops = Crops::new(&dataset, &request.crops, request.seed);
            let (lessons, received) = std::sync::mpsc::sync_channel(1);
            let cancel = context.cancel_token();
            scope.spawn(move || schedule.teach(crops, &lessons, cancel));
            let trained = received.into_iter().try_for_each(|lesson| run.learn(lesson, &saver));
            self.live.close();
            // What was learnt since the last epoch is kept too, unless it went wrong.
            let is_sound = trained.as_ref().err().is_none_or(|error| error.code() == ErrorCode::Cancelled);
            let last = if is_sound && !run.is_saved { Some(run.snapshot()?) } else { None };
            let saved = saver.finish(last);
            run.log.flush();
            // A failed thread has stopped the training, so that its error is the reason.
            saved.and(trained)
        })
    }

    /// Sets memory aside for a training, before any crop is cut out.
    fn reserve(
        &self,
        dataset: &Dataset,
        crops: &CropOptions,
        batch_size: usize,
        context: &TaskContext,
    ) -> Result<Reservation, PipelineError> {
        /// Batches that are being cut out, wait and are learnt from.
        const BATCHES: u64 = 3;
        /// An intensity and a label.
        const VOXEL_BYTES: u64 = (size_of::<f32>() + size_of::<u8>()) as u64;
        let voxels = crops.voxels(dataset.frame_shape()).saturating_mul(batch_size as u64);
        let need = Need {
            held: voxels.saturating_mul(BATCHES * VOXEL_BYTES),
            in_turn: self.trainable.step_bytes(voxels, self.numerics)?,
        };
        let reserved = self.memory.reserve(need, context.cancel_token());
        reserved.map_err(PipelineError::memory("train with smaller crops or a smaller batch"))
    }

    fn options(&self, request: &TrainRequest) -> TrainingOptions {
        TrainingOptions { objective: request.objective.clone(), numerics: self.numerics }
    }

    fn log_folder(&self, request: &TrainRequest) -> Result<PathBuf, PipelineError> {
        Ok(self.workspace.log_folder(&request.log_folder)?)
    }
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
    log: ScalarLog,
    /// Where the model came from before this training.
    provenance: Option<Provenance>,
    done: u64,
    total: Option<u64>,
    /// Whether the saver has, or had, all that was learnt.
    is_saved: bool,
}

impl Run<'_> {
    fn snapshot(&self) -> Result<Snapshot, PipelineError> {
        let (checkpoint, state) = self.model.snapshot()?;
        let before = self.provenance.clone().unwrap_or_else(|| Provenance { origin: "unknown".into(), steps: 0 });
        let provenance = Some(Provenance { steps: before.steps.saturating_add(self.done), ..before });
        Ok(Snapshot { checkpoint: Checkpoint { provenance, ..checkpoint }, state })
    }

    fn learn(&mut self, lesson: Result<Lesson, PipelineError>, saver: &Saver<'_>) -> Result<(), PipelineError> {
        self.context.check()?;
        match lesson? {
            Lesson::Epoch { steps_left } => self.total = steps_left.map(|left| self.done + left),
            Lesson::Batch(batch) => {
                let rate = self.control.changes().0.unwrap_or(self.request.learning_rate);
                let loss = self.model.step(batch, rate, self.context.cancel_token())?;
                self.done += 1;
                self.is_saved = false;
                self.log.step(self.done, &loss);
                let (done, total) = (self.done, self.total);
                let step = TrainingStep { done, total, loss: loss.total, parts: loss.parts };
                self.context.tell(TaskEvent::TrainingStep(step));
            }
            Lesson::EpochEnd => {
                self.is_saved = saver.offer(self.snapshot()?);
                self.log.flush();
            }
        }
        if saver.has_failed() { Err(stopped()) } else { Ok(()) }
    }
}

/// The error of a training whose files cannot be written; the writer's own takes its place.
fn stopped() -> PipelineError {
    crate::PortError::new(ErrorCode::Internal, "the model could not be written").into()
}
