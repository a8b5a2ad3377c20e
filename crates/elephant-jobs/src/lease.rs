//! Which process runs a job, and for how long other processes assume that it still runs.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::record::unix_now;

/// How long a job counts as running without a heartbeat.
pub(crate) const LEASE: Duration = Duration::from_mins(1);
/// How often a process extends the leases of its jobs.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A process that runs jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// A role that one process at a time has, like "server" for the process that holds a workspace's lock: jobs of an earlier
    /// process of the same role were interrupted.
    pub role: String,
    /// A word that no other process has.
    pub process: String,
}

impl Owner {
    /// This process in a role.
    pub fn new(role: &str) -> Self {
        // A hasher with the system's random keys.
        let process = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        Self { role: role.to_owned(), process }
    }
}

/// An owner's claim on a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Who runs the job.
    pub owner: Owner,
    /// Until when the job counts as running without a heartbeat, in seconds since 1970 UTC.
    pub until: f64,
}

impl Lease {
    /// A lease that begins now.
    pub(crate) fn new(owner: &Owner) -> Self {
        Self { owner: owner.clone(), until: unix_now() + LEASE.as_secs_f64() }
    }

    /// Whether, seen by `owner` at `now` (seconds since 1970 UTC), the job has been interrupted: it belonged to an earlier
    /// process of the same role, or its lease has run out.
    pub fn has_ended(&self, owner: &Owner, now: f64) -> bool {
        self.owner.process != owner.process && (self.owner.role == owner.role || self.until < now)
    }
}
