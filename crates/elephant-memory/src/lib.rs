//! The one owner of memory: what may begin, what waits for others, what is refused.
//!
//! Every task that needs much says how much before it begins ([`Memory::reserve`]) and keeps the [`Reservation`] as long
//! as its arrays live. It knows nothing of what the bytes are for.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod available;
mod ledger;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use elephant_types::{CancelToken, Cancelled, Coded, ErrorCode};

use crate::{
    available::{available_bytes, own_bytes},
    ledger::{Fit, Ledger},
};

/// How often a waiting task looks whether it was cancelled or other programs gave memory back.
const POLL: Duration = Duration::from_millis(50);

/// Bytes that a task needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// As long as it goes on.
    pub held: u64,
    /// Besides, while it is its turn on the device. Tasks take turns, so that these do not add up.
    pub in_turn: u64,
}

/// A need that cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// It is more than there is.
    #[error("{:.1} GB of memory are needed and {:.1} GB are free", *needed as f64 / 1e9, *free as f64 / 1e9)]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes that it could have if nothing else ran here.
        free: u64,
    },
    /// The task was cancelled while it waited.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Coded for MemoryError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Cancelled(_) => ErrorCode::Cancelled,
        }
    }
}

/// The memory that this process may use. Clones share one account.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    freed: Condvar,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // It is changed in single steps, so that a panic leaves it whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Sets `need` aside; waits while it fits only without the other reservations.
    ///
    /// # Errors
    /// [`MemoryError::TooLarge`] when it would not fit even alone, `Cancelled` when `cancel` was while it waited.
    pub fn reserve(&self, need: Need, cancel: &CancelToken) -> Result<Reservation, MemoryError> {
        let mut ledger = self.0.ledger();
        loop {
            cancel.check()?;
            match ledger.add(need, available_bytes(), own_bytes()) {
                Fit::Added(id) => return Ok(Reservation { memory: self.clone(), id }),
                Fit::Never { free } => {
                    return Err(MemoryError::TooLarge { needed: need.held.saturating_add(need.in_turn), free });
                }
                Fit::Later => {
                    let waited = self.0.freed.wait_timeout(ledger, POLL);
                    ledger = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// Memory that was set aside, until this is dropped.
#[derive(Debug)]
#[must_use = "the memory is free again when this is dropped"]
pub struct Reservation {
    memory: Memory,
    id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.0.ledger().remove(self.id);
        self.memory.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(held: u64) -> Need {
        Need { held, in_turn: 0 }
    }

    #[test]
    fn what_fits_only_alone_waits_for_the_others() {
        let memory = Memory::default();
        let most = available_bytes().unwrap() / 4 * 3;
        let first = memory.reserve(held(most), &CancelToken::default()).unwrap();
        let (begun, waits) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let memory = memory.clone();
            move || {
                begun.send(()).unwrap();
                drop(memory.reserve(held(most), &CancelToken::default()).unwrap());
            }
        });
        waits.recv().unwrap();
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap();
    }

    #[test]
    fn a_waiting_task_can_be_cancelled() {
        let memory = Memory::default();
        let most = available_bytes().unwrap() / 4 * 3;
        let _first = memory.reserve(held(most), &CancelToken::default()).unwrap();
        let cancel = CancelToken::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| memory.reserve(held(most), &cancel).map(drop));
            cancel.cancel();
            assert_eq!(waiting.join().unwrap(), Err(MemoryError::Cancelled(Cancelled)));
        });
    }

    #[test]
    fn more_than_there_is_is_refused_with_both_numbers() {
        let error = Memory::default().reserve(held(u64::MAX), &CancelToken::default()).unwrap_err();
        assert!(matches!(error, MemoryError::TooLarge { needed: u64::MAX, free } if free > 0), "{error}");
    }
}
