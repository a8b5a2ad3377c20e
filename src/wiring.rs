//! The one place where the use cases meet the libraries that do the work for them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use elephant_api::Services;
use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_jobs::Jobs;
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, NnError, Precision, Training};
use elephant_pipeline::{
    Labels, ModelInTraining, Models, PortError, Predictor, SegmentationModel, TrainableModel, Trainer, Uploads,
    VersatileLocations, Workspace,
};
use elephant_types::{
    CancelToken, Coded, ErrorCode, LossValues, NetworkKind, Numerics, SegmentationRequest, TaskContext, TrainingBatch,
    TrainingOptions,
};
use ndarray::Array4;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ComputeArgs, DeviceArg, PrecisionArg, ServeArgs},
    download::HttpsDownload,
    state,
};

/// Joins everything that `serve` needs.
pub fn services(args: &ServeArgs, workspace: &Workspace, closing: CancellationToken) -> Result<(Services, Jobs)> {
    let jobs = state::open(args, workspace)?;
    let network = Arc::new(Network::start(&args.compute)?);
    let versatile = VersatileLocations { volumetric: args.versatile_3d.clone(), planar: args.versatile_2d.clone() };
    let download = Arc::new(HttpsDownload::new(args.model_hosts.clone()));
    let models = Arc::new(Models::new(workspace, network.clone(), download, versatile));
    let predictor = Predictor::new(workspace, models.clone(), network.clone(), args.numerics.into());
    let labels = Labels::new(workspace, args.numerics.into());
    let trainer = Trainer::new(workspace, models.clone(), network, labels.clone(), args.numerics.into());
    let uploads = Uploads::open(workspace)?;
    Ok((Services::new(workspace.clone(), jobs.clone(), uploads, models, predictor, labels, trainer, closing), jobs))
}

/// The U-Net on its device.
pub struct Network {
    device: DeviceHandle,
    last_model: Mutex<Option<LoadedModel>>,
}

/// The model used last, kept until its file changes.
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
        };
        let precision = match args.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        };
        let options = DeviceOptions { device, threads: args.threads.map(usize::from), precision };
        let device = DeviceHandle::start(options)?;
        if args.device == DeviceArg::Cuda {
            // Asked for by name, it must be there; otherwise it is found while the server already answers.
            device.info()?;
        }
        Ok(Self { device, last_model: Mutex::default() })
    }

    fn model(&self, path: &Path) -> Result<Arc<Model>, PortError> {
        let version = FileVersion::of(path)
            .map_err(|error| PortError::new(ErrorCode::NotFound, format!("the model is not there: {error}")))?;
        let mut last = self.last_model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = last.as_ref().filter(|loaded| loaded.path == path && loaded.version == version) {
            return Ok(loaded.model.clone());
        }
        let model = Arc::new(Model::read(path).map_err(|error| port_error(&error))?);
        *last = Some(LoadedModel { path: path.to_owned(), version, model: model.clone() });
        Ok(model)
    }
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

    fn verify(&self, checkpoint: &Checkpoint, kind: NetworkKind) -> Result<(), PortError> {
        let model = Model::new(checkpoint.clone()).map_err(|error| port_error(&error))?;
        if model.kind() == kind {
            return Ok(());
        }
        let dims = |kind| if kind == NetworkKind::Volumetric { "3-D" } else { "2-D" };
        let message = format!("the file holds a {} network but a {} one is needed", dims(model.kind()), dims(kind));
        Err(PortError::new(ErrorCode::InvalidArgument, message))
    }

    fn initialise(&self, kind: NetworkKind, seed: u64) -> Result<Checkpoint, PortError> {
        Model::random(kind, seed).map(|model| model.checkpoint().clone()).map_err(|error| port_error(&error))
    }
}

impl TrainableModel for Network {
    fn require_memory(&self, voxels: u64, numerics: Numerics) -> Result<(), PortError> {
        self.device.require_training_memory(voxels, numerics).map_err(|error| port_error(&error))
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
