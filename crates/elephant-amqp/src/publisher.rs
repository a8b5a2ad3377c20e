//! From the bus and the log to the broker, over outages.

use std::time::Duration;

use elephant_jobs::Jobs;
use tokio::{
    sync::broadcast::error::RecvError,
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
        let listener = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                loop {
                    match events.recv().await {
                        Ok(event) => events::message(&event).into_iter().for_each(|message| outbox.push(message)),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            }
        });
        RunningPublisher { outbox, listener, sender: tokio::spawn(self.send()) }
    }

    /// Sends until the outbox is closed.
    async fn send(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match Link::open(&self.address).await {
                Ok(link) => {
                    self.status.up();
                    pause = FIRST_PAUSE;
                    match self.drain(link).await {
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

    /// Sends over `link` until that fails or the outbox is closed and empty.
    async fn drain(&self, mut link: Link) -> Result<(), String> {
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
        self.listener.abort();
        self.outbox.close();
        // What is not sent by then is lost.
        let _ = timeout(LAST_WORDS, self.sender).await;
    }
}
