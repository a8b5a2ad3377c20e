//! The models of a workspace: made, fetched, checked, and replaced whole.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use elephant_checkpoint::Checkpoint;
use elephant_fs::FsError;
use elephant_types::{ModelName, NetworkKind};

use crate::{ModelDownload, PipelineError, SegmentationModel, Workspace};

/// No network of this project comes near; a larger download is not a model.
const MAX_MODEL_BYTES: u64 = 1 << 30;

/// Where a new model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// Random parameters, one set for each member of the ensemble.
    Random {
        /// Members of the ensemble, at least 1.
        members: usize,
        /// Of the first member; the next ones count up.
        seed: u64,
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
    pub fn require(&self, name: &ModelName, kind: NetworkKind) -> Result<PathBuf, PipelineError> {
        let path = self.workspace.model(name)?;
        if !path.is_file() {
            self.replace(name, kind, &ModelSource::Versatile).map_err(|error| {
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
    pub fn replace(&self, name: &ModelName, kind: NetworkKind, source: &ModelSource) -> Result<(), PipelineError> {
        let target = self.workspace.model(name)?;
        if target.is_dir() {
            return Err(PipelineError::Invalid(format!("{name} is a folder of models; use another name")));
        }
        let checkpoint = self.obtain(kind, source)?;
        self.network.verify(&checkpoint, kind)?;
        Ok(checkpoint.write(&target)?)
    }

    fn obtain(&self, kind: NetworkKind, source: &ModelSource) -> Result<Checkpoint, PipelineError> {
        let location = match source {
            ModelSource::Random { members, seed } => {
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
        if is_local { Ok(Checkpoint::read(Path::new(location))?) } else { self.fetch(location) }
    }

    fn fetch(&self, url: &str) -> Result<Checkpoint, PipelineError> {
        let content = self.download.open(url)?;
        let folder = self.workspace.path();
        let mut file =
            tempfile::NamedTempFile::new_in(folder).map_err(FsError::io("create a temporary file in", folder))?;
        let copied = io::copy(&mut content.take(MAX_MODEL_BYTES + 1), file.as_file_mut());
        let length = copied.map_err(FsError::io("store a download in", folder))?;
        if length > MAX_MODEL_BYTES {
            return Err(PipelineError::TooLarge(format!("the file at {url} is larger than 1 GiB and not a model")));
        }
        Ok(Checkpoint::read(file.path())?)
    }
}
