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
    middleware::map_response,
    routing::{get, post},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{MAX_FILE_BYTES, Services, problem::show_error_of_400};

/// The current routes, documented.
pub(crate) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(gpus::list))
        .routes(routes!(process::get, process::set))
        .routes(routes!(params::get, params::set))
        .routes(routes!(dataset::generate))
        .routes(routes!(predict::predict))
        .merge(routes_that_show_error_of_400())
        .merge(streamed_routes())
        .routes(routes!(model::download))
}

fn routes_that_show_error_of_400() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(dataset::check))
        .routes(routes!(update::update))
        .routes(routes!(train::train))
        .layer(map_response(show_error_of_400))
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
    let streamed = Router::new()
        .route("/upload", post(upload::image))
        .route("/reset/seg", post(model::reset))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES));
    let that_show_error_of_400 = Router::new()
        .route("/update/seg", post(update::update))
        .route("/train/seg", post(train::train))
        .layer(map_response(show_error_of_400));
    Router::new()
        .merge(streamed)
        .merge(that_show_error_of_400)
        .route("/gpus", get(gpus::list))
        .route("/state", get(process::get).post(process::set))
        .route("/params/", get(params::get).post(params::set))
        .route("/predict/seg", post(predict::predict))
        .route("/model/download", post(model::download))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::testing::assert_unknown_fields_take_no_memory;

    #[test]
    fn bodies_keep_no_field_that_they_do_not_know() {
        assert_unknown_fields_take_no_memory::<dataset::CheckRequest>();
        assert_unknown_fields_take_no_memory::<dataset::GenerateRequest>();
        assert_unknown_fields_take_no_memory::<model::DownloadBody>();
        assert_unknown_fields_take_no_memory::<model::ResetBody>();
        assert_unknown_fields_take_no_memory::<params::ParamsRequest>();
        assert_unknown_fields_take_no_memory::<predict::PredictBody>();
        assert_unknown_fields_take_no_memory::<process::ProcessRequest>();
        assert_unknown_fields_take_no_memory::<spots::SpotBody>();
        assert_unknown_fields_take_no_memory::<train::TrainBody>();
        assert_unknown_fields_take_no_memory::<update::UpdateBody>();
    }
}
