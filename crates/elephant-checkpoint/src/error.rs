//! Errors in reading or writing checkpoints.

use std::io;

use elephant_fs::FsError;
use elephant_types::{Coded, ErrorCode};

/// A checkpoint that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be opened or replaced.
    #[error(transparent)]
    File(#[from] FsError),
    /// The file could be opened but not read.
    #[error("cannot read the checkpoint: {0}")]
    Io(#[from] io::Error),
    /// The file does not start like any of PyTorch's formats.
    #[error(
        "not a PyTorch checkpoint: the file is neither a zip archive nor a pickle; save one with torch.save(model.state_dict(), path)"
    )]
    NotACheckpoint,
    /// The file is truncated, or its parts contradict each other.
    #[error("the checkpoint is damaged: {reason}; copy or save it again")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// The file refers to code, which was not run.
    #[error(
        "the checkpoint refers to {global}, which is not needed for named tensors and was not run; save only the weights, with torch.save(model.state_dict(), path)"
    )]
    ForeignCode {
        /// `module.name` from the file.
        global: String,
    },
    /// The file is intact but contains something that is not supported.
    #[error(
        "the checkpoint contains {found}; save a state dict or a list of them, with torch.save(model.state_dict(), path)"
    )]
    Unsupported {
        /// What was found.
        found: String,
    },
    /// A part of the file is larger than the limit.
    #[error("the checkpoint's {what} has {bytes} bytes; at most {limit} are read")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// The file has more parts than the limit.
    #[error(
        "the checkpoint has more than {limit} {what}; save only the weights, with torch.save(model.state_dict(), path)"
    )]
    TooMany {
        /// Which parts.
        what: &'static str,
        /// The largest number that is read.
        limit: u64,
    },
    /// A tensor's bytes do not match its shape.
    #[error("a tensor of shape {shape:?} needs {needed} bytes, not {given}")]
    WrongLength {
        /// The requested shape.
        shape: Vec<usize>,
        /// Bytes that the shape needs.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
}

impl CheckpointError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }

    pub(crate) fn unsupported(found: impl Into<String>) -> Self {
        Self::Unsupported { found: found.into() }
    }
}

impl Coded for CheckpointError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) => error.code(),
            Self::Io(error) => error.code(),
            Self::TooLarge { .. } | Self::TooMany { .. } => ErrorCode::TooLarge,
            Self::WrongLength { .. } => ErrorCode::Internal,
            Self::NotACheckpoint | Self::Damaged { .. } | Self::ForeignCode { .. } | Self::Unsupported { .. } => {
                ErrorCode::InvalidArgument
            }
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::File(error) => error.brief(),
            Self::ForeignCode { global } => Some(format!("the checkpoint needs code, which is not run: {global}")),
            Self::Unsupported { found } => Some(format!("the checkpoint is not a state dict: {found}")),
            _ => None,
        }
    }
}
