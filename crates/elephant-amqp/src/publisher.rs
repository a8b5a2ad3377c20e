//! Publishes the events of jobs and the log, across outages of the broker.

use std::time::Duration;

use elephant_jobs::Jobs;
use tokio::{
    sync::{broadcast::error::RecvError, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

use crate::{BrokerAddress, BrokerStatus, LogLayer, events, link::Link, outbox::Outbox};

/// Number of messages that are sent before their confirmation is awaited.
const BATCH: usize = 64;
/// Interval at which an idle connection is checked.
const IDLE: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest time that the end of the program waits for the last messages.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Publishes progress and log to the broker.
#[derive(Debug)]
pub struct Publisher {
    address: BrokerAddress,
    outbox: Outbox,
    status: BrokerStatus,
}

/// A running publisher.
#[derive(Debug)]
pub struct RunningPublisher {
    outbox: Outbox,
    /// Ends the listener when dropped.
    closing: oneshot::Sender<()>,
    listener: JoinHandle<()>,
    sender: JoinHandle<()>,
}

impl Publisher {
    /// A publisher for the broker at `address`. Nothing is sent before [`start`](Self::start); log records until then
    /// are kept.
    pub fn new(address: BrokerAddress) -> Self {
        Self { address, outbox: Outbox::default(), status: BrokerStatus::new() }
    }

    /// A layer that sends the log to the broker. Add it to a subscriber only once; otherwise records are sent twice.
    pub fn log_layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        LogLayer::filtered(self.outbox.clone())
    }

    /// State of the broker.
    pub fn status(&self) -> BrokerStatus {
        self.status.clone()
    }

    /// Begins to publish. Must be called within a tokio runtime.
    pub fn start(self, jobs: &Jobs) -> RunningPublisher {
        let outbox = self.outbox.clone();
        let mut events = jobs.subscribe();
        let (closing, mut closed) = oneshot::channel();
        let listener = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                loop {
                    // In this order, so that all waiting events are taken before the end.
                    let received = tokio::select! {
                        biased;
                        received = events.recv() => received,
                        _ = &mut closed => return,
                    };
                    match received {
                        Ok(event) => events::message(&event).into_iter().for_each(|message| outbox.push(message)),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            }
        });
        RunningPublisher { outbox, closing, listener, sender: tokio::spawn(self.send()) }
    }

    /// Sends messages until the outbox is closed.
    async fn send(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match Link::open(&self.address).await {
                Ok(link) => {
                    self.status.up();
                    match self.drain(link, &mut pause).await {
                        Ok(()) => return,
                        Err(reason) => self.status.down(&format!("{}: {reason}", self.address)),
                    }
                }
                Err(reason) => self.status.down(&format!("{}: {reason}", self.address)),
            }
            if self.outbox.is_closed() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends over `link` until that fails or the outbox is closed and empty. `pause` is reset only after a successful
    /// batch, so that a broker that accepts connections but no messages is retried as rarely as one that accepts no
    /// connections.
    async fn drain(&self, mut link: Link, pause: &mut Duration) -> Result<(), String> {
        loop {
            match timeout(IDLE, self.outbox.take(BATCH)).await {
                Ok(messages) if messages.is_empty() => {
                    link.close().await;
                    return Ok(());
                }
                Ok(messages) => {
                    if let Err(reason) = link.publish(&messages).await {
                        self.outbox.put_back(messages);
                        return Err(reason);
                    }
                    *pause = FIRST_PAUSE;
                }
                Err(_) if link.is_connected() => {}
                Err(_) => return Err("the connection was lost".into()),
            }
        }
    }
}

impl RunningPublisher {
    /// Sends the remaining messages, for a short time only, and ends.
    pub async fn close(self) {
        let Self { outbox, closing, listener, sender } = self;
        drop(closing);
        // Messages that have not been sent by then are lost.
        let _ = timeout(LAST_WORDS, async {
            let _ = listener.await;
            outbox.close();
            let _ = sender.await;
        })
        .await;
        // Events may arrive endlessly, faster than they are processed.
        outbox.close();
    }
}

#[cfg(test)]
mod tests {
    use elephant_jobs::{JobSpec, Outcome, Owner, SqliteStore};

    use super::*;

    /// On a single thread, so that no event is received before the publisher is closed.
    #[tokio::test]
    async fn the_last_events_are_published_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let jobs =
            Jobs::open(SqliteStore::open(&folder.path().join("state.db")).unwrap(), Owner::new("server")).unwrap();
        let publisher = Publisher::new(BrokerAddress::parse("amqp://127.0.0.1:1").unwrap());
        let outbox = publisher.outbox.clone();
        let running = publisher.start(&jobs);
        let events = 5;
        for _ in 0..events {
            jobs.begin(&JobSpec::new("predict", "fly")).unwrap().finish(Outcome::Completed);
        }
        running.close().await;
        assert_eq!(outbox.take(100).await.len(), events);
    }
}
