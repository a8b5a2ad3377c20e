//! The models of a workspace: creating, downloading, checking and replacing them.

use std::{
    collections::HashMap,
    io::{Cursor, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime},
};

use elephant_checkpoint::{Checkpoint, CheckpointError, Provenance};
use elephant_fs::{FileVersion, FsError, metadata, temporary_file};
use elephant_model::{ModelError, SegmentationModel};
use elephant_types::{
    CancelToken, Coded, ErrorCode, ModelName, NetworkKind, NetworkTask, NetworkType, TaskContext, TaskEvent,
};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{ModelDownload, PipelineError, PriorTraining, SpooledFile, Workspace, defaults, published::Published};

/// Largest download in bytes. The networks of this project are much smaller.
const MAX_MODEL_BYTES: u64 = 1 << 30;
/// How often a waiting task looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Where a new model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSource {
    /// Random parameters, one set for each member of the ensemble.
    Random {
        /// Members of the ensemble, at least 1.
        #[serde(default = "defaults::members")]
        members: usize,
        /// Seed of the first member; those of the next ones count up.
        #[serde(default)]
        seed: u64,
        /// What they learn from images first; see [`Trainer::reset`](crate::Trainer::reset).
        #[serde(default)]
        prior: Option<PriorTraining>,
    },
    /// The network that the ELEPHANT project trained on many kinds of images, or, where it cannot be had, the built-in
    /// one.
    Versatile,
    /// The network that comes with the program, or the one that was configured instead.
    Pretrained,
    /// A file somewhere on the network.
    Url(String),
    /// A file that was received.
    Uploaded(SpooledFile),
}

/// More members than any published ensemble has.
const MAX_MEMBERS: usize = 64;

impl ModelSource {
    /// Checks the values, for a model of this type.
    pub(crate) fn validate(&self, network: NetworkType) -> Result<(), PipelineError> {
        match self {
            Self::Random { members, .. } if !(1..=MAX_MEMBERS).contains(members) => {
                Err(PipelineError::Invalid(format!("nmodels must be 1 to {MAX_MEMBERS}")))
            }
            Self::Random { prior: Some(_), .. } if network.task == NetworkTask::Flow => {
                Err(PipelineError::Invalid("a flow network cannot learn from images alone".into()))
            }
            Self::Random { prior: Some(prior), .. } if prior.crops.kind() != network.kind => {
                let (network, crops) = (network.kind.dims(), prior.crops.kind().dims());
                let message =
                    format!("a {network} network cannot learn from crops for a {crops} one; set is_3d to match");
                Err(PipelineError::Invalid(message))
            }
            _ => Ok(()),
        }
    }
}

/// Where a network to begin with comes from.
#[derive(Clone, Debug)]
pub struct PretrainedNetwork {
    /// The `.pth` file that comes with the program, if there is one; otherwise, random parameters are used.
    pub bundled: Option<&'static [u8]>,
    /// A path or URL to use instead of all others.
    pub given: Option<String>,
    /// URL of the original's ("Versatile"), if there is one.
    pub original: Option<String>,
}

/// The networks to begin with.
#[derive(Clone, Debug)]
pub struct PretrainedNetworks {
    /// The 3-D detection network.
    pub volumetric: PretrainedNetwork,
    /// The 2-D detection network.
    pub planar: PretrainedNetwork,
    /// The 3-D flow network.
    pub volumetric_flow: PretrainedNetwork,
    /// The 2-D flow network.
    pub planar_flow: PretrainedNetwork,
}

impl PretrainedNetworks {
    fn of(&self, network: NetworkType) -> &PretrainedNetwork {
        match (network.task, network.kind) {
            (NetworkTask::Detection, NetworkKind::Volumetric) => &self.volumetric,
            (NetworkTask::Detection, NetworkKind::Planar) => &self.planar,
            (NetworkTask::Flow, NetworkKind::Volumetric) => &self.volumetric_flow,
            (NetworkTask::Flow, NetworkKind::Planar) => &self.planar_flow,
        }
    }
}

/// What a model's file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelContent {
    /// Which type of network, or why the file is not a model.
    pub network: Result<NetworkType, String>,
    /// Networks in the ensemble.
    pub members: usize,
    /// Where it comes from, if that is known.
    pub provenance: Option<Provenance>,
}

