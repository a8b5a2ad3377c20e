//! From the bus and the log to the broker, over outages.

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

/// Messages sent before their receipt is waited for.
const BATCH: usize = 64;
/// How often an idle connection is looked at.
const IDLE: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the end of the program may wait for the last messages.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Publishes what the client wants to know.
#[derive(Debug)]
pub struct Publisher {
    address: BrokerAddress,
    outbox: Outbox,
    status: BrokerStatus,
}

/// A publisher at work.
#[derive(Debug)]
pub struct RunningPublisher {
    outbox: Outbox,
    /// Dropped, it ends the listener.
    closing: oneshot::Sender<()>,
    listener: JoinHandle<()>,
    sender: JoinHandle<()>,
}

impl Publisher {
    /// A publisher for the broker at `address`. Nothing is sent before [`start`](Self::start); what is logged meanwhile
    /// is kept.
    pub fn new(address: BrokerAddress) -> Self {
        Self { address, outbox: Outbox::default(), status: BrokerStatus::new() }
    }

    /// Brings the log to the broker. What it passes on to nobody else it keeps from being recorded twice: add it to a
    /// subscriber once.
    pub fn log_layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        LogLayer::filtered(self.outbox.clone())
    }

    /// How the broker is.
    pub fn status(&self) -> BrokerStatus {
        self.status.clone()
    }

    /// Begins to publish; inside a tokio runtime.
    pub fn start(self, jobs: &Jobs) -> RunningPublisher {
        let outbox = self.outbox.clone();
        let mut events = jobs.subscribe();
        let (closing, mut closed) = oneshot::channel();
        let listener = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                loop {
                    // In this order: the end comes after all events that are there.
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

    /// Sends until the outbox is closed.
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

    /// Sends over `link` until that fails or the outbox is closed and empty. A broker that connects and then takes nothing
    /// is left alone for as long a pause as one that does not connect.
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
    /// Sends what is left, as far as the broker takes it soon, and ends.
    pub async fn close(self) {
        let Self { outbox, closing, listener, sender } = self;
        drop(closing);
        // What is not sent by then is lost.
        let _ = timeout(LAST_WORDS, async {
            let _ = listener.await;
            outbox.close();
            let _ = sender.await;
        })
        .await;
        // Events may come without end, faster than they are listened to.
        outbox.close();
    }
}

#[cfg(test)]
mod tests {
    use elephant_jobs::{JobSpec, Outcome, Owner, SqliteStore};

    use super::*;

    /// On one thread, on which nothing listens before the publisher is closed.
    #[tokio::test]
    async fn the_last_events_are_taken_before_the_end() {
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
