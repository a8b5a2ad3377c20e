//! Metadata of a path, opening a file that is one, and versions of a file.

use std::{
    fs::{File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;

use crate::FsError;

/// The coarsest timestamps of the file systems in use are whole seconds.
const TIMESTAMP_GRAIN: Duration = Duration::from_secs(2);

/// Metadata of `path` after following links; `None` when nothing is there. A file that cannot be examined is not a
/// missing file: its folder may belong to another user, or the process has too many open files.
///
/// # Errors
/// When the metadata cannot be read.
pub fn metadata(path: &Path) -> Result<Option<Metadata>, FsError> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FsError::io("look at", path)(error)),
    }
}

/// Opens a file to read it. A pipe, device or folder is refused, as reading it may wait for ever.
///
/// # Errors
/// When it cannot be opened, or is no file.
pub fn open_file(path: &Path) -> Result<File, FsError> {
    let open = || {
        // A pipe is opened without waiting for its other end.
        let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
    };
    open().map_err(FsError::io("open", path))
}

/// Identifies a version of a file. Files in a workspace are replaced by renaming, which changes the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileVersion {
    /// The version at `path` now.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn of(path: &Path) -> Result<Self, FsError> {
        Ok(Self::from(&path.metadata().map_err(FsError::io("read", path))?))
    }

    /// Whether a later version is certain to differ from this one. A file that was modified within the last two seconds may
    /// be changed once more without a change of its timestamp, and a freed inode may be used again.
    pub fn is_settled(&self) -> bool {
        self.modified.is_some_and(|modified| modified.elapsed().is_ok_and(|age| age > TIMESTAMP_GRAIN))
    }
}

impl From<&Metadata> for FileVersion {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn versions_differ_and_settle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let fresh = FileVersion::of(&path).unwrap();
        assert!(!fresh.is_settled());
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
        let old = FileVersion::of(&path).unwrap();
        assert!(old.is_settled());
        assert_ne!(old, fresh);
        file.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
        assert!(!FileVersion::of(&path).unwrap().is_settled(), "a clock that is ahead proves nothing");
    }
}
