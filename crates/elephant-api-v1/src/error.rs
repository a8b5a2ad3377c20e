//! The form of this interface's errors.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use elephant_api_core::ApiError;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Why a request was refused or has failed.
#[derive(Serialize, ToSchema)]
pub(crate) struct V1Error {
    /// The status in snake case, for programs.
    #[schema(example = "not_found")]
    code: String,
    /// What is wrong and what to do, for users.
    message: String,
    #[serde(flatten)]
    #[schema(ignore)]
    details: Map<String, Value>,
}

pub(crate) fn render(error: &ApiError) -> Response {
    let body = V1Error { code: error.code(), message: error.message().into(), details: error.details().clone() };
    (error.status(), Json(body)).into_response()
}
