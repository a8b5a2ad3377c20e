//! The folder that holds everything: `datasets`, `models`, `logs`, `memmaps` and the state database.
//!
//! The names are the original server's, so that a workspace moves between the two.

use std::{
    fs,
    path::{Path, PathBuf},
};

use elephant_fs::{FsError, Root, remove_abandoned, remove_abandoned_behind_links};
use elephant_project::{Mirror, Projects};
use elephant_types::{DatasetName, FileName, ModelName};
use elephant_volume::FrameCache;

use crate::{record::Records, upload::SpooledFile};

/// No more folders are searched for datasets, whatever links there are.
const MOST_FOLDERS: usize = 100_000;

/// An opened workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: Root,
    datasets: Root,
    models: Root,
    records: Records,
    frame_cache: FrameCache,
    projects: Projects,
}

impl Workspace {
    /// Opens the workspace at `path`, makes what is missing of it, and removes what killed writers left. What cannot be
    /// removed is logged.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let workspace = Self::open_folders(path)?;
        if let Err(error) = remove_abandoned(workspace.root.path()) {
            tracing::warn!(%error, "temporary files of an earlier server stay in the workspace");
        }
        Ok(workspace)
    }

    /// Opens a workspace that a server may be using, with the folders of [`with_data_roots`](Self::with_data_roots). Temporary
    /// files stay as they are.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`with_data_roots`](Self::with_data_roots).
    pub fn open_beside_server(path: &Path, data_roots: &[PathBuf]) -> Result<Self, FsError> {
        let workspace = Self::open_folders(path)?;
        let datasets = workspace.datasets.allowing(data_roots)?;
        Ok(Self { projects: Projects::new(&datasets), datasets, ..workspace })
    }

    fn open_folders(path: &Path) -> Result<Self, FsError> {
        let root = Root::open(path)?;
        for folder in ["logs", "memmaps"] {
            Root::open(&root.path().join(folder))?;
        }
        let datasets = Root::open(&root.path().join("datasets"))?;
        let models = Root::open(&root.path().join("models"))?;
        let projects = Projects::new(&datasets);
        Ok(Self { root, datasets, models, projects, records: Records::default(), frame_cache: FrameCache::default() })
    }

    /// The same workspace, whose datasets and movies may also be links into these folders, which must exist. Removes what
    /// killed writers left in the datasets that are such links. What cannot be removed is logged.
    ///
    /// # Errors
    /// When one of the folders does not exist or cannot be read.
    pub fn with_data_roots(self, folders: &[PathBuf]) -> Result<Self, FsError> {
        let datasets = self.datasets.allowing(folders)?;
        if let Err(error) = remove_abandoned_behind_links(&datasets) {
            tracing::warn!(%error, "temporary files of an earlier server stay in a linked dataset");
        }
        Ok(Self { projects: Projects::new(&datasets), datasets, ..self })
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

    /// The projects of all datasets.
    pub fn projects(&self) -> &Projects {
        &self.projects
    }

    /// The projects that follow sessions of the ELEPHANT client.
    pub fn mirror(&self) -> Mirror {
        Mirror::new(&self.projects)
    }

    /// The names of all datasets that were made, in order; the folders below a dataset are not looked at.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn dataset_names(&self) -> Result<Vec<DatasetName>, FsError> {
        let mut names = Vec::new();
        let mut folders = vec![self.datasets.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().map_err(FsError::io("list", &folder))? {
                let path = entry.map_err(FsError::io("list", &folder))?.path();
                let relative = path.strip_prefix(self.datasets.path()).ok().and_then(Path::to_str);
                let Some(name) = relative.and_then(|name| name.parse::<DatasetName>().ok()) else { continue };
                // Links to other disks are datasets only where they may be.
                let is_folder = self.datasets.resolve(&name).is_ok() && path.metadata().is_ok_and(|it| it.is_dir());
                if is_folder && elephant_fs::metadata(&path.join("imgs.zarr"))?.is_some() {
                    names.push(name);
                } else if is_folder && names.len() + folders.len() < MOST_FOLDERS {
                    folders.push(path);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The folder of received files that have no place yet.
    pub(crate) fn spool(&self) -> PathBuf {
        self.datasets.path().join(".uploads")
    }

    /// A file that was received.
    pub(crate) fn spooled(&self, file: &SpooledFile) -> PathBuf {
        self.spool().join(file.as_str())
    }

    /// The records of the datasets.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// The cache that all readers of frames share.
    pub(crate) fn frame_cache(&self) -> &FrameCache {
        &self.frame_cache
    }

    /// A folder of logs, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the logs, or their own folder is gone and cannot be made.
    pub fn log_folder(&self, name: &FileName) -> Result<PathBuf, FsError> {
        // Users delete old logs, and the folder with them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_writers_left_goes_when_the_workspace_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        Workspace::open(folder.path()).unwrap();
        let fly = folder.path().join("datasets/lab/fly");
        std::fs::create_dir_all(&fly).unwrap();
        // A download, a piece of an upload, a movie being written, a model being written.
        let left =
            [".tmp-download", "datasets/lab/fly/.upload-a.h5", "datasets/lab/fly/.tmp-1-b.h5", "models/.tmp-model"];
        let kept = ["datasets/lab/fly/a.h5", "models/detection.pth", "models/.detection.pth.adam"];
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        for name in left.iter().chain(&kept) {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(hour_ago).unwrap();
        }
        Workspace::open(folder.path()).unwrap();
        assert!(left.iter().all(|name| !folder.path().join(name).exists()));
        assert!(kept.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn datasets_may_be_links_into_data_roots() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let workspace = Workspace::open(folder.path()).unwrap();
        let (fly, model): (DatasetName, ModelName) = ("fly".parse().unwrap(), "fly".parse().unwrap());
        for place in ["datasets/fly", "models/fly"] {
            std::os::unix::fs::symlink(disk.path(), folder.path().join(place)).unwrap();
        }
        assert!(matches!(workspace.dataset(&fly), Err(FsError::Escapes { .. })));
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        let abandoned = disk.path().join(".upload-fly.h5");
        std::fs::File::create(&abandoned).unwrap().set_modified(hour_ago).unwrap();
        let workspace = workspace.with_data_roots(&[disk.path().to_owned()]).unwrap();
        assert!(!abandoned.exists(), "what a killed server left in a linked dataset goes");
        assert_eq!(workspace.dataset(&fly).unwrap(), workspace.datasets().path().join("fly"));
        assert!(workspace.dataset_file(&fly, &"fly.h5".parse().unwrap()).is_ok());
        assert!(matches!(workspace.model(&model), Err(FsError::Escapes { .. })), "models are not data");
    }

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
