//! One connection to the broker: declaring the client's queues as the client does, and publishing.

use std::{collections::BTreeMap, time::Duration};

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

/// The topic exchange that gets a copy of every message, with the queue's name as routing key. Not durable, like the
/// queues; whoever wants every message binds a queue to it.
pub const EXCHANGE: &str = "elephant";

/// How long the broker may take to accept a connection, or a batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which messages can be published.
pub(crate) struct Link {
    connection: Connection,
    channel: Channel,
    /// Queues that someone has declared in another form, which is left as it is.
    foreign: Vec<Queue>,
    has_exchange: bool,
}

impl Link {
    /// Connects, and proves with one message to nobody that the broker takes messages.
    pub(crate) async fn open(address: &BrokerAddress) -> Result<Self, String> {
        within_time(Self::try_open(address)).await
    }

    async fn try_open(address: &BrokerAddress) -> lapin::Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("elephant-server".into());
        let connection = Connection::connect_uri(address.uri(), properties).await?;
        let channel = open_channel(&connection).await?;
        let mut link = Self { connection, channel, foreign: Vec::new(), has_exchange: true };
        link.declare_exchange().await?;
        for queue in Queue::ALL {
            link.declare(queue).await?;
        }
        let probe = link.publish_to("", "elephant.probe", Queue::Prediction, b"").await?;
        probe.await?;
        Ok(link)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Publishes `messages` and waits until the broker has them. A queue with too many unread messages gets no more.
    pub(crate) async fn publish(&mut self, messages: &[Message]) -> Result<(), String> {
        within_time(self.try_publish(messages)).await
    }

    async fn try_publish(&mut self, messages: &[Message]) -> lapin::Result<()> {
        let mut room = BTreeMap::new();
        let mut confirms = Vec::new();
        for Message { queue, body } in messages {
            let room = match room.entry(*queue) {
                std::collections::btree_map::Entry::Occupied(room) => room.into_mut(),
                // Someone may have deleted the queue; and the reply tells how many messages wait in it.
                std::collections::btree_map::Entry::Vacant(room) => {
                    room.insert(queue.capacity().saturating_sub(self.declare(*queue).await?))
                }
            };
            if *room > 0 {
                *room -= 1;
                confirms.push(self.publish_to("", queue.name(), *queue, body.as_bytes()).await?);
            }
            if self.has_exchange {
                confirms.push(self.publish_to(EXCHANGE, queue.name(), *queue, body.as_bytes()).await?);
            }
        }
        for confirm in confirms {
            confirm.await?;
        }
        Ok(())
    }

    async fn publish_to(
        &self,
        exchange: &'static str,
        key: &'static str,
        queue: Queue,
        body: &[u8],
    ) -> lapin::Result<PublisherConfirm> {
        // The original sends no properties; this one acts on the broker, and the client does not look at any.
        let properties = BasicProperties::default().with_expiration(queue.expiration_ms().into());
        let options = BasicPublishOptions::default();
        self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await
    }

    /// Declares a queue exactly as the client does: not durable, not exclusive, not deleted automatically, without
    /// arguments (another form would make the client's declaration fail). Returns how many messages wait in it.
    async fn declare(&mut self, queue: Queue) -> lapin::Result<u32> {
        loop {
            let passive = self.foreign.contains(&queue);
            let options = QueueDeclareOptions { passive, ..QueueDeclareOptions::default() };
            match self.channel.queue_declare(queue.name().into(), options, FieldTable::default()).await {
                Ok(declared) => return Ok(declared.message_count()),
                Err(error) if !passive && is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) => {
                    tracing::warn!(queue = queue.name(), "the queue exists in another form; it is used as it is");
                    self.foreign.push(queue);
                    self.channel = open_channel(&self.connection).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// An exchange is only offered: where the user may not declare one, the queues still work.
    async fn declare_exchange(&mut self) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions::default();
        let declared =
            self.channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await;
        match declared {
            Ok(()) => Ok(()),
            Err(error)
                if is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED)
                    || is_soft(&error, &AMQPSoftError::ACCESSREFUSED) =>
            {
                tracing::warn!(%error, "the exchange {EXCHANGE} cannot be offered; the queues are not concerned");
                self.has_exchange = false;
                self.channel = open_channel(&self.connection).await?;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn close(self) {
        // Whether or not the broker hears it.
        let _ = timeout(TIMEOUT, self.connection.close(200, "the server stops".into())).await;
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
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
