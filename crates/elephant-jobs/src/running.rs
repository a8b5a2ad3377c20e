//! The jobs that run in this process. Never locked while a store is waited for, so that an abort is immediate.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use elephant_types::CancelToken;
use tokio::sync::watch;

use crate::{Activity, JobRecord, JobSpec, JobsError, ProcessState, monitor::Monitor};

/// All running jobs.
#[derive(Debug, Default)]
pub(crate) struct RunningJobs {
    entries: Mutex<Vec<Running>>,
    tickets: AtomicU64,
}

/// One running job.
#[derive(Debug)]
struct Running {
    ticket: u64,
    spec: JobSpec,
    cancel: CancelToken,
    cancelled: watch::Sender<bool>,
    /// None until the job is recorded.
    recorded: Option<Recorded>,
}

/// What exists once the job has a number.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) record: JobRecord,
    pub(crate) monitor: Arc<Monitor>,
}

/// What a reservation among the running jobs gives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) ticket: u64,
    pub(crate) cancel: CancelToken,
    pub(crate) cancelled: watch::Receiver<bool>,
}

impl RunningJobs {
    /// No step under this lock leaves the list half changed.
    fn entries(&self) -> MutexGuard<'_, Vec<Running>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, unless one that excludes it is there already.
    pub(crate) fn reserve(&self, spec: &JobSpec) -> Result<Reservation, JobsError> {
        let mut entries = self.entries();
        let excludes = |other: &&Running| spec.exclusive.is_some() && spec.exclusive == other.spec.exclusive;
        if let Some(other) = entries.iter().find(excludes) {
            return Err(JobsError::Busy(other.spec.noun));
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let cancel = CancelToken::default();
        let (sender, receiver) = watch::channel(false);
        let spec = spec.clone();
        entries.push(Running { ticket, spec, cancel: cancel.clone(), cancelled: sender, recorded: None });
        Ok(Reservation { ticket, cancel, cancelled: receiver })
    }

    pub(crate) fn record(&self, ticket: u64, recorded: Recorded) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.ticket == ticket) {
            entry.recorded = Some(recorded);
        }
    }

    pub(crate) fn remove(&self, ticket: u64) {
        self.entries().retain(|entry| entry.ticket != ticket);
    }

    pub(crate) fn cancel(&self, is_concerned: impl Fn(&JobSpec) -> bool) {
        self.entries().iter().filter(|entry| is_concerned(&entry.spec)).for_each(Running::stop);
    }

    /// Whether there is a job `id`, which is then asked to stop.
    pub(crate) fn cancel_job(&self, id: i64) -> Option<JobRecord> {
        let entries = self.entries();
        let recorded = |entry: &Running| entry.recorded.as_ref().map(|recorded| recorded.record.clone());
        let (entry, record) = entries.iter().find_map(|entry| {
            let record = recorded(entry)?;
            (record.id == id).then_some((entry, record))
        })?;
        entry.stop();
        Some(record)
    }

    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        self.entries().iter().filter_map(|entry| entry.recorded.clone()).collect()
    }

    /// How many jobs of `kind` have begun and not ended.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.entries().iter().filter(|entry| entry.spec.kind == kind).count()
    }

    /// What the jobs that are recorded amount to.
    pub(crate) fn activity(&self) -> Activity {
        let entries = self.entries();
        let recorded = || entries.iter().filter(|entry| entry.recorded.is_some()).map(|entry| entry.spec.activity);
        Activity {
            state: recorded().map(|activity| activity.state).max().unwrap_or(ProcessState::Idle),
            updating_labels: recorded().any(|activity| activity.updating_labels),
            updating_flow_labels: recorded().any(|activity| activity.updating_flow_labels),
        }
    }
}

impl Running {
    fn stop(&self) {
        self.cancel.cancel();
        self.cancelled.send_replace(true);
    }
}
