//! Beginning, cancelling and ending jobs.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use elephant_types::{CancelToken, TaskContext};
use tokio::sync::{broadcast, watch};

use crate::{Event, EventKind, JobKind, JobRecord, JobsError, Outcome, ProcessState, Store, bus::Bus};

/// The jobs of this process. Clones are the same set.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    running: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    id: i64,
    kind: JobKind,
    cancel: CancelToken,
    cancelled: watch::Sender<bool>,
}

impl Jobs {
    /// Takes over the records in `store`: the state is idle, and jobs that a killed server left running are marked as
    /// interrupted and returned.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn recover(store: Store) -> Result<(Self, Vec<JobRecord>), JobsError> {
        store.set_process_state(ProcessState::Idle)?;
        let interrupted = store.interrupt_running()?;
        Ok((Self(Arc::new(Inner { store, bus: Bus::new(), running: Mutex::default() })), interrupted))
    }

    /// The records themselves.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.bus.subscribe()
    }

    /// Begins a job of `kind` on `subject`, the name of a dataset or model.
    ///
    /// # Errors
    /// [`JobsError::Busy`] when both this job and a running one change a model, or when the job cannot be recorded.
    pub fn begin(&self, kind: JobKind, subject: &str) -> Result<Job, JobsError> {
        let inner = &self.0;
        let mut running = inner.running();
        if let Some(other) = running.iter().find(|job| kind.is_exclusive() && job.kind.is_exclusive()) {
            return Err(JobsError::Busy(other.kind.as_str()));
        }
        let id = inner.store.insert_job(kind.as_str(), subject)?;
        let (cancelled, cancelled_receiver) = watch::channel(false);
        let token = CancelToken::default();
        let template = Event { job: id, kind, subject: subject.into(), event: EventKind::Started };
        inner.bus.publish(template.clone());
        let context = TaskContext::new(token.clone(), {
            let (bus, template, last_percent) = (inner.bus.clone(), template.clone(), AtomicI64::new(-1));
            move |progress| {
                let percent = (progress.done * 100).checked_div(progress.total).unwrap_or(100) as i64;
                // Whoever watches sees at most a hundred steps of a job, however many it has.
                if progress.total <= 100 || last_percent.swap(percent, Ordering::Relaxed) != percent {
                    let event = EventKind::Progress { step: progress.done, total: progress.total };
                    bus.publish(Event { event, ..template.clone() });
                }
            }
        });
        running.push(Running { id, kind, cancel: token, cancelled });
        inner.write_process_state(&running);
        drop(running);
        Ok(Job { jobs: self.clone(), id, template, context, cancelled: cancelled_receiver, ended: false })
    }

    /// Asks every job that the client's abort concerns to stop: all but dataset generations (contract section 3).
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn abort(&self) -> Result<(), JobsError> {
        self.cancel_where(|kind| kind != JobKind::Generate);
        self.0.store.set_process_state(ProcessState::Idle)
    }

    /// Asks every job to stop, as the server is going down.
    pub fn cancel_all(&self) {
        self.cancel_where(|_| true);
    }

    fn cancel_where(&self, concerned: impl Fn(JobKind) -> bool) {
        for job in self.0.running().iter().filter(|job| concerned(job.kind)) {
            job.cancel.cancel();
            job.cancelled.send_replace(true);
        }
    }

    /// Writes the state that clients see, as the original's `POST /state/process` does. It has no effect on jobs.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_process_state(&self, state: ProcessState) -> Result<(), JobsError> {
        self.0.store.set_process_state(state)
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A state that cannot be written must not stop a job; the next change writes it again.
    fn write_process_state(&self, running: &[Running]) {
        let state = running.iter().map(|job| job.kind.process_state()).max().unwrap_or(ProcessState::Idle);
        if let Err(error) = self.store.set_process_state(state) {
            tracing::error!(%error, "the process state is not recorded");
        }
    }
}

