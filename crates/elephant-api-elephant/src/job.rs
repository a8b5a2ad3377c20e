//! Requests as jobs, with the original's words where one is refused.

use elephant_api_core::ApiError;
use elephant_jobs::{JobError, JobsError};
use elephant_pipeline::{PipelineError, Request};

use crate::ElephantApi;

/// Runs a request as a job; `None` when it was cancelled. `held` is kept until the work ends, which may be after the caller
/// has left.
pub(crate) async fn run<R: Request>(
    api: &ElephantApi,
    request: R,
    held: impl Send + 'static,
) -> Result<Option<R::Output>, ApiError> {
    let (spec, use_cases) = (request.spec(), api.use_cases.clone());
    let kind = spec.kind;
    let work = move |context: &_| {
        let _held = held;
        let output = request.run(&use_cases, context)?;
        request.mirror(&use_cases, &output);
        Ok(output)
    };
    let ended = api.runner.run(spec, work).await;
    Ok(ended.map_err(|error| refused(kind, error))?.done())
}

/// A job that another one excludes has the original's status and text, as its client shows them.
pub(crate) fn refused(kind: &str, error: JobError<PipelineError>) -> ApiError {
    match error {
        JobError::Refused(JobsError::Busy(_)) if kind == "reset" => {
            ApiError::internal("Process is running. Model cannot be reset.")
        }
        JobError::Refused(JobsError::Busy(_)) => ApiError::internal("Process is running"),
        error => error.into(),
    }
}