/// A model of the workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Its name.
    pub name: ModelName,
    /// Length of its file.
    pub bytes: u64,
    /// When its file was written.
    pub modified: Option<SystemTime>,
    /// What is in it.
    pub content: ModelContent,
}

/// The models of a workspace.
pub struct Models {
    workspace: Workspace,
    network: Arc<dyn SegmentationModel>,
    download: Arc<dyn ModelDownload>,
    pretrained: PretrainedNetworks,
    /// Contents of files, each valid for one version of its file.
    known: Mutex<HashMap<PathBuf, (FileVersion, ModelContent)>>,
    /// Contents of the built-in networks, read when they are first asked for.
    bundled: OnceLock<Vec<ModelContent>>,
    published: Published,
}

impl Models {
    /// The models of `workspace`.
    pub fn new(
        workspace: &Workspace,
        network: Arc<dyn SegmentationModel>,
        download: Arc<dyn ModelDownload>,
        pretrained: PretrainedNetworks,
    ) -> Self {
        Self {
            workspace: workspace.clone(),
            network,
            download,
            pretrained,
            known: Mutex::default(),
            bundled: OnceLock::new(),
            published: Published::default(),
        }
    }

    /// The model's file, or `None` when there is none.
    ///
    /// # Errors
    /// When a link on the way leads out of the models, or the file cannot be looked at.
    pub fn file(&self, name: &ModelName) -> Result<Option<PathBuf>, PipelineError> {
        let path = self.workspace.model(name)?;
        Ok(is_file(&path)?.then_some(path))
    }

    /// Which models predictions use newer parameters of than those in their files.
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// The models of the workspace, by name.
    ///
    /// # Errors
    /// When the folder of models cannot be listed.
    pub fn list(&self) -> Result<Vec<ModelInfo>, PipelineError> {
        self.workspace.model_names()?.into_iter().map(|name| self.info(name)).filter_map(Result::transpose).collect()
    }

    /// The networks that come with the program.
    ///
    /// # Errors
    /// When one is damaged, which is a defect.
    pub fn bundled(&self) -> Result<Vec<ModelContent>, PipelineError> {
        if let Some(contents) = self.bundled.get() {
            return Ok(contents.clone());
        }
        let networks = [NetworkType::detection, NetworkType::flow]
            .into_iter()
            .flat_map(|network| [NetworkKind::Volumetric, NetworkKind::Planar].map(network));
        let content = |file| -> Result<ModelContent, PipelineError> {
            Ok(self.content(Ok(Checkpoint::read_from(Cursor::new(file))?)))
        };
        let files = networks.filter_map(|network| self.pretrained.of(network).bundled);
        let contents = files.map(content).collect::<Result<Vec<_>, _>>()?;
        Ok(self.bundled.get_or_init(|| contents).clone())
    }

