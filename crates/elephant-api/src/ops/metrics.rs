//! Prometheus metrics.

use std::time::Instant;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::header,
    middleware::Next,
    response::Response,
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// The process's metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Begins to collect metrics; once per process.
    ///
    /// # Errors
    /// When the process collects them already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().install_recorder()?;
        metrics::describe_counter!("elephant_http_requests_total", "Requests answered");
        metrics::describe_histogram!("elephant_http_request_seconds", "Seconds from a request to its reply's head");
        Ok(Self(handle))
    }
}

pub(crate) fn metrics_route(handle: MetricsHandle) -> Router {
    let render = async move || {
        handle.0.run_upkeep();
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.0.render())
    };
    Router::new().route("/metrics", get(render))
}

pub(crate) async fn count_request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().as_str().to_owned();
    // Routes, not paths, so that callers cannot make up new series.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("elephant_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("elephant_http_request_seconds", "route" => route).record(begun.elapsed().as_secs_f64());
    response
}
