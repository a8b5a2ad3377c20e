//! Progress of all jobs for everyone without a broker: as Server-Sent Events and over a WebSocket. Each listener gets
//! every event.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use elephant_jobs::{Event, Jobs};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;

use crate::ApiError;

/// How often a WebSocket client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Questions in a row that may stay without an answer.
const MAX_UNANSWERED: u32 = 2;
/// How long a client may take to accept an event.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Listeners at once. They keep their connections without end, so that a limit leaves some for requests.
const MAX_LISTENERS: usize = 128;
/// Clients have nothing to say.
const MAX_INCOMING_BYTES: usize = 4096;

static LISTENERS: Semaphore = Semaphore::const_new(MAX_LISTENERS);

/// A place for one more listener.
fn listen() -> Result<SemaphorePermit<'static>, ApiError> {
    LISTENERS.try_acquire().map_err(|_| {
        let message = format!("{MAX_LISTENERS} programs follow the events already; stop one of them first");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// What a listener gets instead of events that it was too slow for.
#[derive(Serialize)]
#[serde(tag = "event", rename = "lagged")]
struct Lagged {
    /// Events it has missed.
    lost: u64,
}

/// Every event from now on, as JSON.
fn events(jobs: &Jobs) -> impl Stream<Item = String> + Send + Unpin + use<> {
    let text = |event: Result<Event, BroadcastStreamRecvError>| {
        let text = match event {
            Ok(event) => serde_json::to_string(&event),
            Err(BroadcastStreamRecvError::Lagged(lost)) => serde_json::to_string(&Lagged { lost }),
        };
        // Structures with text keys and finite numbers always have a text.
        std::future::ready(text.ok())
    };
    BroadcastStream::new(jobs.subscribe()).filter_map(text)
}

/// The events of all jobs, for clients that follow them. Clones share state.
#[derive(Clone, Debug)]
pub struct EventFeed {
    jobs: Jobs,
    closing: CancellationToken,
}

impl EventFeed {
    /// The events of `jobs`, until `closing` is cancelled.
    pub fn new(jobs: &Jobs, closing: CancellationToken) -> Self {
        Self { jobs: jobs.clone(), closing }
    }

    /// Every event from now on, as server-sent events.
    ///
    /// # Errors
    /// 503 when too many programs listen already.
    pub fn stream(&self) -> Result<Response, ApiError> {
        let place = listen()?;
        let events = events(&self.jobs).map(move |text| {
            let _until_the_end = &place;
            Ok::<_, Infallible>(sse::Event::default().data(text))
        });
        let events = events.take_until(self.closing.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
    }

    /// Every event from now on, as text messages of a WebSocket.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn socket(self, upgrade: WebSocketUpgrade) -> Result<Response, ApiError> {
        let place = listen()?;
        let events = events(&self.jobs);
        let upgrade = upgrade.max_message_size(MAX_INCOMING_BYTES).max_frame_size(MAX_INCOMING_BYTES);
        let respond = async move |socket| {
            tell(socket, events, self.closing).await;
            drop(place);
        };
        Ok(upgrade.on_upgrade(respond).into_response())
    }
}

/// Progress of all jobs
///
/// Each event is a JSON object with `job`, `kind`, `subject` and `event`: `started`; `progress` with `step`, `total` and
/// `seconds_left`; `training_step` with these, `loss` and its `parts` by name (`total` and `seconds_left` are null for a
/// training that runs until it is stopped); `model_updated`; `completed`, `cancelled`, `failed` with `error`. Listeners
/// that are too slow lose the oldest and get `{"event": "lagged", "lost": N}` instead.
#[utoipa::path(
    get, path = "/events", tag = "ops",
    responses(
        (status = 200, description = "A stream without end", content_type = "text/event-stream"),
        (status = 503, description = "Too many listeners"),
    )
)]
pub(super) async fn stream(State(feed): State<EventFeed>) -> Result<Response, ApiError> {
    feed.stream()
}

/// Progress of all jobs over a WebSocket
///
/// The same objects as `/events`, one in each text message.
#[utoipa::path(
    get, path = "/ws/events", tag = "ops",
    responses(
        (status = 101, description = "A WebSocket"),
        (status = 400, description = "Not a WebSocket handshake"),
        (status = 503, description = "Too many listeners"),
    )
)]
pub(super) async fn socket(State(feed): State<EventFeed>, upgrade: WebSocketUpgrade) -> Result<Response, ApiError> {
    feed.socket(upgrade)
}

/// Sends `events` until the client leaves or the server stops.
async fn tell(mut socket: WebSocket, mut events: impl Stream<Item = String> + Unpin, closing: CancellationToken) {
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        let message = tokio::select! {
            Some(event) = events.next() => Message::Text(event.into()),
            incoming = socket.recv() => match incoming {
                Some(Ok(_)) => {
                    unanswered = 0;
                    continue;
                }
                Some(Err(_)) | None => return,
            },
            _ = pings.tick() => {
                unanswered += 1;
                if unanswered > MAX_UNANSWERED {
                    return;
                }
                Message::Ping(Vec::new().into())
            }
            () = closing.cancelled() => {
                let frame = CloseFrame { code: close_code::AWAY, reason: "the server stops".into() };
                // Whether or not it arrives, the connection ends here.
                let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(Some(frame)))).await;
                return;
            }
        };
        if !matches!(timeout(SEND_TIMEOUT, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use elephant_jobs::{JobSpec, Owner, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn a_listener_that_is_too_slow_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let jobs =
            Jobs::open(SqliteStore::open(&folder.path().join("state.db")).unwrap(), Owner::new("server")).unwrap();
        let mut events = events(&jobs);
        let job = jobs.begin(&JobSpec::new("generate", "fly")).unwrap();
        (0..3000).for_each(|_| job.context().report(1, 2));
        let [first, second] = [events.next().await.unwrap(), events.next().await.unwrap()];
        assert_eq!(first, r#"{"event":"lagged","lost":1977}"#);
        assert!(second.contains(r#""event":"progress","step":1,"total":2,"seconds_left":"#), "{second}");
    }
}
