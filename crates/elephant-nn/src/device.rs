//! The thread that owns the device. Tensors live and die on it; everyone else holds a [`DeviceHandle`].
//!
//! Commands run one after the other in the order of their arrival. A panic fails its command only.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use elephant_checkpoint::{Fingerprint, OptimizerState};
use elephant_types::{
    CancelToken, LossValues, Numerics, SegmentationOptions, SegmentationRequest, TaskContext, TrainingBatch,
    TrainingOptions,
};
use ndarray::Array4;
use tch::Device;
use tracing::Span;

use crate::{
    Model, NnError, cuda,
    ops::{self, Arithmetic},
    segment,
    status::{NoDevice, Status},
    threads,
    train::{self, Hardware, Trainer},
    unet::{Build, Unet},
};

/// Commands that may wait; further callers wait until there is room, in no order.
const QUEUE_LENGTH: usize = 16;
/// Models whose networks stay on the device.
const CACHED_MODELS: usize = 2;
/// How often a waiting caller looks whether it was cancelled, or whether there is room in the queue.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Which device to use.
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

/// How the device is to work.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Which device.
    pub device: DeviceChoice,
    /// CPU threads of libtorch; `None` lets it choose (one for each core). Passes over memory use rayon's global pool.
    pub threads: Option<usize>,
    /// In which numbers to compute.
    pub precision: Precision,
}

/// What the device is.
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

/// What the thread is asked to do: it replies by itself, and does not panic.
type Command = Box<dyn FnOnce(&mut Worker<'_>) + Send>;

/// What a caller does when it is cancelled while its command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenCancelled {
    /// It leaves at once; the command ends by itself.
    Leave,
    /// It waits until the command has noticed, so that it knows what the command has done.
    AwaitEnd,
}

impl DeviceHandle {
    /// Starts the thread. It finds its device by itself, which takes a moment where there is a GPU.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when the system starts no more threads.
    pub fn start(options: DeviceOptions) -> Result<Self, NnError> {
        Self::spawn(move |status, commands| run(&options, status, commands))
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

    /// What the device is. Waits until the thread has found it.
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

    /// Class probabilities of an image, (c, z, y, x) with one channel or three as the request says, the mean over an
    /// ensemble. Waits for its turn and then for the result; returns soon after `context` is cancelled. Progress is in
    /// tiles.
    ///
    /// # Errors
    /// [`NnError::WrongKind`] when the model is not of the request's kind, `InvalidRequest` for an empty image,
    /// `Cancelled`, `OutOfMemory`, and `Panicked` or `Torch` for defects.
    pub fn segment(
        &self,
        model: Arc<Model>,
        request: SegmentationRequest,
        context: TaskContext,
    ) -> Result<Array4<f32>, NnError> {
        if model.kind() != request.options.kind {
            return Err(NnError::wrong_kind(model.kind(), request.options.kind));
        }
        let cancel = context.cancel_token().clone();
        // What it takes is the caller's until the device has let go of it.
        self.call(&cancel, WhenCancelled::AwaitEnd, move |worker| worker.segment(&model, &request, &context))
    }

    /// Puts a model on the device to be trained; `state` is what the optimiser remembers of it.
    ///
    /// # Errors
    /// [`NnError::InvalidTraining`] when `state` is not that model's; otherwise as for [`segment`](Self::segment).
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

    /// Memory of this computer in bytes that one forward pass of a prediction holds at once, for an image of `shape`
    /// (z, y, x), beside the image and the probabilities that are returned. 0 where the network runs on a GPU.
    ///
    /// # Errors
    /// [`NnError::InvalidRequest`] for an image or tiles that cannot be segmented, [`NnError::NoDevice`] when there is no
    /// device.
    pub fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, NnError> {
        let bytes = segment::activation_bytes(shape, options)?;
        Ok(if self.info()?.gpu.is_some() { 0 } else { bytes })
    }

    /// Memory of this computer in bytes that a training step over crops of so many voxels in all holds at once, beside
    /// the crops and the model. 0 where the network runs on a GPU.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when there is no device.
    pub fn training_bytes(&self, voxels: u64, numerics: Numerics) -> Result<u64, NnError> {
        Ok(if self.info()?.gpu.is_some() { 0 } else { train::step_bytes(voxels, numerics) })
    }

    /// Lets the thread do `work` when its turn comes, and waits for the result or for `cancel`. Cancelled before its turn,
    /// the work and all that it holds are dropped at once.
    fn call<T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        when_cancelled: WhenCancelled,
        work: impl FnOnce(&mut Worker<'_>) -> Result<T, NnError> + Send + 'static,
    ) -> Result<T, NnError> {
        let (reply, result) = mpsc::sync_channel(1);
        let waiting = Arc::new(Mutex::new(Some(work)));
        let (slot, span, asked) = (Arc::clone(&waiting), Span::current(), cancel.clone());
        let command: Command = Box::new(move |worker| {
            let Some(work) = take(&slot) else { return };
            let _entered = span.enter();
            let result = worker.guarded(|worker| {
                asked.check()?;
                work(worker)
            });
            // A caller that was cancelled no longer listens.
            let _ = reply.send(result);
        });
        self.send(command, cancel)?;
        loop {
            match result.recv_timeout(CANCEL_POLL) {
                Ok(result) => return result,
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

impl Training {
    /// One step of Adam, and the loss before it. Cancelled or failed, it has changed nothing. A step that runs when it is
    /// cancelled returns soon after, before the next layer of the network; a step that waits returns at once.
    ///
    /// # Errors
    /// [`NnError::InvalidTraining`] for crops that cannot be learnt from, [`NnError::Diverged`] when the loss, a gradient
    /// or a new parameter is not finite; otherwise as for [`DeviceHandle::segment`].
    pub fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, NnError> {
        let (owner, asked) = (Arc::downgrade(&self.owner), cancel.clone());
        self.device.0.call(cancel, WhenCancelled::AwaitEnd, move |worker| {
            worker.trainer(&owner)?.step(&batch, learning_rate, &asked)
        })
    }

    /// The model and what the optimiser remembers, after the last step that was completed.
    ///
    /// # Errors
    /// As for [`DeviceHandle::segment`].
    pub fn snapshot(&self) -> Result<(Model, OptimizerState), NnError> {
        let owner = Arc::downgrade(&self.owner);
        let never = CancelToken::default();
        self.device.0.call(&never, WhenCancelled::Leave, move |worker| worker.trainer(&owner)?.snapshot())
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
            // It panics in no job; if it did elsewhere, there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn run(options: &DeviceOptions, status: &Status, commands: &Receiver<Command>) {
    let device = match cuda::choose(options.device) {
        Ok(device) => device,
        Err((device, reason)) => return status.set(Err(NoDevice::Missing { device, reason })),
    };
    let threads = options.threads.unwrap_or_else(|| tch::get_num_threads() as usize).max(1);
    threads::wait_without_spinning();
    tch::set_num_threads(threads as i32);
    let gpu = if let Device::Cuda(index) = device { Some(index) } else { None };
    let precision = usable(options.precision, device);
    let name = ops::device_name(device);
    tracing::info!(device = name, threads, ?precision, "the device is ready");
    // oneDNN's bf16 gradients by the weights are not numbers where the features are small.
    let training_precision = if device == Device::Cpu { Precision::F32 } else { precision };
    let hardware = Hardware { devices: cuda::for_training(options.device, device), precision: training_precision };
    let training_devices = hardware.devices.len();
    status.set(Ok(DeviceInfo { name, gpu, threads, precision, training_devices }));

    let _no_grad = tch::no_grad_guard();
    let mut worker = Worker { device, precision, hardware, status, models: Vec::new(), trainers: Vec::new() };
    while let Ok(command) = commands.recv() {
        worker.drop_left_trainers();
        command(&mut worker);
    }
}

/// The precision that the device computes faster than `F32`, or `F32`.
fn usable(wanted: Precision, device: Device) -> Precision {
    let is_fast = device != Device::Cpu || cpu_multiplies_bf16();
    if wanted == Precision::Bf16 && !is_fast {
        tracing::warn!("this CPU has no AVX512-BF16; computing in f32");
        return Precision::F32;
    }
    wanted
}

#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_multiplies_bf16() -> bool {
    false
}

struct Worker<'a> {
    device: Device,
    precision: Precision,
    /// What trainings run on: the device, and the other GPUs where they were asked for.
    hardware: Hardware,
    status: &'a Status,
    /// The networks of the last models used, the latest at the end.
    models: Vec<BuiltModel>,
    /// The models in training, each with what lives as long as its [`Training`].
    trainers: Vec<(Weak<()>, Trainer)>,
}

struct BuiltModel {
    fingerprint: Fingerprint,
    build: Build,
    networks: Vec<Unet>,
}

impl Worker<'_> {
    /// The result of `work`, or why it has none if it panics. Notes what it says of the device's health.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, NnError>) -> Result<T, NnError> {
        let result = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or(Err(NnError::Panicked));
        self.status.note(result.as_ref().err());
        if let Err(NnError::OutOfMemory { .. } | NnError::Panicked) = result {
            // Tensors of a broken device panic when they are dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| self.models.clear()));
        }
        result
    }

    /// Drops the models in training whose [`Training`] was dropped.
    fn drop_left_trainers(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.trainers.retain(|(owner, _)| owner.strong_count() > 0)));
    }

