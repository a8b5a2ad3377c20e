//! Errors of making a synthetic movie.

use elephant_types::{Cancelled, Coded, ErrorCode, LineageError};

/// A synthetic movie that cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The caller asked the operation to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// An option has an invalid value.
    #[error("cannot grow an embryo with {name} = {value}: {rule}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The name of a movie has folders in it.
    #[error("the movie's name {name:?} must not have folders; put them into the directory to write to")]
    NestedName {
        /// The name.
        name: String,
    },
    /// The nuclei are too many.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The voxels cannot be written.
    #[error(transparent)]
    H5(#[from] elephant_h5::H5Error),
    /// The ground truth cannot be written.
    #[error(transparent)]
    Fs(#[from] elephant_fs::FsError),
}

impl Coded for SynthError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::InvalidOption { .. } | Self::NestedName { .. } | Self::Lineage(_) => ErrorCode::InvalidArgument,
            Self::H5(error) => error.code(),
            Self::Fs(error) => error.code(),
        }
    }
}
