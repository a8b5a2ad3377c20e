//! Prometheus metrics.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{Method, header},
    middleware::Next,
    response::Response,
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::Operations;

/// How often measurements are put into their buckets between two readings.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Upper ends of the buckets for durations, in seconds: from a poll's to a training's.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// The process's metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Begins to collect metrics; once per process.
    ///
    /// # Errors
    /// When the process collects them already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
        metrics::describe_counter!("elephant_http_requests_total", "Requests answered");
        metrics::describe_histogram!("elephant_http_request_seconds", "Seconds from a request to its reply's head");
        metrics::describe_gauge!("elephant_http_connections", "Open HTTP connections");
        metrics::describe_gauge!("elephant_jobs_running", "Jobs that have begun and not ended, waiting ones included");
        metrics::describe_gauge!("elephant_predictions_waiting", "Predictions that wait for earlier ones");
        metrics::describe_gauge!("elephant_device_ready", "1 while the device of the network takes work, else 0");
        Ok(Self(handle))
    }

    /// Metrics that nothing is written to.
    #[cfg(feature = "testing")]
    pub(crate) fn unused() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// Keeps measurements from piling up between two readings, or when there are none; without end.
    pub async fn keep_up(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

pub(crate) fn metrics_route(handle: MetricsHandle, operations: Operations) -> Router {
    let render = async move || {
        measure(&operations);
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.0.render())
    };
    Router::new().route("/metrics", get(render))
}

/// Sets what is looked at rather than counted.
fn measure(operations: &Operations) {
    let Operations { runner, devices, kinds, queues, .. } = operations;
    for kind in *kinds {
        metrics::gauge!("elephant_jobs_running", "kind" => *kind).set(runner.jobs().running(kind) as f64);
    }
    for queue in *queues {
        metrics::gauge!(format!("elephant_{queue}_waiting")).set(runner.waiting(queue) as f64);
    }
    metrics::gauge!("elephant_device_ready").set(if devices.health().is_ok() { 1.0 } else { 0.0 });
}

pub(crate) async fn count_request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    // Callers, who may be anybody, must not be able to make up new series: so known methods only, and routes, not paths.
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("elephant_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("elephant_http_request_seconds", "route" => route).record(begun.elapsed().as_secs_f64());
    response
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_callers_make_up_share_a_series() {
        assert_eq!(known_method(&Method::POST), "POST");
        for made_up in ["BREW", "get", "G", "TRACE", "CONNECT"] {
            assert_eq!(known_method(&made_up.parse().unwrap()), "other", "{made_up}");
        }
    }
}
