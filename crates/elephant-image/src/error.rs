//! Errors of operations on images.

use elephant_types::{Cancelled, Coded, ErrorCode};

/// A failed image operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImageError {
    /// The caller asked the operation to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// An option has an invalid value.
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
    /// The image has no voxels, before or after it is resized.
    #[error("cannot resize an image of {from:?} voxels (z, y, x) to {to:?}; every axis needs at least one")]
    EmptyAxis {
        /// The shape before.
        from: [usize; 3],
        /// The shape after.
        to: [usize; 3],
    },
    /// The foreground falls into more pieces than any image of cells.
    #[error("the image falls into too many pieces ({pieces} and more); train the model or raise p_thresh")]
    TooManyPieces {
        /// How many there are at least.
        pieces: u64,
    },
    /// The planes do not belong to the volume.
    #[error(
        "cannot take planes of shape {planes:?} (z, y, x) into a volume of shape {shape:?} of which {known} planes are \
         known"
    )]
    UnexpectedPlanes {
        /// The shape of the planes.
        planes: [usize; 3],
        /// The shape of the volume.
        shape: [usize; 3],
        /// How many of its planes are known.
        known: usize,
    },
    /// Some planes of the volume were not given.
    #[error("cannot find regions in a volume of shape {shape:?} (z, y, x) of which only {known} planes are known")]
    MissingPlanes {
        /// How many planes are known.
        known: usize,
        /// The shape of the volume.
        shape: [usize; 3],
    },
    /// The image is larger than the counters that describe its regions.
    #[error(
        "cannot find regions in {shape:?} voxels (z, y, x): more than 2^24 along one axis or 2^38 in all; split it"
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
            Self::UnexpectedPlanes { .. } | Self::MissingPlanes { .. } => ErrorCode::Internal,
        }
    }
}
