//! The project's own HTTP interface, `/v1`: jobs, their events, models, datasets and projects.
//!
//! Any request of the use cases is submitted as JSON in the form of [`Task`](elephant_pipeline::Task), and becomes a job.
//! Vectors are in z, y, x order. Errors are `{"code": …, "message": …}`. The paths of `/api/v1`, where parts of this were
//! before, are answered too.
//!
//! Not here: the protocol of another program, and use cases.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod datasets;
mod error;
mod examples;
mod jobs;
mod models;
mod operations;
mod projects;
mod quality;
mod query;
mod spots;
mod submit;

use axum::{
    Router,
    extract::{FromRef, State, WebSocketUpgrade},
    response::Response,
    routing::{get, post},
};
use elephant_api_core::{ApiError, EventFeed, Family, LargeBodies};
use elephant_jobs::JobRunner;
use elephant_pipeline::UseCases;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the handlers need. Clones share state.
#[derive(Clone)]
pub struct V1Api {
    use_cases: UseCases,
    runner: JobRunner,
    events: EventFeed,
    large_bodies: LargeBodies,
}

impl FromRef<V1Api> for LargeBodies {
    fn from_ref(api: &V1Api) -> Self {
        api.large_bodies.clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    components(schemas(error::V1Error)),
    tags((name = "v1", description = "Jobs, their events, models, datasets and projects"))
)]
struct Document;

impl V1Api {
    /// The interface over these use cases, whose jobs `runner` runs. `large_bodies` is shared by all families.
    pub fn new(use_cases: UseCases, runner: JobRunner, events: EventFeed, large_bodies: LargeBodies) -> Self {
        Self { use_cases, runner, events, large_bodies }
    }

    /// Its routes.
    pub fn family(self) -> Family {
        Family {
            prefix: "/v1/",
            routes: documented_routes().with_state(self.clone()),
            undocumented: old_routes().with_state(self),
            render: error::render,
            error_schema: "V1Error",
        }
    }
}

fn documented_routes() -> OpenApiRouter<V1Api> {
    let mut routes = OpenApiRouter::with_openapi(Document::openapi()).merge(routes());
    examples::add_to(routes.get_openapi_mut());
    routes
}

fn routes() -> OpenApiRouter<V1Api> {
    OpenApiRouter::new()
        .routes(routes!(jobs::list, submit::submit))
        .routes(routes!(jobs::get, jobs::cancel))
        .routes(routes!(models::list))
        .routes(routes!(datasets::list))
        .routes(routes!(datasets::get))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::delete))
        .routes(routes!(projects::export))
        .routes(routes!(projects::import))
        .routes(routes!(projects::recover))
        .routes(routes!(spots::spots))
        .routes(routes!(spots::links))
        .routes(routes!(spots::lineage))
        .routes(routes!(quality::quality))
        .routes(routes!(operations::list, operations::append))
        .routes(routes!(operations::undo))
        .routes(routes!(operations::redo))
        .routes(routes!(events))
        .routes(routes!(socket))
}

/// The same handlers under `/api/v1`, where those of version 0.1 were. Their errors have the form of the family that has all other paths.
fn old_routes() -> Router<V1Api> {
    Router::new()
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{id}", get(jobs::get).delete(jobs::cancel))
        .route("/api/v1/models", get(models::list))
        .route("/api/v1/datasets", get(datasets::list))
        .route("/api/v1/datasets/{dataset}", get(datasets::get))
        .route("/api/v1/projects", get(projects::list).post(projects::create))
        .route("/api/v1/projects/{project}", get(projects::get).delete(projects::delete))
        .route("/api/v1/projects/{project}/export", get(projects::export))
        .route("/api/v1/projects/{project}/import", post(projects::import))
        .route("/api/v1/projects/{project}/recover", post(projects::recover))
        .route("/api/v1/projects/{project}/spots", get(spots::spots))
        .route("/api/v1/projects/{project}/links", get(spots::links))
        .route("/api/v1/projects/{project}/lineage", get(spots::lineage))
        .route("/api/v1/projects/{project}/quality", get(quality::quality))
        .route("/api/v1/projects/{project}/operations", get(operations::list).post(operations::append))
        .route("/api/v1/projects/{project}/undo", post(operations::undo))
        .route("/api/v1/projects/{project}/redo", post(operations::redo))
}

/// Events of all jobs
///
/// As `/events`.
#[utoipa::path(
    get, path = "/v1/events", tag = "v1",
    responses(
        (status = 200, description = "A stream without end", content_type = "text/event-stream"),
        (status = 503, description = "Too many listeners"),
    )
)]
async fn events(State(api): State<V1Api>) -> Result<Response, ApiError> {
    api.events.stream()
}

/// Events of all jobs over a WebSocket
///
/// As `/ws/events`.
#[utoipa::path(
    get, path = "/v1/ws", tag = "v1",
    responses(
        (status = 101, description = "A WebSocket"),
        (status = 400, description = "Not a WebSocket handshake"),
        (status = 503, description = "Too many listeners"),
    )
)]
async fn socket(State(api): State<V1Api>, upgrade: WebSocketUpgrade) -> Result<Response, ApiError> {
    api.events.socket(upgrade)
}
