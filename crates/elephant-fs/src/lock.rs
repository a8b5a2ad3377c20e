//! One writer per folder, across processes.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::Path,
};

use crate::FsError;

/// The exclusive right to change a folder, held until dropped; the operating system releases it when the process dies.
#[derive(Debug)]
pub struct FolderLock(#[allow(dead_code, reason = "closing the file releases the lock")] File);

impl FolderLock {
    /// Takes the lock of `folder` for `purpose` ("a dataset generation"), making the folder when it is missing.
    ///
    /// # Errors
    /// [`FsError::Locked`] at once when another holder exists.
    pub fn try_acquire(folder: &Path, purpose: &'static str) -> Result<Self, FsError> {
        fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let path = folder.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(FsError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(FsError::Locked { path: folder.to_owned(), purpose }),
            Err(TryLockError::Error(source)) => Err(FsError::io("lock", &path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::try_acquire(folder.path(), "a test").unwrap();
        assert!(matches!(FolderLock::try_acquire(folder.path(), "a test"), Err(FsError::Locked { .. })));
        drop(first);
        FolderLock::try_acquire(folder.path(), "a test").unwrap();
    }
}
