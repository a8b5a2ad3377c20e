//! Several folders that are prepared out of sight and published together.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{FolderLock, FsError, atomic::sync_folder};

/// Prefix of the names of staging folders.
pub(crate) const STAGING_PREFIX: &str = ".staging-";

/// A hidden folder inside `target` in which new content is prepared. If it is dropped without
/// [`publish`](Self::publish), it is deleted; if the process is killed, the next [`StagingDir`] of the same target
/// deletes it.
#[derive(Debug)]
pub struct StagingDir {
    target: PathBuf,
    folder: tempfile::TempDir,
    _lock: FolderLock,
}

/// A hidden folder in `target` for files that will be moved to their places, which vanishes when dropped. Its owner shares
/// the [`FolderLock`] of `target`: after a kill, the next [`StagingDir`] there or the sweep of an opened workspace removes it.
///
/// # Errors
/// When the folder cannot be made.
pub fn staging_folder(target: &Path) -> Result<tempfile::TempDir, FsError> {
    tempfile::Builder::new()
        .prefix(STAGING_PREFIX)
        .tempdir_in(target)
        .map_err(FsError::io("create a folder in", target))
}

impl StagingDir {
    /// Begins a publication into `target` for `purpose`, and removes staging folders of killed processes there.
    ///
    /// # Errors
    /// [`FsError::Locked`] when another publication into the same target is running.
    pub fn begin(target: &Path, purpose: &str) -> Result<Self, FsError> {
        let lock = FolderLock::try_acquire(target, purpose)?;
        for entry in fs::read_dir(target).map_err(FsError::io("list", target))? {
            let entry = entry.map_err(FsError::io("list", target))?;
            if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(FsError::io("remove", entry.path()))?;
            }
        }
        Ok(Self { target: target.to_owned(), folder: staging_folder(target)?, _lock: lock })
    }

    /// The folder for the new content.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves the named entries into the target. Old entries of the same names are deleted.
    ///
    /// The last name is the marker: the old one is removed first, and the new one is moved in last. A reader that finds
    /// the marker finds a complete set, old or new. If the process is killed in between, the marker is missing.
    ///
    /// # Errors
    /// When an entry is missing from the staging folder or cannot be moved.
    #[expect(clippy::disallowed_methods, reason = "all entries are flushed before and after")]
    pub fn publish(self, names: &[&str]) -> Result<(), FsError> {
        let Some((marker, others)) = names.split_last() else { return Ok(()) };
        let old = self.folder.path().join(".old");
        fs::create_dir(&old).map_err(FsError::io("create", &old))?;
        let retire = |name: &str| match fs::rename(self.target.join(name), old.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FsError::io("move", self.target.join(name))(error))
            }
            _ => Ok(()),
        };
        let enter = |name: &str| {
            let (from, to) = (self.folder.path().join(name), self.target.join(name));
            fs::rename(&from, &to).map_err(FsError::io("publish", to))
        };
        flush_file_system(self.folder.path())?;
        retire(marker)?;
        sync_folder(&self.target)?;
        for name in others {
            retire(name)?;
            enter(name)?;
        }
        enter(marker)?;
        sync_folder(&self.target)
    }
}

/// Flushes everything written so far: one call for thousands of chunk files instead of one call for each.
fn flush_file_system(folder: &Path) -> Result<(), FsError> {
    let opened = fs::File::open(folder).map_err(FsError::io("open", folder))?;
    rustix::fs::syncfs(&opened).map_err(|error| FsError::io("flush", folder)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, text: &str) {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("0"), text).unwrap();
    }

    #[test]
    fn publishes_all_and_removes_the_old() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "a", "old");
        put(folder.path(), "b", "old");
        fs::write(folder.path().join("movie.h5"), "kept").unwrap();
        let staging = StagingDir::begin(folder.path(), "a test").unwrap();
        put(staging.path(), "a", "new");
        put(staging.path(), "b", "new");
        assert_eq!(fs::read_to_string(folder.path().join("a/0")).unwrap(), "old");
        staging.publish(&["a", "b"]).unwrap();
        for name in ["a", "b"] {
            assert_eq!(fs::read_to_string(folder.path().join(name).join("0")).unwrap(), "new");
        }
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "a", "b", "movie.h5"]);
    }

    #[test]
    fn the_next_publication_removes_the_folder_of_a_killed_one() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), ".staging-killed", "half");
        let staging = StagingDir::begin(folder.path(), "a test").unwrap();
        assert!(!folder.path().join(".staging-killed").exists());
        assert!(matches!(StagingDir::begin(folder.path(), "a test"), Err(FsError::Locked { .. })));
        drop(staging);
        StagingDir::begin(folder.path(), "a test").unwrap();
    }
}
