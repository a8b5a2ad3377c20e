//! `/params`: training parameters that may change while training runs (docs/protocol.md, "POST /params").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, Json, blocking, shown};
use elephant_jobs::TrainingParameters;
use elephant_pipeline::{MAX_CROPS, MAX_LEARNING_RATE};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{ElephantApi, number::Integer};

#[derive(Serialize, ToSchema)]
pub(crate) struct ParamsReply {
    success: bool,
    /// Learning rate; null until one is set.
    lr: Option<f64>,
    /// Crops per timepoint and epoch; null until one is set.
    n_crops: Option<u32>,
}

impl ParamsReply {
    fn new(parameters: TrainingParameters) -> Reply<Self> {
        Reply(Self { success: true, lr: parameters.learning_rate, n_crops: parameters.crop_count })
    }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ParamsRequest {
    /// Learning rate, above 0 and at most 1.
    #[schema(value_type = Option<f64>)]
    lr: Option<Value>,
    /// Crops per timepoint and epoch, 1 to 1,000,000.
    #[schema(value_type = Option<u32>)]
    n_crops: Option<Value>,
}

/// The training parameters last set
#[utoipa::path(get, path = "/params", tag = "state", responses((status = 200, body = ParamsReply)))]
pub(crate) async fn get(State(api): State<ElephantApi>) -> Result<Reply<ParamsReply>, ApiError> {
    blocking(move || Ok(ParamsReply::new(api.use_cases.jobs.elephant().training_parameters()?))).await
}

/// Set training parameters, also while training runs
///
/// A training that runs takes them at its next step; a new one begins with the values of its own request.
#[utoipa::path(
    post, path = "/params", tag = "state", request_body = ParamsRequest,
    responses((status = 200, body = ParamsReply), (status = 400, description = "A value out of range"))
)]
pub(crate) async fn set(
    State(api): State<ElephantApi>,
    Json(request): Json<ParamsRequest>,
) -> Result<Reply<ParamsReply>, ApiError> {
    let learning_rate = request.lr.map(|value| {
        let rate = value.as_f64().filter(|rate| *rate > 0.0 && *rate <= MAX_LEARNING_RATE);
        rate.ok_or_else(|| ApiError::bad_request(format!("Invalid learning rate: {}", shown(&value))))
    });
    let crop_count = request.n_crops.map(|value| {
        let count = serde_json::from_value(value.clone()).ok();
        let count =
            count.and_then(|Integer(count)| u32::try_from(count).ok()).filter(|count| (1..=MAX_CROPS).contains(count));
        count.ok_or_else(|| ApiError::bad_request(format!("Invalid number of crops: {}", shown(&value))))
    });
    let parameters =
        TrainingParameters { learning_rate: learning_rate.transpose()?, crop_count: crop_count.transpose()? };
    blocking(move || Ok(ParamsReply::new(api.use_cases.jobs.set_training_parameters(parameters)?))).await
}
