//! Input and output errors that name the operation and the path.

use std::{io, path::PathBuf};

use elephant_types::{Coded, ErrorCode};

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The operating system reported an error.
    #[error("{}cannot {operation} {}: {source}", disk_full(source), path.display())]
    Io {
        /// The operation as a verb: "write", "rename".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A name, or a symbolic link in its path, leads out of the root.
    #[error("{name} leads out of its folder; use a name inside it and no links to the outside")]
    Escapes {
        /// The name as given.
        name: String,
    },
    /// There is not enough free space for what will be written.
    #[error("{needed_mib} MiB are needed in {} but only {free_mib} MiB are free; delete files or use another workspace", path.display())]
    NoSpace {
        /// A folder on the disk that lacks the space.
        path: PathBuf,
        /// Space needed, in MiB.
        needed_mib: u64,
        /// Free space, in MiB.
        free_mib: u64,
    },
    /// Another process or task has locked the folder.
    #[error("{} is in use by {holder}; wait until that has finished, or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// What has locked it, and in which process.
        holder: String,
    },
}

impl FsError {
    /// Wraps an error of the operating system: `.map_err(FsError::io("write", path))`.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}

/// Begins the message of an error with its reason, if that is a full disk.
fn disk_full(error: &io::Error) -> &'static str {
    if error.code() == ErrorCode::StorageFull { "the disk is full: " } else { "" }
}

impl Coded for FsError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => source.code(),
            Self::Escapes { .. } => ErrorCode::InvalidArgument,
            Self::NoSpace { .. } => ErrorCode::StorageFull,
            Self::Locked { .. } => ErrorCode::Conflict,
        }
    }

    /// Leaves out the folders, which are long and mean nothing to a client.
    fn brief(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } if self.code() == ErrorCode::StorageFull => "the server's disk is full".to_owned(),
            Self::Io { operation, path, source } => {
                format!("cannot {operation} ({}): {}", source.kind(), path.file_name().unwrap_or_default().display())
            }
            Self::Escapes { name } => format!("this leads out of its folder: {name}"),
            Self::NoSpace { needed_mib, free_mib, .. } => {
                format!("{needed_mib} MiB are needed on the server's disk, {free_mib} are free")
            }
            Self::Locked { holder, .. } => format!("in use by {holder}"),
        })
    }
}
