//! The projects of all datasets.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use elephant_fs::{FsError, Root};
use elephant_types::DatasetName;

use crate::{
    MIRROR, Project, ProjectError, ProjectId, ProjectKind, ProjectName,
    project::{companions, exclusively},
};

/// The folder of a dataset's projects, below the dataset's own.
const FOLDER: &str = "projects";
/// So many projects stay open; each holds its spots in memory.
const MOST_OPEN: usize = 16;

/// The projects below a folder of datasets. Clones share open projects.
#[derive(Clone, Debug)]
pub struct Projects {
    datasets: Root,
    open: Arc<Mutex<OpenProjects>>,
}

/// Projects by their files, the one that was used last at the end.
type OpenProjects = Vec<(PathBuf, Arc<Project>)>;

impl Projects {
    /// The projects of the datasets below `datasets`.
    pub fn new(datasets: &Root) -> Self {
        Self { datasets: datasets.clone(), open: Arc::default() }
    }

    fn opened(&self) -> MutexGuard<'_, OpenProjects> {
        // The list is changed by single calls, so a panic leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of a dataset's projects, which need not exist.
    fn folder(&self, dataset: &DatasetName) -> Result<PathBuf, ProjectError> {
        Ok(self.datasets.resolve(AsRef::<Path>::as_ref(dataset).join(FOLDER))?)
    }

    /// The file of a project, which need not exist.
    ///
    /// # Errors
    /// When a link on the way leads out of the datasets.
    pub fn path(&self, id: &ProjectId) -> Result<PathBuf, ProjectError> {
        let file = format!("{}.sqlite", id.name);
        Ok(self.datasets.resolve(AsRef::<Path>::as_ref(&id.dataset).join(FOLDER).join(file))?)
    }

    /// Makes an empty project for a dataset, whose folder must exist.
    ///
    /// # Errors
    /// When there is no such dataset, there is such a project, or it cannot be written.
    pub fn create(&self, id: &ProjectId, kind: ProjectKind) -> Result<Arc<Project>, ProjectError> {
        let path = self.path(id)?;
        if kind == ProjectKind::Normal {
            refuse_reserved(id)?;
        }
        self.existing_dataset(&id.dataset)?;
        let project = Project::create(&path, kind).map_err(|error| exists(id, error))?;
        Ok(self.keep_open(path, project))
    }

    /// The folder of a dataset that exists.
    fn existing_dataset(&self, name: &DatasetName) -> Result<PathBuf, ProjectError> {
        let folder = self.datasets.resolve(name)?;
        if !elephant_fs::metadata(&folder)?.is_some_and(|found| found.is_dir()) {
            return Err(ProjectError::UnknownDataset(name.clone()));
        }
        Ok(folder)
    }

    /// A project that exists.
    ///
    /// # Errors
    /// When there is none, or its file is damaged.
    pub fn get(&self, id: &ProjectId) -> Result<Arc<Project>, ProjectError> {
        let path = self.path(id)?;
        let mut open = self.opened();
        if let Some(at) = open.iter().position(|(known, _)| *known == path) {
            let entry = open.remove(at);
            // A file that was replaced is opened anew.
            if entry.1.is_current() {
                let project = entry.1.clone();
                open.push(entry);
                return Ok(project);
            }
        }
        drop(open);
        if elephant_fs::metadata(&path)?.is_none() {
            return Err(ProjectError::UnknownProject(id.clone()));
        }
        let project = Project::open(&path)?;
        Ok(self.keep_open(path, project))
    }

    /// The project, which is made if it does not exist.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`get`](Self::get).
    pub fn get_or_create(&self, id: &ProjectId, kind: ProjectKind) -> Result<Arc<Project>, ProjectError> {
        match self.get(id) {
            Err(ProjectError::UnknownProject(_)) => match self.create(id, kind) {
                // Another one was faster.
                Err(ProjectError::Exists(_)) => self.get(id),
                made => made,
            },
            found => found,
        }
    }

    /// Of two that opened it at once, the first one is kept.
    fn keep_open(&self, path: PathBuf, project: Project) -> Arc<Project> {
        let mut open = self.opened();
        if let Some((_, other)) = open.iter().find(|(known, other)| *known == path && other.is_current()) {
            return other.clone();
        }
        open.retain(|(known, _)| *known != path);
        let project = Arc::new(project);
        open.push((path, project.clone()));
        if open.len() > MOST_OPEN {
            open.remove(0);
        }
        project
    }

    /// Deletes a project for good.
    ///
    /// # Errors
    /// When there is none, somebody is writing to it, or a file cannot be removed.
    pub fn delete(&self, id: &ProjectId) -> Result<(), ProjectError> {
        let path = self.path(id)?;
        if elephant_fs::metadata(&path)?.is_none() {
            return Err(ProjectError::UnknownProject(id.clone()));
        }
        self.opened().retain(|(known, _)| *known != path);
        exclusively(&path, || remove(&path))
    }

