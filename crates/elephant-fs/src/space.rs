//! Free disk space.

use std::path::Path;

use crate::FsError;

/// Bytes that an ordinary user can still write to the file system of `path`.
///
/// # Errors
/// When `path` does not exist.
pub fn free_bytes(path: &Path) -> Result<u64, FsError> {
    let status =
        rustix::fs::statvfs(path).map_err(|error| FsError::io("ask for the free space of", path)(error.into()))?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Checks before a task begins that the `needed` bytes, which it will write below `path`, are free.
///
/// # Errors
/// [`FsError::NoSpace`] when less is free.
pub fn require_free_bytes(path: &Path, needed: u64) -> Result<(), FsError> {
    let free = free_bytes(path)?;
    if free < needed {
        return Err(FsError::NoSpace {
            path: path.to_owned(),
            needed_mib: needed.div_ceil(1 << 20),
            free_mib: free >> 20,
        });
    }
    Ok(())
}
