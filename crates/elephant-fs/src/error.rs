//! Input and output errors that say what was being done to which path.

use std::{io, path::PathBuf};

use elephant_types::{Coded, ErrorCode};

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "write", "rename".
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A name, or a link on its way, leads out of the root.
    #[error("{name} leads out of its folder; use a name inside it and no links to the outside")]
    Escapes {
        /// The name as given.
        name: String,
    },
    /// Too little space for what is to be written.
    #[error("{needed_mib} MiB are needed in {} but only {free_mib} MiB are free; delete files or use another workspace", path.display())]
    NoSpace {
        /// Where the space is missing.
        path: PathBuf,
        /// How much is needed.
        needed_mib: u64,
        /// How much is there.
        free_mib: u64,
    },
    /// Another process or task has the folder.
    #[error("{} is in use by {holder}; wait until that has finished, or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// What has it, and in which process.
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

impl Coded for FsError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => source.code(),
            Self::Escapes { .. } => ErrorCode::InvalidArgument,
            Self::NoSpace { .. } => ErrorCode::StorageFull,
            Self::Locked { .. } => ErrorCode::Conflict,
        }
    }

    /// Without the folders, which are many and tell a client nothing.
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
