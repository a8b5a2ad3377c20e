//! `POST /v1/jobs`: any request of the use cases, as a job.

use std::collections::BTreeMap;

use axum::{
    Json as Reply,
    extract::{Query, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, LargeJson, shown};
use elephant_jobs::{JobSpec, OnLeave, RunningJob};
use elephant_pipeline::{PipelineError, Task, TaskOutput};
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use utoipa::{IntoParams, ToSchema};

use crate::{
    V1Api,
    jobs::{self, JobReply},
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubmitQuery {
    /// `true`: reply when the job has ended, with its result. If the caller disconnects before, a prediction is cancelled;
    /// other jobs continue. `false`: reply as soon as the job has begun.
    #[param(value_type = Option<bool>, default = false)]
    wait: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

impl SubmitQuery {
    fn wait(&self) -> Result<bool, ApiError> {
        if let Some(name) = self.unknown.keys().next() {
            return Err(jobs::unknown_parameter(name, "wait"));
        }
        match self.wait.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(ApiError::bad_request(format!("wait must be true or false, not {}", shown(&other.into()))))
            }
        }
    }
}

/// A job that has ended, and its result.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedReply {
    job: JobReply,
    /// One of `{"spots": […]}` (z, y, x), `{"flow": […]}`, `{"timepoints": […]}`, `{"ready": true}` and `{"done": {}}`; null when the job was
    /// cancelled.
    #[schema(value_type = Option<Object>)]
    result: Option<TaskOutput>,
}

/// Submit a job
///
/// The body is an object with one key, which names the task: `generate` (make a dataset from its movie), `predict` (find the
/// cells of one frame), `reset` (replace a model), `update` (draw labels), `erase_labels` (erase all labels of a dataset),
/// `train` (train a model), `predict_flow` (find the places of cells in the frame before), `update_flow` (draw flow labels) or
/// `erase_flow_labels`, `track` (find and link the cells of a movie), `fit` (learn the costs of tracking) or `steer` (let
/// tracks answer the ELEPHANT plugin's linking). There is an example of each. Vectors are in z, y, x order; unknown fields are refused. The cells
/// that a prediction finds are returned only with `wait=true`; docs/services.md explains the fields.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "v1", params(SubmitQuery), request_body(content = Object),
    responses(
        (status = 200, body = EndedReply, description = "With `wait=true`: the job has ended"),
        (status = 202, body = JobReply, description = "The job has begun; its state is at the address in `Location`"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "There is no such dataset, timepoint or model"),
        (status = 409, description = "Another job is running that excludes this one, or the dataset is in use"),
        (status = 413, description = "Not enough memory, or the body is too long"),
        (status = 429, description = "Too many such jobs are waiting; `Retry-After` says when to try again"),
        (status = 500, description = "With `wait=true`: the job failed"),
        (status = 503, description = "The server is stopping, or Redis, where its state is, is unavailable"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn submit(
    State(api): State<V1Api>,
    uri: Uri,
    LargeJson { value: task, memory }: LargeJson<Task>,
) -> Result<Response, ApiError> {
    let query = Query::<SubmitQuery>::try_from_uri(&uri);
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let wait = query.wait()?;
    task.validate()?;
    let spec = task.spec();
    let spec = if wait { spec } else { JobSpec { on_leave: OnLeave::Continue, ..spec } };
    let use_cases = api.use_cases.clone();
    let job = api.runner.start(spec, move |context| {
        let _memory = memory;
        task.run(&use_cases, context)
    });
    let job = job.await?;
    if !wait {
        let location = format!("/v1/jobs/{}", job.record().id);
        let reply = JobReply::from(job.record().clone());
        // It continues; its record and the log say how it ended.
        let span = job.span().clone();
        tokio::spawn(log_failure(job).instrument(span));
        return Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Reply(reply)).into_response());
    }
    let id = job.record().id;
    let result = job.ended().await?.done();
    Ok(Reply(EndedReply { job: jobs::record(&api, id).await?, result }).into_response())
}

/// Waits for the end of a job whose caller does not, and logs its error as that of a request would be.
async fn log_failure(job: RunningJob<TaskOutput, PipelineError>) {
    if let Err(error) = job.ended().await.map_err(ApiError::from) {
        if error.status().is_server_error() {
            tracing::error!(error = error.message(), "the job failed");
        } else {
            tracing::info!(error = error.message(), "the job failed");
        }
    }
}
