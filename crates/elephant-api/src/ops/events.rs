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

use crate::{Services, problem::Problem};

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
fn listen() -> Result<SemaphorePermit<'static>, Problem> {
    LISTENERS.try_acquire().map_err(|_| {
        let message = format!("{MAX_LISTENERS} programs follow the events already; stop one of them first");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, message)
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
pub(crate) async fn stream(
    State(services): State<Services>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let place = listen()?;
    let events = events(&services.jobs).map(move |text| {
        let _until_the_end = &place;
        Ok(sse::Event::default().data(text))
    });
    Ok(Sse::new(events.take_until(services.closing.cancelled_owned())).keep_alive(KeepAlive::default()))
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
pub(crate) async fn socket(State(services): State<Services>, upgrade: WebSocketUpgrade) -> Result<Response, Problem> {
    let place = listen()?;
    let events = events(&services.jobs);
    let upgrade = upgrade.max_message_size(MAX_INCOMING_BYTES).max_frame_size(MAX_INCOMING_BYTES);
    let respond = async move |socket| {
        tell(socket, events, services.closing).await;
        drop(place);
    };
    Ok(upgrade.on_upgrade(respond).into_response())
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
    use elephant_jobs::{JobKind, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn who_is_too_slow_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::recover(SqliteStore::open(&folder.path().join("state.db")).unwrap()).unwrap();
        let mut events = events(&jobs);
        let job = jobs.begin(JobKind::Generate, "fly").unwrap();
        (0..3000).for_each(|_| job.context().report(1, 2));
        let [first, second] = [events.next().await.unwrap(), events.next().await.unwrap()];
        assert_eq!(first, r#"{"event":"lagged","lost":1977}"#);
        assert!(second.contains(r#""event":"progress","step":1,"total":2,"seconds_left":"#), "{second}");
    }
}
