//! The folder that holds everything: `datasets`, `models`, `logs`, `memmaps` and the state database.
//!
//! The names are the original server's, so that a workspace moves between the two.

use std::path::{Path, PathBuf};

use elephant_fs::{FsError, Root, StagingDir, remove_temporary};
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
        remove_abandoned(datasets.path())?;
        remove_temporary(models.path())?;
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

    /// The movie in a dataset's folder: `NAME.h5` for a dataset `lab/NAME`, or else the first `.h5` by name. Partitions
    /// (`NAME-00-00.h5`), to which a movie's main file refers, come last.
    ///
    /// # Errors
    /// When the folder cannot be listed, or it or the movie is a link that leads out of the datasets.
    pub fn movie(&self, dataset: &DatasetName) -> Result<Option<PathBuf>, FsError> {
        let folder = self.dataset(dataset)?;
        if !folder.is_dir() {
            return Ok(None);
        }
        let leaf = dataset.as_str().rsplit('/').next().unwrap_or_default();
        let main = format!("{leaf}.h5");
        let names = folder.read_dir().and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect::<Result<Vec<_>, _>>()
        });
        let names = names.map_err(FsError::io("list", &folder))?;
        let is_h5 = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "h5");
        let movies = names.into_iter().filter(|name| is_h5(name) && !name.starts_with('.'));
        let first = movies.min_by_key(|name| (*name != main, is_partition(name), name.clone()));
        first.map(|name| self.datasets.resolve(AsRef::<Path>::as_ref(dataset).join(name))).transpose()
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

/// Whether BigDataViewer names its partition files so: `-SETUP-TIME.h5` with at least two digits each.
fn is_partition(name: &str) -> bool {
    let stem = name.strip_suffix(".h5").unwrap_or(name);
    let mut parts = stem.rsplit('-');
    let mut is_number =
        || parts.next().is_some_and(|part| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_digit()));
    is_number() && is_number() && parts.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_movie_is_the_main_file() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let dataset: DatasetName = "lab/fly".parse().unwrap();
        let movie = || workspace.movie(&dataset).unwrap().map(|path| path.file_name().unwrap().to_owned());
        assert_eq!(movie(), None);
        let put = |name: &str| std::fs::write(workspace.dataset(&dataset).unwrap().join(name), "").unwrap();
        std::fs::create_dir_all(workspace.dataset(&dataset).unwrap()).unwrap();
        put(".upload-a.h5");
        put("a.xml");
        assert_eq!(movie(), None);
        put("b-00-00.h5");
        assert_eq!(movie().unwrap(), "b-00-00.h5");
        put("b.h5");
        assert_eq!(movie().unwrap(), "b.h5");
        put("fly.h5");
        assert_eq!(movie().unwrap(), "fly.h5");
    }
}
