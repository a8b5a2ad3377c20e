//! The one place where errors become HTTP.
//!
//! A body is `{"error": …, "message": …}`: the ELEPHANT client reads the first, tools written for the original's
//! framework the second. The client shows the body's `error` for status 500 only and the status line's text otherwise, so
//! that text carries the reason too.

use axum::{
    Json,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use elephant_types::{Coded, ErrorCode};
use serde_json::{Map, Value};

use crate::status_line::reason_phrase;

/// An error as it is told to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    message: String,
    /// Keys that only one of the original's routes has.
    extra: Map<String, Value>,
    /// Seconds after which it may be worth trying again.
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), extra: Map::new(), retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A value from outside as a message can show it: its beginning.
    pub(crate) fn shown(value: &Value) -> String {
        const MAX_CHARS: usize = 100;
        let text = value.to_string();
        match text.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    /// Tells callers when to try again.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The message again under another key, as some of the original's routes have it.
    pub(crate) fn also_as(mut self, key: &str) -> Self {
        self.extra.insert(key.to_owned(), self.message.clone().into());
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl<E: Coded> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::new(status(error.code()), error.to_string())
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Cancelled | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), error = self.message, "request failed");
        } else {
            tracing::info!(status = self.status.as_u16(), error = self.message, "request refused");
        }
        let reason = reason_phrase(&self.message);
        let mut body = self.extra;
        body.insert("error".into(), self.message.clone().into());
        body.insert("message".into(), self.message.into());
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().extend(
            reason
                .map(|reason| {
                    let mut extensions = axum::http::Extensions::new();
                    extensions.insert(reason);
                    extensions
                })
                .unwrap_or_default(),
        );
        response
    }
}

pub(crate) async fn no_such_route(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {method} {} on this server; see /docs", uri.path()))
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not answer to {method}; see /docs", uri.path()))
}
