//! The order of a training's epochs and batches.

use std::{collections::BTreeSet, sync::mpsc::SyncSender};

use elephant_model::TrainingBatch;
use elephant_types::CancelToken;

use super::{
    TrainRequest, TrainingControl, TrainingMode,
    batches::BatchSource,
    live::{Follower, LiveTrainings},
};
use crate::PipelineError;

/// The next event of a training.
#[derive(Debug)]
pub(super) enum BatchEvent {
    /// An epoch begins. This many steps are left with it; unknown in a live training.
    EpochBegin { steps_left: Option<u64> },
    /// Crops for one step.
    Batch(Box<TrainingBatch>),
    /// The epoch is over.
    EpochEnd,
}

/// The way to the thread that makes the steps: batches, or why there are no more.
type BatchSender = SyncSender<Result<BatchEvent, PipelineError>>;

/// The order of a training's batches.
pub(super) struct Schedule<'a> {
    request: &'a TrainRequest,
    /// Crops in one step, on all devices together.
    batch_size: usize,
    control: &'a dyn TrainingControl,
    timepoints: Timepoints<'a>,
}

/// The timepoints that crops are cut from.
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
        live: &'a LiveTrainings,
        control: &'a dyn TrainingControl,
    ) -> Self {
        let timepoints = match &request.mode {
            TrainingMode::Live { after } => Timepoints::Live(live.follow(&request.dataset, *after)),
            TrainingMode::Spots { labels, epochs } => {
                Timepoints::Fixed { timepoints: labels.spots.iter().map(|spot| spot.t).collect(), epochs: *epochs }
            }
            TrainingMode::Links { labels, epochs, .. } => {
                Timepoints::Fixed { timepoints: labels.links.iter().map(|link| link.t).collect(), epochs: *epochs }
            }
        };
        Self { request, batch_size, control, timepoints }
    }

    /// Sends all batches, until the receiver is gone or the training is stopped.
    pub(super) fn produce_batches(self, source: &mut dyn BatchSource, batches: &BatchSender, cancel: &CancelToken) {
        if let Err(error) = self.try_produce(source, batches, cancel) {
            // The receiver may be gone, as it is what failed.
            let _ = batches.send(Err(error));
        }
    }

    fn try_produce(
        &self,
        source: &mut dyn BatchSource,
        batches: &BatchSender,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        match &self.timepoints {
            Timepoints::Fixed { timepoints, epochs } => {
                for left in (1..=u64::from(*epochs)).rev() {
                    let crops = source.begin_epoch(timepoints, self.crops_per_timepoint())?;
                    if crops == 0 {
                        let message = "nothing to train: none of the timepoints has labels; tag spots and update them";
                        return Err(PipelineError::Invalid(message.into()));
                    }
                    let steps_left = left * crops.div_ceil(self.batch_size as u64);
                    if !self.send_epoch(Some(steps_left), source, batches, cancel)? {
                        break;
                    }
                }
            }
            Timepoints::Live(follower) => loop {
                self.control.show_followed_timepoint(None);
                let updated = follower.next(cancel)?;
                self.control.show_followed_timepoint(updated.last().copied());
                let crops = source.begin_epoch(&updated.into_iter().collect(), self.crops_per_timepoint())?;
                // An update that is running has not listed its labels yet; it will be notified, too.
                if crops > 0 && !self.send_epoch(None, source, batches, cancel)? {
                    break;
                }
            },
        }
        Ok(())
    }

    fn crops_per_timepoint(&self) -> u32 {
        self.control.overrides().crops_per_timepoint.unwrap_or(self.request.crops_per_timepoint)
    }

    /// Sends the batches of the epoch that has begun. Returns whether the receiver still takes them.
    fn send_epoch(
        &self,
        steps_left: Option<u64>,
        source: &mut dyn BatchSource,
        batches: &BatchSender,
        cancel: &CancelToken,
    ) -> Result<bool, PipelineError> {
        cancel.check()?;
        let send = |event| batches.send(Ok(event)).is_ok();
        if !send(BatchEvent::EpochBegin { steps_left }) {
            return Ok(false);
        }
        while let Some(batch) = source.next_batch(self.batch_size, cancel)? {
            if !send(BatchEvent::Batch(Box::new(batch))) {
                return Ok(false);
            }
        }
        Ok(send(BatchEvent::EpochEnd))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use elephant_model::{Objective, Targets};
    use elephant_types::{Coded, DatasetName, ErrorCode, KeepAxials, SpotTag, TaggedSpot, VoxelSize};
    use ndarray::Array5;

    use super::*;
    use crate::{CropOptions, TrainingOverrides, UpdateLabels};

    /// Crops of labelled timepoints, which tell the timepoint by their intensity.
    struct FakeSource {
        labelled: BTreeSet<usize>,
        left: Vec<usize>,
        /// The epochs that began: their timepoints and crops of each.
        epochs: Vec<(Vec<usize>, u32)>,
    }

    impl FakeSource {
        fn new(labelled: &[usize]) -> Self {
            Self { labelled: labelled.iter().copied().collect(), left: Vec::new(), epochs: Vec::new() }
        }
    }

    impl BatchSource for FakeSource {
        fn begin_epoch(&mut self, timepoints: &BTreeSet<usize>, count: u32) -> Result<u64, PipelineError> {
            let labelled: Vec<usize> = timepoints.intersection(&self.labelled).copied().collect();
            self.left = labelled.iter().flat_map(|&t| std::iter::repeat_n(t, count as usize)).collect();
            self.epochs.push((labelled, count));
            Ok(self.left.len() as u64)
        }

        fn next_batch(&mut self, count: usize, cancel: &CancelToken) -> Result<Option<TrainingBatch>, PipelineError> {
            cancel.check()?;
            let taken: Vec<usize> = self.left.drain(..count.min(self.left.len())).collect();
            let inputs = Array5::from_shape_fn((taken.len(), 1, 1, 1, 1), |(n, ..)| taken[n] as f32);
            let (targets, keep_axials) = (Targets::Inputs, KeepAxials::first(0));
            let batch = TrainingBatch { inputs, targets, keep_axials, punishes_false_positives: false };
            Ok((batch.crop_count() > 0).then_some(batch))
        }
    }

    /// Nothing is overridden but the number of crops, if there is one.
    struct Control(Option<u32>);

    impl TrainingControl for Control {
        fn overrides(&self) -> TrainingOverrides {
            TrainingOverrides { learning_rate: None, crops_per_timepoint: self.0 }
        }

        fn show_followed_timepoint(&self, _: Option<usize>) {}
    }

    fn dataset() -> DatasetName {
        "fly".parse().unwrap()
    }

    fn spots(timepoints: &[usize], epochs: u32) -> TrainingMode {
        let spot = |&t: &usize| TaggedSpot {
            t,
            center_um: [1.0; 3],
            covariance_um2: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            tag: SpotTag::TruePositive,
            label: "cell".into(),
        };
        let labels = UpdateLabels {
            dataset: dataset(),
            spots: timepoints.iter().map(spot).collect(),
            voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
            center_ratio: 0.4,
            background_threshold: 0.0,
            is_live: false,
        };
        TrainingMode::Spots { labels, epochs }
    }

    fn request(mode: TrainingMode) -> TrainRequest {
        TrainRequest {
            dataset: dataset(),
            model: "m.pth".parse().unwrap(),
            mode,
            crops: CropOptions {
                is_3d: true,
                keep_axials: KeepAxials::first(0),
                voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
                input_size: None,
                crop_size: [1; 3],
                scale_factor: 0.0,
                rotation_degrees: 0.0,
                contrast: 0.0,
            },
            objective: Objective::default(),
            learning_rate: 1e-3,
            batch_size: 2,
            crops_per_timepoint: 3,
            log_interval: 1,
            log_folder: "log".parse().unwrap(),
            seed: 1,
        }
    }

    /// The events in short: `7` steps left at the beginning of an epoch, the timepoints of a batch, `end`.
    fn shown(event: &Result<BatchEvent, PipelineError>) -> String {
        match event {
            Ok(BatchEvent::EpochBegin { steps_left }) => format!("{steps_left:?}"),
            Ok(BatchEvent::Batch(batch)) => batch.inputs.iter().map(f32::to_string).collect::<Vec<_>>().join(","),
            Ok(BatchEvent::EpochEnd) => "end".into(),
            Err(error) => format!("{:?}", error.code()),
        }
    }

    fn produced(mode: TrainingMode, control: &Control, source: &mut FakeSource) -> Vec<String> {
        let (request, live) = (request(mode), LiveTrainings::default());
        let (sender, received) = sync_channel(100);
        Schedule::new(&request, 2, &live, control).produce_batches(source, &sender, &CancelToken::default());
        drop(sender);
        received.iter().map(|event| shown(&event)).collect()
    }

    #[test]
    fn each_epoch_has_the_labelled_timepoints() {
        let mut source = FakeSource::new(&[1, 4, 9]);
        let events = produced(spots(&[1, 2, 4], 2), &Control(None), &mut source);
        let epoch = |left| [left, "1,1", "1,4", "4,4", "end"];
        assert_eq!(events, [epoch("Some(6)"), epoch("Some(3)")].concat());
        assert_eq!(source.epochs, [(vec![1, 4], 3), (vec![1, 4], 3)]);
    }

    #[test]
    fn an_override_counts_from_the_next_epoch_on() {
        let mut source = FakeSource::new(&[1]);
        let events = produced(spots(&[1], 1), &Control(Some(1)), &mut source);
        assert_eq!(events, ["Some(1)", "1", "end"]);
    }

    #[test]
    fn nothing_labelled_is_an_error() {
        let events = produced(spots(&[5], 3), &Control(None), &mut FakeSource::new(&[1]));
        assert_eq!(events, [format!("{:?}", ErrorCode::InvalidArgument)]);
    }

    #[test]
    fn a_receiver_that_leaves_ends_the_epochs() {
        let (request, live) = (request(spots(&[1], 1_000_000)), LiveTrainings::default());
        let mut source = FakeSource::new(&[1]);
        let (sender, received) = sync_channel(2);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(received.recv()));
            let schedule = Schedule::new(&request, 2, &live, &Control(None));
            schedule.produce_batches(&mut source, &sender, &CancelToken::default());
        });
        assert!(source.epochs.len() <= 2, "{}", source.epochs.len());
    }

    #[test]
    fn a_live_training_follows_updates_until_it_is_stopped() {
        let (request, live) = (request(TrainingMode::Live { after: None }), LiveTrainings::default());
        let (mut source, cancel) = (FakeSource::new(&[1, 4]), CancelToken::default());
        let (sender, received) = sync_channel(100);
        let schedule = Schedule::new(&request, 2, &live, &Control(None));
        let events: Vec<String> = std::thread::scope(|scope| {
            let (source, stop) = (&mut source, &cancel);
            scope.spawn(move || schedule.produce_batches(source, &sender, stop));
            // Without labels, 7 makes no epoch.
            live.updated(&dataset(), 7);
            live.updated(&dataset(), 4);
            received
                .iter()
                .map(|event| {
                    if matches!(event, Ok(BatchEvent::EpochEnd)) {
                        cancel.cancel();
                    }
                    shown(&event)
                })
                .collect()
        });
        assert_eq!(events, ["None", "4,4", "4", "end", "Cancelled"]);
    }
}
