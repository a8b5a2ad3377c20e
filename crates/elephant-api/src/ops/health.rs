//! Whether the process lives, and whether it can work.

use axum::{Json as Reply, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Services, job::blocking, problem::Problem};

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Whether the process answers
#[utoipa::path(get, path = "/health/livez", tag = "ops", responses((status = 200, body = Health)))]
pub(crate) async fn live() -> Reply<Health> {
    Reply(Health { status: "ok" })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: &'static str,
    /// Where state and job records are kept.
    state: String,
    /// The message broker: `off`, `connecting`, `connected` or `down: ` and why. Jobs and requests do not need it.
    #[schema(example = "connected")]
    broker: String,
}

/// Whether the server can take work: its state and its workspace can be reached
///
/// While Redis is away, where the state is kept there, the reply is 503; jobs that run go on.
#[utoipa::path(
    get, path = "/health/readyz", tag = "ops",
    responses((status = 200, body = Readiness), (status = 503, description = "What is missing"))
)]
pub(crate) async fn ready(State(services): State<Services>) -> Result<Reply<Readiness>, Problem> {
    let unavailable =
        |error: String| Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}"));
    blocking(move || {
        let store = services.jobs.store();
        store.check().map_err(|error| unavailable(error.to_string()))?;
        elephant_fs::free_bytes(services.workspace.path()).map_err(|error| unavailable(error.to_string()))?;
        Ok(Reply(Readiness { status: "ok", state: store.description(), broker: services.broker.to_string() }))
    })
    .await
}
