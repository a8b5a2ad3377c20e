//! Who is doing what: job records that survive a kill, the process state that the ELEPHANT client sees, cancellation,
//! and the bus on which jobs tell how far they are.
//!
//! It runs nothing: a job is whatever the caller does between [`Jobs::begin`] and [`Job::finish`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod bus;
mod error;
mod jobs;
mod record;
mod store;

pub use bus::{Event, EventKind};
pub use error::JobsError;
pub use jobs::{Job, Jobs};
pub use record::{JobKind, JobRecord, JobStatus, Outcome, ProcessState};
pub use store::{Store, TrainingParameters};
