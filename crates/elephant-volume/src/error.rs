//! Errors of reading and writing stores.

use elephant_types::{Cancelled, Coded, ErrorCode};

/// A Zarr store that cannot be read or written. Stores are named without their folder.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no Zarr v2 array of this name.
    #[error("{store} is missing or is not a Zarr v2 array; generate the dataset again")]
    Missing {
        /// The store's name.
        store: String,
    },
    /// The array's `.zarray` file cannot be understood.
    #[error("the metadata of {store} is damaged: {reason}; generate the dataset again")]
    Metadata {
        /// The store's name.
        store: String,
        /// What is wrong.
        reason: String,
    },
    /// The array's `.zattrs` file cannot be understood.
    #[error("the attributes of {store} are damaged: {reason}; reset the labels or generate the dataset again")]
    Attributes {
        /// The store's name.
        store: String,
        /// What is wrong.
        reason: String,
    },
    /// The array is valid Zarr v2 but uses something that is not read here.
    #[error(
        "{store} uses {feature}, which cannot be read here; write it again with Blosc lz4 or uncompressed, in C order"
    )]
    Unsupported {
        /// The store's name.
        store: String,
        /// What it uses.
        feature: String,
    },
    /// A chunk's file does not hold what the metadata says.
    #[error("the chunk {key} of {store} is damaged: {reason}; generate the dataset again")]
    Chunk {
        /// The store's name.
        store: String,
        /// The chunk's file name.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The request does not fit the array.
    #[error("cannot access {store}: {reason}")]
    Access {
        /// The store's name.
        store: String,
        /// What does not fit.
        reason: String,
    },
    /// The stores of a dataset do not belong together.
    #[error("{store} does not fit the dataset: {reason}; generate the dataset again")]
    Mismatch {
        /// The store's name.
        store: String,
        /// What was expected and found.
        reason: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] elephant_fs::FsError),
    /// The task was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Coded for VolumeError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Missing { .. } => ErrorCode::NotFound,
            Self::Fs(error) => error.code(),
            Self::Cancelled(_) => ErrorCode::Cancelled,
            _ => ErrorCode::InvalidArgument,
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Fs(error) => error.brief(),
            _ => None,
        }
    }
}
