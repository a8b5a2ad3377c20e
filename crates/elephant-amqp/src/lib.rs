//! Progress and log for the ELEPHANT client, through RabbitMQ as the original server sends them (docs/protocol.md,
//! "RabbitMQ").
//!
//! [`Publisher`] listens to the jobs' bus and, through [`LogLayer`], to the log, and publishes to the queues `update`,
//! `prediction`, `dataset` and `log`. It never delays a request or a job: while the broker is unavailable, slow or
//! full, messages are kept in a bounded buffer, and the oldest are dropped when it is full. It is not a general AMQP
//! client and does not receive messages.
//!
//! A queue is shared: if two clients read `log`, each gets every other message, as with the original server. This
//! cannot be changed in the client. Programs that can bind a queue of their own get every message from the topic
//! exchange [`EXCHANGE`], with the queue's name as routing key. So do listeners of the server's `/events` and
//! `/ws/events`.

mod address;
mod events;
mod link;
mod log_layer;
mod outbox;
mod publisher;
mod status;

pub use address::{AddressError, BrokerAddress};
pub use link::EXCHANGE;
pub use log_layer::LogLayer;
pub use publisher::{Publisher, RunningPublisher};
pub use status::{BrokerState, BrokerStatus};
