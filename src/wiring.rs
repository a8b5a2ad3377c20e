//! Construction of the use cases, with the implementations of the traits that they need.

use std::sync::Arc;

use anyhow::{Context, Result};
use elephant_api_core::Devices;
use elephant_jobs::JobRunner;
use elephant_memory::Memory;
use elephant_nn::{DeviceChoice, DeviceOptions, Networks, Precision};
use elephant_pipeline::{
    FlowLabels, FlowPredictor, Labels, Models, Predictor, PretrainedNetwork, PretrainedNetworks, Steering, Tracker,
    Trainer, Uploads, UseCases, Workspace,
};

use crate::{
    config::{ComputeArgs, DeviceArg, EngineArgs, PrecisionArg},
    devices::MachineDevices,
    download::HttpsDownload,
    state,
};

/// The networks that the ELEPHANT project trained.
const ORIGINAL_3D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile3d.pth";
const ORIGINAL_FLOW_3D: &str =
    "https://github.com/elephant-track/elephant-server/releases/download/data/Fluo-N3DH-CE_flow.pth";
const ORIGINAL_2D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile2d.pth";

/// The use cases of one workspace, and what runs them.
pub struct Engine {
    /// The use cases.
    pub use_cases: UseCases,
    /// Runs requests as jobs.
    pub runner: JobRunner,
    /// The devices of this machine, with the health of the network's device.
    pub devices: Arc<dyn Devices>,
}

/// Opens the state, starts the network's device and constructs the use cases.
///
/// # Errors
/// When the state cannot be opened, the device cannot be started, or the folder for uploads cannot be created.
pub fn engine(args: &EngineArgs, workspace: &Workspace) -> Result<Engine> {
    let jobs = state::open(args, workspace)?;
    let network = Arc::new(networks(&args.compute)?);
    let download = Arc::new(HttpsDownload::new(args.model_hosts.clone()));
    let models = Arc::new(Models::new(workspace, network.clone(), download, pretrained(args)));
    let (memory, numerics) = (Memory::default(), args.numerics.into());
    let predictor = Predictor::new(workspace, models.clone(), network.clone(), memory.clone(), numerics);
    let labels = Labels::new(workspace, memory.clone(), numerics);
    let flow = FlowPredictor::new(workspace, models.clone(), network.clone(), memory.clone(), numerics);
    let flow_labels = FlowLabels::new(workspace, numerics);
    let trainer =
        Trainer::new(workspace, models.clone(), network.clone(), labels.clone(), flow_labels.clone(), memory, numerics);
    let (predictor, flow) = (Arc::new(predictor), Arc::new(flow));
    let use_cases = UseCases {
        workspace: workspace.clone(),
        uploads: Uploads::open(workspace)?,
        models,
        tracker: Arc::new(Tracker::new(workspace, predictor.clone(), flow.clone())),
        steering: Arc::new(Steering::new(workspace)),
        predictor,
        labels,
        flow,
        flow_labels,
        trainer: Arc::new(trainer),
        jobs: jobs.clone(),
    };
    let health = move || network.health().map_err(|error| error.to_string());
    Ok(Engine { use_cases, runner: JobRunner::new(jobs), devices: Arc::new(MachineDevices(health)) })
}

/// Starts the thread pool for work outside the network.
///
/// # Errors
/// When the threads cannot be started.
pub fn start_threads(args: &ComputeArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global().context("cannot start threads")?;
    }
    Ok(())
}

/// The networks that stand in for a model that does not exist yet.
fn pretrained(args: &EngineArgs) -> PretrainedNetworks {
    let given = |location: &Option<String>| location.clone().filter(|location| !location.is_empty());
    PretrainedNetworks {
        volumetric: PretrainedNetwork {
            bundled: Some(include_bytes!("../models/nuclei-3d.pth")),
            given: given(&args.versatile_3d),
            original: Some(ORIGINAL_3D.into()),
        },
        planar: PretrainedNetwork {
            bundled: Some(include_bytes!("../models/nuclei-2d.pth")),
            given: given(&args.versatile_2d),
            original: Some(ORIGINAL_2D.into()),
        },
        volumetric_flow: PretrainedNetwork {
            bundled: Some(include_bytes!("../models/flow-3d.pth")),
            given: given(&args.versatile_flow_3d),
            original: Some(ORIGINAL_FLOW_3D.into()),
        },
        planar_flow: PretrainedNetwork {
            bundled: Some(include_bytes!("../models/flow-2d.pth")),
            given: given(&args.versatile_flow_2d),
            original: None,
        },
    }
}

/// Starts the device that the command line names.
///
/// # Errors
/// When there is no such device.
pub fn networks(args: &ComputeArgs) -> Result<Networks> {
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
    Ok(Networks::start(DeviceOptions { device, threads: args.threads.map(usize::from), precision })?)
}