    /// Describes a model; `None` when its file has just been removed.
    fn info(&self, name: ModelName) -> Result<Option<ModelInfo>, PipelineError> {
        let path = self.workspace.model(&name)?;
        let Some(metadata) = metadata(&path)? else { return Ok(None) };
        let version = FileVersion::from(&metadata);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&path).filter(|(seen, _)| *seen == version).map(|(_, content)| content.clone());
        let content = found.unwrap_or_else(|| self.content(Checkpoint::read(&path)));
        known().insert(path, (version, content.clone()));
        Ok(Some(ModelInfo { name, bytes: metadata.len(), modified: metadata.modified().ok(), content }))
    }

    fn content(&self, checkpoint: Result<Checkpoint, CheckpointError>) -> ModelContent {
        let network = |checkpoint: &Checkpoint| self.network.identify(checkpoint).map_err(|error| error.to_string());
        match checkpoint {
            Ok(checkpoint) => ModelContent {
                network: network(&checkpoint),
                members: checkpoint.members.len(),
                provenance: checkpoint.provenance,
            },
            Err(error) => ModelContent { network: Err(error.to_string()), members: 0, provenance: None },
        }
    }

    /// A model's file. One that is missing is replaced by the pretrained one (docs/method.md, "Detection network").
    ///
    /// # Errors
    /// [`PipelineError::NotFound`] when the file is missing and the pretrained one cannot be had; other errors, for example
    /// a full disk, when the file cannot be looked at or written.
    pub fn require(
        &self,
        name: &ModelName,
        network: NetworkType,
        context: &TaskContext,
    ) -> Result<PathBuf, PipelineError> {
        let path = self.workspace.model(name)?;
        if !is_file(&path)? {
            self.replace(name, network, &ModelSource::Pretrained, context).map_err(|error| {
                let is_absent =
                    matches!(error.code(), ErrorCode::NotFound | ErrorCode::Unavailable | ErrorCode::InvalidArgument);
                if !is_absent {
                    return error;
                }
                let route = match network.task {
                    NetworkTask::Detection => "seg",
                    NetworkTask::Flow => "flow",
                };
                PipelineError::NotFound(format!(
                    "the model does not exist: {name}; the pretrained one cannot be had ({error}), so make a new one with \
                     POST /{route}/reset, or upload a file there"
                ))
            })?;
        }
        Ok(path)
    }

    /// Replaces a model, or makes it. What is not a network of this type replaces nothing.
    ///
    /// # Errors
    /// When the source cannot be had, is not such a network, or cannot be stored; the old model is then untouched.
    pub fn replace(
        &self,
        name: &ModelName,
        network: NetworkType,
        source: &ModelSource,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        self.replace_after(name, network, source, context, Ok)
    }

    /// [`replace`](Self::replace) with what `prepare` makes of the source.
    pub(crate) fn replace_after(
        &self,
        name: &ModelName,
        network: NetworkType,
        source: &ModelSource,
        context: &TaskContext,
        prepare: impl FnOnce(Checkpoint) -> Result<Checkpoint, PipelineError>,
    ) -> Result<(), PipelineError> {
        let target = self.workspace.model(name)?;
        if metadata(&target)?.is_some_and(|found| found.is_dir()) {
            return Err(PipelineError::Invalid(format!("this is a folder of models: {name}; use another name")));
        }
        let checkpoint = prepare(self.obtain(network, source, context)?)?;
        context.check()?;
        self.network.verify(&checkpoint, network)?;
        Ok(checkpoint.write(&target)?)
    }

    fn obtain(
        &self,
        network: NetworkType,
        source: &ModelSource,
        context: &TaskContext,
    ) -> Result<Checkpoint, PipelineError> {
        let (checkpoint, origin) = match source {
            ModelSource::Random { members, seed, prior } => {
                let seeds = (0..*members as u64).map(|member| seed.wrapping_add(member));
                let networks = seeds.map(|seed| -> Result<_, PipelineError> {
                    context.check()?;
                    Ok(self.network.initialise(network, seed)?)
                });
                let networks = networks.collect::<Result<Vec<_>, _>>()?;
                let members = networks.into_iter().flat_map(|network| network.members).collect();
                let prior = if prior.is_some() { ", prior training with images" } else { "" };
                (Checkpoint::new(members), format!("random parameters, seed {seed}{prior}"))
            }
            ModelSource::Uploaded(file) => {
                (Checkpoint::read(&self.workspace.spooled(file))?, "an uploaded file".into())
            }
            ModelSource::Url(url) => (self.fetch(url, context)?, shown(url)),
            ModelSource::Pretrained => self.pretrained(network, false, context)?,
            ModelSource::Versatile => self.pretrained(network, true, context)?,
        };
        // A file that this program wrote has its own provenance.
        let provenance = checkpoint.provenance.clone().unwrap_or(Provenance { origin, steps: 0 });
        Ok(Checkpoint { provenance: Some(provenance), ..checkpoint })
    }

    /// A pretrained network, and where it comes from in a few words. Tells `context` which one was taken.
    fn pretrained(
        &self,
        network: NetworkType,
        prefers_original: bool,
        context: &TaskContext,
    ) -> Result<(Checkpoint, String), PipelineError> {
        let PretrainedNetwork { bundled, given, original } = self.pretrained.of(network);
        let name = match network.task {
            NetworkTask::Detection => network.kind.dims().to_owned(),
            NetworkTask::Flow => network.to_string(),
        };
        if let Some(location) = given {
            // Only a configured location may be a file of this machine; a client's URL always goes through the download.
            let checkpoint = if location.contains("://") {
                self.fetch(location, context)?
            } else {
                Checkpoint::read(Path::new(location))?
            };
            context.tell(TaskEvent::note(format!("the {name} network is the configured one, {}", shown(location))));
            return Ok((checkpoint, shown(location)));
        }
        let original = original.as_ref().filter(|_| prefers_original);
        let instead = if let Some(original) = original {
            match self.fetch(original, context) {
                Ok(checkpoint) => {
                    context
                        .tell(TaskEvent::note(format!("the {name} network was downloaded from {}", shown(original))));
                    return Ok((checkpoint, shown(original)));
                }
                Err(error) if error.code() == ErrorCode::Cancelled => return Err(error),
                Err(error) => format!(", as the original's cannot be had ({error})"),
            }
        } else {
            String::new()
        };
        let Some(bundled) = bundled else {
            context.tell(TaskEvent::note(format!("the {name} network has random parameters{instead}; train it first")));
            return Ok((self.network.initialise(network, 0)?, "random parameters, seed 0".into()));
        };
        let checkpoint = Checkpoint::read_from(Cursor::new(*bundled))?;
        context.tell(TaskEvent::note(format!("the {name} network is the built-in one{instead}")));
        Ok((checkpoint, "the built-in network".into()))
    }

    /// Downloads on a thread of its own, which a cancelled task leaves behind: a host that says nothing cannot hold it.
    fn fetch(&self, url: &str, context: &TaskContext) -> Result<Checkpoint, PipelineError> {
        let folder = self.workspace.path().to_owned();
        let (download, address, cancel) = (self.download.clone(), url.to_owned(), context.cancel_token().clone());
        let (reply, result) = mpsc::sync_channel(1);
        let work = move || {
            let downloaded = download_to(&*download, &address, &folder, &cancel);
            // The receiver is gone when the task was cancelled.
            let _ = reply.send(downloaded);
        };
        let thread = thread::Builder::new().name("download".into()).spawn(work);
        thread.map_err(FsError::io("start a download for", self.workspace.path()))?;
        loop {
            match result.recv_timeout(CANCEL_POLL) {
                Ok(file) => return Ok(Checkpoint::read(file?.path())?),
                Err(RecvTimeoutError::Timeout) => context.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ModelError::new(ErrorCode::Internal, format!("the download crashed: {url}")).into());
                }
            }
        }
    }
}

