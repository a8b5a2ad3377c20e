//! Tracking by assignment: which detections are real, which are the same cell in the next frame, and which divide.
//!
//! [`Problem`] states hypotheses with conflicts, links and divisions and what each costs; [`solve`] finds the cheapest
//! consistent choice, or a good one with a proven bound. Detections without conflicts are a special case of hypotheses.
//!
//! [`track()`] states such a problem for the spots of a movie, with costs that [`fit`] has learnt from movies of known truth, and
//! returns the lineage.
//!
//! No images, files, requests or networks: detections come in as numbers, lineages go out.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod error;
mod kdtree;
mod problem;
mod solver;
mod track;

pub use error::TrackError;
pub use problem::{DivisionCandidate, LinkCandidate, Node, Problem, Variable};
pub use solver::{Method, Solution, SolveOptions, Status, solve};
pub use track::{
    Constraints, Detections, Example, FilledGaps, FitOptions, NearestOptions, TrackMethod, TrackOptions, Tracking,
    Weights, fill_gaps, fit, track,
};
