//! What the device's thread does: finding the device, and the work of its commands.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Weak, mpsc::Receiver},
};

use elephant_checkpoint::{Fingerprint, OptimizerState};
use elephant_model::{ImageSource, SegmentationOptions, TrainingOptions};
use elephant_types::TaskContext;
use tch::Device;

use super::{Command, DeviceInfo, DeviceOptions, Precision};
use crate::{
    Model, NnError,
    blending::Slab,
    cuda,
    network::{Network, NetworkConfig},
    ops::{self, Arithmetic},
    segment,
    status::{NoDevice, Status},
    threads,
    train::{Hardware, Trainer},
};

/// Models whose networks stay on the device.
const CACHED_MODELS: usize = 2;

/// Finds the device, then executes commands until all senders are gone.
pub(super) fn run(options: &DeviceOptions, status: &Status, commands: &Receiver<Command>) {
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
fn usable(requested: Precision, device: Device) -> Precision {
    let is_fast = device != Device::Cpu || cpu_multiplies_bf16();
    if requested == Precision::Bf16 && !is_fast {
        tracing::warn!("this CPU has no AVX512-BF16; computing in f32");
        return Precision::F32;
    }
    requested
}

#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_multiplies_bf16() -> bool {
    false
}

/// What the thread keeps between commands.
pub(super) struct Worker<'a> {
    device: Device,
    precision: Precision,
    /// What trainings run on: the device, and the other GPUs where they were asked for.
    hardware: Hardware,
    status: &'a Status,
    /// The networks of the last models used, the latest at the end.
    models: Vec<LoadedNetworks>,
    /// The models in training, each with what lives as long as its [`Training`](crate::Training).
    pub(super) trainers: Vec<(Weak<()>, Trainer)>,
}

struct LoadedNetworks {
    fingerprint: Fingerprint,
    config: NetworkConfig,
    networks: Vec<Network>,
}

impl Worker<'_> {
    /// The result of `work`, or [`NnError::Panicked`]. Notes in the status what it means for the device's health.
    pub(super) fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, NnError>) -> Result<T, NnError> {
        let result = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or(Err(NnError::Panicked));
        self.status.note(result.as_ref().err());
        if let Err(NnError::OutOfMemory { .. } | NnError::Panicked) = result {
            // Tensors of a broken device panic when they are dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| self.models.clear()));
        }
        result
    }

    /// Drops the models in training whose [`Training`](crate::Training) was dropped.
    fn drop_left_trainers(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.trainers.retain(|(owner, _)| owner.strong_count() > 0)));
    }

    pub(super) fn segment(
        &mut self,
        model: &Model,
        image: &dyn ImageSource,
        options: &SegmentationOptions,
        context: &TaskContext,
        hand_on: &mut dyn FnMut(Slab) -> Result<(), NnError>,
    ) -> Result<(), NnError> {
        segment::segment(self.networks(model, options)?, image, options, context, hand_on)
    }

    pub(super) fn begin_training(
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

    pub(super) fn trainer(&mut self, owner: &Weak<()>) -> Result<&mut Trainer, NnError> {
        let mut trainers = self.trainers.iter_mut();
        trainers.find(|(other, _)| other.ptr_eq(owner)).map(|(_, trainer)| trainer).ok_or(NnError::Stopped)
    }

    fn config(&self, options: &SegmentationOptions) -> NetworkConfig {
        let arithmetic = Arithmetic::of(options.numerics);
        let precision = if arithmetic == Arithmetic::Original { Precision::F32 } else { self.precision };
        NetworkConfig { keep_axials: options.keep_axials, arithmetic, precision, device: self.device }
    }

    /// The model's networks on the device, loaded when they are not among the last that were used.
    fn networks(&mut self, model: &Model, options: &SegmentationOptions) -> Result<&[Network], NnError> {
        let spec = model.spec();
        let (fingerprint, config) = (model.fingerprint(), self.config(options));
        let found = self.models.iter().position(|loaded| loaded.fingerprint == fingerprint && loaded.config == config);
        let loaded = if let Some(at) = found {
            self.models.remove(at)
        } else {
            let surplus = self.models.len().saturating_sub(CACHED_MODELS - 1);
            self.models.drain(..surplus);
            let networks = model.members().iter().map(|member| Network::new(member, spec, config));
            LoadedNetworks { fingerprint, config, networks: networks.collect::<Result<_, _>>()? }
        };
        self.models.push(loaded);
        Ok(self.models.last().map(|loaded| loaded.networks.as_slice()).unwrap_or_default())
    }
}
