//! The protocol of the original ELEPHANT server (docs/protocol.md): what the Java client calls, the routes of its
//! earlier versions, its bodies, its statuses and its texts, also those in the status line.
//!
//! A handler parses its request, runs one use case of `elephant-pipeline` as a job, and returns the result. Vectors in x, y,
//! z order exist only here.
//!
//! Not here: use cases, other protocols, and what families have in common (`elephant-api-core`).

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod dataset;
mod error;
mod flow;
mod gpus;
mod job;
mod masks;
mod model;
mod number;
mod params;
mod predict;
mod process;
mod spots;
mod status_line;
mod train;
mod update;
mod upload;
mod vector;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    middleware::map_response,
    routing::{get, post},
};
use elephant_api_core::{Devices, Family, LargeBodies, MAX_FILE_BYTES};
use elephant_jobs::JobRunner;
use elephant_pipeline::UseCases;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use error::show_error_of_400;

/// What the handlers need. Clones share state.
#[derive(Clone)]
pub struct ElephantApi {
    use_cases: UseCases,
    runner: JobRunner,
    devices: Arc<dyn Devices>,
    large_bodies: LargeBodies,
}

impl FromRef<ElephantApi> for LargeBodies {
    fn from_ref(api: &ElephantApi) -> Self {
        api.large_bodies.clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    components(schemas(error::ElephantError)),
    tags(
        (name = "state", description = "What the server is doing and on which device"),
        (name = "dataset", description = "Movies and the stores made from them"),
        (name = "seg", description = "Detection of cells and the models for it"),
        (name = "flow", description = "Displacements of cells between frames and the models for them"),
    )
)]
struct Document;

impl ElephantApi {
    /// The protocol over these use cases, whose jobs `runner` runs. `large_bodies` is shared by all families.
    pub fn new(use_cases: UseCases, runner: JobRunner, devices: Arc<dyn Devices>, large_bodies: LargeBodies) -> Self {
        Self { use_cases, runner, devices, large_bodies }
    }

    /// Its routes. Paths that belong to no other family are answered in its form.
    pub fn family(self) -> Family {
        Family {
            prefix: "",
            routes: OpenApiRouter::with_openapi(Document::openapi()).merge(routes()).with_state(self.clone()),
            undocumented: old_routes().with_state(self),
            render: error::render,
            error_schema: "ElephantError",
        }
    }
}

/// The current routes, documented.
fn routes() -> OpenApiRouter<ElephantApi> {
    OpenApiRouter::new()
        .routes(routes!(gpus::list))
        .routes(routes!(process::get, process::set))
        .routes(routes!(params::get, params::set))
        .routes(routes!(dataset::generate))
        .routes(routes!(predict::predict))
        .routes(routes!(flow::predict))
        .routes(routes!(masks::download))
        .merge(routes_that_show_error_of_400())
        .merge(streamed_routes())
        .routes(routes!(model::download))
}

fn routes_that_show_error_of_400() -> OpenApiRouter<ElephantApi> {
    OpenApiRouter::new()
        .routes(routes!(dataset::check))
        .routes(routes!(update::update))
        .routes(routes!(train::train))
        .routes(routes!(flow::update))
        .routes(routes!(flow::train))
        .layer(map_response(show_error_of_400))
}

/// Routes whose bodies bring files, which go to the disk.
fn streamed_routes() -> OpenApiRouter<ElephantApi> {
    OpenApiRouter::new()
        .routes(routes!(upload::image))
        .routes(routes!(model::reset))
        .routes(routes!(flow::reset))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
}

/// The same handlers under the names of servers 0.1 to 0.3 (docs/protocol.md, "Routes of earlier versions"), and
/// `/params/`, which the client calls without its slash.
fn old_routes() -> Router<ElephantApi> {
    let streamed = Router::new()
        .route("/upload", post(upload::image))
        .route("/reset/seg", post(model::reset))
        .route("/reset/flow", post(flow::reset))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES));
    let that_show_error_of_400 = Router::new()
        .route("/update/seg", post(update::update))
        .route("/train/seg", post(train::train))
        .route("/update/flow", post(flow::update))
        .route("/train/flow", post(flow::train))
        .layer(map_response(show_error_of_400));
    Router::new()
        .merge(streamed)
        .merge(that_show_error_of_400)
        .route("/gpus", get(gpus::list))
        .route("/state", get(process::get).post(process::set))
        .route("/params/", get(params::get).post(params::set))
        .route("/predict/seg", post(predict::predict))
        .route("/predict/flow", post(flow::predict))
        .route("/export/ctc", post(masks::download))
        .route("/model/download", post(model::download))
}

#[cfg(test)]
mod tests {
    use elephant_api_core::testing::assert_unknown_fields_take_no_memory;

    use super::*;

    #[test]
    fn bodies_keep_no_field_that_they_do_not_know() {
        assert_unknown_fields_take_no_memory::<dataset::CheckRequest>();
        assert_unknown_fields_take_no_memory::<dataset::GenerateRequest>();
        assert_unknown_fields_take_no_memory::<flow::FlowSpotBody>();
        assert_unknown_fields_take_no_memory::<flow::LinkBody>();
        assert_unknown_fields_take_no_memory::<flow::PredictBody>();
        assert_unknown_fields_take_no_memory::<flow::TrainBody>();
        assert_unknown_fields_take_no_memory::<flow::UpdateBody>();
        assert_unknown_fields_take_no_memory::<model::DownloadBody>();
        assert_unknown_fields_take_no_memory::<model::ResetBody>();
        assert_unknown_fields_take_no_memory::<masks::CellBody>();
        assert_unknown_fields_take_no_memory::<masks::MasksBody>();
        assert_unknown_fields_take_no_memory::<params::ParamsRequest>();
        assert_unknown_fields_take_no_memory::<predict::PredictBody>();
        assert_unknown_fields_take_no_memory::<process::ProcessRequest>();
        assert_unknown_fields_take_no_memory::<spots::SpotBody>();
        assert_unknown_fields_take_no_memory::<train::TrainBody>();
        assert_unknown_fields_take_no_memory::<update::UpdateBody>();
    }
}
