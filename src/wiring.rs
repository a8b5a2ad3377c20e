//! The one place where the use cases meet the libraries that do the work for them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use elephant_api_core::Devices;
use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_jobs::JobRunner;
use elephant_memory::Memory;
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, NnError, Precision, Training};
use elephant_pipeline::{
    Labels, ModelInTraining, Models, PortError, Predictor, PretrainedNetwork, PretrainedNetworks, SegmentationModel,
    TrainableModel, Trainer, Uploads, UseCases, Workspace,
};
use elephant_types::{
    CancelToken, Coded, LossValues, NetworkKind, Numerics, SegmentationOptions, SegmentationRequest, TaskContext,
    TrainingBatch, TrainingOptions,
};
use ndarray::Array4;

use crate::{
    config::{ComputeArgs, DeviceArg, EngineArgs, PrecisionArg},
    devices::MachineDevices,
    download::HttpsDownload,
    state,
};

/// The networks that the ELEPHANT project trained.
const ORIGINAL_3D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile3d.pth";
const ORIGINAL_2D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile2d.pth";

/// What runs requests in one workspace.
pub struct Engine {
    /// What can be asked for.
    pub use_cases: UseCases,
    /// What runs it.
    pub runner: JobRunner,
    /// The devices, with the health of the network's.
    pub devices: Arc<dyn Devices>,
}

/// Joins everything that runs requests.
pub fn engine(args: &EngineArgs, workspace: &Workspace) -> Result<Engine> {
    let jobs = state::open(args, workspace)?;
    let network = Arc::new(Network::start(&args.compute)?);
    let download = Arc::new(HttpsDownload::new(args.model_hosts.clone()));
    let models = Arc::new(Models::new(workspace, network.clone(), download, pretrained(args)));
    let (memory, numerics) = (Memory::default(), args.numerics.into());
    let predictor = Predictor::new(workspace, models.clone(), network.clone(), memory.clone(), numerics);
    let labels = Labels::new(workspace, memory.clone(), numerics);
    let trainer = Trainer::new(workspace, models.clone(), network.clone(), labels.clone(), memory, numerics);
    let use_cases = UseCases {
        workspace: workspace.clone(),
        uploads: Uploads::open(workspace)?,
        models,
        predictor: Arc::new(predictor),
        labels,
        trainer: Arc::new(trainer),
        jobs: jobs.clone(),
    };
    let health = move || network.device.health().map_err(|error| error.to_string());
    Ok(Engine { use_cases, runner: JobRunner::new(jobs), devices: Arc::new(MachineDevices(health)) })
}

/// Starts the threads for work outside the network.
pub fn start_threads(args: &ComputeArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global().context("cannot start threads")?;
    }
    Ok(())
}

/// The networks that stand in for a model that does not exist yet.
fn pretrained(args: &EngineArgs) -> PretrainedNetworks {
    PretrainedNetworks {
        volumetric: PretrainedNetwork {
            bundled: include_bytes!("../models/nuclei-3d.pth"),
            given: args.versatile_3d.clone().filter(|location| !location.is_empty()),
            original: ORIGINAL_3D.into(),
        },
        planar: PretrainedNetwork {
            bundled: include_bytes!("../models/nuclei-2d.pth"),
            given: args.versatile_2d.clone().filter(|location| !location.is_empty()),
            original: ORIGINAL_2D.into(),
        },
    }
}

/// The U-Net on its device.
pub struct Network {
    device: DeviceHandle,
    /// The model used last, kept until its file changes.
    last_model: Mutex<Option<LoadedModel>>,
    /// The model in training, which is ahead of its file.
    published: Mutex<Option<LoadedModel>>,
}

/// What predictions by the model file `path` use while the file has this version.
struct LoadedModel {
    path: PathBuf,
    version: FileVersion,
    model: Arc<Model>,
}

