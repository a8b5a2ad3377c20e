//! Whether the process lives, and whether it can work.

use std::path::Path;

use axum::{Json as Reply, extract::State, http::StatusCode};
use elephant_jobs::StateStore;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Services, job::blocking, problem::Problem, services::DeviceHealth};

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

/// Whether the server can take work: its state, its workspace and its device can be used
///
/// While Redis is away, where the state is kept there, the reply is 503; jobs that run go on.
#[utoipa::path(
    get, path = "/health/readyz", tag = "ops",
    responses((status = 200, body = Readiness), (status = 503, description = "What is missing"))
)]
pub(crate) async fn ready(State(services): State<Services>) -> Result<Reply<Readiness>, Problem> {
    blocking(move || {
        let (store, workspace) = (services.jobs.store(), services.workspace.path());
        let state = check(store, workspace, &services.device)
            .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}")))?;
        Ok(Reply(Readiness { status: "ok", state, broker: services.broker.to_string() }))
    })
    .await
}

/// Where the state is kept, or what is missing.
fn check(store: &dyn StateStore, workspace: &Path, device: &DeviceHealth) -> Result<String, String> {
    store.check().map_err(|error| error.to_string())?;
    elephant_fs::free_bytes(workspace).map_err(|error| error.to_string())?;
    device.check()?;
    Ok(store.description())
}

#[cfg(test)]
mod tests {
    use elephant_jobs::SqliteStore;

    use super::*;

    #[test]
    fn state_workspace_and_device_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db")).unwrap();
        let works = DeviceHealth::new(|| Ok(()));
        assert_eq!(check(&store, folder.path(), &works), Ok(store.description()));
        let stopped = DeviceHealth::new(|| Err("the device has stopped".into()));
        assert_eq!(check(&store, folder.path(), &stopped), Err("the device has stopped".into()));
        assert!(check(&store, &folder.path().join("gone"), &works).is_err());
    }
}
