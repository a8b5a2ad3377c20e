//! Waiting with a deadline for another thread or process.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest time that a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two checks, which leaves the processor to the thread that is waited for.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `condition` returns true. `what` describes it.
///
/// # Panics
/// After a minute.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `find` returns a value, and returns it. `what` describes the value.
///
/// # Panics
/// After a minute.
pub fn eventually_some<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(PAUSE);
    }
}
