//! Metadata of a path, and versions of a file.

use std::{fs::Metadata, io::ErrorKind, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use crate::FsError;

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

/// Identifies a version of a file. Files in a workspace are replaced by renaming, which changes the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
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
}

impl From<&Metadata> for FileVersion {
    fn from(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}
