//! `/api/v1/jobs`: what ran, what runs, and how to stop it.

use axum::{
    Json as Reply,
    extract::{Path, Query, State},
    http::StatusCode,
};
use elephant_jobs::{JobDetails, JobFilter, JobKind, JobProgress, JobRecord, JobStatus, LossPoint};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{Services, job::blocking, problem::Problem};

/// As many as are remembered.
const MAX_LIMIT: u32 = 10_000;
const DEFAULT_LIMIT: u32 = 100;

/// What a list of jobs may be asked for; for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the values are read one by one, for clear errors")]
pub(crate) struct JobsQuery {
    /// At most so many, the newest; 1 to 10000.
    #[param(default = 100)]
    limit: Option<u32>,
    /// `generate`, `predict`, `reset`, `update` or `train`.
    kind: Option<String>,
    /// `running`, `completed`, `cancelled`, `failed` or `interrupted`.
    status: Option<String>,
}

/// A job.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobReply {
    /// Counts up from 1.
    id: i64,
    /// `generate`, `predict`, `reset`, `update` or `train`.
    kind: String,
    /// The dataset or model it works on.
    subject: String,
    /// `running`, `completed`, `cancelled`, `failed`, or `interrupted` when the server was killed meanwhile.
    status: String,
    /// Why it failed.
    error: Option<String>,
    /// What whoever asked should know, such as where a model came from.
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
    get, path = "/api/v1/jobs", tag = "ops", params(JobsQuery),
    responses((status = 200, body = Vec<JobReply>), (status = 400, description = "A wrong filter"))
)]
pub(crate) async fn list(
    State(services): State<Services>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Reply<Vec<JobReply>>, Problem> {
    let filter = filter(&query)?;
    let jobs = blocking(move || Ok(services.jobs.list(filter)?)).await?;
    Ok(Reply(jobs.into_iter().map(JobReply::from).collect()))
}

fn filter(query: &[(String, String)]) -> Result<JobFilter, Problem> {
    let mut filter = JobFilter::newest(DEFAULT_LIMIT);
    for (name, value) in query {
        match name.as_str() {
            "limit" => filter.limit = limit(value)?,
            "kind" => {
                let kind = JobKind::from_name(value);
                filter.kind = Some(kind.ok_or_else(|| not_one_of("kind", value, &JobKind::ALL.map(JobKind::as_str)))?);
            }
            "status" => {
                let names = JobStatus::ALL.map(JobStatus::as_str);
                filter.status = Some(JobStatus::from_name(value).ok_or_else(|| not_one_of("status", value, &names))?);
            }
            _ => return Err(not_one_of("the query", name, &["limit", "kind", "status"])),
        }
    }
    Ok(filter)
}

fn limit(value: &str) -> Result<u32, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        Problem::bad_request(format!("limit must be 1 to {MAX_LIMIT}, not {}", Problem::shown(&value.into())))
    })
}

fn not_one_of(what: &str, value: &str, names: &[&str]) -> Problem {
    let value = Problem::shown(&value.into());
    Problem::bad_request(format!("{what} must be one of {}, not {value}", names.join(", ")))
}

/// One job, with the loss curve of a training
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", tag = "ops", params(("id" = i64, Path, description = "The job's number")),
    responses((status = 200, body = JobDetailsReply), (status = 404, description = "There is no such job"))
)]
pub(crate) async fn get(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Reply<JobDetailsReply>, Problem> {
    let id = number(&id)?;
    Ok(Reply(blocking(move || Ok(services.jobs.details(id)?)).await?.into()))
}

/// Cancel a job
///
/// Replies at once; the job ends within a second, and the request that started it answers `{"completed": false}`, or 409
/// where it makes a dataset.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{id}", tag = "ops", params(("id" = i64, Path, description = "The job's number")),
    responses(
        (status = 202, body = JobReply, description = "It was asked to stop"),
        (status = 404, description = "There is no such job"),
        (status = 409, description = "It has ended already, or runs in another server process"),
    )
)]
pub(crate) async fn cancel(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Reply<JobReply>), Problem> {
    let id = number(&id)?;
    let record = blocking(move || Ok(services.jobs.cancel(id)?)).await?;
    Ok((StatusCode::ACCEPTED, Reply(record.into())))
}

fn number(id: &str) -> Result<i64, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, format!("there is no job {}", Problem::shown(&id.into())));
    id.parse().map_err(|_| unknown())
}
