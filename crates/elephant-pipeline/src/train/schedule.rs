//! What a training learns from, and when.

use std::{collections::BTreeSet, sync::mpsc::SyncSender};

use elephant_model::TrainingBatch;
use elephant_types::CancelToken;

use super::{
    Lessons, TrainRequest, TrainingControl,
    crops::{Crops, Epoch},
    live::{Follower, LiveTrainings},
};
use crate::{Labels, PipelineError};

/// What comes next in a training.
pub(super) enum BatchEvent {
    /// An epoch begins. This many steps are left with it; unknown in a live training.
    EpochBegin { steps_left: Option<u64> },
    /// Crops for one step.
    Batch(TrainingBatch),
    /// The epoch is over.
    EpochEnd,
}

/// To the thread that makes the steps: batches, or why there are no more.
type BatchSender = SyncSender<Result<BatchEvent, PipelineError>>;

/// The order of a training's batches.
pub(super) struct Schedule<'a> {
    request: &'a TrainRequest,
    /// Crops in one step, on all devices together.
    batch_size: usize,
    labels: &'a Labels,
    control: &'a dyn TrainingControl,
    timepoints: Timepoints<'a>,
}

/// Which timepoints are learnt from.
enum Timepoints<'a> {
    /// All of these in each epoch.
    Fixed { timepoints: BTreeSet<usize>, epochs: u32 },
    /// In each epoch those that were updated since the last one.
    Live(Follower<'a>),
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        request: &'a TrainRequest,
        batch_size: usize,
        labels: &'a Labels,
        live: &'a LiveTrainings,
        control: &'a dyn TrainingControl,
    ) -> Self {
        let timepoints = match &request.lessons {
            Lessons::Live { since } => Timepoints::Live(live.follow(&request.dataset, *since)),
            Lessons::Spots { labels, epochs } => {
                Timepoints::Fixed { timepoints: labels.spots.iter().map(|spot| spot.t).collect(), epochs: *epochs }
            }
        };
        Self { request, batch_size, labels, control, timepoints }
    }

    /// Sends all batches, until the receiver is gone or the training is stopped.
    pub(super) fn produce(self, mut crops: Crops<'_>, batches: &BatchSender, cancel: &CancelToken) {
        if let Err(error) = self.try_produce(&mut crops, batches, cancel) {
            // The receiver may be gone, as it is what failed.
            let _ = batches.send(Err(error));
        }
    }

    fn try_produce(
        &self,
        crops: &mut Crops<'_>,
        batches: &BatchSender,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        match &self.timepoints {
            Timepoints::Fixed { timepoints, epochs } => {
                for left in (1..=u64::from(*epochs)).rev() {
                    let epoch = self.epoch(crops, timepoints)?;
                    if epoch.len() == 0 {
                        let message = "nothing to train: none of the timepoints has labels; tag spots and update them";
                        return Err(PipelineError::Invalid(message.into()));
                    }
                    let steps_left = left * epoch.len().div_ceil(self.batch_size as u64);
                    if !self.send(epoch, Some(steps_left), crops, batches, cancel)? {
                        break;
                    }
                }
            }
            Timepoints::Live(follower) => loop {
                self.control.follows(None);
                let updated = follower.next(cancel)?;
                self.control.follows(updated.last().copied());
                let epoch = self.epoch(crops, &updated.into_iter().collect())?;
                // An update that runs now has not listed its labels yet; it will be told of, too.
                if epoch.len() > 0 && !self.send(epoch, None, crops, batches, cancel)? {
                    break;
                }
            },
        }
        Ok(())
    }

    /// An epoch of those of the timepoints that have labels now.
    fn epoch(&self, crops: &Crops<'_>, timepoints: &BTreeSet<usize>) -> Result<Epoch, PipelineError> {
        let centroids = self.labels.centroids_at(crops.frames().dataset(), |t| timepoints.contains(&t))?;
        let count = self.control.changes().1.unwrap_or(self.request.crops_per_timepoint);
        Ok(Epoch::new(centroids, count))
    }

    /// Whether anyone still listens.
    fn send(
        &self,
        mut epoch: Epoch,
        steps_left: Option<u64>,
        crops: &mut Crops<'_>,
        batches: &BatchSender,
        cancel: &CancelToken,
    ) -> Result<bool, PipelineError> {
        cancel.check()?;
        let send = |event| batches.send(Ok(event)).is_ok();
        if !send(BatchEvent::EpochBegin { steps_left }) {
            return Ok(false);
        }
        let dataset = crops.frames().dataset();
        let now = |t| self.labels.centroids_at(dataset, |other| other == t);
        while let Some(batch) = crops.labelled(&mut epoch, self.batch_size, now, cancel)? {
            if !send(BatchEvent::Batch(batch)) {
                return Ok(false);
            }
        }
        Ok(send(BatchEvent::EpochEnd))
    }
}
