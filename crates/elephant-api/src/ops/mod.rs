//! What an administrator needs: health, metrics, jobs and their progress, documentation.

mod events;
mod health;
mod jobs;
mod log;
mod metrics;
mod models;

use axum::{Router, response::Redirect, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::Services;

pub(crate) use log::log_request;
pub use metrics::MetricsHandle;
pub(crate) use metrics::{count_request, metrics_route};

pub(crate) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(events::stream))
        .routes(routes!(events::socket))
        .routes(routes!(models::list))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get, jobs::cancel))
}

/// The OpenAPI document and its browser; the root leads there, as the original's does.
pub(crate) fn documentation(document: utoipa::openapi::OpenApi) -> Router {
    Router::from(SwaggerUi::new("/docs").url("/swagger.json", document))
        .route("/", get(async || Redirect::temporary("/docs/")))
}
