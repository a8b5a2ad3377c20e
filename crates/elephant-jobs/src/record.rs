//! What is remembered of a job.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

/// The status of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl fmt::Display for JobStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked.
    Completed,
    /// It was stopped on request.
    Cancelled,
    /// It failed with this error.
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
    /// What it does; see [`JobSpec::kind`](crate::JobSpec::kind).
    pub kind: String,
    /// The dataset or model it works on.
    pub subject: String,
    /// Its status.
    pub status: JobStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// Information for the caller, such as where a model came from.
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
        Self {
            status: outcome.status(),
            error: outcome.error().map(str::to_owned),
            note,
            ended_at: Some(ended_at),
            ..self
        }
    }
}

/// Which records to list.
#[derive(Clone, Debug)]
pub struct JobFilter {
    /// At most so many, the newest.
    pub limit: u32,
    /// Only jobs of this kind.
    pub kind: Option<String>,
    /// Only jobs with this status.
    pub status: Option<JobStatus>,
}

impl JobFilter {
    /// The newest `limit` jobs.
    pub fn newest(limit: u32) -> Self {
        Self { limit, kind: None, status: None }
    }

    pub(crate) fn matches(&self, record: &JobRecord) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == record.kind)
            && self.status.is_none_or(|status| status == record.status)
    }
}

/// Seconds since 1970 UTC, to the millisecond.
pub(crate) fn unix_now() -> f64 {
    // A clock before 1970 counts as 1970.
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    elapsed.as_millis() as f64 / 1000.0
}
