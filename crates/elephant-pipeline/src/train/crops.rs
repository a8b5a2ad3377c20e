//! Crops of a dataset's frames and labels.

use std::{collections::HashMap, ops::Range};

use elephant_image::Augmentation;
use elephant_types::{CancelToken, KeepAxials, TrainingBatch};
use elephant_volume::{Dataset, Store};
use fastrand::Rng;
use ndarray::{Array3, Array4, ArrayD, Axis, Ix3, IxDyn};
use rayon::prelude::*;

use super::CropOptions;
use crate::{PipelineError, label_centroids};

/// How often a crop is drawn again when rotation took all labels out of it.
const MAX_DRAWS: usize = 100;

/// Draws crops of one dataset. The same seed draws the same.
pub(super) struct Crops<'a> {
    dataset: &'a Dataset,
    rescaled: [usize; 3],
    augmentation: Augmentation,
    keep_axials: KeepAxials,
    /// Lowest and highest intensity of the frames that were looked at.
    ranges: HashMap<usize, Range<f32>>,
    rng: Rng,
}

impl<'a> Crops<'a> {
    pub(super) fn new(dataset: &'a Dataset, options: &CropOptions, seed: u64) -> Self {
        let (rescaled, augmentation) = options.augmentation(dataset.frame_shape());
        let keep_axials = options.keep_axials;
        Self { dataset, rescaled, augmentation, keep_axials, ranges: HashMap::new(), rng: Rng::with_seed(seed) }
    }

    /// `count` times each of the timepoints, in random order.
    pub(super) fn shuffled(&mut self, timepoints: &[usize], count: u32) -> Vec<usize> {
        let mut order: Vec<usize> = timepoints.iter().flat_map(|&t| std::iter::repeat_n(t, count as usize)).collect();
        self.rng.shuffle(&mut order);
        order
    }

    /// A labelled crop of each timepoint.
    pub(super) fn labelled(
        &mut self,
        timepoints: &[usize],
        cancel: &CancelToken,
    ) -> Result<TrainingBatch, PipelineError> {
        let centroids = label_centroids(self.dataset)?;
        let mut crops = Vec::with_capacity(timepoints.len());
        for t in timepoints {
            let anchors = centroids.get(t).filter(|anchors| !anchors.is_empty());
            let anchors = anchors.ok_or_else(|| {
                PipelineError::Invalid(format!(
                    "nothing to train: timepoint {t} has no labels; tag spots and update them"
                ))
            })?;
            cancel.check()?;
            crops.push(self.labelled_crop(*t, anchors)?);
        }
        stack(crops, self.keep_axials)
    }

    /// A crop from anywhere at any time, without labels.
    pub(super) fn unlabelled(&mut self) -> Result<TrainingBatch, PipelineError> {
        let frame = self.dataset.frame_shape();
        let t = self.rng.usize(0..self.dataset.timepoint_count());
        let crop = self.augmentation.draw(frame, self.rescaled, None, &mut self.rng);
        let (origin, size) = crop.source(frame);
        let image = self.read_image(t, origin, size)?;
        stack(vec![(crop.image(image.view(), origin), Array3::zeros((0, 0, 0)))], self.keep_axials)
    }

    fn labelled_crop(&mut self, t: usize, anchors: &[[usize; 3]]) -> Result<(Array3<f32>, Array3<u8>), PipelineError> {
        let frame = self.dataset.frame_shape();
        for _ in 0..MAX_DRAWS {
            let anchor = anchors[self.rng.usize(0..anchors.len())];
            let crop = self.augmentation.draw(frame, self.rescaled, Some(anchor), &mut self.rng);
            let (origin, size) = crop.source(frame);
            let labels = crop.labels(self.read_labels(t, origin, size)?.view(), origin);
            if labels.iter().any(|&label| label > 0) {
                let image = self.read_image(t, origin, size)?;
                let mut image = crop.image(image.view(), origin);
                crop.change_contrast(&mut image, &labels);
                return Ok((image, labels));
            }
        }
        let message = format!(
            "nothing to train: crops of timepoint {t} hold no labelled voxel; take a larger crop_size or input_size, or less rotation"
        );
        Err(PipelineError::Invalid(message))
    }

    /// Intensities, scaled to 0..=1 over the whole frame.
    fn read_image(&mut self, t: usize, origin: [usize; 3], size: [usize; 3]) -> Result<Array3<f32>, PipelineError> {
        let range = match self.ranges.get(&t) {
            Some(range) => range.clone(),
            None => self.ranges.entry(t).or_insert(intensity_range(self.dataset, t)?).clone(),
        };
        let mut image = self.dataset.read_frame(t, origin, size)?;
        let span = range.end - range.start;
        let span = if span > 0.0 { span } else { 1.0 };
        image.par_mapv_inplace(|value| (value - range.start) / span);
        Ok(image)
    }

    fn read_labels(&self, t: usize, origin: [usize; 3], size: [usize; 3]) -> Result<Array3<u8>, PipelineError> {
        // A 2-D dataset's store has no z.
        let first = usize::from(!self.dataset.is_3d());
        let start: Vec<usize> = std::iter::once(t).chain(origin[first..].iter().copied()).collect();
        let shape: Vec<usize> = std::iter::once(1).chain(size[first..].iter().copied()).collect();
        let mut labels = ArrayD::<u8>::zeros(IxDyn(&shape));
        self.dataset.store(Store::SegLabels).read(&start, labels.view_mut())?;
        let labels =
            labels.into_shape_with_order(IxDyn(&size)).and_then(ndarray::ArrayBase::into_dimensionality::<Ix3>);
        labels.map_err(|error| PipelineError::Invalid(error.to_string()))
    }
}

/// Lowest and highest intensity of a frame, plane by plane.
fn intensity_range(dataset: &Dataset, t: usize) -> Result<Range<f32>, PipelineError> {
    let [depth, height, width] = dataset.frame_shape();
    let none = || f32::INFINITY..f32::NEG_INFINITY;
    let plane = |z| -> Result<Range<f32>, PipelineError> {
        let plane = dataset.read_frame(t, [z, 0, 0], [1, height, width])?;
        Ok(plane.iter().fold(none(), |range, &value| range.start.min(value)..range.end.max(value)))
    };
    let widen = |a: Range<f32>, b: Range<f32>| Ok(a.start.min(b.start)..a.end.max(b.end));
    (0..depth).into_par_iter().map(plane).try_reduce(none, widen)
}

/// A batch of crops of the same size.
pub(super) fn stack(
    crops: Vec<(Array3<f32>, Array3<u8>)>,
    keep_axials: KeepAxials,
) -> Result<TrainingBatch, PipelineError> {
    let (images, labels): (Vec<_>, Vec<_>) = crops.into_iter().unzip();
    let (images, labels) = (stack_arrays(&images), stack_arrays(&labels));
    let wrong = |error: ndarray::ShapeError| PipelineError::Invalid(error.to_string());
    Ok(TrainingBatch {
        images: images.map_err(wrong)?,
        labels: labels.map_err(wrong)?,
        keep_axials,
        punishes_false_positives: false,
    })
}

fn stack_arrays<T: Clone>(arrays: &[Array3<T>]) -> Result<Array4<T>, ndarray::ShapeError> {
    let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
    ndarray::stack(Axis(0), &views)
}
