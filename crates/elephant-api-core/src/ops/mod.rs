//! What an administrator needs: health, metrics, events of all jobs, documentation.

mod events;
mod health;
mod log;
mod metrics;

use std::{path::PathBuf, sync::Arc};

use axum::{Router, extract::FromRef, response::Redirect, routing::get};
use elephant_jobs::JobRunner;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

pub use events::EventFeed;
pub(crate) use log::log_request;
pub use metrics::MetricsHandle;
pub(crate) use metrics::{count_request, metrics_route};

/// A device that networks may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number, or a sentence in its place.
    pub id: String,
    /// Its name, or a sentence in its place.
    pub name: String,
    /// Memory in MiB.
    pub total_mib: u64,
    /// Memory in use, in MiB.
    pub used_mib: u64,
}

/// The devices of this machine.
pub trait Devices: Send + Sync + 'static {
    /// The devices, at least one. May take some milliseconds.
    fn list(&self) -> Vec<Device>;

    /// Whether the device of the network takes work. Must not wait.
    ///
    /// # Errors
    /// Why not.
    fn health(&self) -> Result<(), String>;
}

/// What the routes for administrators need. Clones share state.
#[derive(Clone)]
pub struct Operations {
    /// The jobs.
    pub runner: JobRunner,
    /// The workspace's folder.
    pub workspace: PathBuf,
    /// The devices.
    pub devices: Arc<dyn Devices>,
    /// Says how the message broker is: `off`, `connecting`, `connected` or `down: ` and why.
    pub broker: Arc<dyn Fn() -> String + Send + Sync>,
    /// Ends the streams of events.
    pub closing: CancellationToken,
    /// The kinds of jobs that are counted.
    pub kinds: &'static [&'static str],
    /// The queues whose waiting jobs are counted.
    pub queues: &'static [&'static str],
}

impl FromRef<Operations> for EventFeed {
    fn from_ref(operations: &Operations) -> Self {
        Self::new(operations.runner.jobs(), operations.closing.clone())
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(tags((name = "ops", description = "For administrators")))]
struct Tags;

pub(crate) fn routes(operations: Operations) -> OpenApiRouter {
    OpenApiRouter::with_openapi(<Tags as utoipa::OpenApi>::openapi()).merge(health::routes(&operations)).merge(
        OpenApiRouter::new().routes(routes!(events::stream)).routes(routes!(events::socket)).with_state(operations),
    )
}

/// The OpenAPI document and its browser; the root leads there, as the original's does.
pub(crate) fn documentation(document: utoipa::openapi::OpenApi) -> Router {
    Router::from(SwaggerUi::new("/docs").url("/swagger.json", document))
        .route("/", get(async || Redirect::temporary("/docs/")))
}
