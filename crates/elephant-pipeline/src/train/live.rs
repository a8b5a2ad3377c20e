//! How updates of labels reach a live training.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use elephant_types::{CancelToken, Cancelled, DatasetName};

/// How often a waiting training looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// The live trainings of a workspace (at most one runs). Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LiveTrainings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the running one follows.
    followed: Option<DatasetName>,
    /// What was updated last and not yet learnt from.
    updated: Option<Updated>,
}

#[derive(Debug)]
struct Updated {
    dataset: DatasetName,
    timepoint: usize,
    at: Instant,
}

/// A live training's ear; it no longer follows when this is dropped.
#[derive(Debug)]
pub(super) struct Follower<'a>(&'a Shared);

impl LiveTrainings {
    /// Says that labels of timepoint `t` have changed. Nobody needs to listen.
    pub fn updated(&self, dataset: &DatasetName, t: usize) {
        let mut state = self.0.state();
        if state.followed.as_ref().is_none_or(|followed| followed == dataset) {
            state.updated = Some(Updated { dataset: dataset.clone(), timepoint: t, at: Instant::now() });
            self.0.changed.notify_all();
        }
    }

    /// Lets a training that waits for an update stop.
    pub(super) fn close(&self) {
        self.0.state().followed = None;
        self.0.changed.notify_all();
    }

    /// Follows the updates of a dataset since a moment, which may have passed.
    pub(super) fn follow(&self, dataset: &DatasetName, since: Instant) -> Follower<'_> {
        let mut state = self.0.state();
        state.followed = Some(dataset.clone());
        state.updated.take_if(|updated| updated.dataset != *dataset || updated.at < since);
        Follower(&self.0)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower<'_> {
    /// Waits until labels have changed since the last call, and says of which timepoint; of the last one where there
    /// were several. Cancelled, too, when the following was closed.
    pub(super) fn next(&self, cancel: &CancelToken) -> Result<usize, Cancelled> {
        let mut state = self.0.state();
        loop {
            cancel.check()?;
            if state.followed.is_none() {
                return Err(Cancelled);
            }
            if let Some(updated) = state.updated.take() {
                return Ok(updated.timepoint);
            }
            let waited = self.0.changed.wait_timeout(state, CANCEL_POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.0.state().followed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_update_of_the_followed_dataset_is_taken() {
        let trainings = LiveTrainings::default();
        let [fly, fish] = ["fly", "fish"].map(|name| name.parse::<DatasetName>().unwrap());
        trainings.updated(&fly, 1);
        let asked = Instant::now();
        let cancel = CancelToken::default();
        let follower = trainings.follow(&fly, asked);
        trainings.updated(&fly, 2);
        trainings.updated(&fish, 3);
        trainings.updated(&fly, 4);
        trainings.updated(&fish, 5);
        assert_eq!(follower.next(&cancel), Ok(4));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| follower.next(&cancel));
            trainings.updated(&fly, 6);
            assert_eq!(waiting.join().unwrap(), Ok(6));
        });
        trainings.close();
        assert_eq!(follower.next(&cancel), Err(Cancelled));
        drop(follower);
        // After the request, but before it is followed.
        trainings.updated(&fly, 7);
        let follower = trainings.follow(&fly, asked);
        assert_eq!(follower.next(&cancel), Ok(7));
        cancel.cancel();
        assert_eq!(follower.next(&cancel), Err(Cancelled));
    }
}
