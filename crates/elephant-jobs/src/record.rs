//! What is remembered of a job.

use serde::Serialize;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Conversion of a movie into a dataset's stores.
    Generate,
    /// Detection of cells in one frame.
    Predict,
    /// Replacement of a model.
    Reset,
    /// Drawing of labels.
    Update,
    /// Training of a model.
    Train,
}

impl JobKind {
    /// The name used in records, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Predict => "predict",
            Self::Reset => "reset",
            Self::Update => "update",
            Self::Train => "train",
        }
    }

    /// Whether at most one such job runs at a time: those that change a model.
    pub(crate) fn is_exclusive(self) -> bool {
        self.process_state() == ProcessState::Run
    }

    /// The process state that clients see while such a job runs (contract section 3).
    pub(crate) fn process_state(self) -> ProcessState {
        match self {
            Self::Generate => ProcessState::Idle,
            Self::Predict | Self::Update => ProcessState::Wait,
            Self::Reset | Self::Train => ProcessState::Run,
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Begun and not finished.
    Running,
    /// Finished as asked.
    Completed,
    /// Stopped on request.
    Cancelled,
    /// Stopped by an error.
    Failed,
    /// Found running when the server started: the server had been killed.
    Interrupted,
}

impl JobStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Completed,
    /// On request.
    Cancelled,
    /// With this error.
    Failed(String),
}

impl Outcome {
    pub(crate) fn status(&self) -> JobStatus {
        match self {
            Self::Completed => JobStatus::Completed,
            Self::Cancelled => JobStatus::Cancelled,
            Self::Failed(_) => JobStatus::Failed,
        }
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// One job, as remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobRecord {
    /// Counts up from 1 over the life of the workspace.
    pub id: i64,
    /// What it does; see [`JobKind::as_str`].
    pub kind: String,
    /// The dataset or model it works on.
    pub subject: String,
    /// Where it stands; the snake-case name of a [`JobStatus`].
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// The one global state that the ELEPHANT client knows (contract section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessState {
    /// Nothing runs.
    Idle = 0,
    /// A training or a model reset runs.
    Run = 1,
    /// A prediction or a label update runs.
    Wait = 2,
}

impl ProcessState {
    /// The state with this number on the wire.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Idle, Self::Run, Self::Wait].into_iter().find(|state| *state as i64 == number)
    }
}