impl Network {
    pub fn start(args: &ComputeArgs) -> Result<Self> {
        let device = match args.device {
            DeviceArg::Auto => DeviceChoice::Auto,
            DeviceArg::Cpu => DeviceChoice::Cpu,
            DeviceArg::Cuda => DeviceChoice::Cuda(0),
            DeviceArg::AllCuda => DeviceChoice::AllCuda,
        };
        let precision = match args.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        };
        let options = DeviceOptions { device, threads: args.threads.map(usize::from), precision };
        let device = DeviceHandle::start(options)?;
        if matches!(args.device, DeviceArg::Cuda | DeviceArg::AllCuda) {
            // Asked for by name, it must be there; otherwise it is found while the server already answers.
            device.info()?;
        }
        Ok(Self { device, last_model: Mutex::default(), published: Mutex::default() })
    }

    fn model(&self, path: &Path) -> Result<Arc<Model>, PortError> {
        let version = version(path)?;
        let is_current = |loaded: &&LoadedModel| loaded.path == path && loaded.version == version;
        if let Some(published) = self.published().as_ref().filter(is_current) {
            return Ok(published.model.clone());
        }
        let mut last = self.last_model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = last.as_ref().filter(is_current) {
            return Ok(loaded.model.clone());
        }
        let model = Arc::new(Model::read(path).map_err(|error| port_error(&error))?);
        *last = Some(LoadedModel { path: path.to_owned(), version, model: model.clone() });
        Ok(model)
    }

    fn published(&self) -> MutexGuard<'_, Option<LoadedModel>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(path: &Path) -> Result<FileVersion, PortError> {
    FileVersion::of(path).map_err(|error| PortError::new(error.code(), format!("cannot use the model: {error}")))
}

impl SegmentationModel for Network {
    fn segment(
        &self,
        model: &Path,
        request: SegmentationRequest,
        context: &TaskContext,
    ) -> Result<Array4<f32>, PortError> {
        self.device.segment(self.model(model)?, request, context.clone()).map_err(|error| port_error(&error))
    }

    fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, PortError> {
        self.device.segment_bytes(shape, options).map_err(|error| port_error(&error))
    }

    fn identify(&self, checkpoint: &Checkpoint) -> Result<NetworkKind, PortError> {
        Ok(Model::new(checkpoint.clone()).map_err(|error| port_error(&error))?.kind())
    }

    fn initialise(&self, kind: NetworkKind, seed: u64) -> Result<Checkpoint, PortError> {
        Model::random(kind, seed).map(|model| model.checkpoint().clone()).map_err(|error| port_error(&error))
    }
}

impl TrainableModel for Network {
    fn step_bytes(&self, voxels: u64, numerics: Numerics) -> Result<u64, PortError> {
        self.device.training_bytes(voxels, numerics).map_err(|error| port_error(&error))
    }

    fn device_count(&self) -> Result<usize, PortError> {
        Ok(self.device.info().map_err(|error| port_error(&error))?.training_devices)
    }

    fn begin(
        &self,
        model: Checkpoint,
        options: TrainingOptions,
        state: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, PortError> {
        let model = Arc::new(Model::new(model).map_err(|error| port_error(&error))?);
        let training = self.device.train(model, options, state, cancel).map_err(|error| port_error(&error))?;
        Ok(Box::new(NetworkInTraining(training)))
    }

    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), PortError> {
        let model = Arc::new(Model::new(model.clone()).map_err(|error| port_error(&error))?);
        *self.published() = Some(LoadedModel { path: path.to_owned(), version, model });
        Ok(())
    }

    fn withdraw(&self, path: &Path) {
        self.published().take_if(|published| published.path == path);
    }
}

/// The U-Net, while it is trained.
struct NetworkInTraining(Training);

impl ModelInTraining for NetworkInTraining {
    fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, PortError> {
        self.0.step(batch, learning_rate, cancel).map_err(|error| port_error(&error))
    }

    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), PortError> {
        let (model, state) = self.0.snapshot().map_err(|error| port_error(&error))?;
        Ok((model.checkpoint().clone(), state))
    }
}

fn port_error(error: &NnError) -> PortError {
    PortError::new(error.code(), error.to_string())
}
