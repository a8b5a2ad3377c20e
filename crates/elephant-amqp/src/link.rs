//! A connection to the broker: declares the client's queues as the client does, and publishes messages.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::time::timeout;

use crate::{
    BrokerAddress,
    outbox::{Message, Queue},
};

/// The topic exchange that gets a copy of every message, with the queue's name as routing key. It is not durable, like
/// the queues. Programs that want every message bind a queue to it.
pub const EXCHANGE: &str = "elephant";

/// Longest time that the broker may take to accept a connection or a batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a queue that the broker refuses is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// A connection on which messages can be published.
pub(crate) struct Link {
    connection: Connection,
    channel: Channel,
    /// Queues that exist with other properties, which are left unchanged.
    foreign: Vec<Queue>,
    /// Queues that this connection may not use, and since when: another connection uses them exclusively, or the user
    /// has no permission.
    refused: BTreeMap<Queue, Instant>,
    has_exchange: bool,
}

impl Link {
    /// Connects, and tests with one message without a receiver that the broker accepts messages.
    pub(crate) async fn open(address: &BrokerAddress) -> Result<Self, String> {
        within_time(Self::try_open(address)).await
    }

    async fn try_open(address: &BrokerAddress) -> lapin::Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("elephant-server".into());
        let connection = Connection::connect_uri(address.uri(), properties).await?;
        let channel = open_channel(&connection).await?;
        let (foreign, refused) = (Vec::new(), BTreeMap::new());
        let mut link = Self { connection, channel, foreign, refused, has_exchange: true };
        link.declare_exchange().await?;
        for queue in Queue::ALL {
            link.room(queue).await?;
        }
        let probe = link.publish_to("", "elephant.probe", Queue::Prediction, b"").await?;
        probe.await?;
        Ok(link)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Publishes `messages` and waits for the broker's confirmation. Nothing is sent to a queue with too many unread
    /// messages.
    pub(crate) async fn publish(&mut self, messages: &[Message]) -> Result<(), String> {
        within_time(self.try_publish(messages)).await
    }

    async fn try_publish(&mut self, messages: &[Message]) -> lapin::Result<()> {
        // All queues are declared first, because a refusal closes the channel, and messages in transit are lost.
        let mut room = BTreeMap::new();
        for Message { queue, .. } in messages {
            if !room.contains_key(queue) {
                room.insert(*queue, self.room(*queue).await?);
            }
        }
        let mut confirms = Vec::new();
        for Message { queue, body } in messages {
            let room = room.entry(*queue).or_default();
            if *room > 0 {
                *room -= 1;
                confirms.push(self.publish_to("", queue.name(), *queue, body.as_bytes()).await?);
            }
        }
        wait_for(confirms).await?;
        if self.has_exchange
            && let Err(error) = self.offer(messages).await
        {
            if !is_refusal(&error) {
                return Err(error);
            }
            self.leave_exchange(&error).await?;
        }
        Ok(())
    }

    /// Publishes to the exchange.
    async fn offer(&self, messages: &[Message]) -> lapin::Result<()> {
        let mut confirms = Vec::new();
        let mut published = Ok(());
        for Message { queue, body } in messages {
            match self.publish_to(EXCHANGE, queue.name(), *queue, body.as_bytes()).await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => {
                    published = Err(error);
                    break;
                }
            }
        }
        // The first confirmation reports the refusal; later ones report that the channel is closed.
        wait_for(confirms).await.and(published)
    }

    async fn publish_to(
        &self,
        exchange: &'static str,
        key: &'static str,
        queue: Queue,
        body: &[u8],
    ) -> lapin::Result<PublisherConfirm> {
        // The original sends no properties. The expiration affects only the broker, and the client ignores properties.
        let properties = BasicProperties::default().with_expiration(queue.expiration_ms().into());
        let options = BasicPublishOptions::default();
        self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await
    }

    /// Number of messages that may be added to a queue; 0 if the broker refuses the queue.
    ///
    /// Declares it exactly as the client does: not durable, not exclusive, not deleted automatically, without arguments
    /// (with other properties the client's own declaration would fail). This is repeated because the queue may have
    /// been deleted, and because the reply contains the number of waiting messages.
    async fn room(&mut self, queue: Queue) -> lapin::Result<u32> {
        while self.refused.get(&queue).is_none_or(|since| since.elapsed() > REFUSED_FOR) {
            let passive = self.foreign.contains(&queue);
            let options = QueueDeclareOptions { passive, ..QueueDeclareOptions::default() };
            let error = match self.channel.queue_declare(queue.name().into(), options, FieldTable::default()).await {
                Ok(declared) => {
                    if self.refused.remove(&queue).is_some() {
                        tracing::info!(queue = queue.name(), "the queue can be used again");
                    }
                    return Ok(queue.capacity().saturating_sub(declared.message_count()));
                }
                Err(error) if is_refusal(&error) => error,
                Err(error) => return Err(error),
            };
            self.channel = open_channel(&self.connection).await?;
            if !passive && is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) {
                tracing::warn!(queue = queue.name(), "the queue exists with other properties; it is used as it is");
                self.foreign.push(queue);
            } else if passive && is_soft(&error, &AMQPSoftError::NOTFOUND) {
                self.foreign.retain(|other| *other != queue);
            } else if self.refused.insert(queue, Instant::now()).is_none() {
                tracing::warn!(queue = queue.name(), %error, "the queue cannot be used; other queues are not affected");
            }
        }
        Ok(0)
    }

    /// Declares the exchange. It is optional: if the user may not declare it, the queues still work.
    async fn declare_exchange(&mut self) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions::default();
        let declared =
            self.channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await;
        match declared {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => self.leave_exchange(&error).await,
            Err(error) => Err(error),
        }
    }

    /// Continues without the exchange until the next connection.
    async fn leave_exchange(&mut self, error: &lapin::Error) -> lapin::Result<()> {
        tracing::warn!(%error, "the exchange {EXCHANGE} cannot be used; the queues are not affected");
        self.has_exchange = false;
        self.channel = open_channel(&self.connection).await?;
        Ok(())
    }

    pub(crate) async fn close(self) {
        // Errors do not matter: the connection is given up.
        let _ = timeout(TIMEOUT, self.connection.close(200, "the server stops".into())).await;
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn wait_for(confirms: Vec<PublisherConfirm>) -> lapin::Result<()> {
    for confirm in confirms {
        confirm.await?;
    }
    Ok(())
}

/// Whether the broker refuses an operation but keeps the connection.
fn is_refusal(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)))
}

fn is_soft(error: &lapin::Error, kind: &AMQPSoftError) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == kind)
}

async fn within_time<T>(work: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no reply within {TIMEOUT:?}")),
    }
}
