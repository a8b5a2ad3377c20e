//! Waiting for what another thread or process does soon.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// A pause between two looks, so that whoever is waited for has the processor.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until something holds.
///
/// # Panics
/// When it does not within a minute.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    eventually_some(what, || holds().then_some(()));
}

/// Waits until `look` finds something, and returns that.
///
/// # Panics
/// When it finds nothing within a minute.
pub fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(PAUSE);
    }
}
