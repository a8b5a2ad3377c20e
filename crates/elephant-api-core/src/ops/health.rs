//! Whether the process lives, and whether it can work.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Json as Reply, extract::State, http::StatusCode};
use elephant_jobs::Jobs;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Devices, Operations};
use crate::{ApiError, blocking};

pub(super) fn routes(operations: &Operations) -> OpenApiRouter {
    let checks = Checks { operations: operations.clone(), is_ready: Arc::new(AtomicBool::new(true)) };
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).with_state(checks)
}

#[derive(Clone)]
struct Checks {
    operations: Operations,
    /// What the last check found, so that a change is logged once.
    is_ready: Arc<AtomicBool>,
}

#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Whether the process answers
#[utoipa::path(get, path = "/health/livez", tag = "ops", responses((status = 200, body = Health)))]
async fn live() -> Reply<Health> {
    Reply(Health { status: "ok" })
}

#[derive(Serialize, ToSchema)]
struct Readiness {
    status: &'static str,
    /// Where state and job records are kept.
    state: String,
    /// The message broker: `off`, `connecting`, `connected` or `down: ` and why. Jobs and requests do not need it.
    #[schema(example = "connected")]
    broker: String,
}

/// Whether the server can take work: its state, its workspace and its device can be used
///
/// While the state cannot be written, because the disk is full or Redis is unavailable, the reply is 503; jobs that run
/// continue. The check writes a few bytes.
#[utoipa::path(
    get, path = "/health/readyz", tag = "ops",
    responses((status = 200, body = Readiness), (status = 503, description = "What is missing"))
)]
async fn ready(State(checks): State<Checks>) -> Result<Reply<Readiness>, ApiError> {
    blocking(move || {
        let Operations { runner, workspace, devices, broker, .. } = &checks.operations;
        let checked = check(runner.jobs(), workspace, &**devices);
        let was_ready = checks.is_ready.swap(checked.is_ok(), Ordering::Relaxed);
        match checked {
            Ok(state) => {
                if !was_ready {
                    tracing::info!("ready again");
                }
                Ok(Reply(Readiness { status: "ok", state, broker: broker() }))
            }
            Err(reason) => {
                if was_ready {
                    tracing::warn!(reason, "not ready");
                }
                let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}"));
                Err(error.already_logged())
            }
        }
    })
    .await
}

/// Where the state is kept, or what is missing.
fn check(jobs: &Jobs, workspace: &Path, devices: &dyn Devices) -> Result<String, String> {
    jobs.check().map_err(|error| error.to_string())?;
    elephant_fs::free_bytes(workspace).map_err(|error| error.to_string())?;
    devices.health()?;
    Ok(jobs.store().description())
}

#[cfg(test)]
mod tests {
    use elephant_jobs::{Owner, SqliteStore};

    use super::*;
    use crate::Device;

    struct Stopped(bool);

    impl Devices for Stopped {
        fn list(&self) -> Vec<Device> {
            Vec::new()
        }

        fn health(&self) -> Result<(), String> {
            if self.0 { Err("the device has stopped".into()) } else { Ok(()) }
        }
    }

    #[test]
    fn state_workspace_and_device_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db")).unwrap();
        let jobs = Jobs::open(store, Owner::new("test")).unwrap();
        assert_eq!(check(&jobs, folder.path(), &Stopped(false)), Ok("SQLite".into()));
        assert_eq!(check(&jobs, folder.path(), &Stopped(true)), Err("the device has stopped".into()));
        assert!(check(&jobs, &folder.path().join("gone"), &Stopped(false)).is_err());
    }
}
