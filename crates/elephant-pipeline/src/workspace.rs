//! The folder that holds everything: `datasets`, `models`, `logs`, `memmaps` and the state database.
//!
//! The names are the original server's, so that a workspace moves between the two.

use std::{
    fs,
    path::{Path, PathBuf},
};

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

    /// The names of all models, in order: `.pth` files in the folder of models and in the folders below it, but for hidden
    /// ones and links.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn model_names(&self) -> Result<Vec<ModelName>, FsError> {
        let mut names = Vec::new();
        let mut folders = vec![self.models.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().map_err(FsError::io("list", &folder))? {
                let entry = entry.map_err(FsError::io("list", &folder))?;
                let (path, kind) = (entry.path(), entry.file_type());
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                    folders.push(path);
                } else if kind.is_ok_and(|kind| kind.is_file()) && path.extension().is_some_and(|end| end == "pth") {
                    let relative = path.strip_prefix(self.models.path()).ok().and_then(Path::to_str);
                    // A name that no request can have is not a model's.
                    names.extend(relative.and_then(|name| name.parse::<ModelName>().ok()));
                }
            }
        }
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(names)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let models = folder.path().join("models");
        std::fs::create_dir_all(models.join("lab")).unwrap();
        for file in ["b.pth", "lab/a.pth", ".hidden.pth", "notes.txt", ".b.pth.adam"] {
            std::fs::write(models.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", models.join("link.pth")).unwrap();
        let names: Vec<String> = workspace.model_names().unwrap().into_iter().map(String::from).collect();
        assert_eq!(names, ["b.pth", "lab/a.pth"]);
    }
}
