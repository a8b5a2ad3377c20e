//! Telling versions of a file apart.

use std::{os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use crate::FsError;

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
        let metadata = path.metadata().map_err(FsError::io("read", path))?;
        Ok(Self { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}
