//! Request bodies: a stalled one fails after a time, and the rest of a refused one is read and discarded.
//!
//! Many clients, Java's among them, send the whole body before they look for a reply. If the server closed the connection
//! while they write, they would report a broken connection in place of the reason for the refusal.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

use crate::ApiError;

/// The longest time for which nothing has to come.
const PATIENCE: Duration = Duration::from_mins(1);
/// A client that is slower than this on average uses its patience up.
const SLOWEST_BYTES_PER_SECOND: f64 = 1024.0;
/// How much of an unread body is still received, and for how long.
const MAX_UNREAD_BYTES: usize = 1 << 30;
const MAX_UNREAD_TIME: Duration = Duration::from_mins(5);

/// Watches over a request's body.
pub(crate) async fn watch_body(request: Request, next: Next) -> Response {
    let stalled = Arc::new(AtomicBool::new(false));
    let (head, body) = request.into_parts();
    let body = WatchedBody {
        unread: Some(body),
        is_asked_for: !waits_for_go_ahead(&head.headers),
        patience: Patience::default(),
        stalled: stalled.clone(),
        runtime: Handle::current(),
    };
    let response = next.run(Request::from_parts(head, Body::new(body))).await;
    if stalled.load(Ordering::Relaxed) {
        let message = "the request stopped in the middle: check the connection and send it again";
        return ApiError::new(StatusCode::REQUEST_TIMEOUT, message).into_response();
    }
    response
}

/// Whether the client sends its body only when it is asked to, which hyper does when the body is first read.
fn waits_for_go_ahead(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A body that fails when its client stops sending. Dropped before its end, the rest is read and thrown away.
struct WatchedBody {
    /// None after the end.
    unread: Option<Body>,
    /// Whether the client has been asked for the body, or sends it anyway.
    is_asked_for: bool,
    patience: Patience,
    stalled: Arc<AtomicBool>,
    runtime: Handle,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.is_asked_for = true;
        let Some(body) = &mut self.unread else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.restore(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                self.unread = None;
                Poll::Ready(end.map(|error| error.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(self.patience.poll_end(context));
                self.unread = None;
                self.stalled.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err("nothing came for a long time".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unread.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.unread.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(body) = self.unread.take()
            && self.is_asked_for
            && !body.is_end_stream()
        {
            self.runtime.spawn(timeout(MAX_UNREAD_TIME, discard(body)));
        }
    }
}

/// Reads `body` to its end. Meanwhile the reply is on its way and the connection stays open.
async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes += chunk.len();
        if bytes > MAX_UNREAD_BYTES {
            break;
        }
    }
}

/// How much longer a client may let us wait: less with each moment of waiting, more with each byte.
struct Patience {
    left: Duration,
    waiting_since: Option<Instant>,
    end: Option<Pin<Box<Sleep>>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: PATIENCE, waiting_since: None, end: None }
    }
}

impl Patience {
    /// Ready when it has come to its end.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            end.as_mut().reset(now + self.left);
        }
        end.as_mut().poll(context)
    }

    fn restore(&mut self, bytes: usize) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let earned = Duration::from_secs_f64(bytes as f64 / SLOWEST_BYTES_PER_SECOND);
        self.left = PATIENCE.min(self.left.saturating_sub(waited) + earned);
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::post};
    use futures_util::stream;
    use tower::ServiceExt;

    use super::*;

    /// What `/` answers to a body whose pieces of `bytes` come every `pause`, `pieces` times, and then no more.
    async fn send(bytes: usize, pause: Duration, pieces: usize, ends: bool) -> StatusCode {
        let read = post(async |body: Bytes| body.len().to_string());
        let router = Router::new().route("/", read).layer(middleware::from_fn(watch_body));
        let chunks = stream::unfold(0, move |sent| async move {
            if sent == pieces {
                return if ends { None } else { std::future::pending().await };
            }
            sleep(pause).await;
            Some((Ok::<_, axum::BoxError>(Bytes::from(vec![0; bytes])), sent + 1))
        });
        let request = Request::post("/").body(Body::from_stream(chunks)).unwrap();
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_waited_for_and_a_silent_one_is_not() {
        assert_eq!(send(40_000, Duration::from_secs(30), 40, true).await, StatusCode::OK, "twenty minutes");
        assert_eq!(send(1, Duration::from_secs(59), 1, true).await, StatusCode::OK);
        assert_eq!(send(1, Duration::from_secs(61), 1, true).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(send(1, Duration::from_secs(1), 100, true).await, StatusCode::REQUEST_TIMEOUT, "a byte a second");
        assert_eq!(send(1000, Duration::ZERO, 5, false).await, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_server_takes_is_not_the_clients() {
        let read = post(async |body: Body| {
            let mut chunks = body.into_data_stream();
            let mut count = 0;
            while let Some(Ok(_)) = chunks.next().await {
                count += 1;
                sleep(Duration::from_secs(100)).await;
            }
            count.to_string()
        });
        let router = Router::new().route("/", read).layer(middleware::from_fn(watch_body));
        let chunks = stream::iter((0..10).map(|_| Ok::<_, axum::BoxError>(Bytes::from_static(b"x"))));
        let reply = router.oneshot(Request::post("/").body(Body::from_stream(chunks)).unwrap()).await.unwrap();
        assert_eq!(axum::body::to_bytes(reply.into_body(), 10).await.unwrap(), "10");
    }

    /// A body of `pieces` MiB, and how many of them have been taken.
    fn counted(pieces: usize) -> (Body, Arc<std::sync::atomic::AtomicUsize>) {
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = taken.clone();
        let piece = Bytes::from(vec![0; 1 << 20]);
        let chunks = stream::iter((0..pieces).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, axum::BoxError>(piece.clone())
        }));
        (Body::from_stream(chunks), taken)
    }

    #[tokio::test]
    async fn what_nobody_reads_is_taken_up_to_a_bound() {
        let router = Router::new().route("/", post(async || "unread")).layer(middleware::from_fn(watch_body));
        for (pieces, expect, taken) in [(40, "", 40), (5000, "", 1025), (40, "100-Continue", 0)] {
            let (body, counter) = counted(pieces);
            let request = Request::post("/").header(header::EXPECT, expect).body(body).unwrap();
            assert_eq!(router.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
            let metrics = Handle::current().metrics();
            timeout(Duration::from_mins(1), async {
                while metrics.num_alive_tasks() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
            assert_eq!(counter.load(Ordering::Relaxed), taken);
        }
    }
}
