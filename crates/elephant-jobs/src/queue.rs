//! Turns: some jobs of a queue run, some wait in order, more are refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{JobsError, QueueSpec};

/// A queue. Clones share state.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    spec: QueueSpec,
    admitted: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A place in the queue, waiting until [`turn`](Self::turn) returns.
#[derive(Debug)]
pub(crate) struct Ticket {
    admitted: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

/// The right to run, until it is dropped. It goes where the work goes.
#[derive(Debug)]
pub(crate) struct Turn {
    _admitted: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Queue {
    pub(crate) fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            admitted: Arc::new(Semaphore::new(spec.at_once + spec.waiting)),
            turns: Arc::new(Semaphore::new(spec.at_once)),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Takes the last place in the queue.
    ///
    /// # Errors
    /// [`JobsError::QueueFull`] when too many wait already.
    pub(crate) fn join(&self) -> Result<Ticket, JobsError> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| JobsError::QueueFull(self.spec))?;
        Ok(Ticket { admitted, turns: self.turns.clone() })
    }

    /// The number of jobs that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        let admitted = self.spec.at_once + self.spec.waiting - self.admitted.available_permits();
        admitted.saturating_sub(self.spec.at_once - self.turns.available_permits())
    }
}

impl Ticket {
    pub(crate) async fn turn(self) -> Turn {
        let turn = self.turns.acquire_owned().await.expect("the semaphore is never closed");
        Turn { _admitted: self.admitted, _turn: turn }
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::{Coded, ErrorCode};

    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_says_when_to_try_again() {
        let queue = Queue::new(QueueSpec { name: "predictions", at_once: 2, waiting: 3, retry_after: 5 });
        let mut tickets: Vec<_> = (0..5).map(|_| queue.join().expect("there is room")).collect();
        let refused = queue.join().unwrap_err();
        assert_eq!((refused.code(), refused.retry_after()), (ErrorCode::TooMany, Some(5)));
        assert_eq!(refused.to_string(), "3 predictions wait already; try again later");
        let turn = tickets.remove(0).turn().await;
        assert_eq!(queue.waiting(), 4);
        drop(turn);
        assert!(queue.join().is_ok());
    }
}
