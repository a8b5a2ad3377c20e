//! Where the state is stored.

mod redis;
mod sqlite;
#[cfg(test)]
mod suite;

use std::fmt::Debug;

use crate::{Activity, JobFilter, JobRecord, JobsError, Lease, LossPoint, Owner, ProcessState, TrainingParameters};

pub use self::{redis::RedisStore, sqlite::SqliteStore};

/// Records older than the newest of this number are forgotten, unless their jobs are still running.
const KEPT_JOBS: i64 = 10_000;
/// Loss curves older than the newest of this number are forgotten; each may have some 100 KB.
const KEPT_CURVES: usize = 100;

/// Job records, which outlive the process.
///
/// Nothing here is read to decide what may run. Each function waits for the store, within a few seconds; when that
/// cannot be reached its error has [`ErrorCode::Unavailable`](elephant_types::ErrorCode::Unavailable), and a later call
/// tries again. Every writing function may be repeated: the second call changes nothing.
pub trait JobStore: Debug + Send + Sync + 'static {
    /// What it is and where, for a reader; without passwords.
    fn description(&self) -> String;

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    fn check(&self) -> Result<(), JobsError>;

    /// Whether it can be written; finds out by writing a few bytes.
    ///
    /// # Errors
    /// When it cannot.
    fn check_writable(&self) -> Result<(), JobsError>;

    /// How often it was connected to. After each connection it may have lost what was written.
    fn connections(&self) -> u64;

    /// A number that no job has had.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn new_job_id(&self) -> Result<i64, JobsError>;

    /// Writes a job's record, instead of the one with the same number; `lease` is that of a running job.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save_job(&self, job: &JobRecord, lease: Option<&Lease>) -> Result<(), JobsError>;

    /// Extends the leases of those of these jobs that are running.
    ///
    /// # Errors
    /// When they cannot be written.
    fn renew(&self, jobs: &[i64], lease: &Lease) -> Result<(), JobsError>;

    /// Marks the running jobs as interrupted whose leases [have ended](Lease::has_ended) for `owner` at `now` (seconds since
    /// 1970 UTC), or that have none, and returns them in the order of their numbers.
    ///
    /// # Errors
    /// When they cannot be written.
    fn interrupt_abandoned(&self, owner: &Owner, now: f64) -> Result<Vec<JobRecord>, JobsError>;

    /// A job's record.
    ///
    /// # Errors
    /// When it cannot be read.
    fn job(&self, id: i64) -> Result<Option<JobRecord>, JobsError>;

    /// The records that `filter` lets through, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, JobsError>;

    /// Writes a job's loss curve.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save_losses(&self, job: i64, losses: &[LossPoint]) -> Result<(), JobsError>;

    /// A job's loss curve; empty for a job without one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn losses(&self, job: i64) -> Result<Vec<LossPoint>, JobsError>;
}

/// What clients and other programs of the original ELEPHANT server read and set. Fails and repeats as [`JobStore`] does.
pub trait ElephantState: Debug + Send + Sync + 'static {
    /// The process state last written.
    ///
    /// # Errors
    /// When it cannot be read.
    fn process_state(&self) -> Result<ProcessState, JobsError>;

    /// Writes the process state and the flag for label updates.
    ///
    /// # Errors
    /// When they cannot be written.
    fn set_activity(&self, activity: Activity) -> Result<(), JobsError>;

    /// The training parameters last set.
    ///
    /// # Errors
    /// When they cannot be read.
    fn training_parameters(&self) -> Result<TrainingParameters, JobsError>;

    /// Sets those training parameters that are given.
    ///
    /// # Errors
    /// When they cannot be written.
    fn set_training_parameters(&self, parameters: TrainingParameters) -> Result<(), JobsError>;

    /// The timepoint whose labels were updated last while a live training waits for it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn live_timepoint(&self) -> Result<Option<u64>, JobsError>;

    /// Sets or removes that timepoint.
    ///
    /// # Errors
    /// When it cannot be written.
    fn set_live_timepoint(&self, timepoint: Option<u64>) -> Result<(), JobsError>;
}

fn losses_to_text(losses: &[LossPoint]) -> String {
    // Maps with text keys and finite numbers always have a text.
    serde_json::to_string(losses).unwrap_or_default()
}

/// A curve that cannot be read is empty.
fn losses_from_text(text: Option<&str>) -> Vec<LossPoint> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
