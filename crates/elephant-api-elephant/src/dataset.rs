//! `/dataset`: whether a dataset is ready, and making it from its movie (docs/protocol.md, "POST /dataset/check" and
//! "POST /dataset/generate").

use axum::{
    Json as Reply,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, Json, blocking};
use elephant_pipeline::Generated;
use elephant_types::DatasetName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ElephantApi, job::run, number::Integer};

#[derive(Deserialize, ToSchema)]
pub(crate) struct CheckRequest {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String)]
    dataset_name: Option<DatasetName>,
    /// Timepoints and size in voxels: (t, z, y, x), or (t, y, x) in 2-D.
    #[schema(value_type = Vec<u64>)]
    shape: Option<Vec<Integer>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CheckReply {
    /// "ready", or what is wrong with the dataset and, on a line of its own, why making it failed the last time.
    message: String,
}

/// Whether a dataset is ready
///
/// The shape is what the next `/dataset/generate` has to give.
#[utoipa::path(
    post, path = "/dataset/check", tag = "dataset", request_body = CheckRequest,
    responses((status = 200, body = CheckReply), (status = 400, description = "A field is missing or wrong"))
)]
pub(crate) async fn check(
    State(api): State<ElephantApi>,
    Json(request): Json<CheckRequest>,
) -> Result<Reply<CheckReply>, ApiError> {
    let name = request.dataset_name.ok_or_else(|| ApiError::bad_request("dataset_name key is missing"))?;
    let shape = request.shape.ok_or_else(|| ApiError::bad_request("shape key is missing"))?;
    let shape: Option<Vec<usize>> = shape.into_iter().map(Integer::to_usize).collect();
    let shape = shape.ok_or_else(|| ApiError::bad_request("shape: every size must be 0 or more"))?;
    blocking(move || {
        Ok(Reply(CheckReply { message: elephant_pipeline::check(&api.use_cases.workspace, &name, &shape)? }))
    })
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct GenerateRequest {
    /// Below the workspace's `datasets`, where the movie must be.
    #[schema(value_type = String)]
    dataset_name: DatasetName,
    /// Whether the movie has one plane and the dataset shall be 2-D.
    #[serde(default)]
    is_2d: bool,
    /// 16 bits per voxel (true), 8 (false), or what the values need (absent).
    is_uint16: Option<bool>,
    /// Intensities are divided by this number.
    #[serde(default = "one")]
    divisor: f64,
    /// View setup (channel, angle) of the movie; when absent, the lowest one of its `.xml`, or else of its file.
    #[schema(value_type = u32)]
    #[serde(default)]
    setup: Option<Integer>,
    /// Resolution level of the movie; 0 is the full resolution.
    #[schema(value_type = u32)]
    #[serde(default)]
    level: Option<Integer>,
}

fn one() -> f64 {
    1.0
}

/// Make a dataset from its movie
///
/// Replies when the dataset is ready; `/events` has its progress. An old dataset is replaced, with its labels, when
/// the new one is complete. The movie is the one that was uploaded last, or else one that is in the dataset's folder.
/// Its timepoints become frames in their order, in the number that the last `/dataset/check` asked for.
#[utoipa::path(
    post, path = "/dataset/generate", tag = "dataset", request_body = GenerateRequest,
    responses(
        (status = 200, description = "The dataset is ready"),
        (status = 204, description = "There is no movie, or none that gives the shape of the last check: upload one and \
                                      try again. After an upload, and a second time, the reply is 400 with the reason"),
        (status = 400, description = "The movie or a field is wrong"),
        (status = 409, description = "The dataset is being made already; a prediction, a training or an update of its \
                                      labels uses it; or the generation was cancelled"),
        (status = 503, description = "The server is stopping"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn generate(
    State(api): State<ElephantApi>,
    Json(body): Json<GenerateRequest>,
) -> Result<Response, ApiError> {
    let index = |field: &str, value: Option<Integer>| {
        let index = value.map(|value| u32::try_from(value.0)).transpose();
        index.map_err(|_| ApiError::bad_request(format!("{field} must be 0 or more")))
    };
    let request = elephant_pipeline::GenerateRequest {
        dataset: body.dataset_name,
        setup: index("setup", body.setup)?,
        level: index("level", body.level)?.unwrap_or(0),
        is_uint16: body.is_uint16,
        divisor: body.divisor,
        is_2d: body.is_2d,
    };
    match run(&api, request, ()).await? {
        // The original's reply: an empty JSON string.
        Some(Generated::Ready(_)) => Ok(Reply("").into_response()),
        Some(Generated::NeedsMovie(_)) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(ApiError::new(StatusCode::CONFLICT, "the generation was cancelled")),
    }
}
