//! The thread that owns the device. Tensors live and die on it; everyone else holds a [`DeviceHandle`].
//!
//! Commands run one after the other in the order of their arrival. A panic fails its command only.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_model::{
    FlowOptions, ImageSource, LossValues, ModelError, ModelInTraining, PlaneSink, ProbabilityOutput,
    SegmentationOptions, TrainingBatch, TrainingOptions,
};
use elephant_types::{CancelToken, Cancelled, NetworkTask, NetworkType, Numerics, TaskContext};
use tracing::Span;

use self::worker::Worker;
use crate::{Model, NnError, blending::Slab, segment::SegmentationBytes, spec::NetworkSpec, status::Status, train};

/// Commands that may wait; further callers wait until there is room, in no order.
const QUEUE_LENGTH: usize = 16;
/// How often a waiting caller looks whether it was cancelled, or whether there is room in the queue.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Choice of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, or the CPU where there is none.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number, or an error.
    Cuda(usize),
    /// The first GPU, or an error; the crops of a training step are shared among all GPUs.
    AllCuda,
}

/// In which numbers the network computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bit throughout.
    #[default]
    F32,
    /// 16-bit products and activations below the two finest levels, sums in 32 bit. About two thirds of the time;
    /// probabilities of a trained network change by up to 0.02. Falls back to `F32` on a CPU without
    /// AVX512-BF16, for the original's numerics, and for trainings on a CPU.
    Bf16,
}

/// Options of the device's thread.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// The device to use.
    pub device: DeviceChoice,
    /// CPU threads of libtorch; `None` lets it choose (one for each core). Passes over memory use rayon's global pool.
    pub threads: Option<usize>,
    /// In which numbers to compute.
    pub precision: Precision,
}

/// Description of the device in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `cpu`, `cuda:0`, …
    pub name: String,
    /// The GPU's number, if it is one.
    pub gpu: Option<usize>,
    /// CPU threads that libtorch uses.
    pub threads: usize,
    /// In which numbers it computes.
    pub precision: Precision,
    /// How many devices share the crops of a training step.
    pub training_devices: usize,
}

/// A way to the device thread. Clones reach the same thread; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct DeviceHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Taken when the last handle is dropped, which lets the thread end.
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Status>,
}

/// Work for the thread. It sends its reply itself, and does not panic.
type Command = Box<dyn FnOnce(&mut Worker<'_>) + Send>;

/// What a caller does when it is cancelled while its command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenCancelled {
    /// It leaves at once; the command ends by itself.
    Leave,
    /// It waits until the command has noticed, so that it knows what the command has done.
    AwaitEnd,
}

/// A message from a command to its caller.
enum Reply<M, T> {
    Message(M),
    Result(Result<T, NnError>),
}

/// The command's end of the channel to its caller.
struct Outbox<M, T> {
    sender: SyncSender<Reply<M, T>>,
    /// Cancelled when the caller takes no more messages.
    refused: CancelToken,
}

impl<M, T> Outbox<M, T> {
    /// Waits until the caller has taken the message before.
    fn send(&self, message: M) -> Result<(), NnError> {
        self.refused.check()?;
        self.sender.send(Reply::Message(message)).map_err(|_| Cancelled.into())
    }
}

impl DeviceHandle {
    /// Starts the thread. A GPU that was asked for is there when this returns; otherwise the thread still looks for its
    /// device, which takes a moment where there is a GPU.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when the GPU that was asked for is not there, or the system starts no more threads.
    pub fn start(options: DeviceOptions) -> Result<Self, NnError> {
        let is_named = matches!(options.device, DeviceChoice::Cuda(_) | DeviceChoice::AllCuda);
        let device = Self::spawn(move |status, commands| worker::run(&options, status, commands))?;
        if is_named {
            device.info()?;
        }
        Ok(device)
    }

    /// Starts a thread that does `work`: finds the device, then executes commands.
    fn spawn(work: impl FnOnce(&Status, &Receiver<Command>) + Send + 'static) -> Result<Self, NnError> {
        let (commands, received) = mpsc::sync_channel(QUEUE_LENGTH);
        let status = Arc::new(Status::default());
        let thread_status = Arc::clone(&status);
        let body = move || {
            let _ended = thread_status.end_with_this();
            work(&thread_status, &received);
        };
        let thread = thread::Builder::new()
            .name("device".into())
            .spawn(body)
            .map_err(|error| NnError::NoDevice { device: "a thread".into(), reason: error.to_string() })?;
        Ok(Self(Arc::new(Shared { commands: Some(commands), thread: Some(thread), status })))
    }

    /// Description of the device. Waits until the thread has found it.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when the device that was asked for is not there, [`NnError::Stopped`] when the thread ended
    /// before it had found one.
    pub fn info(&self) -> Result<DeviceInfo, NnError> {
        self.0.status.wait()
    }

