//! What can go wrong in a use case.

use elephant_image::UndrawableSpot;
use elephant_memory::MemoryError;
use elephant_model::ModelError;
use elephant_types::{Cancelled, Coded, ErrorCode};

/// A use case failed; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The request asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The request names something that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A file is larger than the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The request asks for more than this machine's memory.
    #[error("too little memory: {advice}; {reason}")]
    Memory {
        /// What is needed and what there is.
        reason: MemoryError,
        /// What to do.
        advice: &'static str,
    },
    /// The task was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] elephant_fs::FsError),
    /// A BigDataViewer movie cannot be read.
    #[error(transparent)]
    Movie(#[from] elephant_bdv::BdvError),
    /// A dataset's store cannot be read or written.
    #[error(transparent)]
    Volume(#[from] elephant_volume::VolumeError),
    /// Voxels cannot be processed as asked.
    #[error(transparent)]
    Image(#[from] elephant_image::ImageError),
    /// Tagged spots cannot be drawn.
    #[error(transparent)]
    Spots(#[from] UndrawableSpots),
    /// A checkpoint file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] elephant_checkpoint::CheckpointError),
    /// A project cannot be read or changed.
    #[error(transparent)]
    Project(#[from] elephant_project::ProjectError),
    /// Cells cannot be linked as asked.
    #[error(transparent)]
    Track(#[from] elephant_track::TrackError),
    /// Tracks cannot be written, or a file of tracks cannot be read.
    #[error(transparent)]
    Export(#[from] elephant_export::ExportError),
    /// Tracks cannot be compared with the truth.
    #[error(transparent)]
    Score(#[from] elephant_score::ScoreError),
    /// A network or the download of a model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl PipelineError {
    /// A refusal of memory with what to do: `.map_err(PipelineError::memory("take smaller crops"))`.
    pub(crate) fn memory(advice: &'static str) -> impl FnOnce(MemoryError) -> Self {
        move |reason| match reason {
            MemoryError::Cancelled(cancelled) => cancelled.into(),
            MemoryError::TooLarge { .. } => Self::Memory { reason, advice },
        }
    }
}

/// Spots of a request that cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{}", sentences(.named), if *.more > 0 { format!("; and {} more spots", .more) } else { String::new() })]
pub struct UndrawableSpots {
    /// The first ones, with the reasons.
    pub named: Vec<UndrawableSpot>,
    /// How many more there are.
    pub more: usize,
}

fn sentences(spots: &[UndrawableSpot]) -> String {
    spots.iter().map(UndrawableSpot::to_string).collect::<Vec<_>>().join("; ")
}

impl From<elephant_hdf5::Hdf5Error> for PipelineError {
    fn from(error: elephant_hdf5::Hdf5Error) -> Self {
        Self::Movie(error.into())
    }
}

impl Coded for PipelineError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) | Self::Spots(_) => ErrorCode::InvalidArgument,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::Memory { reason, .. } => reason.code(),
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::Fs(error) => error.code(),
            Self::Movie(error) => error.code(),
            Self::Volume(error) => error.code(),
            Self::Image(error) => error.code(),
            Self::Checkpoint(error) => error.code(),
            Self::Project(error) => error.code(),
            Self::Track(error) => error.code(),
            Self::Export(error) => error.code(),
            Self::Score(error) => error.code(),
            Self::Model(error) => error.code(),
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Fs(error) => error.brief(),
            Self::Movie(error) => error.brief(),
            Self::Volume(error) => error.brief(),
            Self::Checkpoint(error) => error.brief(),
            Self::Model(error) => error.brief(),
            _ => None,
        }
    }
}
