//! What training minimises (docs/method.md, "Losses").

use elephant_model::{LossValues, Objective};
use ndarray::{ArrayD, ArrayViewD, Axis};
use tch::{Device, Kind, Tensor};

use super::flow_loss::{VectorRules, VectorTarget, vector_loss};
use crate::{NnError, ops};

/// The name of the Dice loss among the parts.
pub(super) const DICE: &str = "center_dice_loss";
/// Labels beside 0: three classes with "true" tags, then the same three with "false" tags.
const LABELS: usize = 6;
/// Smallest denominator of the Dice coefficient.
const DICE_EPSILON: f64 = 1e-6;
/// See [`EmptyCrop::PunishFalsePositives`].
const FOUND_SHARE: f64 = 0.01;
/// Shares of likelihood, Dice and smoothness.
const SHARES: [f64; 3] = [1.0 / 7.0, 5.0 / 7.0, 1.0 / 7.0];
/// Radius and standard deviation of the Gaussian along z, and along y and x, in voxels.
const SMOOTH_Z: (i64, f64) = (1, 1.0);
const SMOOTH_YX: (i64, f64) = (2, 8.0);

/// The Dice loss of a crop without a centre.
#[derive(Clone, Copy, Debug)]
pub(super) enum EmptyCrop {
    /// The Dice loss of the step before, which has no gradient, as in the original.
    Last(f64),
    /// Σp² / (Σp² + 2v) for probabilities p of a centre, with v = [`FOUND_SHARE`] times the labelled voxels: as if a centre
    /// of v voxels had been found besides.
    PunishFalsePositives,
}

/// What one crop is compared with.
#[derive(Debug)]
pub(super) enum Target<'a> {
    /// Labels of which some are known.
    Labels(LabelTarget<'a>),
    /// The image itself.
    Intensities,
    /// Vectors of which some are known.
    Vectors(VectorTarget<'a>),
}

/// What the crops of a batch are to be compared with, as it was given.
#[derive(Debug)]
pub(super) enum Given {
    /// Nothing but the crops.
    Inputs,
    /// Values of the label store, (n, …).
    Labels(ArrayD<u8>),
    /// Vectors (n, c, …) and weights of their voxels (n, …).
    Vectors { values: ArrayD<f32>, weight: ArrayD<f32> },
}

/// What each of the crops is compared with, `None` where nothing in it is labelled.
///
/// # Errors
/// [`NnError::InvalidTraining`] for a value that no label has, and when nothing is labelled in any of the `crops`.
pub(super) fn targets<'a>(
    objective: &Objective,
    crops: usize,
    given: &'a Given,
) -> Result<Vec<Option<Target<'a>>>, NnError> {
    let unlabelled = || NnError::InvalidTraining { reason: "there is no labelled voxel in the crops".into() };
    match (objective, given) {
        (&Objective::Labels { class_weights, false_weight }, Given::Labels(labels)) => {
            let target = |labels| Ok(LabelTarget::new(labels, class_weights, false_weight)?.map(Target::Labels));
            let targets = labels.axis_iter(Axis(0)).map(target).collect::<Result<Vec<_>, NnError>>()?;
            if targets.iter().all(Option::is_none) { Err(unlabelled()) } else { Ok(targets) }
        }
        (Objective::Vectors { .. }, Given::Vectors { values, weight }) => {
            let count = weight.iter().filter(|&&weight| weight > 0.0).count();
            if count == 0 {
                return Err(unlabelled());
            }
            // A crop without a known vector has the other parts of the loss.
            let share = 1.0 / count as f32;
            let crops = values.axis_iter(Axis(0)).zip(weight.axis_iter(Axis(0)));
            Ok(crops.map(|(values, weight)| Some(Target::Vectors(VectorTarget { values, weight, share }))).collect())
        }
        _ => Ok((0..crops).map(|_| Some(Target::Intensities)).collect()),
    }
}

/// Rules that all crops of a step have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Crops with a target in the whole batch; the loss is the mean over them.
    pub(super) count: usize,
    pub(super) empty: EmptyCrop,
    pub(super) vectors: VectorRules,
}