/// Whether there is a file. One that cannot be looked at is not replaced by another network.
fn is_file(path: &Path) -> Result<bool, FsError> {
    Ok(metadata(path)?.is_some_and(|found| found.is_file()))
}

/// A location without its secrets: the scheme, host and path of a URL, the file name of a path.
fn shown(location: &str) -> String {
    const MAX_CHARS: usize = 300;
    let shown = match location.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let host = rest.split('/').next().unwrap_or_default();
            let without_user = &rest[host.rfind('@').map_or(0, |at| at + 1)..];
            format!("{scheme}://{without_user}")
        }
        None => Path::new(location).file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    shown.chars().filter(|letter| !letter.is_control()).take(MAX_CHARS).collect()
}

fn download_to(
    download: &dyn ModelDownload,
    url: &str,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<NamedTempFile, PipelineError> {
    let mut content = download.open(url)?;
    let mut file = temporary_file(folder)?;
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
            return Err(PipelineError::TooLarge(format!("the file is larger than 1 GiB and not a model: {url}")));
        }
        file.write_all(&buffer[..count]).map_err(FsError::io("store a model in", folder))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_shown_without_secrets() {
        for (location, expected) in [
            ("https://user:secret@host/a/b.pth?signature=x#y", "https://host/a/b.pth"),
            ("https://host/a@b.pth", "https://host/a@b.pth"),
            ("https://user@host", "https://host"),
            ("/home/ann/models/own.pth", "own.pth"),
            ("", ""),
        ] {
            assert_eq!(shown(location), expected);
        }
        assert!(shown(&format!("https://host/{}", "x".repeat(9000))).len() <= 300);
    }
}
