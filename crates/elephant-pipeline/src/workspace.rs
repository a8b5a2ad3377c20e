//! The folder that holds everything: `datasets`, `models`, `logs`, `memmaps` and the state database.
//!
//! The names are the original server's, so that a workspace moves between the two.

use std::path::{Path, PathBuf};

use elephant_fs::{FsError, Root, StagingDir, remove_temporary};
use elephant_types::{DatasetName, FileName, ModelName};

use crate::record::Records;

/// An opened workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: Root,
    datasets: Root,
    models: Root,
    records: Records,
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
        remove_abandoned(datasets.path())?;
        remove_temporary(models.path())?;
        Ok(Self { root, datasets, models, records: Records::default() })
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

    /// What is remembered of the datasets.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// A folder of logs, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the logs, or their own folder is gone and cannot be made.
    pub fn log_folder(&self, name: &FileName) -> Result<PathBuf, FsError> {
        // People delete old logs, and the folder with them.
        Root::open(&self.root.path().join("logs"))?.resolve(name)
    }

    /// A model's file, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the models.
    pub fn model(&self, name: &ModelName) -> Result<PathBuf, FsError> {
        self.models.resolve(name)
    }
}

/// Removes what killed publications left in the datasets below `folder`. Those that still run elsewhere are left alone.
fn remove_abandoned(folder: &Path) -> Result<(), FsError> {
    for entry in folder.read_dir().map_err(FsError::io("list", folder))? {
        let entry = entry.map_err(FsError::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || entry.path().extension().is_some_and(|it| it == "zarr")
        {
            continue;
        }
        if name.starts_with(".staging-") {
            match StagingDir::begin(folder, "a dataset generation") {
                Ok(_) | Err(FsError::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        } else if !name.starts_with('.') {
            remove_abandoned(&entry.path())?;
        }
    }
    Ok(())
}
