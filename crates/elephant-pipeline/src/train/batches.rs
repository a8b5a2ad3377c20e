//! Sources of training batches.

use std::collections::BTreeSet;

use elephant_model::TrainingBatch;
use elephant_types::CancelToken;

use super::crops::{Crops, Epoch};
use crate::{Labels, PipelineError};

/// Makes the batches of one epoch after the other.
pub(super) trait BatchSource {
    /// Begins an epoch of those of the timepoints that have labels now, each with so many crops. Returns how many crops the
    /// epoch has.
    ///
    /// # Errors
    /// When the labels cannot be read.
    fn begin_epoch(&mut self, timepoints: &BTreeSet<usize>, crops_per_timepoint: u32) -> Result<u64, PipelineError>;

    /// The next batch of at most `count` crops, or `None` at the end of the epoch.
    ///
    /// # Errors
    /// When a crop cannot be read, or the task is cancelled.
    fn next_batch(&mut self, count: usize, cancel: &CancelToken) -> Result<Option<TrainingBatch>, PipelineError>;
}

/// Crops around the labels of a dataset.
pub(super) struct LabelledCrops<'a> {
    crops: Crops<'a>,
    labels: &'a Labels,
    epoch: Option<Epoch>,
}

impl<'a> LabelledCrops<'a> {
    pub(super) fn new(crops: Crops<'a>, labels: &'a Labels) -> Self {
        Self { crops, labels, epoch: None }
    }
}

impl BatchSource for LabelledCrops<'_> {
    fn begin_epoch(&mut self, timepoints: &BTreeSet<usize>, crops_per_timepoint: u32) -> Result<u64, PipelineError> {
        let centroids = self.labels.centroids_at(self.crops.frames().dataset(), |t| timepoints.contains(&t))?;
        Ok(self.epoch.insert(Epoch::new(centroids, crops_per_timepoint)).len())
    }

    fn next_batch(&mut self, count: usize, cancel: &CancelToken) -> Result<Option<TrainingBatch>, PipelineError> {
        let Some(epoch) = &mut self.epoch else { return Ok(None) };
        let (labels, dataset) = (self.labels, self.crops.frames().dataset());
        self.crops.labelled(epoch, count, |t| labels.centroids_at(dataset, |other| other == t), cancel)
    }
}
