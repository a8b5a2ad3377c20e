//! The folder that holds everything: `datasets`, `models`, `logs`, `memmaps` and the state database.
//!
//! The names are the original server's, so that a workspace moves between the two.

use std::path::{Path, PathBuf};

use elephant_fs::{FsError, Root};
use elephant_types::{DatasetName, FileName, ModelName};

/// An opened workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: Root,
    datasets: Root,
    models: Root,
}

impl Workspace {
    /// Opens the workspace at `path` and makes what is missing of it.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let root = Root::open(path)?;
        for folder in ["logs", "memmaps"] {
            Root::open(&root.path().join(folder))?;
        }
        let datasets = Root::open(&root.path().join("datasets"))?;
        let models = Root::open(&root.path().join("models"))?;
        Ok(Self { root, datasets, models })
    }

    /// The workspace's own path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The state database.
    pub fn state_file(&self) -> PathBuf {
        self.root.path().join("elephant.db")
    }

    /// The root of all datasets.
    pub fn datasets(&self) -> &Root {
        &self.datasets
    }

    /// A dataset's folder, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the datasets.
    pub fn dataset(&self, name: &DatasetName) -> Result<PathBuf, FsError> {
        self.datasets.resolve(name)
    }

    /// A file in a dataset's folder, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the dataset.
    pub fn dataset_file(&self, dataset: &DatasetName, file: &FileName) -> Result<PathBuf, FsError> {
        self.datasets.resolve(AsRef::<Path>::as_ref(dataset).join(file))
    }

    /// A model's file, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the models.
    pub fn model(&self, name: &ModelName) -> Result<PathBuf, FsError> {
        self.models.resolve(name)
    }
}