    /// The projects of a dataset by name; none where the dataset has no folder for them.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn of_dataset(&self, dataset: &DatasetName) -> Result<Vec<ProjectId>, ProjectError> {
        let folder = self.folder(dataset)?;
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FsError::io("list", &folder)(error).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(FsError::io("list", &folder))?.path();
            if path.extension() == Some(OsStr::new("sqlite")) {
                let name = path.file_stem().and_then(OsStr::to_str).and_then(|name| name.parse::<ProjectName>().ok());
                names.extend(name.map(|name| ProjectId::new(dataset.clone(), name)));
            }
        }
        names.sort();
        Ok(names)
    }

    /// A new project with what `fill` makes of an empty one. It appears complete or not at all, also if the process is killed.
    ///
    /// # Errors
    /// As [`create`](Self::create), and those of `fill`.
    pub fn create_filled<E: From<ProjectError>>(
        &self,
        id: &ProjectId,
        fill: impl FnOnce(&Project) -> Result<(), E>,
    ) -> Result<Arc<Project>, E> {
        let path = self.path(id)?;
        refuse_reserved(id)?;
        let dataset = self.existing_dataset(&id.dataset)?;
        if elephant_fs::metadata(&path).map_err(ProjectError::from)?.is_some() {
            return Err(ProjectError::Exists(id.clone()).into());
        }
        let staging = elephant_fs::staging_folder(&dataset).map_err(ProjectError::from)?;
        let made = staging.path().join("made.sqlite");
        let project = Project::create(&made, ProjectKind::Normal)?;
        fill(&project)?;
        // SQLite writes everything into the file when the last connection ends.
        drop(project);
        let folder = self.folder(&id.dataset)?;
        fs::create_dir_all(&folder).map_err(FsError::io("create", &folder)).map_err(ProjectError::from)?;
        elephant_fs::publish_new_file(&made, &path).map_err(|error| exists(id, error.into()))?;
        Ok(self.get(id)?)
    }

    /// A temporary file on the disk of a dataset, for an export or an import.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary_file(&self, dataset: &DatasetName) -> Result<tempfile::NamedTempFile, ProjectError> {
        Ok(elephant_fs::temporary_file(&self.datasets.resolve(dataset)?)?)
    }

    /// A new project with the log that another one has now; anyone may change it.
    ///
    /// # Errors
    /// When there is no such project, and as [`create_filled`](Self::create_filled).
    pub fn copy(&self, from: &ProjectId, to: &ProjectId) -> Result<Arc<Project>, ProjectError> {
        let source = self.get(from)?;
        let mut file = self.temporary_file(&from.dataset)?;
        let mut writer = io::BufWriter::new(file.as_file_mut());
        source.export(&mut writer)?;
        io::Write::flush(&mut writer).map_err(FsError::io("write", "the copy of a project"))?;
        drop(writer);
        let copy = file.reopen().map_err(FsError::io("read", "the copy of a project"))?;
        self.create_filled(to, |project| project.import(io::BufReader::new(copy)))
    }

    /// Puts what is intact of a damaged project in its place, and keeps the damaged file as `NAME.damaged`. A project
    /// that is whole is left alone.
    ///
    /// # Errors
    /// When there is no such project, or nothing of it can be read.
    pub fn recover(&self, id: &ProjectId) -> Result<crate::Recovered, ProjectError> {
        let path = self.path(id)?;
        if elephant_fs::metadata(&path)?.is_none() {
            return Err(ProjectError::UnknownProject(id.clone()));
        }
        self.opened().retain(|(known, _)| *known != path);
        crate::recover::recover(&path)
    }

    /// How many projects are open, and the spots that they hold: for tests and for watching memory.
    pub fn open_spots(&self) -> HashMap<PathBuf, usize> {
        let open: Vec<_> = self.opened().clone();
        open.into_iter().filter_map(|(path, project)| Some((path, project.info().ok()?.spots))).collect()
    }
}

/// Refuses the name of the project that follows the session with a dataset.
fn refuse_reserved(id: &ProjectId) -> Result<(), ProjectError> {
    if id.name.as_str() == MIRROR {
        return Err(ProjectError::Invalid(format!(
            "the project {id} follows a session of Mastodon and is made by it; choose another name"
        )));
    }
    Ok(())
}

/// The error of making a project, in other words where there is one already.
fn exists(id: &ProjectId, error: ProjectError) -> ProjectError {
    match error {
        ProjectError::Fs(FsError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            ProjectError::Exists(id.clone())
        }
        error => error,
    }
}

/// Removes the files of a project, the database last.
pub(crate) fn remove(path: &Path) -> Result<(), ProjectError> {
    for file in companions(path).iter().map(PathBuf::as_path).chain([path]) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FsError::io("delete", file)(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
