//! The log's lines about requests, as users of the original server know them (docs/protocol.md, "RabbitMQ messages"),
//! and the span that gives all lines of a request its number.

use std::hash::{BuildHasher, RandomState};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, error_span};

/// A request's number, chosen by the caller or here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A caller's number may have so many characters.
const MAX_ID_CHARS: usize = 64;

/// Requests that are repeated all the time and are not worth a line of the log.
fn is_polled(path: &str) -> bool {
    matches!(path, "/state/gpus" | "/gpus" | "/metrics") || path.starts_with("/health/")
}

/// Logs a request and its reply, and returns its number in `X-Request-Id`. All lines that are logged meanwhile have it.
pub(crate) async fn log_request(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_plain(id)).cloned().unwrap_or_else(new_id);
    // The span has the highest level, so that errors name their request whatever the log's filter is.
    let span = error_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = answer(request, next).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

async fn answer(request: Request, next: Next) -> Response {
    if is_polled(request.uri().path()) {
        return next.run(request).await;
    }
    let asked = format!("{} {}", request.method(), request.uri().path());
    tracing::info!("START {asked}");
    let response = next.run(request).await;
    tracing::info!("DONE {asked} => [{}]", response.status());
    response
}

fn is_plain(id: &HeaderValue) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=MAX_ID_CHARS).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
}

fn new_id() -> HeaderValue {
    // A hasher with the system's random keys.
    let id = format!("{:016x}", RandomState::new().hash_one(0));
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use tower::ServiceExt;

    use super::*;

    async fn returned_id(given: Option<&str>) -> String {
        let router = Router::new().route("/", get(async || "done")).layer(middleware::from_fn(log_request));
        let mut request = Request::get("/");
        if let Some(given) = given {
            request = request.header(REQUEST_ID, given);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.headers()[REQUEST_ID].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_plain_number_is_kept_and_others_are_replaced() {
        assert_eq!(returned_id(Some("job-7.a:B_c")).await, "job-7.a:B_c");
        let made = returned_id(None).await;
        assert!(made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        assert_ne!(returned_id(None).await, made);
        for given in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(returned_id(Some(given)).await.len(), 16, "{given}");
        }
    }
}
