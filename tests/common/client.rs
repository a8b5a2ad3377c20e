//! The ELEPHANT client's side of the broker (docs/protocol.md, "How the client uses RabbitMQ").

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;

/// Longest time that a message may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The client's own connection (docs/protocol.md, "How the client uses RabbitMQ").
pub struct Client {
    runtime: tokio::runtime::Runtime,
    _connection: Connection,
    channel: Channel,
}

impl Client {
    /// Connects to the broker at `url`.
    pub fn connect(url: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            (connection, channel)
        });
        Self { runtime, _connection: connection, channel }
    }

    /// Declares and consumes a queue as the client does.
    pub fn consume(&self, queue: &str) -> Consumer {
        self.runtime.block_on(async {
            let (declare, arguments) = (QueueDeclareOptions::default(), FieldTable::default());
            self.channel.queue_declare(queue.into(), declare, arguments.clone()).await.unwrap();
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            self.channel.basic_consume(queue.into(), "".into(), options, arguments).await.unwrap()
        })
    }

    /// The next message's body.
    pub fn next(&self, consumer: &mut Consumer) -> String {
        let delivery = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, consumer.next()).await });
        String::from_utf8(delivery.expect("a message arrives in time").unwrap().unwrap().data).unwrap()
    }

    /// Reads the log until a message begins with `start`, and returns it. Checks that the client can read each body.
    pub fn await_log(&self, log: &mut Consumer, start: &str) -> String {
        loop {
            let body: Value = serde_json::from_str(&self.next(log)).unwrap();
            assert!(["INFO", "WARNING", "ERROR"].contains(&body["level"].as_str().unwrap()), "{body}");
            let message = body["message"].as_str().unwrap();
            if message.starts_with(start) {
                return message.to_owned();
            }
        }
    }
}
