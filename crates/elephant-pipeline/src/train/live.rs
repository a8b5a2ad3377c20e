//! How updates of labels reach a live training.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use elephant_types::{CancelToken, Cancelled, DatasetName};

/// How often a waiting training looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// The live trainings of a workspace (at most one runs). Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LiveTrainings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    followed: Mutex<Option<Followed>>,
    changed: Condvar,
}

/// What the running one is waiting for.
#[derive(Debug)]
struct Followed {
    dataset: DatasetName,
    updated: Option<usize>,
}

/// A live training's ear; it no longer follows when this is dropped.
#[derive(Debug)]
pub(super) struct Follower<'a>(&'a Shared);

impl LiveTrainings {
    /// Says that labels of timepoint `t` have changed. Nobody needs to listen.
    pub fn updated(&self, dataset: &DatasetName, t: usize) {
        let mut followed = self.0.followed();
        if let Some(followed) = followed.as_mut().filter(|followed| followed.dataset == *dataset) {
            followed.updated = Some(t);
            self.0.changed.notify_all();
        }
    }

    /// Lets a training that waits for an update stop.
    pub(super) fn close(&self) {
        *self.0.followed() = None;
        self.0.changed.notify_all();
    }

    pub(super) fn follow(&self, dataset: &DatasetName) -> Follower<'_> {
        *self.0.followed() = Some(Followed { dataset: dataset.clone(), updated: None });
        Follower(&self.0)
    }
}

impl Shared {
    fn followed(&self) -> MutexGuard<'_, Option<Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower<'_> {
    /// Waits until labels have changed since the last call, and says of which timepoint; of the last one where there
    /// were several. Cancelled, too, when the following was closed.
    pub(super) fn next(&self, cancel: &CancelToken) -> Result<usize, Cancelled> {
        let mut followed = self.0.followed();
        loop {
            cancel.check()?;
            if let Some(t) = followed.as_mut().ok_or(Cancelled)?.updated.take() {
                return Ok(t);
            }
            let waited = self.0.changed.wait_timeout(followed, CANCEL_POLL);
            followed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        *self.0.followed() = None;
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
        let follower = trainings.follow(&fly);
        trainings.updated(&fly, 2);
        trainings.updated(&fish, 3);
        trainings.updated(&fly, 4);
        trainings.updated(&fish, 5);
        let cancel = CancelToken::default();
        assert_eq!(follower.next(&cancel), Ok(4));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| follower.next(&cancel));
            trainings.updated(&fly, 6);
            assert_eq!(waiting.join().unwrap(), Ok(6));
        });
        trainings.close();
        assert_eq!(follower.next(&cancel), Err(Cancelled));
        let follower = trainings.follow(&fly);
        cancel.cancel();
        assert_eq!(follower.next(&cancel), Err(Cancelled));
    }
}
