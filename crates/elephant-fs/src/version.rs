//! What is at a path, and telling versions of a file apart.

use std::{fs::Metadata, io::ErrorKind, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use crate::FsError;

/// What is at `path`, links followed; `None` when nothing is there. A file that cannot be looked at is not a missing one:
/// its folder may belong to somebody else, or the process has too many files open.
///
/// # Errors
/// When the operating system does not tell.
pub fn metadata(path: &Path) -> Result<Option<Metadata>, FsError> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FsError::io("look at", path)(error)),
    }
}

/// Tells one version of a file from the next. Files here are replaced by renaming, which changes the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileVersion {
    /// The version that is at `path` now.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn of(path: &Path) -> Result<Self, FsError> {
        Ok(Self::from(&path.metadata().map_err(FsError::io("read", path))?))
    }
}

impl From<&Metadata> for FileVersion {
    fn from(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}
