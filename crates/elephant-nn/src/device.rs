//! The thread that owns the device. Tensors live and die on it; everyone else holds a [`DeviceHandle`].
//!
//! Commands run one after the other in the order of their arrival. A panic fails its command only.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
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
    Model, NnError, cuda, memory,
    ops::{self, Arithmetic},
    segment, threads,
    train::{self, Hardware, Trainer},
    unet::{Build, Unet},
};

/// Commands that may wait; further callers block until there is room.
const QUEUE_LENGTH: usize = 16;
/// Models whose networks stay on the device.
const CACHED_MODELS: usize = 2;
/// How long the device idles before it hands memory back.
const RELEASE_AFTER: Duration = Duration::from_secs(10);
/// How often a waiting caller looks whether it was cancelled.
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

/// The device, or which one is not there and why.
type FoundDevice = Result<DeviceInfo, (String, String)>;

/// A way to the device thread. Clones reach the same thread; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct DeviceHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Taken when the last handle is dropped, which lets the thread end.
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    info: Arc<OnceLock<FoundDevice>>,
}

/// What the thread is asked to do: it replies by itself.
type Command = Box<dyn FnOnce(&mut Worker) + Send>;

impl DeviceHandle {
    /// Starts the thread. It finds its device by itself, which takes a moment where there is a GPU.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when the system starts no more threads.
    pub fn start(options: DeviceOptions) -> Result<Self, NnError> {
        let (commands, received) = mpsc::sync_channel(QUEUE_LENGTH);
        let info = Arc::new(OnceLock::new());
        let thread_info = Arc::clone(&info);
        let thread = thread::Builder::new()
            .name("device".into())
            .spawn(move || run(&options, &thread_info, &received))
            .map_err(|error| NnError::NoDevice { device: "a thread".into(), reason: error.to_string() })?;
        Ok(Self(Arc::new(Shared { commands: Some(commands), thread: Some(thread), info })))
    }

    /// What the device is. Waits until the thread has found it.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when the device that was asked for is not there.
    pub fn info(&self) -> Result<DeviceInfo, NnError> {
        self.0.info.wait().clone().map_err(|(device, reason)| NnError::NoDevice { device, reason })
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
        self.call(&cancel, move |worker| worker.segment(&model, &request, &context))
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
        let id = self.call(cancel, move |worker| worker.begin_training(&model, options, state.as_ref()))?;
        Ok(Training { device: self.clone(), id })
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

    /// Whether a training step with so many voxels fits into this computer's memory; of a GPU, nothing is said.
    ///
    /// # Errors
    /// [`NnError::TooLarge`] when it does not, [`NnError::NoDevice`] when there is no device.
    pub fn require_training_memory(&self, voxels: u64, numerics: Numerics) -> Result<(), NnError> {
        memory::require(self.training_bytes(voxels, numerics)?)
    }

    /// Lets the thread do `work` when its turn comes, and waits for the result or for `cancel`.
    fn call<T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Worker) -> Result<T, NnError> + Send + 'static,
    ) -> Result<T, NnError> {
        let (reply, result) = mpsc::sync_channel(1);
        let (span, asked) = (Span::current(), cancel.clone());
        let command: Command = Box::new(move |worker| {
            let _entered = span.enter();
            let work = AssertUnwindSafe(|| {
                asked.check()?;
                work(worker)
            });
            let result = catch_unwind(work).unwrap_or(Err(NnError::Panicked));
            if let Err(NnError::OutOfMemory { .. } | NnError::Panicked) = result {
                worker.models.clear();
            }
            // A caller that was cancelled no longer listens.
            let _ = reply.send(result);
        });
        let commands = self.0.commands.as_ref().ok_or(NnError::Stopped)?;
        commands.send(command).map_err(|_| self.gone())?;
        loop {
            match result.recv_timeout(CANCEL_POLL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
                // The thread notices by itself between two layers; a caller behind another job need not wait for that.
                Err(RecvTimeoutError::Timeout) => cancel.check()?,
            }
        }
    }

    /// Why the thread no longer listens.
    fn gone(&self) -> NnError {
        self.info().err().unwrap_or(NnError::Stopped)
    }
}

/// A model that is being trained on the device, until it is dropped. Predictions find their turn between two steps.
#[derive(Debug)]
pub struct Training {
    device: DeviceHandle,
    id: u64,
}

impl Training {
    /// One step of Adam, and the loss before it. Cancelled or failed, it has changed nothing.
    ///
    /// # Errors
    /// [`NnError::InvalidTraining`] for crops that cannot be learnt from, [`NnError::Diverged`] for a loss that is not
    /// finite; otherwise as for [`DeviceHandle::segment`].
    pub fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, NnError> {
        let (id, asked) = (self.id, cancel.clone());
        self.device.call(cancel, move |worker| worker.trainer(id)?.step(&batch, learning_rate, &asked))
    }

    /// The model and what the optimiser remembers, after the last step that was completed.
    ///
    /// # Errors
    /// [`NnError::WrongModel`] when a parameter is not finite; otherwise as for [`DeviceHandle::segment`].
    pub fn snapshot(&self) -> Result<(Model, OptimizerState), NnError> {
        let id = self.id;
        self.device.call(&CancelToken::default(), move |worker| worker.trainer(id)?.snapshot())
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let id = self.id;
        if let Some(commands) = self.device.0.commands.as_ref() {
            // An error means that the thread has ended, and the model with it.
            let _ = commands.send(Box::new(move |worker| drop(worker.trainers.remove(&id))));
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

fn run(options: &DeviceOptions, info: &OnceLock<FoundDevice>, commands: &Receiver<Command>) {
    let device = match cuda::choose(options.device) {
        Ok(device) => device,
        Err(missing) => {
            let _ = info.set(Err(missing));
            return;
        }
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
    let hardware = Hardware { devices: cuda::all(options.device, device), precision: training_precision };
    let training_devices = hardware.devices.len();
    let _ = info.set(Ok(DeviceInfo { name, gpu, threads, precision, training_devices }));

    let _no_grad = tch::no_grad_guard();
    let mut worker = Worker { device, precision, hardware, models: Vec::new(), trainers: HashMap::new(), last_id: 0 };
    loop {
        let next = commands.recv_timeout(RELEASE_AFTER).or_else(|error| {
            if error == RecvTimeoutError::Timeout {
                memory::release();
            }
            commands.recv()
        });
        let Ok(command) = next else { return };
        if device == Device::Cpu {
            memory::keep_large_blocks();
        }
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

struct Worker {
    device: Device,
    precision: Precision,
    /// What trainings run on: the device, and the other GPUs where it was not asked for by name.
    hardware: Hardware,
    /// The networks of the last models used, the latest at the end.
    models: Vec<BuiltModel>,
    /// The models in training.
    trainers: HashMap<u64, Trainer>,
    last_id: u64,
}

struct BuiltModel {
    fingerprint: Fingerprint,
    build: Build,
    networks: Vec<Unet>,
}

impl Worker {
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
        model: &Model,
        options: TrainingOptions,
        state: Option<&OptimizerState>,
    ) -> Result<u64, NnError> {
        let trainer = Trainer::new(model, options, state, &self.hardware)?;
        self.last_id += 1;
        self.trainers.insert(self.last_id, trainer);
        Ok(self.last_id)
    }

    fn trainer(&mut self, id: u64) -> Result<&mut Trainer, NnError> {
        self.trainers.get_mut(&id).ok_or(NnError::Stopped)
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
