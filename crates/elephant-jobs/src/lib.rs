//! Who is doing what: job records that survive a kill, the process state that the ELEPHANT client sees, cancellation,
//! and the bus on which jobs tell how far they are.
//!
//! It runs nothing: a job is whatever the caller does between [`Jobs::begin`] and [`Job::finish`]. What is remembered
//! lies behind [`StateStore`]: in an SQLite file, or in Redis. Every function may wait for that store; call them from
//! threads that may block.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod bus;
mod error;
mod job;
mod jobs;
mod loss;
mod monitor;
mod parameters;
mod record;
mod recorder;
mod running;
mod store;

pub use bus::{Event, EventKind};
pub use error::JobsError;
pub use job::Job;
pub use jobs::{JobDetails, Jobs};
pub use loss::LossPoint;
pub use monitor::JobProgress;
pub use parameters::{LiveParameters, TrainingParameters};
pub use record::{JobFilter, JobKind, JobRecord, JobStatus, Outcome, ProcessState};
pub use store::{Activity, RedisStore, SqliteStore, StateStore};
