//! The models of a workspace: made, fetched, checked, and replaced whole.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use elephant_checkpoint::Checkpoint;
use elephant_fs::FsError;
use elephant_types::{CancelToken, Coded, ErrorCode, ModelName, NetworkKind, TaskContext};

use tempfile::NamedTempFile;

use crate::{ModelDownload, PipelineError, PortError, PriorTraining, SegmentationModel, Workspace};

/// No network of this project comes near; a larger download is not a model.
const MAX_MODEL_BYTES: u64 = 1 << 30;
/// How often a waiting task looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Where a new model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// Random parameters, one set for each member of the ensemble.
    Random {
        /// Members of the ensemble, at least 1.
        members: usize,
        /// Of the first member; the next ones count up.
        seed: u64,
        /// What they learn from images first; see [`Trainer::reset`](crate::Trainer::reset).
        prior: Option<PriorTraining>,
    },
    /// The network that the ELEPHANT project trained on many kinds of images.
    Versatile,
    /// A file somewhere on the network.
    Url(String),
    /// A file on this machine.
    File(PathBuf),
}

/// Where the pretrained networks are: paths of files, or URLs.
#[derive(Clone, Debug)]
pub struct VersatileLocations {
    /// The 3-D network.
    pub volumetric: String,
    /// The 2-D network.
    pub planar: String,
}

/// The models of a workspace.
pub struct Models {
    workspace: Workspace,
    network: Arc<dyn SegmentationModel>,
    download: Arc<dyn ModelDownload>,
    versatile: VersatileLocations,
}

impl Models {
    /// The models of `workspace`.
    pub fn new(
        workspace: &Workspace,
        network: Arc<dyn SegmentationModel>,
        download: Arc<dyn ModelDownload>,
        versatile: VersatileLocations,
    ) -> Self {
        Self { workspace: workspace.clone(), network, download, versatile }
    }

    /// The model's file, or `None` when there is none.
    ///
    /// # Errors
    /// When a link on the way leads out of the models.
    pub fn file(&self, name: &ModelName) -> Result<Option<PathBuf>, PipelineError> {
        let path = self.workspace.model(name)?;
        Ok(path.is_file().then_some(path))
    }

    /// A model's file. One that is missing is replaced by the pretrained one (contract section 6.2).
    ///
    /// # Errors
    /// When the file is missing and the pretrained one cannot be had.
    pub fn require(
        &self,
        name: &ModelName,
        kind: NetworkKind,
        context: &TaskContext,
    ) -> Result<PathBuf, PipelineError> {
        let path = self.workspace.model(name)?;
        if !path.is_file() {
            self.replace(name, kind, &ModelSource::Versatile, context).map_err(|error| {
                if error.code() == ErrorCode::Cancelled {
                    return error;
                }
                PipelineError::NotFound(format!(
                    "the model {name} does not exist and the pretrained one cannot be had ({error}); \
                     make a new one with POST /seg/reset, or upload a file there"
                ))
            })?;
        }
        Ok(path)
    }

    /// Replaces a model, or makes it. What is not a network of this kind replaces nothing.
    ///
    /// # Errors
    /// When the source cannot be had, is not such a network, or cannot be stored; the old model is then untouched.
    pub fn replace(
        &self,
        name: &ModelName,
        kind: NetworkKind,
        source: &ModelSource,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        self.replace_after(name, kind, source, context, Ok)
    }

    /// [`replace`](Self::replace) with what `prepare` makes of the source.
    pub(crate) fn replace_after(
        &self,
        name: &ModelName,
        kind: NetworkKind,
        source: &ModelSource,
        context: &TaskContext,
        prepare: impl FnOnce(Checkpoint) -> Result<Checkpoint, PipelineError>,
    ) -> Result<(), PipelineError> {
        let target = self.workspace.model(name)?;
        if target.is_dir() {
            return Err(PipelineError::Invalid(format!("{name} is a folder of models; use another name")));
        }
        let checkpoint = prepare(self.obtain(kind, source, context)?)?;
        context.check()?;
        self.network.verify(&checkpoint, kind)?;
        Ok(checkpoint.write(&target)?)
    }

    fn obtain(
        &self,
        kind: NetworkKind,
        source: &ModelSource,
        context: &TaskContext,
    ) -> Result<Checkpoint, PipelineError> {
        let location = match source {
            ModelSource::Random { members, seed, .. } => {
                let seeds = (0..*members as u64).map(|member| seed.wrapping_add(member));
                let networks = seeds.map(|seed| self.network.initialise(kind, seed));
                let networks = networks.collect::<Result<Vec<_>, _>>()?;
                return Ok(Checkpoint { members: networks.into_iter().flat_map(|network| network.members).collect() });
            }
            ModelSource::File(path) => return Ok(Checkpoint::read(path)?),
            ModelSource::Url(url) => url,
            ModelSource::Versatile => match kind {
                NetworkKind::Volumetric => &self.versatile.volumetric,
                NetworkKind::Planar => &self.versatile.planar,
            },
        };
        // Only the configured location may be a file of this machine; a client's URL always goes through the download.
        let is_local = matches!(source, ModelSource::Versatile) && !location.contains("://");
        if is_local { Ok(Checkpoint::read(Path::new(location))?) } else { self.fetch(location, context) }
    }

    /// Downloads on a thread of its own, which a cancelled task leaves behind: a host that says nothing cannot hold it.
    fn fetch(&self, url: &str, context: &TaskContext) -> Result<Checkpoint, PipelineError> {
        let folder = self.workspace.path().to_owned();
        let (download, address, cancel) = (self.download.clone(), url.to_owned(), context.cancel_token().clone());
        let (reply, result) = mpsc::sync_channel(1);
        let work = move || {
            let downloaded = download_to(&*download, &address, &folder, &cancel);
            // Nobody listens any more when the task was cancelled.
            let _ = reply.send(downloaded);
        };
        let thread = thread::Builder::new().name("download".into()).spawn(work);
        thread.map_err(FsError::io("start a download for", self.workspace.path()))?;
        loop {
            match result.recv_timeout(CANCEL_POLL) {
                Ok(file) => return Ok(Checkpoint::read(file?.path())?),
                Err(RecvTimeoutError::Timeout) => context.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PortError::new(ErrorCode::Internal, format!("the download of {url} crashed")).into());
                }
            }
        }
    }
}

fn download_to(
    download: &dyn ModelDownload,
    url: &str,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<NamedTempFile, PipelineError> {
    let mut content = download.open(url)?;
    let mut file = NamedTempFile::new_in(folder).map_err(FsError::io("create a temporary file in", folder))?;
    let mut length = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        cancel.check()?;
        let count = content.read(&mut buffer).map_err(FsError::io("fetch a model into", folder))?;
        if count == 0 {
            return Ok(file);
        }
        length += count as u64;
        if length > MAX_MODEL_BYTES {
            return Err(PipelineError::TooLarge(format!("the file at {url} is larger than 1 GiB and not a model")));
        }
        file.write_all(&buffer[..count]).map_err(FsError::io("store a model in", folder))?;
    }
}
