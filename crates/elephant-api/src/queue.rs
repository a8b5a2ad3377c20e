//! Places for predictions: few compute or prepare an image, some wait in order, more are turned away.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Predictions that hold an image in memory: one on the device, one being read for it.
const PREDICTIONS_AT_ONCE: usize = 2;
/// Predictions that wait for these. The Java client sends one frame after the other and never tries again, so that all
/// that a lab's clients send at a time must fit.
const PREDICTIONS_WAITING: usize = 64;
/// When it may be worth trying again, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The queue. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Queue {
    admitted: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// A place in the queue, waiting until [`turn`](Self::turn) returns.
pub(crate) struct Ticket {
    admitted: OwnedSemaphorePermit,
    places: Arc<Semaphore>,
}

/// The right to compute, until it is dropped. It goes where the work goes.
#[derive(Debug)]
pub(crate) struct Turn {
    _admitted: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(PREDICTIONS_AT_ONCE + PREDICTIONS_WAITING)),
            places: Arc::new(Semaphore::new(PREDICTIONS_AT_ONCE)),
        }
    }
}

impl Queue {
    /// The last place in the queue.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub fn join(&self) -> Result<Ticket, Problem> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{PREDICTIONS_WAITING} predictions wait already; try again later");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_AFTER_SECONDS)
        })?;
        Ok(Ticket { admitted, places: self.places.clone() })
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        let admitted = PREDICTIONS_AT_ONCE + PREDICTIONS_WAITING - self.admitted.available_permits();
        admitted.saturating_sub(PREDICTIONS_AT_ONCE - self.places.available_permits())
    }
}

impl Ticket {
    /// Waits for its turn.
    pub async fn turn(self) -> Turn {
        let place = self.places.acquire_owned().await.expect("the places are never closed");
        Turn { _admitted: self.admitted, _place: place }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_when_to_come_again() {
        let queue = Queue::default();
        let mut tickets: Vec<_> =
            (0..PREDICTIONS_AT_ONCE + PREDICTIONS_WAITING).map(|_| queue.join().expect("there is room")).collect();
        let refused = queue.join().err().expect("it is full").into_response();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "5");
        let turn = tickets.remove(0).turn().await;
        assert_eq!(queue.waiting(), PREDICTIONS_AT_ONCE + PREDICTIONS_WAITING - 1);
        drop(turn);
        assert!(queue.join().is_ok());
    }
}
