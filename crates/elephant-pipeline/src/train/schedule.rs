//! What a training learns from, and when.

use std::sync::mpsc::SyncSender;

use elephant_types::{CancelToken, TrainingBatch};

use super::{
    Lessons, TrainRequest, TrainingControl,
    crops::Crops,
    live::{Follower, LiveTrainings},
};
use crate::PipelineError;

/// What comes next in a training.
pub(super) enum Lesson {
    /// An epoch begins. This many steps are left with it; unknown in a live training.
    Epoch { steps_left: Option<u64> },
    /// Crops for one step.
    Batch(TrainingBatch),
    /// The epoch is over.
    EpochEnd,
}

/// To the thread that makes the steps: lessons, or why there are no more.
type LessonSender = SyncSender<Result<Lesson, PipelineError>>;

/// The order of a training's lessons.
pub(super) struct Schedule<'a> {
    request: &'a TrainRequest,
    /// Crops in one step, on all devices together.
    batch_size: usize,
    control: &'a dyn TrainingControl,
    follower: Option<Follower<'a>>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        request: &'a TrainRequest,
        batch_size: usize,
        live: &'a LiveTrainings,
        control: &'a dyn TrainingControl,
    ) -> Self {
        let follower = match request.lessons {
            Lessons::Live { since } => Some(live.follow(&request.dataset, since)),
            Lessons::Spots { .. } => None,
        };
        Self { request, batch_size, control, follower }
    }

    /// Sends all lessons, until the receiver is gone or the training is stopped.
    pub(super) fn teach(self, mut crops: Crops<'_>, lessons: &LessonSender, cancel: &CancelToken) {
        if let Err(error) = self.try_teach(&mut crops, lessons, cancel) {
            // The receiver may be gone, as it is what failed.
            let _ = lessons.send(Err(error));
        }
    }

    fn try_teach(
        &self,
        crops: &mut Crops<'_>,
        lessons: &LessonSender,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        match (&self.request.lessons, &self.follower) {
            (Lessons::Spots { labels, epochs }, _) => {
                let mut timepoints: Vec<usize> = labels.spots.iter().map(|spot| spot.t).collect();
                timepoints.sort_unstable();
                timepoints.dedup();
                for left in (1..=u64::from(*epochs)).rev() {
                    let order = crops.shuffled(&timepoints, self.crop_count());
                    let steps_left = Some(left * order.len().div_ceil(self.batch_size) as u64);
                    if !self.epoch(&order, steps_left, crops, lessons, cancel)? {
                        break;
                    }
                }
            }
            (Lessons::Live { .. }, Some(follower)) => loop {
                self.control.follows(None);
                let t = follower.next(cancel)?;
                self.control.follows(Some(t));
                let order = crops.shuffled(&[t], self.crop_count());
                if !self.epoch(&order, None, crops, lessons, cancel)? {
                    break;
                }
            },
            (Lessons::Live { .. }, None) => {}
        }
        Ok(())
    }

    fn crop_count(&self) -> u32 {
        self.control.changes().1.unwrap_or(self.request.crops_per_timepoint)
    }

    /// Whether anyone still listens.
    fn epoch(
        &self,
        order: &[usize],
        steps_left: Option<u64>,
        crops: &mut Crops<'_>,
        lessons: &LessonSender,
        cancel: &CancelToken,
    ) -> Result<bool, PipelineError> {
        cancel.check()?;
        let send = |lesson| lessons.send(Ok(lesson)).is_ok();
        if !send(Lesson::Epoch { steps_left }) {
            return Ok(false);
        }
        for timepoints in order.chunks(self.batch_size) {
            if !send(Lesson::Batch(crops.labelled(timepoints, cancel)?)) {
                return Ok(false);
            }
        }
        Ok(send(Lesson::EpochEnd))
    }
}
