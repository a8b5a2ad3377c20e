//! The log's lines about requests, as users of the original server know them (contract section 2.2).

use axum::{extract::Request, middleware::Next, response::Response};

/// What is asked all the time and tells nothing.
fn is_polled(path: &str) -> bool {
    matches!(path, "/state/gpus" | "/gpus" | "/metrics") || path.starts_with("/health/")
}

pub(crate) async fn log_request(request: Request, next: Next) -> Response {
    if is_polled(request.uri().path()) {
        return next.run(request).await;
    }
    let asked = format!("{} {}", request.method(), request.uri().path());
    tracing::info!("START {asked}");
    let response = next.run(request).await;
    tracing::info!("DONE {asked} => [{}]", response.status());
    response
}
