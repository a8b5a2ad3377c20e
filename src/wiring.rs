//! The one place where the use cases meet the libraries that do the work for them.

use std::sync::Arc;

use anyhow::{Context, Result};
use elephant_api::Services;
use elephant_jobs::Jobs;
use elephant_memory::Memory;
use elephant_nn::{DeviceChoice, DeviceOptions, Networks, Precision};
use elephant_pipeline::{
    Labels, Models, Predictor, PretrainedNetwork, PretrainedNetworks, Trainer, Uploads, Workspace,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ComputeArgs, DeviceArg, PrecisionArg, ServeArgs},
    download::HttpsDownload,
    state,
};

/// The networks that the ELEPHANT project trained.
const ORIGINAL_3D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile3d.pth";
const ORIGINAL_2D: &str = "https://github.com/elephant-track/elephant-server/releases/download/data/versatile2d.pth";

/// Joins everything that `serve` needs.
pub fn services(args: &ServeArgs, workspace: &Workspace, closing: CancellationToken) -> Result<(Services, Jobs)> {
    let jobs = state::open(args, workspace)?;
    let network = Arc::new(networks(&args.compute)?);
    let download = Arc::new(HttpsDownload::new(args.model_hosts.clone()));
    let models = Arc::new(Models::new(workspace, network.clone(), download, pretrained(args)));
    let (memory, numerics) = (Memory::default(), args.numerics.into());
    let predictor = Predictor::new(workspace, models.clone(), network.clone(), memory.clone(), numerics);
    let labels = Labels::new(workspace, memory.clone(), numerics);
    let trainer = Trainer::new(workspace, models.clone(), network.clone(), labels.clone(), memory, numerics);
    let uploads = Uploads::open(workspace)?;
    let services = Services::new(workspace.clone(), jobs.clone(), uploads, models, predictor, labels, trainer, closing)
        .with_device_health(move || network.health().map_err(|error| error.to_string()));
    Ok((services, jobs))
}

/// Starts the threads for work outside the network.
pub fn start_threads(args: &ComputeArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global().context("cannot start threads")?;
    }
    Ok(())
}

/// The networks that stand in for a model that does not exist yet.
fn pretrained(args: &ServeArgs) -> PretrainedNetworks {
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

/// Starts the device that the command line names.
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
