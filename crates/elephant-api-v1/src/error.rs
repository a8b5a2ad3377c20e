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
    /// For programs: the status in words, in snake case.
    #[schema(example = "not_found")]
    code: String,
    /// For people: what is wrong and what to do.
    message: String,
    #[serde(flatten)]
    #[schema(ignore)]
    details: Map<String, Value>,
}

pub(crate) fn render(error: &ApiError) -> Response {
    let body = V1Error { code: error.code(), message: error.message().into(), details: error.details().clone() };
    (error.status(), Json(body)).into_response()
}
