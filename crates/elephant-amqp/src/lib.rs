//! Progress and log for the ELEPHANT client, through RabbitMQ as the original server sends them (contract section 2).
//!
//! [`Publisher`] listens to the jobs' bus and, through [`LogLayer`], to the log, and publishes to the queues `update`,
//! `prediction`, `dataset` and `log`. It only listens: a broker that is away, slow or full costs no request and no job
//! anything; what does not fit into a bounded buffer meanwhile is lost, the oldest first.
//!
//! A queue is shared: of two clients that read `log`, each gets every other message, as with the original server, and
//! the client cannot be told otherwise. Whoever can bind a queue of its own gets every message from the topic exchange
//! [`EXCHANGE`], with the queue's name as routing key; the server's `/events` and `/ws/events` tell all to everyone.

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
