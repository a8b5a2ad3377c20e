//! Running a use case as a job, off the async threads.

use elephant_jobs::{Job, JobKind, JobsError, Outcome};
use elephant_pipeline::PipelineError;
use elephant_types::{CancelToken, Coded, ErrorCode, TaskContext};
use tokio::sync::Semaphore;

use crate::{Services, problem::Problem};

/// Predictions that hold an image in memory: one on the device, one being read for it. The others wait in order.
pub const PREDICTIONS_AT_ONCE: usize = 2;

/// Cancels the work when the caller has gone away and its handler was dropped.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Whether the work goes on when its caller goes away.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Caller {
    /// The result is for the caller alone.
    Needed,
    /// The result stays on the server.
    MayLeave,
}

/// Runs `work` as a job of `kind` on `subject`, when a place in `queue` is free; `None` when it was cancelled.
pub(crate) async fn run<T: Send + 'static>(
    services: &Services,
    kind: JobKind,
    subject: &str,
    queue: Option<&Semaphore>,
    caller: Caller,
    work: impl FnOnce(&TaskContext) -> Result<T, PipelineError> + Send + 'static,
) -> Result<Option<T>, Problem> {
    let (jobs, subject) = (services.jobs.clone(), subject.to_owned());
    let job = blocking(move || jobs.begin(kind, &subject).map_err(|error| refused(kind, error))).await?;
    let _guard = (caller == Caller::Needed).then(|| CancelOnDrop(job.context().cancel_token().clone()));
    let cancelled = job.cancelled();
    let _place = match queue {
        Some(queue) => tokio::select! {
            place = queue.acquire() => place.ok(),
            () = cancelled => None,
        },
        None => None,
    };
    let result = tokio::task::spawn_blocking(move || finish(job, work)).await;
    result.unwrap_or_else(|panic| Err(Problem::internal(format!("the {} job crashed: {panic}", kind.as_str()))))
}

/// A job that another one excludes has the original's status and text, as its client shows them.
fn refused(kind: JobKind, error: JobsError) -> Problem {
    match error {
        JobsError::Busy(_) if kind == JobKind::Reset => Problem::internal("Process is running. Model cannot be reset."),
        JobsError::Busy(_) => Problem::internal("Process is running"),
        error => error.into(),
    }
}

fn finish<T>(job: Job, work: impl FnOnce(&TaskContext) -> Result<T, PipelineError>) -> Result<Option<T>, Problem> {
    let context = job.context().clone();
    let result = match context.check() {
        Ok(()) => work(&context),
        Err(cancelled) => Err(cancelled.into()),
    };
    match result {
        Ok(value) => {
            job.finish(Outcome::Completed);
            Ok(Some(value))
        }
        Err(error) if error.code() == ErrorCode::Cancelled => {
            job.finish(Outcome::Cancelled);
            Ok(None)
        }
        Err(error) => {
            let problem = Problem::from(error);
            job.finish(Outcome::Failed(problem.message().to_owned()));
            Err(problem)
        }
    }
}

/// Runs short blocking work that is no job.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|panic| Err(Problem::internal(format!("the request crashed: {panic}"))))
}
