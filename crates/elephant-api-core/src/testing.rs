//! For tests of families: a router without sockets, and requests to it.

use std::{path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use elephant_jobs::JobRunner;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use crate::json::testing::assert_unknown_fields_take_no_memory;
use crate::{Access, Device, Devices, Family, MetricsHandle, Operations, router};

/// One device, which works.
pub struct OneDevice;

impl Devices for OneDevice {
    fn list(&self) -> Vec<Device> {
        vec![Device { id: "0".into(), name: "a device".into(), total_mib: 2, used_mib: 1 }]
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A server that is called without a socket.
#[derive(Clone)]
pub struct TestRouter(Router);

/// A reply that was read to its end.
#[derive(Debug)]
pub struct TestReply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl TestReply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, text()))
    }
}

impl TestRouter {
    /// A server of these families whose jobs `runner` runs, for a workspace's folder.
    ///
    /// # Panics
    /// Never.
    pub fn new(families: Vec<Family>, runner: &JobRunner, workspace: &Path) -> Self {
        let operations = Operations {
            runner: runner.clone(),
            workspace: workspace.to_owned(),
            devices: Arc::new(OneDevice),
            broker: Arc::new(|| "off".into()),
            closing: CancellationToken::new(),
            kinds: &[],
            queues: &[],
        };
        let access = Access::new([127, 0, 0, 1].into(), None, &[], &[]).expect("valid options");
        Self(router(families, operations, access, MetricsHandle::unused()))
    }

    /// Sends a request.
    ///
    /// # Panics
    /// Never.
    pub async fn send(&self, request: Request<Body>) -> Response {
        self.0.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// Sends a request and reads the reply.
    ///
    /// # Panics
    /// When the request is malformed or the reply breaks off.
    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> TestReply {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type);
        let response = self.send(request.body(body.into()).expect("a valid request")).await;
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("the whole reply").to_vec();
        TestReply { status: head.status, headers: head.headers, body }
    }

    /// `GET path`.
    ///
    /// # Panics
    /// As [`call`](Self::call).
    pub async fn get(&self, path: &str) -> TestReply {
        self.call("GET", path, "", Body::empty()).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Panics
    /// As [`call`](Self::call).
    pub async fn post(&self, path: &str, body: &Value) -> TestReply {
        self.call("POST", path, "application/json", body.to_string()).await
    }
}
