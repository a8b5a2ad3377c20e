//! The handle of a running job.

use std::sync::Arc;

use elephant_types::TaskContext;
use tokio::sync::watch;

use crate::{
    JobRecord, Outcome,
    monitor::Monitor,
    record::unix_now,
    recorder::{End, Recorder},
};

/// A running job. Dropped without [`finish`](Self::finish) it is recorded as failed when its task panicked, and
/// otherwise as cancelled, as its caller has left.
#[derive(Debug)]
pub struct Job {
    recorder: Arc<Recorder>,
    ticket: u64,
    record: JobRecord,
    has_ended: bool,
    monitor: Arc<Monitor>,
    context: TaskContext,
    cancelled: watch::Receiver<bool>,
}

impl Job {
    pub(crate) fn new(
        recorder: Arc<Recorder>,
        ticket: u64,
        record: JobRecord,
        monitor: Arc<Monitor>,
        context: TaskContext,
        cancelled: watch::Receiver<bool>,
    ) -> Self {
        Self { recorder, ticket, record, has_ended: false, monitor, context, cancelled }
    }

    /// The job's number.
    pub fn id(&self) -> i64 {
        self.record.id
    }

    /// The job's record, as it was when it began.
    pub fn record(&self) -> &JobRecord {
        &self.record
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

    /// Records how the job ended, or keeps that for later when the store is unavailable.
    #[allow(clippy::needless_pass_by_value, reason = "a job ends once")]
    pub fn finish(mut self, outcome: Outcome) {
        if let Some(end) = self.take_end(&outcome) {
            self.recorder.end(self.ticket, end);
            self.monitor.ended(&outcome);
        }
    }

    fn take_end(&mut self, outcome: &Outcome) -> Option<End> {
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        let record = self.record.clone().ended(outcome, self.monitor.note(), unix_now());
        Some(End { record, losses: self.monitor.take_unsaved_losses() })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() {
            Outcome::Failed("the job crashed; see the server's log".into())
        } else {
            Outcome::Cancelled
        };
        if let Some(end) = self.take_end(&outcome) {
            self.recorder.end_later(self.ticket, end);
            self.monitor.ended(&outcome);
        }
    }
}
