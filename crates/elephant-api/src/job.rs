//! Running a use case as a job, off the async threads.

use axum::http::StatusCode;
use elephant_jobs::{Job, JobKind, JobsError, Outcome};
use elephant_pipeline::PipelineError;
use elephant_types::{CancelToken, Coded, ErrorCode, TaskContext};

use crate::{Services, problem::Problem, queue::Queue};

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

/// Runs `work` as a job of `kind` on `subject`, when it is its turn in `queue`; `None` when it was cancelled, and 503 when
/// that was because the server stops.
pub(crate) async fn run<T: Send + 'static>(
    services: &Services,
    kind: JobKind,
    subject: &str,
    queue: Option<&Queue>,
    caller: Caller,
    work: impl FnOnce(&TaskContext) -> Result<T, PipelineError> + Send + 'static,
) -> Result<Option<T>, Problem> {
    let ticket = queue.map(Queue::join).transpose()?;
    let (jobs, subject) = (services.jobs.clone(), subject.to_owned());
    let job = blocking(move || jobs.begin(kind, &subject).map_err(|error| refused(kind, error))).await?;
    let _guard = (caller == Caller::Needed).then(|| CancelOnDrop(job.context().cancel_token().clone()));
    let cancelled = job.cancelled();
    let turn = match ticket {
        Some(ticket) => tokio::select! {
            turn = ticket.turn() => Some(turn),
            () = cancelled => None,
        },
        None => None,
    };
    // The turn ends with the work, not with this handler, which is dropped when the caller leaves.
    let work = move |context: &TaskContext| {
        let _turn = turn;
        work(context)
    };
    let result = tokio::task::spawn_blocking(move || finish(job, work)).await;
    match result {
        Ok(Ok(None)) if services.closing.is_cancelled() => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping; try again when it is back"))
        }
        Ok(result) => result,
        Err(panic) => Err(Problem::internal(format!("the {} job crashed: {panic}", kind.as_str()))),
    }
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