/// A running job. Dropped without [`finish`](Self::finish) (its task panicked), it is recorded as failed.
#[derive(Debug)]
pub struct Job {
    jobs: Jobs,
    id: i64,
    template: Event,
    context: TaskContext,
    cancelled: watch::Receiver<bool>,
    ended: bool,
}

impl Job {
    /// The job's number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Cancellation and progress, for the code that does the work.
    pub fn context(&self) -> &TaskContext {
        &self.context
    }

    /// Resolves when the job is asked to stop; for waiting without a thread.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.cancelled.clone();
        async move {
            if receiver.wait_for(|cancelled| *cancelled).await.is_err() {
                // The job has ended without being cancelled, and never will be.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Records how the job ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        let inner = &self.jobs.0;
        let mut running = inner.running();
        running.retain(|job| job.id != self.id);
        inner.write_process_state(&running);
        drop(running);
        if let Err(error) = inner.store.finish_job(self.id, outcome.status(), outcome.error()) {
            tracing::error!(%error, job = self.id, "the end of a job is not recorded");
        }
        let event = match outcome {
            Outcome::Completed => EventKind::Completed,
            Outcome::Cancelled => EventKind::Cancelled,
            Outcome::Failed(error) => EventKind::Failed { error },
        };
        inner.bus.publish(Event { event, ..self.template.clone() });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Outcome::Failed("the job ended without a result; see the server's log".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(folder: &tempfile::TempDir) -> (Jobs, Vec<JobRecord>) {
        Jobs::recover(Store::open(&folder.path().join("state.db")).unwrap()).unwrap()
    }

    #[test]
    fn the_state_follows_the_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, _) = jobs(&folder);
        let state = || jobs.store().process_state().unwrap();
        assert_eq!(state(), ProcessState::Idle);
        let reset = jobs.begin(JobKind::Reset, "detection.pth").unwrap();
        assert_eq!(state(), ProcessState::Run);
        let predict = jobs.begin(JobKind::Predict, "fly").unwrap();
        assert_eq!(state(), ProcessState::Wait);
        predict.finish(Outcome::Completed);
        assert_eq!(state(), ProcessState::Run);
        assert!(matches!(jobs.begin(JobKind::Reset, "flow.pth"), Err(JobsError::Busy("reset"))));
        drop(reset);
        assert_eq!(state(), ProcessState::Idle);
        let records = jobs.store().recent_jobs(9).unwrap();
        assert_eq!(records.iter().map(|job| job.status.as_str()).collect::<Vec<_>>(), ["completed", "failed"]);
    }

    #[test]
    fn a_killed_servers_jobs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = jobs(&folder);
        std::mem::forget(first.begin(JobKind::Predict, "fly").unwrap());
        drop(first);
        let (second, interrupted) = jobs(&folder);
        assert_eq!(interrupted.len(), 1);
        assert_eq!(interrupted[0].status, "interrupted");
        assert_eq!(second.store().process_state().unwrap(), ProcessState::Idle);
        assert!(jobs(&folder).1.is_empty(), "told once");
    }

    #[tokio::test]
    async fn an_abort_reaches_the_task_and_the_waiter() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, _) = jobs(&folder);
        let mut events = jobs.subscribe();
        let predict = jobs.begin(JobKind::Predict, "fly").unwrap();
        let generate = jobs.begin(JobKind::Generate, "fly").unwrap();
        jobs.abort().unwrap();
        predict.cancelled().await;
        assert!(predict.context().check().is_err());
        assert!(generate.context().check().is_ok());
        predict.finish(Outcome::Cancelled);
        drop(events.recv().await.unwrap());
        drop(events.recv().await.unwrap());
        assert_eq!(events.recv().await.unwrap().event, EventKind::Cancelled);
    }

    #[test]
    fn progress_is_thinned_to_percents() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, _) = jobs(&folder);
        let job = jobs.begin(JobKind::Generate, "fly").unwrap();
        let mut events = jobs.subscribe();
        (1..=5000).for_each(|done| job.context().report(done, 5000));
        let mut count = 0;
        while events.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 101);
    }
}
