//! Errors of scoring.

use std::path::PathBuf;

use elephant_ctc::CtcError;
use elephant_types::{Cancelled, Coded, ErrorCode, TrackRow};

/// The error of a source of label images, as its own crate describes it.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Which of the two inputs an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The ground truth.
    Reference,
    /// What is scored.
    Result,
}

impl std::fmt::Display for Input {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Reference => "ground truth",
            Self::Result => "result",
        })
    }
}

/// A result that cannot be compared with its ground truth.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The caller asked the operation to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A folder of label images cannot be read.
    #[error(transparent)]
    Ctc(#[from] CtcError),
    /// A folder of outlines, or an image in it, cannot be used.
    #[error("the outlines of cells in {} cannot be used: {reason}", path.display())]
    Outlines {
        /// The folder or image.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An option has an invalid value.
    #[error("cannot score with {name} = {value}: {rule}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The list of spots and the lineage do not belong together.
    #[error("the {input} has {spots} spots but a lineage of {nodes}; pass the lineage of these spots")]
    DifferentLengths {
        /// The input.
        input: Input,
        /// The number of spots.
        spots: usize,
        /// The number of spots in the lineage.
        nodes: usize,
    },
    /// A spot cannot be used.
    #[error("spot {spot} of the {input} {problem}")]
    InvalidSpot {
        /// The input.
        input: Input,
        /// The spot's index.
        spot: usize,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// More than can be scored.
    #[error("the {input} has more than {most} {what}; {remedy}")]
    TooMany {
        /// The input.
        input: Input,
        /// What there are too many of.
        what: &'static str,
        /// The most that can be scored.
        most: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The two movies have different numbers of frames.
    #[error("the result has {result} frames and the ground truth {reference}; score the same frames of both")]
    DifferentFrames {
        /// Frames of the result.
        result: usize,
        /// Frames of the ground truth.
        reference: usize,
    },
    /// The two images of a frame have different sizes.
    #[error(
        "frame {frame}: the result's image is {result:?} voxels (z, y, x) and the ground truth's {reference:?}; score \
         the same frames of both ({result_name}, {reference_name})"
    )]
    DifferentShapes {
        /// The frame.
        frame: usize,
        /// Size of the result's image (z, y, x).
        result: [usize; 3],
        /// Size of the ground truth's image (z, y, x).
        reference: [usize; 3],
        /// Name of the result's image.
        result_name: String,
        /// Name of the ground truth's image.
        reference_name: String,
    },
    /// The number of labels is not what the size says.
    #[error("{name} has {labels} labels, but its size (z, y, x) is {shape:?}; this is a defect of its reader")]
    InvalidImage {
        /// Name of the image.
        name: String,
        /// The number of labels.
        labels: usize,
        /// The size that was given.
        shape: [usize; 3],
    },
    /// A segmentation refers to a frame or plane outside the movie.
    #[error("{name} is for frame {frame}{}, which the result does not have", plane.map_or(String::new(), |z| format!(", plane {z}")))]
    NoSuchFrame {
        /// Name of the image.
        name: String,
        /// Its frame.
        frame: usize,
        /// Its plane, if it is one.
        plane: Option<usize>,
    },
    /// A frame cannot be read.
    #[error("frame {frame} of the {input} cannot be read: {source}")]
    Frame {
        /// The input.
        input: Input,
        /// The frame.
        frame: usize,
        /// Why.
        source: SourceError,
    },
    /// A row of the track table contradicts itself or another row.
    #[error("the row \"{row}\" of the {input}'s track table ({table}) is invalid: {problem}")]
    InvalidRow {
        /// The input.
        input: Input,
        /// Name of the table.
        table: String,
        /// The row: track, first frame, last frame, parent.
        row: TrackRow,
        /// What is wrong with it.
        problem: String,
    },
    /// A label is in a frame in which the table has no such track.
    #[error(
        "{image} (frame {frame}) has label {label}, but {table} has no track {label} in this frame; add a row to the \
         table or remove the label"
    )]
    LabelWithoutRow {
        /// Name of the image.
        image: String,
        /// The frame.
        frame: usize,
        /// The label.
        label: u32,
        /// Name of the table.
        table: String,
    },
    /// A track is missing from a frame in which the table has it.
    #[error(
        "{table} has track {label} in frame {frame}, but {image} has no voxel of label {label}; correct the row, or \
         split the track there and name the first part as the parent of the second"
    )]
    RowWithoutLabel {
        /// Name of the image.
        image: String,
        /// The frame.
        frame: usize,
        /// The label.
        label: u32,
        /// Name of the table.
        table: String,
    },
}

impl Coded for ScoreError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::Ctc(error) => error.code(),
            Self::TooMany { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::InvalidArgument,
        }
    }
}
