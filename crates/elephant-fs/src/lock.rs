//! One writer or many readers per folder, across processes.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
};

use rustix::io::Errno;

use crate::FsError;

/// A lock file of a folder. Locks of different files do not exclude each other.
const FILE: &str = ".lock";
/// The longest note on its holder that is believed, in bytes.
const MAX_NOTE: u64 = 200;

/// The right to change a folder alone, or to read it while nobody changes it, held until dropped; the operating system
/// releases it when the process dies.
///
/// Some file systems have no locks (Lustre without `-o flock`, NFS without its lock service, some in FUSE). There every
/// lock is given at once and excludes nobody: whoever uses such a folder sees to it that one server alone works in it.
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
        let mut file = open_to_note(&path).map_err(FsError::io("open", &path))?;
        let result = file.try_lock();
        if result.is_ok() {
            // Whom the next one waits for. The lock holds without it.
            let _ = note(&mut file, purpose);
        }
        Self::of(file, result, folder, &path)
    }

    /// Takes a shared lock of `folder`, which excludes the exclusive one. In a folder where nothing can be written (its
    /// permissions, a full disk) and nothing was locked, there is nothing to take.
    ///
    /// # Errors
    /// [`FsError::Locked`] at once when somebody has the exclusive lock.
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
        Self::of(file, result, folder, &path)
    }

    /// The lock of `folder` that locking its `file` at `path` gave.
    fn of(mut file: File, result: Result<(), TryLockError>, folder: &Path, path: &Path) -> Result<Self, FsError> {
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

/// Opens or creates a lock file, to be written where possible. Another user's lock file can often only be read, which is
/// enough to lock it.
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
    #[test]
    fn a_file_system_without_locks_gives_every_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let lock = |errno: Errno| {
            let file = open_to_note(&path).unwrap();
            FolderLock::of(file, Err(TryLockError::Error(errno.into())), folder.path(), &path)
        };
        for errno in [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP] {
            assert!(matches!(lock(errno), Ok(FolderLock(None))), "{errno}");
        }
        assert!(matches!(lock(Errno::IO), Err(FsError::Io { operation: "lock", .. })));
    }

    #[test]
    fn a_lock_file_that_can_only_be_read_is_locked_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "").unwrap();
        let mut file = open_to_read(&path).unwrap();
        assert!(note(&mut file, "a test").is_err());
        let result = file.try_lock();
        let first = FolderLock::of(file, result, folder.path(), &path).unwrap();
        assert_eq!(holder_of(FolderLock::try_acquire(folder.path(), "another")), "another process");
        assert_eq!(holder_of(FolderLock::try_share(folder.path())), "another process");
        drop(first);
        drop(FolderLock::try_acquire(folder.path(), "another").unwrap());
    }

    #[test]
    fn what_a_reader_may_do_without_is_told_from_failures() {
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
            assert!(is_unwritable(&errno.into()), "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(&errno.into()) && !is_unwritable(&errno.into()), "{errno}");
        }
        assert!(!is_full(&Errno::IO.into()) && !is_unwritable(&Errno::IO.into()));
    }
}
