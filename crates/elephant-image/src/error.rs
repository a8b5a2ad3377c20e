//! What can be wrong with an image or with the options of an operation on it.

use elephant_types::{Cancelled, Coded, ErrorCode};

/// A failed image operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImageError {
    /// The caller asked the operation to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// An option has a value that means nothing.
    #[error("{name} is {value}, but {rule}")]
    InvalidOption {
        /// The option, as the client writes it.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// A 2-D operation got a volume.
    #[error("cannot treat an image of {planes} z-planes as 2-D; give one plane or ask for 3-D")]
    NotPlanar {
        /// How many planes there are.
        planes: usize,
    },
    /// The image cannot be resized to, or from, no voxels at all.
    #[error("cannot resize an image of {from:?} voxels (z, y, x) to {to:?}; every axis needs at least one")]
    EmptyAxis {
        /// The shape before.
        from: [usize; 3],
        /// The wanted shape.
        to: [usize; 3],
    },
    /// The foreground falls into more pieces than any image of cells.
    #[error("the image falls into too many pieces ({pieces} and more); train the model or raise p_thresh")]
    TooManyPieces {
        /// How many there are at least.
        pieces: u64,
    },
    /// The image is larger than the counters that describe its components.
    #[error(
        "cannot find components in {shape:?} voxels (z, y, x): more than 2^24 along one axis or 2^38 in all; split it"
    )]
    TooLarge {
        /// The image's shape.
        shape: [usize; 3],
    },
}

impl Coded for ImageError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::InvalidOption { .. }
            | Self::NotPlanar { .. }
            | Self::EmptyAxis { .. }
            | Self::TooManyPieces { .. } => ErrorCode::InvalidArgument,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
        }
    }
}
