//! Crops of a dataset's frames and labels.

use elephant_image::{Augmentation, MAX_LABEL};
use elephant_model::{Targets, TrainingBatch};
use elephant_types::{CancelToken, DatasetName, KeepAxials};
use elephant_volume::FrameSource;
use fastrand::Rng;
use ndarray::{Array3, Array4, Axis};

use super::CropOptions;
use crate::{
    PipelineError,
    frames::{CropBox, Normalization},
    labels::Centroids,
};

/// Intensities and labels (z, y, x).
type Crop = (Array3<f32>, Array3<u8>);

/// How often a crop is drawn again when rotation took all labels out of it.
pub(super) const MAX_DRAWS: usize = 100;

/// Draws crops of one dataset. The same seed draws the same.
pub(super) struct Crops<'a> {
    name: &'a DatasetName,
    pub(super) frames: &'a FrameSource,
    pub(super) rescaled: [usize; 3],
    pub(super) augmentation: Augmentation,
    pub(super) keep_axials: KeepAxials,
    pub(super) rng: Rng,
}

impl<'a> Crops<'a> {
    pub(super) fn new(name: &'a DatasetName, frames: &'a FrameSource, options: &CropOptions, seed: u64) -> Self {
        let (rescaled, augmentation) = options.augmentation(frames.shape());
        let (keep_axials, rng) = (options.keep_axials, Rng::with_seed(seed));
        Self { name, frames, rescaled, augmentation, keep_axials, rng }
    }

    pub(super) fn frames(&self) -> &'a FrameSource {
        self.frames
    }

    /// A crop of each of the next `count` timepoints of an epoch, fewer at its end; `None` after that. Labels may change
    /// during an epoch: where a timepoint's are gone from the places that the epoch knows, `centroids_at` tells the places
    /// of today, and a timepoint that has none is left out of the rest of the epoch.
    pub(super) fn labelled(
        &mut self,
        epoch: &mut Epoch,
        count: usize,
        centroids_at: impl Fn(usize) -> Result<Centroids, PipelineError>,
        cancel: &CancelToken,
    ) -> Result<Option<TrainingBatch>, PipelineError> {
        let cut = |crops: &mut Self, t: usize, anchors: &[[usize; 3]]| crops.labelled_crop(t, anchors, cancel);
        let crops = self.around_labels(epoch, count, centroids_at, cut)?;
        if crops.is_empty() { Ok(None) } else { stack(crops, self.keep_axials).map(Some) }
    }

    /// What `cut` makes of each of the next `count` timepoints of an epoch and of the centres of its labels, as in
    /// [`labelled`](Self::labelled). It makes `None` where it finds no label.
    pub(super) fn around_labels<C>(
        &mut self,
        epoch: &mut Epoch,
        count: usize,
        centroids_at: impl Fn(usize) -> Result<Centroids, PipelineError>,
        mut cut: impl FnMut(&mut Self, usize, &[[usize; 3]]) -> Result<Option<C>, PipelineError>,
    ) -> Result<Vec<C>, PipelineError> {
        let mut crops = Vec::new();
        while crops.len() < count {
            let Some(t) = epoch.next(&mut self.rng) else { break };
            while let Some(anchors) = epoch.anchors(t) {
                if let Some(crop) = cut(self, t, anchors)? {
                    crops.push(crop);
                    break;
                }
                let now = centroids_at(t)?.remove(&t);
                if now.as_deref() == Some(anchors) {
                    return Err(no_labelled_voxel(t));
                }
                epoch.change(t, now);
            }
        }
        Ok(crops)
    }

    /// A crop from anywhere at any time, without labels.
    pub(super) fn unlabelled(&mut self, cancel: &CancelToken) -> Result<TrainingBatch, PipelineError> {
        let frame = self.frames.shape();
        let t = self.rng.usize(0..self.frames.dataset().timepoint_count());
        let crop = self.augmentation.draw(frame, self.rescaled, None, &mut self.rng);
        let (origin, size) = crop.source(frame);
        let image = self.read_image(t, origin, size, cancel)?;
        let inputs = crop.image(image.view(), origin).insert_axis(Axis(0)).insert_axis(Axis(0));
        let (targets, keep_axials) = (Targets::Inputs, self.keep_axials);
        Ok(TrainingBatch { inputs, targets, keep_axials, punishes_false_positives: false })
    }

    /// A crop around one of the anchors; `None` when no draw has a label in it.
    fn labelled_crop(
        &mut self,
        t: usize,
        anchors: &[[usize; 3]],
        cancel: &CancelToken,
    ) -> Result<Option<Crop>, PipelineError> {
        let frame = self.frames.shape();
        for _ in 0..MAX_DRAWS {
            cancel.check()?;
            let anchor = anchors[self.rng.usize(0..anchors.len())];
            let crop = self.augmentation.draw(frame, self.rescaled, Some(anchor), &mut self.rng);
            let (origin, size) = crop.source(frame);
            let labels = crop.labels(self.read_labels(t, origin, size, cancel)?.view(), origin);
            if labels.iter().any(|&label| label > 0) {
                let image = self.read_image(t, origin, size, cancel)?;
                let mut image = crop.image(image.view(), origin);
                crop.change_contrast(&mut image, &labels);
                return Ok(Some((image, labels)));
            }
        }
        Ok(None)
    }

    /// Intensities, scaled to 0..=1 over the whole frame.
    pub(super) fn read_image(
        &self,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        cancel: &CancelToken,
    ) -> Result<Array3<f32>, PipelineError> {
        let whole = CropBox::whole(self.frames.shape());
        let normalization = Normalization::new(self.frames, t, whole, false, cancel)?;
        let mut image = Array3::zeros(size);
        self.frames.read(t, origin, image.view_mut(), cancel)?;
        normalization.apply(origin[0], image.view_mut());
        Ok(image)
    }

    fn read_labels(
        &self,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        cancel: &CancelToken,
    ) -> Result<Array3<u8>, PipelineError> {
        let mut labels = Array3::zeros(size);
        self.frames.read_labels(t, origin, labels.view_mut(), cancel)?;
        if let Some(((z, y, x), label)) = labels.indexed_iter().find(|(_, label)| **label > MAX_LABEL) {
            let name = self.name;
            let [z, y, x] = [origin[0] + z, origin[1] + y, origin[2] + x];
            return Err(PipelineError::Invalid(format!(
                "the label {label} at voxel [{x}, {y}, {z}] (x, y, z) of timepoint {t} of the dataset {name} is not one of \
                 0 to {MAX_LABEL}: seg_labels.zarr is damaged or was changed by another program; reset the labels and \
                 update them again"
            )));
        }
        Ok(labels)
    }
}

