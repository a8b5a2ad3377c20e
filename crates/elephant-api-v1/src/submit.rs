//! `POST /v1/jobs`: any request of the use cases, as a job.

use axum::{
    Json as Reply,
    extract::{Query, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, LargeJson};
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
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubmitQuery {
    /// Reply when the job has ended, with its result. If the caller disconnects before, a prediction is cancelled; other
    /// jobs continue.
    #[serde(default)]
    wait: bool,
}

/// A job that has ended, and its result.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedReply {
    job: JobReply,
    /// One of `{"spots": […]}` (z, y, x), `{"timepoints": […]}`, `{"ready": true}` and `{"done": {}}`; null when the job was
    /// cancelled.
    #[schema(value_type = Option<Object>)]
    result: Option<TaskOutput>,
}

/// Submit a job
///
/// The body is an object whose one key says what to do: `generate`, `predict`, `reset`, `update`, `erase_labels` or `train`,
/// for instance `{"predict": {"dataset": "fly", "timepoint": 0, "voxel_size": [2, 0.5, 0.5]}}`. Vectors are in z, y, x order;
/// unknown fields are refused. The cells of a prediction are returned only with `wait=true`.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "v1", params(SubmitQuery), request_body(content = Object),
    responses(
        (status = 200, body = EndedReply, description = "It has ended, and `wait` was asked for"),
        (status = 202, body = JobReply, description = "It has begun; `Location` tells how it goes"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "The dataset, timepoint or model is not there"),
        (status = 409, description = "A job that excludes this one runs, or something else holds what it needs"),
        (status = 413, description = "Not enough memory, or the body is too long"),
        (status = 429, description = "Too many such jobs wait already; Retry-After says when to try again"),
        (status = 500, description = "It failed"),
        (status = 503, description = "The server is stopping, or its state cannot be reached"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn submit(
    State(api): State<V1Api>,
    uri: Uri,
    LargeJson { value: task, memory }: LargeJson<Task>,
) -> Result<Response, ApiError> {
    let query = Query::<SubmitQuery>::try_from_uri(&uri);
    let Query(SubmitQuery { wait }) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
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
        // It goes on; its record and the log say how it ended.
        tokio::spawn(log_failure(job).in_current_span());
        return Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Reply(reply)).into_response());
    }
    let id = job.record().id;
    let result = job.ended().await?.done();
    Ok(Reply(EndedReply { job: jobs::record(&api, id).await?, result }).into_response())
}

/// Waits for the end of a job whose caller does not.
async fn log_failure(job: RunningJob<TaskOutput, PipelineError>) {
    let id = job.record().id;
    if let Err(error) = job.ended().await {
        tracing::error!(job = id, %error, "the job failed");
    }
}
