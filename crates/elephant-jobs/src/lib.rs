//! Jobs: what runs, in what order, who may stop it, and what is remembered of it after the process has gone.
//!
//! - [`JobSpec`] describes a job: its kind, what it works on, what it excludes, its queue, and what happens when its
//!   caller leaves. Kinds are open: a kind is a name, and its policy is in the spec.
//! - [`JobRunner`] runs a job off the async threads: it waits for its turn, contains its panics and records how it ended.
//! - [`Jobs`] is the set of jobs of this process: records that survive a kill, cancellation, and the events that
//!   listeners follow.
//! - [`JobStore`] keeps the records, and [`ElephantState`] what clients of the original ELEPHANT server see. SQLite and
//!   Redis implement both.
//!
//! The crate knows nothing of HTTP and nothing of what a job does. Functions of [`Jobs`] and of the stores may wait for
//! the store; call them from threads that may block.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod bus;
mod error;
mod job;
mod jobs;
mod lease;
mod loss;
mod monitor;
mod parameters;
mod queue;
mod record;
mod recorder;
mod runner;
mod running;
mod spec;
mod store;

pub use bus::{Event, stage};
pub use error::{JobError, JobsError};
pub use job::Job;
pub use jobs::{JobDetails, Jobs};
pub use lease::{Lease, Owner};
pub use loss::LossPoint;
pub use monitor::JobProgress;
pub use parameters::{LiveParameters, TrainingParameters};
pub use record::{JobFilter, JobRecord, JobStatus, Outcome};
pub use runner::{Ended, JobRunner, RunningJob};
pub use spec::{Activity, JobSpec, OnLeave, ProcessState, QueueSpec};
pub use store::{ElephantState, JobStore, RedisStore, SqliteStore};
