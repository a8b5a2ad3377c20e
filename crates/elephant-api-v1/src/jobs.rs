//! `/v1/jobs`: what ran, what runs, and how to stop it.

use std::collections::BTreeMap;

use axum::{
    Json as Reply,
    extract::{Path, Query, State},
    http::StatusCode,
};
use elephant_api_core::{ApiError, blocking, shown};
use elephant_jobs::{JobDetails, JobFilter, JobProgress, JobRecord, JobStatus, LossPoint};
use elephant_pipeline::KINDS;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::V1Api;

/// The number of jobs that are kept.
const MAX_LIMIT: u32 = 10_000;
const DEFAULT_LIMIT: u32 = 100;

/// Which jobs to list. Values are parsed one by one, for clear errors.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// At most so many, the newest; 1 to 10000.
    #[param(value_type = Option<u32>, default = 100)]
    limit: Option<String>,
    /// `generate`, `predict`, `reset`, `update`, `train`, one of the last four for flow (`predict_flow` and so on), `track`,
    /// `fit`, `steer` or `export`.
    kind: Option<String>,
    /// `running`, `completed`, `cancelled`, `failed` or `interrupted`.
    status: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

/// A job.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobReply {
    /// Counts up from 1.
    id: i64,
    /// `generate`, `predict`, `reset`, `update`, `train`, one of the last four for flow (`predict_flow` and so on), `track`,
    /// `fit`, `steer` or `export`.
    kind: String,
    /// The dataset or model it works on.
    subject: String,
    /// `running`, `completed`, `cancelled`, `failed`, or `interrupted` when the server was killed meanwhile.
    #[schema(value_type = String)]
    status: JobStatus,
    /// Why it failed.
    error: Option<String>,
    /// Information for the caller, such as where a model came from.
    note: Option<String>,
    /// Seconds since 1970 UTC.
    begun_at: Option<f64>,
    /// Seconds since 1970 UTC; null while it runs.
    ended_at: Option<f64>,
}

impl From<JobRecord> for JobReply {
    fn from(record: JobRecord) -> Self {
        let JobRecord { id, kind, subject, status, error, note, begun_at, ended_at } = record;
        Self { id, kind, subject, status, error, note, begun_at, ended_at }
    }
}

/// A job, how far it is, and its losses.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobDetailsReply {
    #[serde(flatten)]
    job: JobReply,
    /// `step`, `total` (null for a training that runs until it is stopped) and `seconds_left` (null where unknown); null
    /// before the first step and after the end.
    #[schema(value_type = Option<Object>)]
    progress: Option<JobProgress>,
    /// The loss curve of a training: `step`, `loss` and its `parts` by name. A long one is thinned evenly.
    #[schema(value_type = Vec<Object>)]
    losses: Vec<LossPoint>,
}

impl From<JobDetails> for JobDetailsReply {
    fn from(details: JobDetails) -> Self {
        Self { job: details.record.into(), progress: details.progress, losses: details.losses }
    }
}

/// The jobs, newest first
#[utoipa::path(
    get, path = "/v1/jobs", tag = "v1", params(JobsQuery),
    responses((status = 200, body = Vec<JobReply>), (status = 400, description = "A wrong filter"))
)]
pub(crate) async fn list(
    State(api): State<V1Api>,
    Query(query): Query<JobsQuery>,
) -> Result<Reply<Vec<JobReply>>, ApiError> {
    let filter = filter(query)?;
    let jobs = blocking(move || Ok(api.runner.jobs().list(&filter)?)).await?;
    Ok(Reply(jobs.into_iter().map(JobReply::from).collect()))
}

fn filter(query: JobsQuery) -> Result<JobFilter, ApiError> {
    if let Some(name) = query.unknown.keys().next() {
        return Err(unknown_parameter(name, "limit, kind, status"));
    }
    let statuses = JobStatus::ALL.map(JobStatus::as_str);
    let status = |name: String| JobStatus::from_name(&name).ok_or_else(|| not_one_of("status", &name, &statuses));
    if let Some(kind) = query.kind.as_ref().filter(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(not_one_of("kind", kind, &KINDS));
    }
    Ok(JobFilter {
        limit: query.limit.map_or(Ok(DEFAULT_LIMIT), |value| limit(&value))?,
        kind: query.kind,
        status: query.status.map(status).transpose()?,
    })
}

fn limit(value: &str) -> Result<u32, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {MAX_LIMIT}, not {}", shown(&value.into()))))
}

/// The error for a query parameter that a route does not have.
pub(crate) fn unknown_parameter(name: &str, known: &str) -> ApiError {
    ApiError::bad_request(format!("unknown query parameter {}; known are {known}", shown(&name.into())))
}

fn not_one_of(what: &str, value: &str, names: &[&str]) -> ApiError {
    let value = shown(&value.into());
    ApiError::bad_request(format!("{what} must be one of {}, not {value}", names.join(", ")))
}

/// One job, with the loss curve of a training
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "v1", params(("id" = i64, Path, description = "The job's number")),
    responses((status = 200, body = JobDetailsReply), (status = 404, description = "There is no such job"))
)]
pub(crate) async fn get(State(api): State<V1Api>, Path(id): Path<String>) -> Result<Reply<JobDetailsReply>, ApiError> {
    let id = number(&id)?;
    Ok(Reply(blocking(move || Ok(api.runner.jobs().details(id)?)).await?.into()))
}

/// A job's record as it is now.
pub(crate) async fn record(api: &V1Api, id: i64) -> Result<JobReply, ApiError> {
    let jobs = api.runner.jobs().clone();
    Ok(blocking(move || Ok(jobs.details(id)?)).await?.record.into())
}

/// Cancel a job
///
/// Replies at once; the job ends within a second, and the request that started it answers `{"completed": false}`, or 409
/// where it makes a dataset.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "v1", params(("id" = i64, Path, description = "The job's number")),
    responses(
        (status = 202, body = JobReply, description = "It was asked to stop"),
        (status = 404, description = "There is no such job"),
        (status = 409, description = "It has ended already, or runs in another server process"),
    )
)]
pub(crate) async fn cancel(
    State(api): State<V1Api>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Reply<JobReply>), ApiError> {
    let id = number(&id)?;
    let record = blocking(move || Ok(api.runner.jobs().cancel(id)?)).await?;
    Ok((StatusCode::ACCEPTED, Reply(record.into())))
}

fn number(id: &str) -> Result<i64, ApiError> {
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, format!("there is no job {}", shown(&id.into())));
    id.parse().map_err(|_| unknown())
}
