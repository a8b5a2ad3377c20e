use elephant_types::{Coded, ErrorCode};

/// What is wrong with a tracking problem, or why it has no solution.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// A node, link, division, conflict or fixing that cannot be part of any problem.
    #[error("{what} {index}: {reason}")]
    InvalidProblem {
        /// The kind of object: "node", "link", "division", "conflict" or "fixing".
        what: &'static str,
        /// Its index in the list of that kind.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An option outside its range.
    #[error("the option {name} is {value}, but must be {range}")]
    InvalidOption {
        /// The field of [`SolveOptions`](crate::SolveOptions) or [`TrackOptions`](crate::TrackOptions).
        name: &'static str,
        /// Its value.
        value: f64,
        /// The values that are allowed.
        range: &'static str,
    },
    /// The fixed variables contradict each other or the conflicts.
    #[error("the fixed nodes, links and divisions contradict each other{}: release one of them", around(*.node))]
    Infeasible {
        /// A node at which the contradiction was found, if it is known.
        node: Option<u32>,
    },
    /// The task was cancelled, or its time was over, before any solution was found that agrees with what is fixed.
    #[error("the search was stopped before it found a choice that agrees with what is fixed: allow more time")]
    Stopped,
    /// The integer programming library failed.
    #[error("the integer programming library HiGHS failed: {0}")]
    Highs(String),
    /// A spot with a property that cannot be used.
    #[error("spot {spot}: {reason}")]
    InvalidSpot {
        /// Its number, as the caller has it.
        spot: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A list that must have an entry for each spot.
    #[error("there are {length} {what} for {spots} spots; give one for each spot")]
    UnequalLengths {
        /// The list.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The number of spots.
        spots: usize,
    },
    /// A correction of a spot that does not exist.
    #[error("a correction names spot {spot}, but there are only {spots} spots")]
    UnknownSpot {
        /// The spot.
        spot: u32,
        /// The number of spots.
        spots: usize,
    },
    /// Corrections that cannot all be right.
    #[error("the corrections contradict each other: {reason}; take one of them back")]
    ContradictoryCorrections {
        /// What contradicts what, with the numbers of the spots.
        reason: String,
    },
    /// Weights that were made by another version, or are damaged.
    #[error("the tracking weights are invalid: {reason}")]
    InvalidWeights {
        /// What is wrong with them.
        reason: String,
    },
    /// Examples that nothing can be learnt from.
    #[error("the tracker cannot be fitted: {reason}")]
    InvalidExamples {
        /// What is wrong with them.
        reason: String,
    },
    /// What is wrong with one of the examples.
    #[error("{name}: {error}")]
    Example {
        /// Its name.
        name: String,
        /// What is wrong with it.
        error: Box<TrackError>,
    },
    /// Links that are not a lineage.
    #[error(transparent)]
    Lineage(#[from] elephant_types::LineageError),
    /// The operation was cancelled before there was anything to keep.
    #[error(transparent)]
    Cancelled(#[from] elephant_types::Cancelled),
}

fn around(node: Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(" at node {node}"))
}

impl Coded for TrackError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Example { error, .. } => error.code(),
            Self::InvalidProblem { .. }
            | Self::InvalidOption { .. }
            | Self::InvalidSpot { .. }
            | Self::UnequalLengths { .. }
            | Self::UnknownSpot { .. }
            | Self::InvalidWeights { .. }
            | Self::InvalidExamples { .. }
            | Self::Lineage(_) => ErrorCode::InvalidArgument,
            Self::Infeasible { .. } | Self::ContradictoryCorrections { .. } => ErrorCode::Conflict,
            Self::Stopped | Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::Highs(_) => ErrorCode::Internal,
        }
    }
}
