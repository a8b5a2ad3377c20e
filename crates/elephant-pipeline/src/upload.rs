//! Movies that arrive in pieces (contract section 1.7).
//!
//! Each piece is spooled to the disk before its name is known, then appended to `.upload-NAME` beside the target, which
//! takes the target's place when the upload is complete. A piece that cannot be appended whole is taken back. The protocol
//! does not tell two uploads of the same file apart: the last `init` begins it anew.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use elephant_fs::{FsError, UPLOAD_PREFIX};
use elephant_types::{DatasetName, FileName};
use tempfile::NamedTempFile;

use crate::{PipelineError, Workspace};

/// Where uploads of one workspace go.
#[derive(Clone, Debug)]
pub struct Uploads {
    workspace: Workspace,
    spool: PathBuf,
    /// Held while a collected file changes.
    changing: Arc<Mutex<()>>,
}

impl Uploads {
    /// The uploads of a workspace; removes spooled pieces that a killed server left.
    ///
    /// # Errors
    /// When the spool folder cannot be made anew.
    pub fn open(workspace: &Workspace) -> Result<Self, FsError> {
        let spool = workspace.datasets().path().join(".uploads");
        match fs::remove_dir_all(&spool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FsError::io("remove", &spool)(error)),
            _ => fs::create_dir_all(&spool).map_err(FsError::io("create", &spool))?,
        }
        Ok(Self { workspace: workspace.clone(), spool, changing: Arc::default() })
    }

    /// The guard protects files, not memory, so that a panic of its last holder does no harm.
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty file for the next piece; it vanishes when dropped.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn spool(&self) -> Result<NamedTempFile, FsError> {
        NamedTempFile::new_in(&self.spool).map_err(FsError::io("create a temporary file in", &self.spool))
    }

    /// Begins an upload with its first piece; an earlier unfinished one of the same file is dropped.
    ///
    /// # Errors
    /// When the name is refused or the piece cannot be written.
    pub fn begin(&self, dataset: &DatasetName, file: &FileName, piece: &mut File) -> Result<(), PipelineError> {
        let _changing = self.changing();
        let target = self.workspace.dataset_file(dataset, file)?;
        if elephant_fs::metadata(&target)?.is_some_and(|found| found.is_dir()) {
            return Err(PipelineError::Invalid(format!(
                "{file} is a folder of the dataset {dataset}; use another name"
            )));
        }
        let partial = partial_path(&target);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        }
        remove_if_there(&partial)?;
        let collected = OpenOptions::new().create_new(true).append(true).open(&partial);
        Ok(append(&partial, collected.map_err(FsError::io("create", &partial))?, piece)?)
    }

    /// Appends the next piece.
    ///
    /// # Errors
    /// When no upload of this file was begun, or the piece cannot be written.
    pub fn append(&self, dataset: &DatasetName, file: &FileName, piece: &mut File) -> Result<(), PipelineError> {
        let _changing = self.changing();
        let partial = partial_path(&self.workspace.dataset_file(dataset, file)?);
        let collected = OpenOptions::new().append(true).open(&partial);
        let collected = collected.map_err(|error| not_begun(error, &partial, dataset, file))?;
        Ok(append(&partial, collected, piece)?)
    }

    /// Puts the collected file in its place. If it is a movie, it is the dataset's from now on.
    ///
    /// # Errors
    /// When no upload of this file was begun, or the file cannot be put in its place.
    pub fn complete(&self, dataset: &DatasetName, file: &FileName) -> Result<(), PipelineError> {
        let _changing = self.changing();
        let target = self.workspace.dataset_file(dataset, file)?;
        let partial = partial_path(&target);
        let collected = File::open(&partial).map_err(|error| not_begun(error, &partial, dataset, file))?;
        collected.sync_all().map_err(FsError::io("flush", &partial))?;
        fs::rename(&partial, &target).map_err(FsError::io("replace", &target))?;
        let folder = self.workspace.dataset(dataset)?;
        self.workspace.records().update(dataset, &folder, |record| record.add_upload(file));
        Ok(())
    }

    /// Drops an unfinished upload, if there is one.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn cancel(&self, dataset: &DatasetName, file: &FileName) -> Result<(), PipelineError> {
        let _changing = self.changing();
        Ok(remove_if_there(&partial_path(&self.workspace.dataset_file(dataset, file)?))?)
    }
}

/// `sample.h5` and `sample.xml` collect in files of their own.
fn partial_path(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(UPLOAD_PREFIX);
    name.push(target.file_name().unwrap_or_default());
    target.with_file_name(name)
}

fn append(path: &Path, mut collected: File, piece: &mut File) -> Result<(), FsError> {
    let length = collected.metadata().map_err(FsError::io("read", path))?.len();
    let copied = piece.seek(SeekFrom::Start(0)).and_then(|_| io::copy(piece, &mut collected));
    if let Err(error) = copied {
        // Take back the half piece, so that the client can send it again.
        collected.set_len(length).map_err(FsError::io("shorten", path))?;
        return Err(FsError::io("append to", path)(error));
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), FsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn not_begun(error: io::Error, partial: &Path, dataset: &DatasetName, file: &FileName) -> PipelineError {
    if error.kind() == io::ErrorKind::NotFound {
        let message =
            format!("no upload of {file} into the dataset {dataset} was begun; send it with action=init first");
        return PipelineError::NotFound(message);
    }
    FsError::io("open", partial)(error).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn piece(uploads: &Uploads, bytes: &[u8]) -> NamedTempFile {
        let mut spooled = uploads.spool().unwrap();
        spooled.write_all(bytes).unwrap();
        spooled
    }

    #[test]
    fn pieces_become_a_file_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let uploads = Uploads::open(&workspace).unwrap();
        let dataset: DatasetName = "lab/fly".parse().unwrap();
        let (h5, xml): (FileName, FileName) = ("fly.h5".parse().unwrap(), "fly.xml".parse().unwrap());
        uploads.begin(&dataset, &h5, piece(&uploads, b"one ").as_file_mut()).unwrap();
        uploads.begin(&dataset, &xml, piece(&uploads, b"<xml/>").as_file_mut()).unwrap();
        uploads.append(&dataset, &h5, piece(&uploads, b"two").as_file_mut()).unwrap();
        let target = workspace.dataset_file(&dataset, &h5).unwrap();
        assert!(!target.exists(), "nothing is seen before the end");
        uploads.complete(&dataset, &h5).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one two");
        uploads.cancel(&dataset, &xml).unwrap();
        assert!(matches!(uploads.complete(&dataset, &xml), Err(PipelineError::NotFound(_))));
        assert!(matches!(
            uploads.append(&dataset, &h5, piece(&uploads, b"x").as_file_mut()),
            Err(PipelineError::NotFound(_))
        ));
        assert_eq!(fs::read_dir(&uploads.spool).unwrap().count(), 0, "no piece stays");
    }
}
