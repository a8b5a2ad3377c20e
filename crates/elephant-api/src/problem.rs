//! The one place where errors become HTTP.
//!
//! A body is `{"error": …, "message": …}`: the ELEPHANT client reads the first, tools written for the original's
//! framework the second. For status 500, and on some routes for 400 ([`show_error_of_400`]), the client shows "status line's
//! text: error", for all others the status line's text alone. So that text is the standard one there, and the reason, in
//! short, elsewhere: its user reads each reason once.

use axum::{
    Json,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use elephant_types::{Coded, ErrorCode};
use hyper::ext::ReasonPhrase;
use serde_json::{Map, Value};

use crate::status_line::reason_phrase;

/// An error as it is told to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    message: String,
    /// The message for one line, where it is long and its first clause does not say enough.
    brief: Option<String>,
    /// Keys that only one of the original's routes has.
    extra: Map<String, Value>,
    /// Seconds after which it may be worth trying again.
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), brief: None, extra: Map::new(), retry_after: None }
    }

    /// What the status line says when the message is too long for it: at most some 60 characters, names last.
    pub(crate) fn in_short(self, brief: impl Into<String>) -> Self {
        Self { brief: Some(brief.into()), ..self }
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
        Self { brief: error.brief(), ..Self::new(status(error.code()), error.to_string()) }
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
        let reason = match self.status {
            StatusCode::INTERNAL_SERVER_ERROR => None,
            _ => reason_phrase(&self.message, self.brief.as_deref()),
        };
        let mut body = self.extra;
        body.insert("error".into(), self.message.clone().into());
        body.insert("message".into(), self.message.into());
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        response
    }
}

/// For routes whose `error` the ELEPHANT client shows after the status line's text for 400 too: leaves the standard text
/// there.
pub(crate) async fn show_error_of_400(mut response: Response) -> Response {
    if response.status() == StatusCode::BAD_REQUEST {
        response.extensions_mut().remove::<ReasonPhrase>();
    }
    response
}

/// What the original has and this server has not, under the names of all versions, is refused in words that fit into
/// Mastodon.
pub(crate) async fn no_such_route(method: Method, uri: Uri) -> Problem {
    let message = match uri.path() {
        "/flow/predict" | "/flow/update" | "/flow/train" | "/flow/reset" | "/predict/flow" | "/update/flow"
        | "/train/flow" | "/reset/flow" => "no optical flow in this server; switch it off in the preferences".into(),
        "/download/ctc" | "/export/ctc" => "this server has no CTC export".into(),
        path => format!("there is no {method} {path} on this server; see /docs"),
    };
    Problem::new(StatusCode::NOT_FOUND, message).in_short(format!("not on this server (see /docs): {}", uri.path()))
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not answer to {method}; see /docs"))
        .in_short(format!("{method} is not answered here (see /docs): {path}"))
}
