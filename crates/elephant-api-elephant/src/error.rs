//! The form of errors that the ELEPHANT client reads.
//!
//! A body is `{"error": …, "message": …}`: the client reads the first, tools written for the original's framework the
//! second. For status 500, and on some routes for 400 ([`show_error_of_400`]), the client shows "status line's text:
//! error", for all others the status line's text alone. So that text is the standard one there, and the reason, in short,
//! elsewhere: its user reads each reason once.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use elephant_api_core::ApiError;
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::status_line::reason_phrase;

/// Why a request was refused or has failed. The status line says it too, in short.
#[derive(Serialize, ToSchema)]
pub(crate) struct ElephantError {
    error: String,
    /// The same text.
    message: String,
    /// Fields that some of the original's routes have.
    #[serde(flatten)]
    #[schema(ignore)]
    details: Map<String, Value>,
}

/// The reply of an error.
pub(crate) fn render(error: &ApiError) -> Response {
    let message = error.message();
    let body = ElephantError { error: message.into(), message: message.into(), details: error.details().clone() };
    let mut response = (error.status(), Json(body)).into_response();
    if error.status() != StatusCode::INTERNAL_SERVER_ERROR
        && let Some(reason) = reason_phrase(message, error.brief())
    {
        response.extensions_mut().insert(reason);
    }
    response
}

/// For routes whose `error` the client shows after the status line's text for 400 too: leaves the standard text there.
pub(crate) async fn show_error_of_400(response: Response) -> Response {
    if response.status() != StatusCode::BAD_REQUEST {
        return response;
    }
    let mut response = match response.extensions().get::<ApiError>() {
        Some(error) => render(error),
        None => response,
    };
    response.extensions_mut().remove::<ReasonPhrase>();
    response
}
