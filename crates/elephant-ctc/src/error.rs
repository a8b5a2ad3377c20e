//! Errors of files of the Cell Tracking Challenge.

use std::path::PathBuf;

use elephant_fs::FsError;
use elephant_types::{Coded, ErrorCode};

/// A file or folder that cannot be read or written as one of the Cell Tracking Challenge.
#[derive(Debug, thiserror::Error)]
pub enum CtcError {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A file is not a label image.
    #[error("cannot read labels from {}: {reason}", path.display())]
    InvalidLabels {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An image is larger than this program reads or writes.
    #[error("the label image {} is too large: {reason}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which limit it exceeds.
        reason: String,
    },
    /// A line of a track table is invalid.
    #[error("line {line} of {} is invalid: {reason}; a line is \"track begin end parent\", four numbers", path.display())]
    InvalidTable {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder is not a result or ground truth.
    #[error("{} is not a folder of the Cell Tracking Challenge: {reason}", path.display())]
    NotCtc {
        /// The folder.
        path: PathBuf,
        /// What is missing or too much.
        reason: String,
    },
    /// A timepoint between the first and the last has no image.
    #[error("{} has no label image of timepoint {t}; every timepoint from 0 on needs one", path.display())]
    MissingFrame {
        /// The folder.
        path: PathBuf,
        /// The timepoint.
        t: u32,
    },
    /// An image of another size than the first one.
    #[error("the label image {} has {found:?} voxels (z, y, x), but that of timepoint 0 has {expected:?}", path.display())]
    OtherShape {
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: [usize; 3],
        /// The shape of the first image.
        expected: [usize; 3],
    },
}

impl Coded for CtcError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Fs(error) => error.code(),
            Self::InvalidLabels { .. }
            | Self::InvalidTable { .. }
            | Self::NotCtc { .. }
            | Self::MissingFrame { .. }
            | Self::OtherShape { .. } => ErrorCode::InvalidArgument,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
        }
    }
}
