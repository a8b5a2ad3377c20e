//! Scores of a tracking result against ground truth: DET, SEG, TRA and LNK of the Cell Tracking Challenge, CHOTA and HOTA,
//! links, divisions, biological scores, and the list of single mistakes.
//!
//! Two kinds of input give the same [`Report`]: spots with a lineage ([`score_spots`]), and label images with a track
//! table ([`score_labels`], and [`score_folders`] for files), which are read one frame at a time.
//!
//! A cell of a label image is found if more than half of its voxels have one label in the result; a spot, if a spot of the
//! result is assigned to it within a radius. Everything else follows from these matches. The numbers equal those of
//! py-ctcmetrics on the same files, except for its defects, which `docs/scores.md` lists.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod aogm;
mod assignment;
mod association;
mod biology;
mod divisions;
mod error;
mod folders;
mod frames;
mod graph;
mod labels;
mod mistakes;
mod options;
mod overlap;
mod report;
mod spots;

pub use aogm::GraphOperations;
pub use association::AssociationScores;
pub use biology::{BiologicalScores, TOLERANCES};
pub use error::{Input, ScoreError, SourceError};
pub use folders::score_folders;
pub use frames::FrameScore;
pub use labels::{LabelFrames, LabelImage, LabelMovie, Segmentation, SegmentationFrames, score_labels};
pub use mistakes::{Mistake, MistakeKind};
pub use options::{Gaps, MatchRadius, ScoreOptions};
pub use report::{ChallengeScores, DivisionScore, Rates, Report};
pub use spots::{Annotated, MOST_CELLS, MOST_FRAMES, score_spots};
