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

/// Whether the server can take work: its state database and workspace can be read
#[utoipa::path(
    get, path = "/health/readyz", tag = "ops",
    responses((status = 200, body = Health), (status = 503, description = "What is missing"))
)]
pub(crate) async fn ready(State(services): State<Services>) -> Result<Reply<Health>, Problem> {
    let unavailable =
        |error: String| Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}"));
    blocking(move || {
        services.jobs.store().check().map_err(|error| unavailable(error.to_string()))?;
        elephant_fs::free_bytes(services.workspace.path()).map_err(|error| unavailable(error.to_string()))?;
        Ok(Reply(Health { status: "ok" }))
    })
    .await
}
