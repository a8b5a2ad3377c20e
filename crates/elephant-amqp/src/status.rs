//! State of the broker, for health checks; changes are logged once.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether messages reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Not yet known.
    Connecting,
    /// Messages are accepted.
    Connected,
    /// Messages are not accepted, for this reason.
    Down(String),
}

impl fmt::Display for BrokerState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => formatter.write_str("connecting"),
            Self::Connected => formatter.write_str("connected"),
            Self::Down(reason) => write!(formatter, "down: {reason}"),
        }
    }
}

/// The current state of the broker. Clones share state.
#[derive(Clone, Debug)]
pub struct BrokerStatus(Arc<Mutex<BrokerState>>);

impl BrokerStatus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(BrokerState::Connecting)))
    }

    fn state(&self) -> MutexGuard<'_, BrokerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current state.
    pub fn now(&self) -> BrokerState {
        self.state().clone()
    }

    pub(crate) fn up(&self) {
        let before = std::mem::replace(&mut *self.state(), BrokerState::Connected);
        match before {
            BrokerState::Connected => {}
            BrokerState::Connecting => tracing::info!("connected to RabbitMQ"),
            BrokerState::Down(_) => tracing::info!("connected to RabbitMQ again"),
        }
    }

    pub(crate) fn down(&self, reason: &str) {
        let before = std::mem::replace(&mut *self.state(), BrokerState::Down(reason.to_owned()));
        if !matches!(before, BrokerState::Down(_)) {
            tracing::warn!(reason, "RabbitMQ is unavailable; clients see no progress there until it is back");
        }
    }
}
