//! Errors on their way to a caller, before a family gives them a body.

use axum::{
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use elephant_types::{Coded, ErrorCode};
use serde_json::{Map, Value};

/// Why a request is refused or has failed.
///
/// As a response it has its status and, among the response's extensions, itself: the family that the path belongs to makes
/// the body of it ([`Family::render`](crate::Family::render)). It is logged when it becomes a response, once.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    brief: Option<String>,
    details: Box<Map<String, Value>>,
    retry_after: Option<u32>,
    is_logged: bool,
}

impl ApiError {
    /// An error with this status. The message says what is wrong and what to do.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            brief: None,
            details: Box::default(),
            retry_after: None,
            is_logged: false,
        }
    }

    /// A request that is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A failure of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Sets the message for places with one line: at most some 60 characters, names last.
    #[must_use]
    pub fn in_short(self, brief: impl Into<String>) -> Self {
        Self { brief: Some(brief.into()), ..self }
    }

    /// Adds a field that only some routes have.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Marks the error as logged already.
    #[must_use]
    pub fn already_logged(self) -> Self {
        Self { is_logged: true, ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message for one line, where the message is long and its first clause does not say enough.
    pub fn brief(&self) -> Option<&str> {
        self.brief.as_deref()
    }

    /// Fields that only some routes have.
    pub fn details(&self) -> &Map<String, Value> {
        &self.details
    }

    /// The error's name for programs: the status in words, in snake case.
    pub fn code(&self) -> String {
        self.status.canonical_reason().unwrap_or("error").to_ascii_lowercase().replace([' ', '-'], "_")
    }
}

/// A value from outside as a message can show it: its beginning.
pub fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl<E: Coded> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self {
            brief: error.brief(),
            retry_after: error.retry_after(),
            ..Self::new(status(error.code()), error.to_string())
        }
    }
}

/// The one place where error codes become statuses.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Cancelled | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, message, .. } = &self;
        match (self.is_logged, status.is_server_error()) {
            (true, _) => {}
            (false, true) => tracing::error!(status = status.as_u16(), error = message, "request failed"),
            (false, false) => tracing::info!(status = status.as_u16(), error = message, "request refused"),
        }
        let mut response = status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let message = format!("there is no {method} {path} on this server; see /docs");
    ApiError::new(StatusCode::NOT_FOUND, message).in_short(format!("not on this server (see /docs): {path}"))
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not answer to {method}; see /docs"))
        .in_short(format!("{method} is not answered here (see /docs): {path}"))
}
