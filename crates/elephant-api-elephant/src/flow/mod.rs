//! The routes of optical flow: displacements of cells between frames (docs/protocol.md, "POST /flow/predict",
//! "POST /flow/update", "POST /flow/train" and "POST /flow/reset").

mod predict;
mod train;
mod update;

use axum::{
    Json as Reply,
    extract::{Request, State},
};
use elephant_api_core::ApiError;
use elephant_types::NetworkTask;

pub(crate) use self::{
    predict::{__path_predict, predict},
    train::{__path_train, train},
    update::{__path_update, update},
};
#[cfg(test)]
pub(crate) use self::{
    predict::{FlowSpotBody, PredictBody},
    train::TrainBody,
    update::{LinkBody, UpdateBody},
};
use crate::{
    ElephantApi,
    model::{ResetBody, ResetReply, reset_model},
};

/// Replace a flow model
///
/// With a JSON body, or multipart with the JSON in `data` and a `.pth` file in `file`. A `url` of null gives random parameters;
/// the fields of images and crops are not used.
#[utoipa::path(
    post, path = "/flow/reset", tag = "flow", request_body = ResetBody, operation_id = "flow_reset",
    responses(
        (status = 200, body = ResetReply),
        (status = 400, description = "The file is not such a network, or a field is wrong; the old model stays"),
        (status = 413, description = "The file is larger than 256 MiB, or there is not enough memory"),
        (status = 500, description = "A training or reset is running"),
        (status = 503, description = "The file cannot be fetched, or the server is stopping"),
    )
)]
pub(crate) async fn reset(State(api): State<ElephantApi>, request: Request) -> Result<Reply<ResetReply>, ApiError> {
    reset_model(&api, request, NetworkTask::Flow).await
}