/// The rest of an epoch: each labelled timepoint a number of times, in random order. Takes memory for the timepoints
/// and their labels, however often each comes.
pub(super) struct Epoch {
    centroids: Centroids,
    /// For each timepoint how often it is still to come.
    left: Vec<(usize, u32)>,
    /// The sum of these.
    total: u64,
}

impl Epoch {
    /// Each timepoint of `centroids` comes `count` times.
    pub(super) fn new(centroids: Centroids, count: u32) -> Self {
        let left: Vec<_> = centroids.keys().map(|&t| (t, count)).collect();
        let total = left.len() as u64 * u64::from(count);
        Self { centroids, left, total }
    }

    /// How many crops are left.
    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// A timepoint at random among those that are left.
    fn next(&mut self, rng: &mut Rng) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        let mut drawn = rng.u64(0..self.total);
        let (t, count) = self.left.iter_mut().find(|(_, count)| {
            let is_here = drawn < u64::from(*count);
            drawn = drawn.saturating_sub(u64::from(*count));
            is_here
        })?;
        *count -= 1;
        self.total -= 1;
        Some(*t)
    }

    /// The centres of a timepoint's labels.
    fn anchors(&self, t: usize) -> Option<&[[usize; 3]]> {
        self.centroids.get(&t).map(Vec::as_slice)
    }

    /// The labels of a timepoint have other centres from now on. Without any it does not come again.
    fn change(&mut self, t: usize, centres: Option<Vec<[usize; 3]>>) {
        if let Some(centres) = centres {
            self.centroids.insert(t, centres);
            return;
        }
        self.centroids.remove(&t);
        if let Some((_, count)) = self.left.iter_mut().find(|(left, _)| *left == t) {
            self.total -= u64::from(*count);
            *count = 0;
        }
    }
}

fn no_labelled_voxel(t: usize) -> PipelineError {
    PipelineError::Invalid(format!(
        "nothing to train: crops of timepoint {t} hold no labelled voxel; take a larger crop_size or input_size, or less rotation"
    ))
}

/// A batch of crops of the same size with their labels.
pub(super) fn stack(
    crops: Vec<(Array3<f32>, Array3<u8>)>,
    keep_axials: KeepAxials,
) -> Result<TrainingBatch, PipelineError> {
    let (images, labels): (Vec<_>, Vec<_>) = crops.into_iter().unzip();
    Ok(TrainingBatch::labelled(stack_arrays(&images)?, stack_arrays(&labels)?, keep_axials))
}

fn stack_arrays<T: Clone>(arrays: &[Array3<T>]) -> Result<Array4<T>, PipelineError> {
    let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
    ndarray::stack(Axis(0), &views).map_err(|error| PipelineError::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(timepoints: usize, count: u32) -> Epoch {
        Epoch::new((0..timepoints).map(|t| (2 * t, vec![[t; 3]])).collect(), count)
    }

    fn drawn(epoch: &mut Epoch, seed: u64) -> Vec<usize> {
        let mut rng = Rng::with_seed(seed);
        let mut next = || {
            let t = epoch.next(&mut rng)?;
            assert_eq!(epoch.anchors(t), Some(&[[t / 2; 3]][..]));
            Some(t)
        };
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn each_timepoint_comes_equally_often_in_random_order() {
        let order = drawn(&mut epoch(5, 7), 1);
        for t in [0, 2, 4, 6, 8] {
            assert_eq!(order.iter().filter(|&&other| other == t).count(), 7);
        }
        assert!(!order.is_sorted());
        assert_eq!(order, drawn(&mut epoch(5, 7), 1));
        assert_ne!(order, drawn(&mut epoch(5, 7), 2));
        assert!(drawn(&mut epoch(0, 7), 1).is_empty());
    }

    #[test]
    fn a_timepoint_without_labels_does_not_come_again() {
        let mut epoch = epoch(3, 2);
        epoch.change(2, None);
        epoch.change(4, Some(vec![[2; 3]]));
        assert_eq!((epoch.len(), epoch.anchors(2)), (4, None));
        let mut order = drawn(&mut epoch, 1);
        order.sort_unstable();
        assert_eq!(order, [0, 0, 4, 4]);
    }

    #[test]
    fn the_largest_epoch_takes_no_memory_for_its_order() {
        // As many as a request may ask for: 4 GB, were they listed.
        let mut epoch = epoch(500, 1_000_000);
        assert_eq!(epoch.len(), 500_000_000);
        let mut rng = Rng::with_seed(1);
        let first: std::collections::HashSet<usize> = (0..100).filter_map(|_| epoch.next(&mut rng)).collect();
        assert!(first.len() > 50);
        assert_eq!(epoch.len(), 499_999_900);
    }
}
