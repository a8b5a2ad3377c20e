//! Running jobs: in their turn, on threads that may block, until they end or are stopped.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use elephant_types::{Coded, ErrorCode, TaskContext};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{Instrument, Span, error_span};

use crate::{Job, JobError, JobRecord, JobSpec, JobStatus, Jobs, JobsError, OnLeave, Outcome, queue::Queue};

/// The target of the log's lines about the beginning and the end of jobs. It is not that of the crate, so that the server
/// log of ELEPHANT's client, which gets the lines of this project's crates, does not have them.
const LOG_TARGET: &str = "job";

/// Runs jobs. Clones share state.
#[derive(Clone, Debug)]
pub struct JobRunner {
    jobs: Jobs,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Few; a queue appears with its first job.
    queues: Mutex<Vec<Queue>>,
    closing: AtomicBool,
}

/// How a job ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// It was completed, with this result.
    Done(T),
    /// It was asked to stop.
    Cancelled,
}

impl<T> Ended<T> {
    /// The result, unless the job was cancelled.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Cancelled => None,
        }
    }
}

/// A job that has begun. Dropped before it has ended, it goes on or is cancelled, as its spec says.
#[derive(Debug)]
pub struct RunningJob<T, E> {
    kind: &'static str,
    record: JobRecord,
    span: Span,
    task: JoinHandle<Result<Ended<T>, JobError<E>>>,
    shared: Arc<Shared>,
    _on_leave: Option<CancelOnDrop>,
}

/// Cancels a job whose caller has left.
#[derive(Debug)]
struct CancelOnDrop {
    jobs: Jobs,
    id: i64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.jobs.cancel_running(self.id);
    }
}

impl JobRunner {
    /// A runner of `jobs`.
    pub fn new(jobs: Jobs) -> Self {
        Self { jobs, shared: Arc::default() }
    }

    /// The jobs.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The number of jobs that wait in the queue of this name.
    pub fn waiting(&self, queue: &str) -> usize {
        let queues = self.shared.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().find(|known| known.name() == queue).map_or(0, Queue::waiting)
    }

    /// Stops: asks every job to end, and begins no other.
    pub fn close(&self) {
        // In this order, so that the end of a cancelled job is reported as `JobError::Closing`.
        self.shared.closing.store(true, Ordering::Release);
        self.jobs.cancel_all();
    }

    /// Begins a job and waits for its end; see [`start`](Self::start).
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`RunningJob::ended`].
    pub async fn run<T: Send + 'static, E: Coded + Send + 'static>(
        &self,
        spec: JobSpec,
        work: impl FnOnce(&TaskContext) -> Result<T, E> + Send + 'static,
    ) -> Result<Ended<T>, JobError<E>> {
        self.start(spec, work).await?.ended().await
    }

    /// Begins a job, which is recorded then. Its `work` runs on a thread that may block, when it is its turn in the job's
    /// queue, within a span `job` with the job's `id`, `kind` and `subject`.
    ///
    /// # Errors
    /// When the queue is full, another job excludes this one, the job cannot be recorded, or the runner is closing.
    pub async fn start<T: Send + 'static, E: Coded + Send + 'static>(
        &self,
        spec: JobSpec,
        work: impl FnOnce(&TaskContext) -> Result<T, E> + Send + 'static,
    ) -> Result<RunningJob<T, E>, JobError<E>> {
        if self.shared.is_closing() {
            return Err(JobError::Closing);
        }
        let ticket = spec.queue.map(|queue| self.shared.queue(queue).join()).transpose()?;
        let (kind, on_leave, jobs, caller) = (spec.kind, spec.on_leave, self.jobs.clone(), Span::current());
        let begun = spawn_blocking(move || caller.in_scope(|| jobs.begin(&spec))).await;
        let job = begun.map_err(|panic| JobError::Crashed { kind, reason: panic.to_string() })??;
        let record = job.record().clone();
        if self.shared.is_closing() {
            // `close` may have asked all jobs to stop just before this one began.
            self.jobs.cancel_running(record.id);
        }
        // The span has the highest level, so that a job's errors name the job whatever the log's filter is.
        let span = error_span!("job", id = record.id, kind, subject = record.subject);
        let on_leave = (on_leave == OnLeave::Cancel).then(|| CancelOnDrop { jobs: self.jobs.clone(), id: record.id });
        let cancelled = job.cancelled();
        let run = async move {
            let begun = Instant::now();
            tracing::info!(target: LOG_TARGET, "the job begins");
            let turn = match ticket {
                Some(ticket) => tokio::select! {
                    turn = ticket.turn() => Some(turn),
                    () = cancelled => None,
                },
                None => None,
            };
            let span = Span::current();
            let ended = spawn_blocking(move || {
                let _turn = turn;
                span.in_scope(|| finish(job, work))
            });
            let ended = match ended.await {
                Ok(ended) => ended.map_err(JobError::Failed),
                Err(panic) => Err(JobError::Crashed { kind, reason: panic.to_string() }),
            };
            log_end(&ended, begun);
            ended
        };
        let task = tokio::spawn(run.instrument(span.clone()));
        Ok(RunningJob { kind, record, span, task, shared: self.shared.clone(), _on_leave: on_leave })
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn queue(&self, spec: crate::QueueSpec) -> Queue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.iter().find(|known| known.name() == spec.name) {
            return queue.clone();
        }
        let queue = Queue::new(spec);
        queues.push(queue.clone());
        queue
    }
}

impl<T, E> RunningJob<T, E> {
    /// The job's record, as it was when it began.
    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    /// The span of its lines in the log.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Its error, [`JobError::Crashed`] when it panicked, and [`JobError::Closing`] when it was cancelled because the
    /// runner is closing.
    pub async fn ended(mut self) -> Result<Ended<T>, JobError<E>> {
        let ended = (&mut self.task).await;
        match ended {
            Ok(Ok(Ended::Cancelled)) if self.shared.is_closing() => Err(JobError::Closing),
            Ok(ended) => ended,
            Err(panic) => Err(JobError::Crashed { kind: self.kind, reason: panic.to_string() }),
        }
    }
}

/// Logs how and after which time the job has ended. Why it failed is for those to log who wait for it.
fn log_end<T, E>(ended: &Result<Ended<T>, JobError<E>>, begun: Instant) {
    let status = match ended {
        Ok(Ended::Done(_)) => JobStatus::Completed,
        Ok(Ended::Cancelled) => JobStatus::Cancelled,
        Err(_) => JobStatus::Failed,
    };
    let seconds = begun.elapsed().as_millis() as f64 / 1000.0;
    tracing::info!(target: LOG_TARGET, status = status.as_str(), seconds, "the job has ended");
}

/// Does the work and records how it ended.
fn finish<T, E: Coded>(job: Job, work: impl FnOnce(&TaskContext) -> Result<T, E>) -> Result<Ended<T>, E> {
    let context = job.context().clone();
    if context.check().is_err() {
        job.finish(Outcome::Cancelled);
        return Ok(Ended::Cancelled);
    }
    match work(&context) {
        Ok(value) => {
            job.finish(Outcome::Completed);
            Ok(Ended::Done(value))
        }
        Err(error) if error.code() == ErrorCode::Cancelled => {
            job.finish(Outcome::Cancelled);
            Ok(Ended::Cancelled)
        }
        Err(error) => {
            job.finish(Outcome::Failed(error.to_string()));
            Err(error)
        }
    }
}

impl<E> From<JobsError> for JobError<E> {
    fn from(error: JobsError) -> Self {
        Self::Refused(error)
    }
}

#[cfg(test)]
mod tests;
