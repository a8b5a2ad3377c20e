//! Progress of all jobs as Server-Sent Events, for everyone without a broker.

use std::convert::Infallible;

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;

use crate::Services;

/// Progress of all jobs
///
/// Each event is a JSON object with `job`, `kind`, `subject` and `event` (`started`, `progress` with `step` and `total`,
/// `completed`, `cancelled`, `failed` with `error`). Listeners that are too slow lose the oldest.
#[utoipa::path(
    get, path = "/events", tag = "ops",
    responses((status = 200, description = "A stream without end", content_type = "text/event-stream"))
)]
pub(crate) async fn stream(State(services): State<Services>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(services.jobs.subscribe());
    let events = events.filter_map(async |event| Event::default().json_data(event.ok()?).ok().map(Ok));
    Sse::new(events.take_until(services.closing.cancelled_owned())).keep_alive(KeepAlive::default())
}
