//! JSON bodies, read as the original's clients send them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRef, FromRequest, Request},
    http::{StatusCode, header},
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{ApiError, MAX_TEXT_BYTES, blocking};

/// The largest JSON body: almost a million of the client's spots.
const MAX_LARGE_BYTES: u64 = 256 << 20;
/// In what memory for large bodies is counted, in bytes.
const UNIT_BYTES: u64 = 1 << 20;
/// How long a client may take to begin a large body, and how fast it must send it: faster than other bodies
/// (`body::SLOWEST_BYTES_PER_SECOND`), as it keeps the memory from others meanwhile.
const LARGE_BODY_TIMEOUT: Duration = Duration::from_mins(1);
const LARGE_BODY_BYTES_PER_SECOND: u64 = 256 << 10;

/// A JSON body. The content type may carry parameters; errors name the field.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        require_json(&request)?;
        parse(&text_body(request).await?).map(Self)
    }
}

/// Memory for large bodies: all of them together are no longer than the largest one. Clones share state.
#[derive(Clone, Debug)]
pub struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new((MAX_LARGE_BYTES / UNIT_BYTES) as usize)))
    }
}

impl LargeBodies {
    fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let too_long = || {
            let message = format!("the body is longer than {} MiB; send fewer spots at once", MAX_LARGE_BYTES >> 20);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| too_long())?;
        if bytes > MAX_LARGE_BYTES {
            return Err(too_long());
        }
        self.0.clone().try_acquire_many_owned(units).map_err(|_| {
            let message = "the server is busy with other large requests; try again in a moment";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }
}

/// Room for a large body and what was made of it. It belongs into the work with the body, which may go on when its caller,
/// and with it the handler, is gone.
#[must_use]
pub struct BodyMemory(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

/// As [`Json`], for bodies that list spots and may be large. One that is must announce its length.
pub struct LargeJson<T> {
    /// What was read.
    pub value: T,
    /// The room that it takes.
    pub memory: BodyMemory,
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for LargeJson<T>
where
    LargeBodies: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Self::read(request, &LargeBodies::from_ref(state)).await
    }
}

impl<T: DeserializeOwned + Send + 'static> LargeJson<T> {
    async fn read(request: Request, large_bodies: &LargeBodies) -> Result<Self, ApiError> {
        let length = request.body().size_hint().lower();
        if length <= MAX_TEXT_BYTES as u64 {
            let Json(value) = Json::from_request(request, &()).await?;
            return Ok(Self { value, memory: BodyMemory(None) });
        }
        require_json(&request)?;
        let memory = BodyMemory(Some(large_bodies.reserve(length)?));
        let allowed = LARGE_BODY_TIMEOUT + Duration::from_secs(length / LARGE_BODY_BYTES_PER_SECOND);
        let reading = axum::body::to_bytes(request.into_body(), length as usize);
        let slow = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        let text = tokio::time::timeout(allowed, reading).await.map_err(slow)?;
        let text = text.map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))?;
        // Off the async threads: this takes seconds.
        blocking(move || Ok(Self { value: parse(&text)?, memory })).await
    }
}

/// A body that is text; also on routes that take large files.
///
/// # Errors
/// When the body is too long or breaks off.
pub async fn text_body(request: Request) -> Result<Bytes, ApiError> {
    let too_long = || {
        let message = format!("the body is longer than {} KiB", MAX_TEXT_BYTES >> 10);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let body = request.into_body();
    // Said before it is sent, where its length is announced.
    if body.size_hint().lower() > MAX_TEXT_BYTES as u64 {
        return Err(too_long());
    }
    axum::body::to_bytes(body, MAX_TEXT_BYTES).await.map_err(|error| {
        let reason = error.into_inner();
        if reason.is::<LengthLimitError>() {
            return too_long();
        }
        ApiError::bad_request(format!("the body cannot be read: {reason}"))
    })
}

fn require_json(request: &Request) -> Result<(), ApiError> {
    if media_type(request) == "application/json" {
        return Ok(());
    }
    Err(ApiError::bad_request("Content-Type should be application/json"))
}

/// The content type without its parameters, in lower case; empty when there is none.
pub fn media_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads the JSON object of a body.
///
/// # Errors
/// As [`parse_as`].
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    parse_as("the body", text)
}

