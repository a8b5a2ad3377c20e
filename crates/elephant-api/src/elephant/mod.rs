//! The ELEPHANT server's own protocol (contract sections 1 and 3): what the Java client calls, and the routes of its
//! earlier versions.

mod dataset;
mod gpus;
mod model;
mod params;
mod predict;
mod process;
mod spots;
mod train;
mod update;
mod upload;
mod vector;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{MAX_FILE_BYTES, Services};

/// The current routes, documented.
pub(crate) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(gpus::list))
        .routes(routes!(process::get, process::set))
        .routes(routes!(params::get, params::set))
        .routes(routes!(dataset::check))
        .routes(routes!(dataset::generate))
        .routes(routes!(predict::predict))
        .routes(routes!(update::update))
        .routes(routes!(train::train))
        .merge(streamed_routes())
        .routes(routes!(model::download))
}

/// Routes whose bodies bring files, which go to the disk.
fn streamed_routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(upload::image))
        .routes(routes!(model::reset))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
}

/// The same handlers under the names of servers 0.1 to 0.3 (contract section 1.17), and `/params/`, which the client
/// calls without its slash.
pub(crate) fn old_routes() -> Router<Services> {
    Router::new()
        .route("/upload", post(upload::image))
        .route("/reset/seg", post(model::reset))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
        .route("/gpus", get(gpus::list))
        .route("/state", get(process::get).post(process::set))
        .route("/params/", get(params::get).post(params::set))
        .route("/predict/seg", post(predict::predict))
        .route("/update/seg", post(update::update))
        .route("/train/seg", post(train::train))
        .route("/model/download", post(model::download))
}
