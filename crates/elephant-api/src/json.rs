//! JSON bodies, read as the original's clients send them.

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::de::DeserializeOwned;

use crate::{MAX_TEXT_BYTES, problem::Problem};

/// A JSON body. The content type may carry parameters; errors name the field.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if media_type(&request) != "application/json" {
            return Err(Problem::bad_request("Content-Type should be application/json"));
        }
        parse(&text_body(request).await?).map(Self)
    }
}

/// A body that is text; also on routes that take large files.
pub(crate) async fn text_body(request: Request) -> Result<Bytes, Problem> {
    let too_long = || {
        let message = format!("the body cannot be read, or is longer than {} KiB", MAX_TEXT_BYTES >> 10);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let body = request.into_body();
    // Said before it is sent, where its length is announced.
    if body.size_hint().lower() > MAX_TEXT_BYTES as u64 {
        return Err(too_long());
    }
    axum::body::to_bytes(body, MAX_TEXT_BYTES).await.map_err(|_| too_long())
}

/// The content type without its parameters, in lower case; empty when there is none.
pub(crate) fn media_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a JSON object.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    // A list would be taken for an object's fields in order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad_request("the body is not a JSON object"));
    }
    let text = std::str::from_utf8(text).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // Syntax errors have no field.
        if path == "." || inner.is_syntax() || inner.is_eof() {
            Problem::bad_request(format!("the body is not valid: {inner}"))
        } else {
            Problem::bad_request(format!("{path}: {inner}"))
        }
    })?;
    deserializer.end().map_err(|error| Problem::bad_request(format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}