/// Reads a JSON object, which error messages call `name`.
///
/// # Errors
/// When the text is not one, or a field is wrong; the message names it.
pub fn parse_as<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, ApiError> {
    // Serde would accept a list as an object's fields in order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::bad_request(format!("{name} is not a JSON object")));
    }
    let text = std::str::from_utf8(text).map_err(|_| ApiError::bad_request(format!("{name} is not UTF-8")))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let reason = without_position(&inner);
        // Syntax errors have no field.
        if path == "." || inner.is_syntax() || inner.is_eof() {
            ApiError::bad_request(format!("{name} is not valid: {reason}"))
        } else {
            ApiError::bad_request(format!("{path}: {reason}")).in_short(format!("this field is not valid: {path}"))
        }
    })?;
    deserializer
        .end()
        .map_err(|error| ApiError::bad_request(format!("{name} is not valid JSON: {}", without_position(&error))))?;
    Ok(value)
}

/// What is wrong, without "at line 1 column 27": users of the client have not written the JSON.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

/// For tests of request bodies.
#[cfg(feature = "testing")]
pub(crate) mod testing {
    use serde::{
        Deserializer,
        de::{
            DeserializeOwned, IntoDeserializer, Visitor,
            value::{Error, MapDeserializer},
        },
        forward_to_deserialize_any,
    };

    /// A value that may be passed over, and not be kept.
    struct Unread;

    impl<'de> Deserializer<'de> for Unread {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(serde::de::Error::custom("an unknown field is read into memory"))
        }

        fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_unit()
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct enum identifier
        }
    }

    impl IntoDeserializer<'_> for Unread {
        type Deserializer = Self;

        fn into_deserializer(self) -> Self {
            self
        }
    }

    /// Fails when a field that `T` does not know is kept while the others are read, which takes many times its length.
    ///
    /// # Panics
    /// Then.
    pub fn assert_unknown_fields_take_no_memory<T: DeserializeOwned>() {
        let body = T::deserialize(MapDeserializer::new([("unknown", Unread)].into_iter()));
        if let Err(error) = body {
            assert!(error.to_string().contains("missing field"), "{}: {error}", std::any::type_name::<T>());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use axum::body::Body;
    use elephant_types::DatasetName;
    use serde::{Deserialize, Deserializer, de::IgnoredAny};

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

    type Gates = (mpsc::SyncSender<()>, mpsc::Receiver<()>);
    /// Where [`Slow`] says that it is being read, and waits.
    static GATES: Mutex<Option<Gates>> = Mutex::new(None);

    /// A body whose reading takes as long as the test wants.
    struct Slow;

    impl<'de> Deserialize<'de> for Slow {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            IgnoredAny::deserialize(deserializer)?;
            let (begun, go_on) = GATES.lock().unwrap().take().unwrap();
            begun.send(()).unwrap();
            // Disconnected when the test failed.
            let _ = go_on.recv();
            Ok(Self)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_is_held_while_a_body_is_read_whose_caller_is_gone() {
        const PATIENCE: Duration = Duration::from_mins(1);
        let (begun, has_begun) = mpsc::sync_channel(1);
        let (go_on, may_go_on) = mpsc::sync_channel(1);
        *GATES.lock().unwrap() = Some((begun, may_go_on));
        let text = format!("{{{}}}", " ".repeat(2 * MAX_TEXT_BYTES));
        let body = axum::http::Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(text))
            .unwrap();
        let bodies = LargeBodies::default();
        let reader = bodies.clone();
        let handler = tokio::spawn(async move { LargeJson::<Slow>::read(body, &reader).await.map(|_| ()) });
        tokio::task::spawn_blocking(move || has_begun.recv_timeout(PATIENCE)).await.unwrap().unwrap();
        handler.abort();
        assert!(handler.await.unwrap_err().is_cancelled());
        assert!(bodies.reserve(MAX_LARGE_BYTES).is_err(), "the body is still in memory");
        go_on.send(()).unwrap();
        let all = bodies.0.acquire_many((MAX_LARGE_BYTES / UNIT_BYTES) as u32);
        drop(tokio::time::timeout(PATIENCE, all).await.expect("the memory is free at the end").unwrap());
    }
}
