//! Reservation of memory: decides which tasks may begin, which wait for others, and which are refused.
//!
//! Every large task reserves its memory before it begins ([`Memory::reserve`]) and keeps the [`Reservation`] as long as
//! its arrays exist. The crate does not allocate anything and does not know what the bytes are for. A task must not
//! wait for a second reservation while it holds one, or while it holds a lock that others need to end.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod available;
mod ledger;
mod workers;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use elephant_types::{CancelToken, Cancelled, Coded, ErrorCode};

use crate::{
    available::Observed,
    ledger::{Fit, Ledger},
};

pub use workers::items_per_worker;

/// Interval at which a waiting task checks for cancellation and for memory released by other programs.
const POLL: Duration = Duration::from_millis(50);

/// Memory needed by a task, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    held: u64,
    in_turn: u64,
    is_endless: bool,
}

impl Need {
    /// Memory of a task that ends by itself, so that others can wait for it: `held` bytes all the time, and `in_turn`
    /// further bytes during its turn on the device. Tasks take turns, so the latter do not add up.
    pub fn while_running(held: u64, in_turn: u64) -> Self {
        Self { held, in_turn, is_endless: false }
    }

    /// Memory of a task that may run until it is stopped.
    pub fn until_stopped(held: u64, in_turn: u64) -> Self {
        Self { held, in_turn, is_endless: true }
    }

    fn most(&self) -> u64 {
        self.held.saturating_add(self.in_turn)
    }
}

/// A request for memory that cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// More memory is needed than there is.
    #[error("{:.1} GB are needed and {:.1} GB are free", *needed as f64 / 1e9, *free as f64 / 1e9)]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes that are free once every task that ends by itself has ended.
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

/// The memory that this process may use. Clones share state.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    observe: fn() -> Observed,
    ledger: Mutex<Ledger>,
    freed: Condvar,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Each change is a single step, so a panic cannot leave it inconsistent.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_source(Observed::now)
    }
}

impl Memory {
    fn with_source(observe: fn() -> Observed) -> Self {
        Self(Arc::new(Shared { observe, ledger: Mutex::default(), freed: Condvar::new() }))
    }

    /// Reserves `need`; waits while it fits only after other tasks have ended that end by themselves.
    ///
    /// # Errors
    /// [`MemoryError::TooLarge`] when it would not fit without them either; `Cancelled` when `cancel` is set while it
    /// waits.
    pub fn reserve(&self, need: Need, cancel: &CancelToken) -> Result<Reservation, MemoryError> {
        let mut ledger = self.0.ledger();
        loop {
            cancel.check()?;
            match ledger.add(need, (self.0.observe)(), Instant::now()) {
                Fit::Added(id) => return Ok(Reservation { memory: self.clone(), id }),
                Fit::Never { free } => return Err(MemoryError::TooLarge { needed: need.most(), free }),
                Fit::Later => {
                    let waited = self.0.freed.wait_timeout(ledger, POLL);
                    ledger = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// Reserved memory; released when dropped.
#[derive(Debug)]
#[must_use = "the memory is released when this is dropped"]
pub struct Reservation {
    memory: Memory,
    id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.0.ledger().remove(self.id, Instant::now());
        self.memory.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A machine with 100 bytes.
    fn small() -> Memory {
        Memory::with_source(|| Observed { available: Some(100), own: Some(0) })
    }

    fn held(bytes: u64) -> Need {
        Need::while_running(bytes, 0)
    }

    #[test]
    fn a_task_that_fits_only_alone_waits_for_the_others() {
        let memory = small();
        let first = memory.reserve(held(75), &CancelToken::default()).unwrap();
        let (order, happened) = mpsc::channel();
        let waiting = std::thread::spawn({
            let (memory, order) = (memory.clone(), order.clone());
            move || {
                let second = memory.reserve(held(75), &CancelToken::default()).unwrap();
                order.send("second begins").unwrap();
                drop(second);
            }
        });
        // A task that fits beside the first one does not wait.
        drop(memory.reserve(held(25), &CancelToken::default()).unwrap());
        order.send("first ends").unwrap();
        drop(first);
        waiting.join().unwrap();
        assert_eq!(happened.try_iter().collect::<Vec<_>>(), ["first ends", "second begins"]);
    }

    #[test]
    fn a_waiting_task_can_be_cancelled() {
        let memory = small();
        let _first = memory.reserve(held(75), &CancelToken::default()).unwrap();
        let cancel = CancelToken::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| memory.reserve(held(75), &cancel).map(drop));
            cancel.cancel();
            assert_eq!(waiting.join().unwrap(), Err(MemoryError::Cancelled(Cancelled)));
        });
    }

    #[test]
    fn a_task_that_never_fits_is_refused_with_both_numbers() {
        let error = small().reserve(held(101), &CancelToken::default()).unwrap_err();
        assert_eq!(error, MemoryError::TooLarge { needed: 101, free: 100 });
    }
}
