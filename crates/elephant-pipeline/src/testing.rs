//! For tests of the crates above: the use cases of a temporary workspace, over a fake network.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use elephant_checkpoint::Checkpoint;
use elephant_jobs::{JobRunner, Jobs, Owner, SqliteStore};
use elephant_memory::Memory;
use elephant_model::{ModelError, fake::FakeNetwork};
use elephant_synth::{EmbryoOptions, Preset, write_movie};
use elephant_types::{DatasetName, ErrorCode, NetworkKind, Numerics, TaskContext, VoxelSize};

use crate::{
    FlowLabels, FlowPredictor, GenerateRequest, Labels, ModelDownload, Models, Predictor, PretrainedNetwork,
    PretrainedNetworks, Request, Steering, Tracker, Trainer, Uploads, UseCases, Workspace,
};

/// The use cases of a temporary workspace.
pub struct TestWorkspace {
    /// The use cases.
    pub use_cases: UseCases,
    /// What runs them.
    pub runner: JobRunner,
    /// The network that they use.
    pub network: FakeNetwork,
    folder: tempfile::TempDir,
}

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, _: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        Err(ModelError::new(ErrorCode::Unavailable, "tests have no network"))
    }
}

/// A built-in network whose bytes stay until the process ends.
fn built_in(checkpoint: &Checkpoint, folder: &Path) -> PretrainedNetwork {
    let path = folder.join("built-in.pth");
    checkpoint.write(&path).expect("a model can be written");
    let bundled = std::fs::read(&path).expect("the model can be read").leak();
    PretrainedNetwork { bundled: Some(bundled), given: None, original: Some("https://localhost".into()) }
}

impl TestWorkspace {
    /// An empty workspace with the model `detection.pth`.
    ///
    /// # Panics
    /// When the workspace cannot be made.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let workspace = Workspace::open(folder.path()).expect("a new workspace");
        let store = SqliteStore::open(&workspace.state_file()).expect("a new database");
        let jobs = Jobs::open(store, Owner::new("test")).expect("a new database can be used");
        let network = FakeNetwork::default();
        let pretrained = PretrainedNetworks {
            volumetric: built_in(&FakeNetwork::checkpoint(NetworkKind::Volumetric, 0), folder.path()),
            planar: built_in(&FakeNetwork::checkpoint(NetworkKind::Planar, 0), folder.path()),
            volumetric_flow: built_in(&FakeNetwork::flow_checkpoint(NetworkKind::Volumetric, 0), folder.path()),
            planar_flow: built_in(&FakeNetwork::flow_checkpoint(NetworkKind::Planar, 0), folder.path()),
        };
        let shared = Arc::new(network.clone());
        let models = Arc::new(Models::new(&workspace, shared.clone(), Arc::new(NoDownload), pretrained));
        let (memory, numerics) = (Memory::default(), Numerics::Corrected);
        let predictor = Predictor::new(&workspace, models.clone(), shared.clone(), memory.clone(), numerics);
        let labels = Labels::new(&workspace, memory.clone(), numerics);
        let flow = FlowPredictor::new(&workspace, models.clone(), shared.clone(), memory.clone(), numerics);
        let flow_labels = FlowLabels::new(&workspace, numerics);
        let trainer =
            Trainer::new(&workspace, models.clone(), shared, labels.clone(), flow_labels.clone(), memory, numerics);
        FakeNetwork::checkpoint(NetworkKind::Volumetric, 0)
            .write(&folder.path().join("models/detection.pth"))
            .expect("a model can be written");
        let (predictor, flow) = (Arc::new(predictor), Arc::new(flow));
        let use_cases = UseCases {
            tracker: Arc::new(Tracker::new(&workspace, predictor.clone(), flow.clone())),
            steering: Arc::new(Steering::new(&workspace)),
            uploads: Uploads::open(&workspace).expect("a new folder for uploads"),
            workspace,
            models,
            predictor,
            labels,
            flow,
            flow_labels,
            trainer: Arc::new(trainer),
            jobs: jobs.clone(),
        };
        Self { use_cases, runner: JobRunner::new(jobs), network, folder }
    }

    /// The workspace's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the movie of a small synthetic embryo into the folder of a dataset, and returns the size of its voxels.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn add_movie(&self, dataset: &str) -> VoxelSize {
        let options = EmbryoOptions::preset(Preset::Tiny, 0);
        let folder = self.path().join("datasets").join(dataset);
        let name = "movie".parse().expect("a valid name");
        write_movie(&folder, &name, &options, &TaskContext::detached()).expect("the movie can be written");
        options.voxel_size
    }

    /// Makes a dataset of a small synthetic embryo, and returns the size of its voxels.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_dataset(&self, dataset: &str) -> VoxelSize {
        let voxel_size = self.add_movie(dataset);
        let dataset: DatasetName = dataset.parse().expect("a valid name");
        let request = GenerateRequest { dataset, setup: None, level: 0, is_uint16: None, divisor: 1.0, is_2d: false };
        request.run(&self.use_cases, &TaskContext::detached()).expect("the dataset can be made");
        voxel_size
    }

    /// Holds every prediction back from now on until the gate is opened or the prediction is cancelled.
    pub fn hold_predictions(&self) -> Gate {
        let (arrived, arrivals) = sync_channel(64);
        let (open, may_pass) = sync_channel::<()>(0);
        let may_pass = Mutex::new(may_pass);
        self.network.before_each_prediction(move |context| {
            // An error means that the test does not wait for arrivals.
            let _ = arrived.try_send(());
            while context.check().is_ok() && !is_open(&may_pass) {}
        });
        Gate { arrivals, _open: open }
    }
}

impl Default for TestWorkspace {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the gate has been dropped; waits a moment for that.
fn is_open(may_pass: &Mutex<Receiver<()>>) -> bool {
    const PAUSE: Duration = Duration::from_millis(2);
    let may_pass = may_pass.lock().unwrap_or_else(PoisonError::into_inner);
    may_pass.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected)
}

/// Holds predictions back until it is dropped.
pub struct Gate {
    arrivals: Receiver<()>,
    _open: SyncSender<()>,
}

impl Gate {
    /// Waits until another prediction is held back. Call it from a thread that may block.
    ///
    /// # Panics
    /// When none comes within a minute.
    pub fn wait_for_arrival(&self) {
        self.arrivals.recv_timeout(Duration::from_mins(1)).expect("a prediction comes");
    }
}
