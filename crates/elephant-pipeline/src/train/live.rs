//! Notification of a live training about label updates.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use elephant_types::{CancelToken, Cancelled, DatasetName};

/// How often a waiting training looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// The live trainings of a workspace (at most one runs). Clones share state.
#[derive(Clone, Debug, Default)]
pub struct LiveTrainings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The dataset that the running training follows; `None` while no training runs.
    followed: Option<DatasetName>,
    /// Updates that the training has not taken yet, the latest at the end; each timepoint once.
    updates: Vec<Update>,
    /// Updates so far.
    count: u64,
}

#[derive(Debug)]
struct Update {
    dataset: DatasetName,
    timepoint: usize,
    /// The update's number, from 1.
    number: u64,
}

/// Receives label updates for a live training; unsubscribes when dropped.
#[derive(Debug)]
pub(super) struct Follower<'a>(&'a Shared);

impl LiveTrainings {
    /// Notifies the training that follows the dataset, if there is one, that labels of timepoint `t` have changed.
    pub fn updated(&self, dataset: &DatasetName, t: usize) {
        let mut state = self.0.state();
        state.count += 1;
        let number = state.count;
        if state.followed.as_ref().is_none_or(|followed| followed == dataset) {
            state.updates.retain(|update| (&update.dataset, update.timepoint) != (dataset, t));
            state.updates.push(Update { dataset: dataset.clone(), timepoint: t, number });
            self.0.changed.notify_all();
        }
    }

    /// The number of updates so far.
    pub fn update_count(&self) -> u64 {
        self.0.state().count
    }

    /// Stops the training that waits for updates when the result is dropped, also by a panic.
    pub(super) fn close_on_drop(&self) -> Closing<'_> {
        Closing(&self.0)
    }

    /// Follows the updates of a dataset after the update of this number, or from now on.
    pub(super) fn follow(&self, dataset: &DatasetName, after: Option<u64>) -> Follower<'_> {
        let mut state = self.0.state();
        state.followed = Some(dataset.clone());
        let after = after.unwrap_or(state.count);
        state.updates.retain(|update| update.dataset == *dataset && update.number > after);
        Follower(&self.0)
    }
}

/// Ends the following of updates when dropped.
#[must_use = "it closes at once when it is dropped"]
pub(super) struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().followed = None;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower<'_> {
    /// Waits until labels have changed since the last call, and returns their timepoints in the order of their last changes.
    ///
    /// # Errors
    /// [`Cancelled`], also when the training has ended.
    pub(super) fn next(&self, cancel: &CancelToken) -> Result<Vec<usize>, Cancelled> {
        let mut state = self.0.state();
        loop {
            cancel.check()?;
            if state.followed.is_none() {
                return Err(Cancelled);
            }
            if !state.updates.is_empty() {
                return Ok(state.updates.drain(..).map(|update| update.timepoint).collect());
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
    fn all_updates_of_the_followed_dataset_are_taken_once() {
        let trainings = LiveTrainings::default();
        let [fly, fish] = ["fly", "fish"].map(|name| name.parse::<DatasetName>().unwrap());
        trainings.updated(&fly, 1);
        let asked = Some(trainings.update_count());
        let cancel = CancelToken::default();
        let follower = trainings.follow(&fly, asked);
        trainings.updated(&fly, 2);
        trainings.updated(&fish, 3);
        trainings.updated(&fly, 4);
        trainings.updated(&fly, 0);
        trainings.updated(&fly, 2);
        trainings.updated(&fish, 5);
        assert_eq!(follower.next(&cancel), Ok(vec![4, 0, 2]));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| follower.next(&cancel));
            trainings.updated(&fly, 6);
            assert_eq!(waiting.join().unwrap(), Ok(vec![6]));
        });
        drop(trainings.close_on_drop());
        assert_eq!(follower.next(&cancel), Err(Cancelled));
        drop(follower);
        // After the request, but before it is followed.
        trainings.updated(&fly, 7);
        let follower = trainings.follow(&fly, asked);
        assert_eq!(follower.next(&cancel), Ok(vec![7]));
        cancel.cancel();
        assert_eq!(follower.next(&cancel), Err(Cancelled));
    }
}
