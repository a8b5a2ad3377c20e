//! Errors of exports and imports.

use std::{io, path::PathBuf};

use elephant_ctc::CtcError;
use elephant_fs::FsError;
use elephant_types::{Cancelled, Coded, ErrorCode, LineageError, SpotId};

/// An export or import that failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The caller asked the operation to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Label images or a track table cannot be read or written.
    #[error(transparent)]
    Ctc(#[from] CtcError),
    /// The spots and links of a file are no lineage.
    #[error("the tracks in {} are invalid: {source}", path.display())]
    Lineage {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with them.
        source: LineageError,
    },
    /// The receiver of a stream does not take more.
    #[error("cannot write the archive: {0}")]
    Stream(#[source] io::Error),
    /// The movie contradicts itself.
    #[error("cannot export this movie: {0}")]
    InvalidMovie(String),
    /// A spot cannot be written.
    #[error("spot {spot} (timepoint {t}) {reason}; correct or delete it")]
    InvalidSpot {
        /// The spot.
        spot: SpotId,
        /// Its timepoint.
        t: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are more tracks than label images can number.
    #[error("there are {tracks} tracks, but CTC label images hold 16-bit numbers, at most 65535; export fewer tracks")]
    TooManyTracks {
        /// How many there are.
        tracks: usize,
    },
    /// The target has files that the export would neither replace nor want.
    #[error("{} has {name} of another export; delete it or choose another folder", path.display())]
    Occupied {
        /// The target folder.
        path: PathBuf,
        /// The file.
        name: String,
    },
    /// A file cannot be read as what it should be.
    #[error("cannot read {} as {format}: {reason}", path.display())]
    InvalidFile {
        /// The file or folder.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Coded for ExportError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::Fs(error) => error.code(),
            Self::Ctc(error) => error.code(),
            Self::Stream(error) => error.code(),
            Self::Lineage { .. }
            | Self::InvalidMovie(_)
            | Self::InvalidSpot { .. }
            | Self::TooManyTracks { .. }
            | Self::InvalidFile { .. } => ErrorCode::InvalidArgument,
            Self::Occupied { .. } => ErrorCode::Conflict,
        }
    }
}
