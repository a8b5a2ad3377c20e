//! Crops of pairs of frames and their flow labels.

use std::collections::BTreeSet;

use elephant_model::{Targets, TrainingBatch};
use elephant_types::CancelToken;
use ndarray::{Array, Array3, Array4, Axis, Dimension, RemoveAxis};

use super::{
    batches::BatchSource,
    crops::{Crops, Epoch, MAX_DRAWS},
};
use crate::{FlowLabels, PipelineError};

/// Crops around the targets of approved links.
pub(super) struct LabelledPairs<'a> {
    crops: Crops<'a>,
    labels: &'a FlowLabels,
    /// Displacements (z, y, x) in voxels that a network's output of 1 stands for.
    norm_vox: [f64; 3],
    epoch: Option<Epoch>,
}

/// A crop of a pair: the two frames (2, z, y, x), displacements (channel, z, y, x) and their weights.
struct Pair {
    frames: Array4<f32>,
    vectors: Array4<f32>,
    weight: Array3<f32>,
}

impl<'a> LabelledPairs<'a> {
    pub(super) fn new(crops: Crops<'a>, labels: &'a FlowLabels, norm_vox: [f64; 3]) -> Self {
        Self { crops, labels, norm_vox, epoch: None }
    }
}

impl BatchSource for LabelledPairs<'_> {
    fn begin_epoch(&mut self, timepoints: &BTreeSet<usize>, crops_per_timepoint: u32) -> Result<u64, PipelineError> {
        let centroids = self.labels.centroids_at(self.crops.frames().dataset(), |t| timepoints.contains(&t))?;
        Ok(self.epoch.insert(Epoch::new(centroids, crops_per_timepoint)).len())
    }

    fn next_batch(&mut self, count: usize, cancel: &CancelToken) -> Result<Option<TrainingBatch>, PipelineError> {
        let Some(epoch) = &mut self.epoch else { return Ok(None) };
        let (labels, norm_vox, dataset) = (self.labels, self.norm_vox, self.crops.frames().dataset());
        let centroids_at = |t| labels.centroids_at(dataset, |other| other == t);
        let cut = |crops: &mut Crops<'_>, t: usize, anchors: &[[usize; 3]]| crop(crops, norm_vox, t, anchors, cancel);
        let pairs = self.crops.around_labels(epoch, count, centroids_at, cut)?;
        if pairs.is_empty() {
            return Ok(None);
        }
        let targets = Targets::Vectors {
            values: stack(pairs.iter().map(|pair| &pair.vectors))?,
            weight: stack(pairs.iter().map(|pair| &pair.weight))?,
        };
        let inputs = stack(pairs.iter().map(|pair| &pair.frames))?;
        let keep_axials = self.crops.keep_axials;
        Ok(Some(TrainingBatch { inputs, targets, keep_axials, punishes_false_positives: false }))
    }
}

/// A crop of pair `t` around one of the anchors; `None` when no draw has a label in it.
fn crop(
    crops: &mut Crops<'_>,
    norm_vox: [f64; 3],
    t: usize,
    anchors: &[[usize; 3]],
    cancel: &CancelToken,
) -> Result<Option<Pair>, PipelineError> {
    let (frame, rescaled) = (crops.frames.shape(), crops.rescaled);
    for _ in 0..MAX_DRAWS {
        cancel.check()?;
        let anchor = anchors[crops.rng.usize(0..anchors.len())];
        let crop = crops.augmentation.draw(frame, rescaled, Some(anchor), &mut crops.rng);
        let (origin, size) = crop.source(frame);
        let (values, weight) = FlowLabels::read(crops.frames, t, origin, size, norm_vox, cancel)?;
        let (vectors, weight) = crop.vectors(values.view(), weight.view(), origin, frame, rescaled);
        if weight.iter().all(|&weight| weight <= 0.0) {
            continue;
        }
        let image = |t: usize| -> Result<Array3<f32>, PipelineError> {
            let image = crops.read_image(t, origin, size, cancel)?;
            Ok(crop.image(image.view(), origin))
        };
        let frames = [image(t)?, image(t + 1)?];
        return Ok(Some(Pair { frames: stack(frames.iter())?, vectors, weight }));
    }
    Ok(None)
}

/// Arrays of the same size along a new first axis.
fn stack<'a, D: Dimension + 'a>(
    arrays: impl Iterator<Item = &'a Array<f32, D>>,
) -> Result<Array<f32, D::Larger>, PipelineError>
where
    D::Larger: RemoveAxis,
{
    let views: Vec<_> = arrays.map(|array| array.view()).collect();
    ndarray::stack(Axis(0), &views).map_err(|error| PipelineError::Invalid(error.to_string()))
}