    fn segment(
        &mut self,
        model: &Model,
        request: &SegmentationRequest,
        context: &TaskContext,
    ) -> Result<Array4<f32>, NnError> {
        segment::segment(self.networks(model, &request.options)?, request, context)
    }

    fn begin_training(
        &mut self,
        owner: Weak<()>,
        model: &Model,
        options: TrainingOptions,
        state: Option<&OptimizerState>,
    ) -> Result<(), NnError> {
        let trainer = Trainer::new(model, options, state, &self.hardware)?;
        self.trainers.push((owner, trainer));
        Ok(())
    }

    fn trainer(&mut self, owner: &Weak<()>) -> Result<&mut Trainer, NnError> {
        let mut trainers = self.trainers.iter_mut();
        trainers.find(|(other, _)| other.ptr_eq(owner)).map(|(_, trainer)| trainer).ok_or(NnError::Stopped)
    }

    fn build(&self, options: &SegmentationOptions) -> Build {
        let arithmetic = Arithmetic::of(options.numerics);
        let precision = if arithmetic == Arithmetic::Original { Precision::F32 } else { self.precision };
        Build { kind: options.kind, keep_axials: options.keep_axials, arithmetic, precision, device: self.device }
    }

    /// The model's networks on the device, built when they are not among the last that were used.
    fn networks(&mut self, model: &Model, options: &SegmentationOptions) -> Result<&[Unet], NnError> {
        let fingerprint = model.fingerprint();
        let build = self.build(options);
        let found = self.models.iter().position(|built| built.fingerprint == fingerprint && built.build == build);
        let built = if let Some(at) = found {
            self.models.remove(at)
        } else {
            let surplus = self.models.len().saturating_sub(CACHED_MODELS - 1);
            self.models.drain(..surplus);
            let networks = model.members().iter().map(|member| Unet::new(member, build)).collect::<Result<_, _>>()?;
            BuiltModel { fingerprint, build, networks }
        };
        self.models.push(built);
        Ok(self.models.last().map(|built| built.networks.as_slice()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