/// What crops add to the loss of a batch, and the gradient of that by the network's `results` (n, c, …): log-probabilities of
/// classes, or vectors. At least one of the `targets` of these n crops must be there. `images` (n, inputs, …) are what the
/// network saw.
pub(super) fn differentiate(
    results: &Tensor,
    targets: &[Option<Target<'_>>],
    images: &Tensor,
    rules: Rules,
) -> Result<(LossValues, Tensor), NnError> {
    let leaf = results.detach().set_requires_grad(true);
    let (loss, parts) = tch::with_grad(|| match targets.first() {
        Some(Some(Target::Intensities)) => Ok((intensity_loss(&leaf, images, rules.count)?, Vec::new())),
        Some(Some(Target::Vectors(_))) => {
            let mut vectors = Vec::with_capacity(targets.len());
            for target in targets {
                if let Some(Target::Vectors(target)) = target {
                    vectors.push(target);
                }
            }
            vector_loss(&leaf, &vectors, rules.count, images, rules.vectors)
        }
        _ => label_loss(&leaf, targets, rules.count, rules.empty),
    })?;
    let value = |t: &Tensor| t.f_double_value(&[]).map_err(NnError::from);
    let parts = parts.iter().map(|(name, part)| Ok((*name, value(part)?))).collect::<Result<Vec<_>, NnError>>()?;
    let total = value(&loss)?;
    let gradient = Tensor::f_run_backward(&[loss], &[leaf], false, false)?.pop();
    let gradient = gradient.ok_or_else(|| NnError::Torch { message: "the loss has no gradient".into() })?;
    Ok((LossValues { total, parts }, gradient))
}

/// Parts of a loss, by name.
pub(super) type Parts = Vec<(&'static str, Tensor)>;

fn label_loss(
    logarithms: &Tensor,
    targets: &[Option<Target<'_>>],
    count: usize,
    empty: EmptyCrop,
) -> Result<(Tensor, Parts), NnError> {
    let device = logarithms.device();
    let [mut likelihood, mut dice, mut smooth] = [(); 3].map(|()| Tensor::zeros([], (Kind::Float, device)));
    for (index, target) in targets.iter().enumerate() {
        let Some(Target::Labels(target)) = target else { continue };
        let logarithms = logarithms.f_select(0, index as i64)?;
        let center = logarithms.f_select(0, 2)?.f_exp()?;
        let weights = tensor(&target.likelihood(), &logarithms.size(), device)?;
        likelihood = likelihood.f_sub(&logarithms.f_mul(&weights)?.f_sum(Kind::Float)?)?;
        dice = dice.f_add(&target.dice_loss(&center, empty)?)?;
        smooth = smooth.f_add(&roughness(&center.f_unsqueeze(0)?.f_unsqueeze(0)?)?)?;
    }
    let mean = |sum: Tensor| sum.f_div_scalar(count as f64);
    let parts = [("nll_loss", mean(likelihood)?), (DICE, mean(dice)?), ("smooth_loss", mean(smooth)?)];
    let mut loss = Tensor::f_zeros([], (Kind::Float, device))?;
    for ((_, part), share) in parts.iter().zip(SHARES) {
        loss = loss.f_add(&part.f_mul_scalar(share)?)?;
    }
    Ok((loss, parts.into()))
}

/// The labels of one crop, with what the sums of the loss are weighted by.
#[derive(Debug)]
pub(super) struct LabelTarget<'a> {
    labels: ArrayViewD<'a, u8>,
    /// For each of the labels 1 to 6, its share in the negative log-likelihood.
    coefficients: [f32; LABELS],
    /// Shares of the Dice loss of "true" and "false" tags, where they have voxels.
    shares: [Option<f64>; 2],
    has_center: bool,
}

impl<'a> LabelTarget<'a> {
    /// `None` when nothing is labelled.
    fn new(labels: ArrayViewD<'a, u8>, class_weights: [f64; 3], false_weight: f64) -> Result<Option<Self>, NnError> {
        let mut counts = [0u64; LABELS + 1];
        for &label in &labels {
            *counts.get_mut(usize::from(label)).ok_or_else(|| invalid_label(label))? += 1;
        }
        let groups = [0, 1].map(|group| [1, 2, 3].map(|class| counts[3 * group + class]));
        let voxels = groups.map(|counts| counts.iter().sum::<u64>() as f64);
        let importance = [voxels[0], false_weight * voxels[1]];
        let total = importance[0] + importance[1];
        if total <= 0.0 {
            return Ok(None);
        }
        let mut coefficients = [0.0; LABELS];
        for (group, coefficients) in coefficients.chunks_exact_mut(3).enumerate() {
            let weighted: f64 = (0..3).map(|class| class_weights[class] * groups[group][class] as f64).sum();
            for (coefficient, weight) in coefficients.iter_mut().zip(class_weights).filter(|_| weighted > 0.0) {
                *coefficient = (weight / weighted * importance[group] / total) as f32;
            }
        }
        let shares = [0, 1].map(|group| (voxels[group] > 0.0).then(|| importance[group] / total));
        Ok(Some(Self { labels, coefficients, shares, has_center: counts[3] + counts[6] > 0 }))
    }

    /// For each class and voxel, its share in the negative log-likelihood.
    fn likelihood(&self) -> Vec<f32> {
        let length = self.labels.len();
        let mut likelihood = vec![0.0; 3 * length];
        for (voxel, &label) in self.labels.iter().enumerate() {
            if let Some(value) = usize::from(label).checked_sub(1) {
                likelihood[value % 3 * length + voxel] = self.coefficients[value];
            }
        }
        likelihood
    }

    /// 1 for each voxel with a tag of the group, "true" (0) or "false" (1), and 1 for each of those that is a centre.
    fn masks(&self, group: usize) -> [Vec<f32>; 2] {
        let labels = 3 * group as u8;
        let mask = |is_in: &dyn Fn(u8) -> bool| self.labels.iter().map(|&label| f32::from(is_in(label))).collect();
        [mask(&|label| (labels + 1..=labels + 3).contains(&label)), mask(&|label| label == labels + 3)]
    }

    /// One minus the Dice coefficient of the probability of a centre (…), for "true" and "false" tags together.
    fn dice_loss(&self, center: &Tensor, empty: EmptyCrop) -> Result<Tensor, NnError> {
        let (size, device) = (center.size(), center.device());
        let mut sum = Tensor::f_zeros([], (Kind::Float, device))?;
        if let (EmptyCrop::Last(last), false) = (empty, self.has_center) {
            return Ok(sum.f_add_scalar(last)?);
        }
        for (group, share) in self.shares.iter().enumerate() {
            let Some(share) = share else { continue };
            let [mask, centers] = self.masks(group);
            let voxels = |mask: &[f32]| mask.iter().map(|&value| f64::from(value)).sum::<f64>();
            let count = voxels(&centers);
            let found = if self.has_center { 0.0 } else { FOUND_SHARE * voxels(&mask) };
            let (mask, centers) = (tensor(&mask, &size, device)?, tensor(&centers, &size, device)?);
            let common = center.f_mul(&centers)?.f_sum(Kind::Float)?;
            let squares = center.f_square()?.f_mul(&mask)?.f_sum(Kind::Float)?;
            let coefficient = common
                .f_add_scalar(found)?
                .f_mul_scalar(2.0)?
                .f_div(&squares.f_add_scalar(count + 2.0 * found)?.f_clamp_min(DICE_EPSILON)?)?;
            sum = sum.f_add(&coefficient.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(*share)?)?;
        }
        Ok(sum)
    }
}

fn tensor(values: &[f32], size: &[i64], device: Device) -> Result<Tensor, NnError> {
    Ok(Tensor::f_from_slice(values)?.f_reshape(size)?.f_to_device(device)?)
}

/// The mean difference between maps (n, c, …) and smoothed versions of them at half the resolution.
pub(super) fn roughness(maps: &Tensor) -> Result<Tensor, NnError> {
    let coarse = ops::nearest(&smooth(maps, 2)?, &ops::spatial_size(maps))?;
    Ok(maps.f_sub(&smooth(&coarse, 1)?)?.f_abs()?.f_mean(Kind::Float)?)
}

/// A Gaussian along every axis, zero outside, taken at every `stride`-th voxel.
fn smooth(map: &Tensor, stride: i64) -> Result<Tensor, NnError> {
    let mut map = map.shallow_clone();
    for axis in 2..map.dim() as i64 {
        let (radius, deviation) = if map.dim() == 5 && axis == 2 { SMOOTH_Z } else { SMOOTH_YX };
        map = windowed(&map, axis, radius, deviation, stride)?;
    }
    Ok(map)
}

/// The mean over a Gaussian window along one axis, zero outside, taken at every `stride`-th voxel.
pub(super) fn windowed(map: &Tensor, axis: i64, radius: i64, deviation: f64, stride: i64) -> Result<Tensor, NnError> {
    let weights: Vec<f64> = (-radius..=radius).map(|at| (-(at as f64 / deviation).powi(2) / 2.0).exp()).collect();
    let sum: f64 = weights.iter().sum();
    // libtorch takes pairs of (before, after), last axis first.
    let mut pads = vec![0; 2 * map.dim()];
    let pair = 2 * (map.dim() - 1 - axis as usize);
    pads[pair..pair + 2].fill(radius);
    let size = map.size()[axis as usize];
    let padded = map.f_constant_pad_nd(pads)?;
    let mut smoothed: Option<Tensor> = None;
    for (at, weight) in (0i64..).zip(&weights) {
        let part = padded.f_slice(axis, at, at + size, stride)?.f_mul_scalar(weight / sum)?;
        smoothed = Some(match smoothed {
            Some(sum) => sum.f_add(&part)?,
            None => part,
        });
    }
    Ok(smoothed.unwrap_or(padded))
}

fn invalid_label(label: u8) -> NnError {
    NnError::InvalidTraining {
        reason: format!(
            "the labels of a crop hold the value {label}, but labels are 0 to {LABELS}; the label store was written by \
             another program or is damaged, so reset the labels of this dataset and update them again"
        ),
    }
}

/// What these crops add to a mean over `count` crops.
fn intensity_loss(logarithms: &Tensor, images: &Tensor, count: usize) -> Result<Tensor, NnError> {
    let class = |index: i64| logarithms.f_narrow(1, index, 1)?.f_exp();
    let distance = |map: &Tensor| map.f_sub(images)?.f_abs()?.f_mean(Kind::Float);
    let foreground = class(0)?.f_neg()?.f_add_scalar(1.0)?;
    let mean = distance(&class(2)?)?.f_add(&distance(&foreground)?)?;
    Ok(mean.f_mul_scalar(images.size()[0] as f64 / count as f64)?)
}