    /// Whether the device can be used now. Returns at once, so that it can be asked for readiness.
    ///
    /// # Errors
    /// [`NnError::Starting`] while the device is being looked for, [`NnError::NoDevice`] when it is not there,
    /// [`NnError::Stopped`] when its thread has ended, and [`NnError::Failing`] when a GPU fails again and again.
    pub fn health(&self) -> Result<(), NnError> {
        self.0.status.health()
    }

    /// Predicts the class probabilities of an image, with one channel or three as the options say, the mean over an
    /// ensemble. Waits for its turn, then gives `sink` the planes as they are finished; returns soon after `context` is
    /// cancelled. Progress is in tiles.
    ///
    /// # Errors
    /// [`NnError::WrongKind`] when the model is not a detection network of the kind that the options say,
    /// `InvalidRequest` for an empty image, `Caller` when the image or the sink fails, `Cancelled`, `OutOfMemory`, and
    /// `Panicked` or `Torch` for defects.
    pub fn segment(
        &self,
        model: Arc<Model>,
        image: Arc<dyn ImageSource>,
        options: &SegmentationOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), NnError> {
        model.require_type(NetworkType::detection(options.kind))?;
        self.predict(model, image, options, sink, context)
    }

    /// Predicts the displacements in a pair of frames, the two channels of `pair`, the mean over an ensemble; otherwise as
    /// [`segment`](Self::segment). See [`FlowModel::displacements`](elephant_model::FlowModel::displacements).
    ///
    /// # Errors
    /// [`NnError::WrongKind`] when the model is not a flow network of the kind that the options say; otherwise as for
    /// [`segment`](Self::segment).
    pub fn displacements(
        &self,
        model: Arc<Model>,
        pair: Arc<dyn ImageSource>,
        options: &FlowOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), NnError> {
        model.require_type(NetworkType::flow(options.kind))?;
        self.predict(model, pair, &all_outputs(options), sink, context)
    }

    fn predict(
        &self,
        model: Arc<Model>,
        image: Arc<dyn ImageSource>,
        options: &SegmentationOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), NnError> {
        let (cancel, options, progress) = (context.cancel_token(), *options, context.clone());
        // What it takes is the caller's until the device has let go of it.
        self.exchange(
            cancel,
            WhenCancelled::AwaitEnd,
            move |worker, outbox| worker.segment(&model, &*image, &options, &progress, &mut |slab| outbox.send(slab)),
            |slab: Slab| sink.take(slab.z, slab.planes(), cancel).map_err(NnError::Caller),
        )
    }

