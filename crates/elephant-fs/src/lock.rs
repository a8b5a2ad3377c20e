//! Locks of folders across processes: one writer or several readers.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
};

use rustix::io::Errno;

use crate::FsError;

/// Name of a folder's lock file. Locks of different files do not exclude each other.
const FILE: &str = ".lock";
/// Longest description of the holder that is read from a lock file, in bytes.
const MAX_NOTE: u64 = 200;

/// A lock of a folder: exclusive to change it, or shared to read it while nobody changes it. It is held until dropped;
/// the operating system releases it when the process ends.
///
/// Some file systems have no locks (Lustre without `-o flock`, NFS without its lock service, some in FUSE). There every
/// lock is granted and excludes nobody. The user must ensure that only one server works in such a folder.
#[derive(Debug)]
pub struct FolderLock(#[allow(dead_code, reason = "closing the file releases the lock")] Option<File>);

impl FolderLock {
    /// Takes the exclusive lock of `folder` for `purpose` ("a dataset generation"). The folder is created if it is
    /// missing.
    ///
    /// # Errors
    /// [`FsError::Locked`], without waiting, when the folder is locked already, also by readers.
    pub fn try_acquire(folder: &Path, purpose: &str) -> Result<Self, FsError> {
        Self::try_acquire_part(folder, FILE, purpose)
    }

    /// As [`try_acquire`](Self::try_acquire), for a part of the folder that is represented by the hidden file `name`.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_part(folder: &Path, name: &str, purpose: &str) -> Result<Self, FsError> {
        fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let path = folder.join(name);
        let mut file = open_to_note(&path).map_err(FsError::io("open", &path))?;
        let result = file.try_lock();
        if result.is_ok() {
            // For the error message of others. The lock is valid without it.
            let _ = note(&mut file, purpose);
        }
        Self::from_result(file, result, folder, &path)
    }

    /// Takes a shared lock of `folder`, which excludes the exclusive one. In a folder that has no lock file and where
    /// none can be created (permissions, full disk), there is nothing to lock.
    ///
    /// # Errors
    /// [`FsError::Locked`], without waiting, when the folder is locked exclusively.
    pub fn try_share(folder: &Path) -> Result<Self, FsError> {
        let path = folder.join(FILE);
        let file = match open_to_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match OpenOptions::new().create(true).append(true).read(true).open(&path) {
                    Err(error) if is_unwritable(&error) || is_full(&error) => return Ok(Self(None)),
                    opened => opened.map_err(FsError::io("open", &path))?,
                }
            }
            Err(error) => return Err(FsError::io("open", &path)(error)),
        };
        let result = file.try_lock_shared();
        Self::from_result(file, result, folder, &path)
    }

    /// The lock of `folder`, from the `result` of locking its `file` at `path`.
    fn from_result(
        mut file: File,
        result: Result<(), TryLockError>,
        folder: &Path,
        path: &Path,
    ) -> Result<Self, FsError> {
        match result {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => {
                Err(FsError::Locked { path: folder.to_owned(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Self(None)),
            Err(TryLockError::Error(error)) => Err(FsError::io("lock", path)(error)),
        }
    }
}

/// Opens or creates a lock file, for writing if possible. Another user's lock file can often only be read, which is
/// sufficient to lock it.
fn open_to_note(path: &Path) -> io::Result<File> {
    match OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path) {
        Err(error) if is_unwritable(&error) => open_to_read(path).map_err(|_| error),
        opened => opened,
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether locking failed because the file system has no locks.
fn has_no_locks(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP))
}

fn note(file: &mut File, purpose: &str) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{purpose} (process {})", std::process::id())
}

/// A description of who holds the lock that was refused.
fn holder(file: &mut File) -> String {
    // If a shared lock is possible, the holders are readers.
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
    fn a_second_holder_is_refused_and_the_error_names_the_first() {
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
    #[test]
    fn a_file_system_without_locks_grants_every_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let lock = |errno: Errno| {
            let file = open_to_note(&path).unwrap();
            FolderLock::from_result(file, Err(TryLockError::Error(errno.into())), folder.path(), &path)
        };
        for errno in [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP] {
            assert!(matches!(lock(errno), Ok(FolderLock(None))), "{errno}");
        }
        assert!(matches!(lock(Errno::IO), Err(FsError::Io { operation: "lock", .. })));
    }

    #[test]
    fn a_lock_file_that_can_only_be_read_can_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "").unwrap();
        let mut file = open_to_read(&path).unwrap();
        assert!(note(&mut file, "a test").is_err());
        let result = file.try_lock();
        let first = FolderLock::from_result(file, result, folder.path(), &path).unwrap();
        assert_eq!(holder_of(FolderLock::try_acquire(folder.path(), "another")), "another process");
        assert_eq!(holder_of(FolderLock::try_share(folder.path())), "another process");
        drop(first);
        drop(FolderLock::try_acquire(folder.path(), "another").unwrap());
    }

    #[test]
    fn unwritable_folders_are_distinguished_from_failures() {
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
            assert!(is_unwritable(&errno.into()), "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(&errno.into()) && !is_unwritable(&errno.into()), "{errno}");
        }
        assert!(!is_full(&Errno::IO.into()) && !is_unwritable(&Errno::IO.into()));
    }
}
