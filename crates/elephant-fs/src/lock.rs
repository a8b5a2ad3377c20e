//! One writer or many readers per folder, across processes.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
};

use crate::FsError;

/// A lock file of a folder. Locks of different files do not exclude each other.
const FILE: &str = ".lock";
/// The longest note on its holder that is believed, in bytes.
const MAX_NOTE: u64 = 200;

/// The right to change a folder alone, or to read it while nobody changes it, held until dropped; the operating system
/// releases it when the process dies.
#[derive(Debug)]
pub struct FolderLock(#[allow(dead_code, reason = "closing the file releases the lock")] Option<File>);

impl FolderLock {
    /// Takes the exclusive lock of `folder` for `purpose` ("a dataset generation"), making the folder when it is missing.
    ///
    /// # Errors
    /// [`FsError::Locked`] at once when another holder or a reader exists.
    pub fn try_acquire(folder: &Path, purpose: &str) -> Result<Self, FsError> {
        Self::try_acquire_part(folder, FILE, purpose)
    }

    /// As [`try_acquire`](Self::try_acquire), of a part of the folder that the hidden file `name` stands for.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_part(folder: &Path, name: &str, purpose: &str) -> Result<Self, FsError> {
        fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let path = folder.join(name);
        let options = || OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options().map_err(FsError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // Whom the next one waits for. The lock holds without it.
                let _ = note(&mut file, purpose);
                Ok(Self(Some(file)))
            }
            Err(TryLockError::WouldBlock) => {
                Err(FsError::Locked { path: folder.to_owned(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(FsError::io("lock", &path)(source)),
        }
    }

    /// Takes a shared lock of `folder`, which excludes the exclusive one. Of a folder where nothing can be written and
    /// nothing was locked, there is nothing to take.
    ///
    /// # Errors
    /// [`FsError::Locked`] at once when somebody has the exclusive lock.
    pub fn try_share(folder: &Path) -> Result<Self, FsError> {
        let path = folder.join(FILE);
        let mut file = match open_to_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match OpenOptions::new().create(true).append(true).read(true).open(&path) {
                    Err(error) if is_unwritable(&error) => return Ok(Self(None)),
                    opened => opened.map_err(FsError::io("open", &path))?,
                }
            }
            Err(error) => return Err(FsError::io("open", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => {
                Err(FsError::Locked { path: folder.to_owned(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(FsError::io("lock", &path)(source)),
        }
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn note(file: &mut File, purpose: &str) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{purpose} (process {})", std::process::id())
}

/// Who has the lock that was refused, in words.
fn holder(file: &mut File) -> String {
    // Whoever has it exclusively refuses readers too.
    if file.try_lock_shared().is_ok() {
        return "a prediction or a training that reads it".into();
    }
    let mut text = String::new();
    match file.take(MAX_NOTE).read_to_string(&mut text) {
        Ok(_) if !text.is_empty() => text,
        _ => "another process".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder_of(refused: Result<FolderLock, FsError>) -> String {
        match refused {
            Err(FsError::Locked { holder, .. }) => holder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone_and_told_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::try_acquire(folder.path(), "a test").unwrap();
        let expected = format!("a test (process {})", std::process::id());
        assert_eq!(holder_of(FolderLock::try_acquire(folder.path(), "another")), expected);
        assert_eq!(holder_of(FolderLock::try_share(folder.path())), expected);
        FolderLock::try_acquire_part(folder.path(), ".part", "a part").unwrap();
        drop(first);
        drop(FolderLock::try_acquire(folder.path(), "x").unwrap());
        let longer_before = FolderLock::try_acquire(folder.path(), "y").unwrap();
        assert!(holder_of(FolderLock::try_share(folder.path())).starts_with("y (process "));
        drop(longer_before);
    }

    #[test]
    fn readers_share_a_folder_and_exclude_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let readers = [FolderLock::try_share(folder.path()).unwrap(), FolderLock::try_share(folder.path()).unwrap()];
        let refused = FolderLock::try_acquire(folder.path(), "a test");
        assert_eq!(holder_of(refused), "a prediction or a training that reads it");
        drop(readers);
        FolderLock::try_acquire(folder.path(), "a test").unwrap();
    }
}
