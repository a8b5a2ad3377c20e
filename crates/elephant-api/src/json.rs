//! JSON bodies, read as the original's clients send them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{MAX_TEXT_BYTES, Services, job::blocking, problem::Problem};

/// The largest JSON body: almost a million of the client's spots.
const MAX_LARGE_BYTES: u64 = 256 << 20;
/// In what memory for large bodies is counted, in bytes.
const UNIT_BYTES: u64 = 1 << 20;
/// How long a client may take to begin a large body, and how fast it must send it.
const LARGE_BODY_TIMEOUT: Duration = Duration::from_mins(1);
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;

/// A JSON body. The content type may carry parameters; errors name the field.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        require_json(&request)?;
        parse(&text_body(request).await?).map(Self)
    }
}

/// Memory for large bodies: all of them together are no longer than the largest one.
#[derive(Clone)]
pub(crate) struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new((MAX_LARGE_BYTES / UNIT_BYTES) as usize)))
    }
}

impl LargeBodies {
    fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        let too_long = || {
            let message = format!("the body is longer than {} MiB; send fewer spots at once", MAX_LARGE_BYTES >> 20);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| too_long())?;
        if bytes > MAX_LARGE_BYTES {
            return Err(too_long());
        }
        self.0.clone().try_acquire_many_owned(units).map_err(|_| {
            let message = "the server is busy with other large requests; try again in a moment";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }
}

/// As [`Json`], for bodies that list spots and may be large. One that is must announce its length.
pub(crate) struct LargeJson<T> {
    pub(crate) value: T,
    /// As long as this is kept, so is the room for the body and what was made of it.
    pub(crate) _memory: Option<OwnedSemaphorePermit>,
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Services> for LargeJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, services: &Services) -> Result<Self, Problem> {
        let length = request.body().size_hint().lower();
        if length <= MAX_TEXT_BYTES as u64 {
            let Json(value) = Json::from_request(request, services).await?;
            return Ok(Self { value, _memory: None });
        }
        require_json(&request)?;
        let memory = services.large_bodies.reserve(length)?;
        let allowed = LARGE_BODY_TIMEOUT + Duration::from_secs(length / SLOWEST_BYTES_PER_SECOND);
        let reading = axum::body::to_bytes(request.into_body(), length as usize);
        let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        let text = tokio::time::timeout(allowed, reading).await.map_err(slow)?;
        let text = text.map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
        // Off the async threads: this takes seconds.
        let value = blocking(move || parse(&text)).await?;
        Ok(Self { value, _memory: Some(memory) })
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

fn require_json(request: &Request) -> Result<(), Problem> {
    if media_type(request) == "application/json" {
        return Ok(());
    }
    Err(Problem::bad_request("Content-Type should be application/json"))
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
        let reason = without_position(&inner);
        // Syntax errors have no field.
        if path == "." || inner.is_syntax() || inner.is_eof() {
            Problem::bad_request(format!("the body is not valid: {reason}"))
        } else {
            Problem::bad_request(format!("{path}: {reason}"))
        }
    })?;
    deserializer
        .end()
        .map_err(|error| Problem::bad_request(format!("the body is not valid JSON: {}", without_position(&error))))?;
    Ok(value)
}

/// What is wrong, without "at line 1 column 27": whoever reads it in the client has not written the JSON.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use elephant_types::DatasetName;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Request {
        #[expect(dead_code, reason = "only parsed")]
        dataset_name: DatasetName,
        #[expect(dead_code, reason = "only parsed")]
        timepoint: u32,
    }

    #[test]
    fn errors_name_the_field_and_no_position() {
        for (text, expected) in [
            (
                r#"{"dataset_name": "/fly"}"#,
                "dataset_name: the dataset name \"/fly\" is absolute; give it relative to the workspace",
            ),
            (r#"{"dataset_name": "fly", "timepoint": "x"}"#, "timepoint: invalid type: string \"x\", expected u32"),
            (r#"{"dataset_name": "fly"}"#, "the body is not valid: missing field `timepoint`"),
            (r#"{"dataset_name": "fly" "#, "the body is not valid: EOF while parsing an object"),
            (r#"{"dataset_name": fly}"#, "the body is not valid: expected ident"),
            (r#"{"dataset_name": "fly", "timepoint": 0} x"#, "the body is not valid JSON: trailing characters"),
        ] {
            assert_eq!(parse::<Request>(text.as_bytes()).unwrap_err().message(), expected, "{text}");
        }
    }
}
