//! What is remembered of a job.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

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

    /// Every kind, in the order of a session.
    pub const ALL: [Self; 5] = [Self::Generate, Self::Predict, Self::Reset, Self::Update, Self::Train];

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
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
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Running, Self::Completed, Self::Cancelled, Self::Failed, Self::Interrupted];

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// The name used in records.
    pub fn as_str(self) -> &'static str {
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Counts up from 1 over the life of the workspace.
    pub id: i64,
    /// What it does; see [`JobKind::as_str`].
    pub kind: String,
    /// The dataset or model it works on.
    pub subject: String,
    /// Where it stands; see [`JobStatus::as_str`].
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What whoever asked should know, such as where a model came from.
    #[serde(default)]
    pub note: Option<String>,
    /// When it began, in seconds since 1970 UTC; null for records older than this field.
    pub begun_at: Option<f64>,
    /// When it ended, or was found to be interrupted, in seconds since 1970 UTC.
    pub ended_at: Option<f64>,
}

impl JobRecord {
    /// The record after the job's end at `ended_at`.
    pub(crate) fn ended(self, outcome: &Outcome, note: Option<String>, ended_at: f64) -> Self {
        let status = outcome.status().as_str().to_owned();
        Self { status, error: outcome.error().map(str::to_owned), note, ended_at: Some(ended_at), ..self }
    }
}

/// Which records to list.
#[derive(Clone, Copy, Debug)]
pub struct JobFilter {
    /// At most so many, the newest.
    pub limit: u32,
    /// Only jobs of this kind.
    pub kind: Option<JobKind>,
    /// Only jobs with this status.
    pub status: Option<JobStatus>,
}

impl JobFilter {
    /// The newest `limit` jobs.
    pub fn newest(limit: u32) -> Self {
        Self { limit, kind: None, status: None }
    }

    pub(crate) fn matches(self, record: &JobRecord) -> bool {
        self.kind.is_none_or(|kind| kind.as_str() == record.kind)
            && self.status.is_none_or(|status| status.as_str() == record.status)
    }
}

/// Seconds since 1970 UTC, to the millisecond.
pub(crate) fn unix_now() -> f64 {
    // A clock before 1970 counts as 1970.
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    elapsed.as_millis() as f64 / 1000.0
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