    /// Puts a model on the device to be trained; `state` is the optimiser's state after its last step.
    ///
    /// # Errors
    /// As for [`segment`](Self::segment), and [`NnError::InvalidTraining`] when the objective does not fit the network.
    pub fn train(
        &self,
        model: Arc<Model>,
        options: TrainingOptions,
        state: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Training, NnError> {
        let training = Training { owner: Arc::new(()), device: Waking(self.clone()) };
        let owner = Arc::downgrade(&training.owner);
        // Should this caller leave before the trainer is made, the training is dropped here, and then the trainer there.
        self.call(cancel, WhenCancelled::Leave, move |worker| {
            worker.begin_training(owner, &model, options, state.as_ref())
        })?;
        Ok(training)
    }

    /// Memory of this computer in bytes that a prediction holds at once while it is computed, for an image of `shape`
    /// (z, y, x): tiles, planes that are blended or wait for the sink, and, on the CPU, the network's activations.
    ///
    /// # Errors
    /// [`NnError::InvalidRequest`] for an image or tiles that cannot be segmented, [`NnError::NoDevice`] when there is no
    /// device.
    pub fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, NnError> {
        self.prediction_bytes(NetworkType::detection(options.kind), shape, options)
    }

    /// The same for [`displacements`](Self::displacements) in frames of `shape` (z, y, x).
    ///
    /// # Errors
    /// As for [`segment_bytes`](Self::segment_bytes).
    pub fn displacement_bytes(&self, shape: [usize; 3], options: &FlowOptions) -> Result<u64, NnError> {
        self.prediction_bytes(NetworkType::flow(options.kind), shape, &all_outputs(options))
    }

    fn prediction_bytes(
        &self,
        network: NetworkType,
        shape: [usize; 3],
        options: &SegmentationOptions,
    ) -> Result<u64, NnError> {
        let bytes = SegmentationBytes::new(NetworkSpec::of(network), shape, options)?;
        let activations = if self.info()?.gpu.is_some() { 0 } else { bytes.activations };
        Ok(activations.saturating_add(bytes.buffers))
    }

    /// Memory of this computer in bytes that a training step of a network for `task` over crops of so many voxels in all holds
    /// at once, beside the crops and the model. 0 where the network runs on a GPU.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when there is no device.
    pub fn training_bytes(&self, task: NetworkTask, voxels: u64, numerics: Numerics) -> Result<u64, NnError> {
        Ok(if self.info()?.gpu.is_some() { 0 } else { train::step_bytes(task, voxels, numerics) })
    }

    /// Lets the thread do `work` when its turn comes, and waits for the result or for `cancel`. Cancelled before its turn,
    /// the work and all that it holds are dropped at once.
    fn call<T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        when_cancelled: WhenCancelled,
        work: impl FnOnce(&mut Worker<'_>) -> Result<T, NnError> + Send + 'static,
    ) -> Result<T, NnError> {
        let work = |worker: &mut Worker<'_>, _: &Outbox<Infallible, T>| work(worker);
        self.exchange(cancel, when_cancelled, work, |message| match message {})
    }

    /// [`call`](Self::call) of work that sends messages while it goes on. `receive` takes them on this thread; when it
    /// fails, the work ends with the next message.
    fn exchange<M: Send + 'static, T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        when_cancelled: WhenCancelled,
        work: impl FnOnce(&mut Worker<'_>, &Outbox<M, T>) -> Result<T, NnError> + Send + 'static,
        mut receive: impl FnMut(M) -> Result<(), NnError>,
    ) -> Result<T, NnError> {
        let (sender, replies) = mpsc::sync_channel(1);
        let outbox = Outbox { sender, refused: CancelToken::default() };
        let refused = outbox.refused.clone();
        let waiting = Arc::new(Mutex::new(Some(work)));
        let (slot, span, asked) = (Arc::clone(&waiting), Span::current(), cancel.clone());
        let command: Command = Box::new(move |worker| {
            let Some(work) = take(&slot) else { return };
            let _entered = span.enter();
            let result = worker.guarded(|worker| {
                asked.check()?;
                work(worker, &outbox)
            });
            // A caller that was cancelled no longer listens.
            let _ = outbox.sender.send(Reply::Result(result));
        });
        self.send(command, cancel)?;
        let mut failure = None;
        loop {
            match replies.recv_timeout(CANCEL_POLL) {
                Ok(Reply::Message(message)) if failure.is_none() => {
                    if let Err(error) = receive(message) {
                        refused.cancel();
                        failure = Some(error);
                    }
                }
                Ok(Reply::Message(_)) => {}
                Ok(Reply::Result(result)) => return failure.map_or(result, Err),
                Err(RecvTimeoutError::Disconnected) => return Err(self.0.status.ended()),
                Err(RecvTimeoutError::Timeout) => {
                    let cancelled = cancel.check();
                    if cancelled.is_err() && (take(&waiting).is_some() || when_cancelled == WhenCancelled::Leave) {
                        cancelled?;
                    }
                }
            }
        }
    }

    /// Puts a command into the queue as soon as there is room.
    fn send(&self, mut command: Command, cancel: &CancelToken) -> Result<(), NnError> {
        let commands = self.0.commands.as_ref().ok_or(NnError::Stopped)?;
        loop {
            cancel.check()?;
            match commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(self.0.status.ended()),
                Err(TrySendError::Full(refused)) => command = refused,
            }
            thread::sleep(CANCEL_POLL);
        }
    }
}

/// A prediction of all outputs of a flow network.
fn all_outputs(options: &FlowOptions) -> SegmentationOptions {
    let FlowOptions { kind, keep_axials, tile, is_pad, batch_size, numerics } = *options;
    let output = ProbabilityOutput::AllClasses;
    SegmentationOptions { kind, keep_axials, tile, is_pad, batch_size, numerics, output }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A model that is being trained on the device, until it is dropped. Predictions find their turn between two steps.
#[derive(Debug)]
pub struct Training {
    /// The thread keeps the trainer for as long as this lives. Dropped first, so that the thread then wakes to find it
    /// gone.
    owner: Arc<()>,
    device: Waking,
}

/// Wakes the thread when dropped.
#[derive(Debug)]
struct Waking(DeviceHandle);

impl ModelInTraining for Training {
    /// A step that runs when it is cancelled returns soon after, before the next layer of the network; a step that waits
    /// returns at once.
    fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, ModelError> {
        let (owner, asked) = (Arc::downgrade(&self.owner), cancel.clone());
        let step = move |worker: &mut Worker<'_>| worker.trainer(&owner)?.step(&batch, learning_rate, &asked);
        Ok(self.device.0.call(cancel, WhenCancelled::AwaitEnd, step)?)
    }

    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), ModelError> {
        let (owner, never) = (Arc::downgrade(&self.owner), CancelToken::default());
        let snapshot = move |worker: &mut Worker<'_>| worker.trainer(&owner)?.snapshot();
        Ok(self.device.0.call(&never, WhenCancelled::Leave, snapshot)?)
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        if let Some(commands) = self.0.0.commands.as_ref() {
            // A full queue wakes the thread too, and an ended thread has nothing to drop.
            let _ = commands.try_send(Box::new(|_| {}));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.commands.take();
        if let Some(thread) = self.thread.take() {
            // Commands do not panic; a panic elsewhere has no caller to be reported to.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
mod worker;
