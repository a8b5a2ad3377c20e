//! `/state/process`: what the server is doing, and the abort (docs/protocol.md, "POST /state/process").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, Json, blocking, shown};
use elephant_jobs::ProcessState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ElephantApi, number::Integer};

#[derive(Serialize, ToSchema)]
pub(crate) struct ProcessReply {
    success: bool,
    /// 0 idle, 1 training or resetting a model, 2 predicting or updating labels.
    state: i64,
}

impl ProcessReply {
    fn new(state: ProcessState) -> Reply<Self> {
        Reply(Self { success: true, state: state as i64 })
    }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ProcessRequest {
    /// 0 aborts every running and waiting prediction, training and reset; 1 and 2 are only remembered.
    #[schema(value_type = i64)]
    state: serde_json::Value,
}

/// What the server is doing
#[utoipa::path(get, path = "/state/process", tag = "state", responses((status = 200, body = ProcessReply)))]
pub(crate) async fn get(State(api): State<ElephantApi>) -> Result<Reply<ProcessReply>, ApiError> {
    blocking(move || Ok(ProcessReply::new(api.use_cases.jobs.elephant().process_state()?))).await
}

/// Abort what the server is doing
///
/// Replies at once; aborted requests answer `{"completed": false}` within a second.
#[utoipa::path(
    post, path = "/state/process", tag = "state", request_body = ProcessRequest,
    responses((status = 200, body = ProcessReply), (status = 400, description = "Not one of the states"))
)]
pub(crate) async fn set(
    State(api): State<ElephantApi>,
    Json(request): Json<ProcessRequest>,
) -> Result<Reply<ProcessReply>, ApiError> {
    let number = serde_json::from_value::<Integer>(request.state.clone()).ok();
    let state = number.and_then(|number| ProcessState::from_number(number.0));
    let state = state.ok_or_else(|| {
        let message = format!("Invalid state: {}", shown(&request.state));
        ApiError::bad_request(message.clone()).with_detail("res", message)
    })?;
    blocking(move || {
        match state {
            ProcessState::Idle => api.use_cases.jobs.abort(),
            state => api.use_cases.jobs.set_process_state(state)?,
        }
        Ok(ProcessReply::new(state))
    })
    .await
}
