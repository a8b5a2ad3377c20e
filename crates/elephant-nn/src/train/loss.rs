//! What training minimises (contract section 6.9).

use elephant_types::{LossValues, Objective};
use ndarray::{ArrayD, ArrayViewD, Axis};
use tch::{Device, Kind, Tensor};

use crate::{NnError, ops};

/// The name of the Dice loss among the parts.
pub(super) const DICE: &str = "center_dice_loss";
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
    /// That of the step before, which teaches nothing, as in the original.
    Last(f64),
    /// Σp² / (Σp² + 2v) for probabilities p of a centre, with v = [`FOUND_SHARE`] times the labelled voxels: as if a centre
    /// of v voxels had been found besides.
    PunishFalsePositives,
}

/// The loss of `logarithms`, log-probabilities (n, class, …), and its gradient by them. `labels` (n, …) are those of the
/// label store, 0 where nothing is known; `images` (n, 1, …) are what the network saw.
pub(super) fn differentiate(
    objective: &Objective,
    logarithms: &Tensor,
    labels: &ArrayD<u8>,
    images: &Tensor,
    empty: EmptyCrop,
) -> Result<(LossValues, Tensor), NnError> {
    let leaf = logarithms.detach().set_requires_grad(true);
    let (loss, parts) = tch::with_grad(|| match objective {
        Objective::Labels { class_weights, false_weight } => {
            label_loss(&leaf, labels, *class_weights, *false_weight, empty)
        }
        Objective::Intensities => Ok((intensity_loss(&leaf, images)?, Vec::new())),
    })?;
    let value = |t: &Tensor| t.f_double_value(&[]).map_err(NnError::from);
    let parts = parts.iter().map(|(name, part)| Ok((*name, value(part)?))).collect::<Result<Vec<_>, NnError>>()?;
    let total = value(&loss)?;
    let gradient = Tensor::f_run_backward(&[loss], &[leaf], false, false)?.pop();
    let gradient = gradient.ok_or_else(|| NnError::Torch { message: "the loss has no gradient".into() })?;
    Ok((LossValues { total, parts }, gradient))
}

type Parts = Vec<(&'static str, Tensor)>;

fn label_loss(
    logarithms: &Tensor,
    labels: &ArrayD<u8>,
    class_weights: [f64; 3],
    false_weight: f64,
    empty: EmptyCrop,
) -> Result<(Tensor, Parts), NnError> {
    let device = logarithms.device();
    let [mut likelihood, mut dice, mut smooth] = [(); 3].map(|()| Tensor::zeros([], (Kind::Float, device)));
    let mut count = 0;
    for (index, labels) in labels.axis_iter(Axis(0)).enumerate() {
        let Some(targets) = Targets::new(&labels, class_weights, false_weight) else { continue };
        let logarithms = logarithms.f_select(0, index as i64)?;
        let center = logarithms.f_select(0, 2)?.f_exp()?;
        let weights = tensor(&targets.likelihood, &logarithms.size(), device)?;
        likelihood = likelihood.f_sub(&logarithms.f_mul(&weights)?.f_sum(Kind::Float)?)?;
        dice = dice.f_add(&targets.dice_loss(&center, empty)?)?;
        smooth = smooth.f_add(&roughness(&center)?)?;
        count += 1;
    }
    if count == 0 {
        return Err(NnError::InvalidTraining { reason: "there is no labelled voxel in the crops".into() });
    }
    let mean = |sum: Tensor| sum.f_div_scalar(f64::from(count));
    let parts = [("nll_loss", mean(likelihood)?), (DICE, mean(dice)?), ("smooth_loss", mean(smooth)?)];
    let mut loss = Tensor::f_zeros([], (Kind::Float, device))?;
    for ((_, part), share) in parts.iter().zip(SHARES) {
        loss = loss.f_add(&part.f_mul_scalar(share)?)?;
    }
    Ok((loss, parts.into()))
}

/// The labels of one crop as what the sums of the loss are taken with.
struct Targets {
    /// For each class and voxel, its share in the negative log-likelihood.
    likelihood: Vec<f32>,
    /// For "true" and "false" tags, where they have voxels.
    groups: [Option<Group>; 2],
    has_center: bool,
}

/// The voxels of one kind of tag.
struct Group {
    /// 1 for each of them.
    mask: Vec<f32>,
    /// 1 for each that is a centre.
    centers: Vec<f32>,
    /// Share of the Dice loss.
    share: f64,
}

impl Targets {
    /// `None` when nothing is labelled.
    fn new(labels: &ArrayViewD<'_, u8>, class_weights: [f64; 3], false_weight: f64) -> Option<Self> {
        let mut counts = [0u64; 7];
        for &label in labels {
            counts[usize::from(label.min(6))] += 1;
        }
        let groups = [0, 1].map(|group| [1, 2, 3].map(|class| counts[3 * group + class]));
        let voxels = groups.map(|counts| counts.iter().sum::<u64>() as f64);
        let importance = [voxels[0], false_weight * voxels[1]];
        let total = importance[0] + importance[1];
        if total <= 0.0 {
            return None;
        }
        let coefficients = [0, 1].map(|group| {
            let weighted: f64 = (0..3).map(|class| class_weights[class] * groups[group][class] as f64).sum();
            class_weights
                .map(|weight| if weighted > 0.0 { (weight / weighted * importance[group] / total) as f32 } else { 0.0 })
        });
        let length = labels.len();
        let mut likelihood = vec![0.0; 3 * length];
        let mut masks = [0, 1].map(|group| (voxels[group] > 0.0).then(|| (vec![0.0; length], vec![0.0; length])));
        for (voxel, &label) in labels.iter().enumerate() {
            let Some(value) = usize::from(label.min(6)).checked_sub(1) else { continue };
            let (group, class) = (value / 3, value % 3);
            likelihood[class * length + voxel] = coefficients[group][class];
            if let Some((mask, centers)) = &mut masks[group] {
                mask[voxel] = 1.0;
                centers[voxel] = if class == 2 { 1.0 } else { 0.0 };
            }
        }
        let mut share = importance.into_iter().map(|importance| importance / total);
        let groups = masks.map(|masks| {
            let share = share.next().unwrap_or_default();
            masks.map(|(mask, centers)| Group { mask, centers, share })
        });
        Some(Self { likelihood, groups, has_center: counts[3] + counts[6] > 0 })
    }

    /// One minus the Dice coefficient of the probability of a centre (…), for "true" and "false" tags together.
    fn dice_loss(&self, center: &Tensor, empty: EmptyCrop) -> Result<Tensor, NnError> {
        let (size, device) = (center.size(), center.device());
        let mut sum = Tensor::f_zeros([], (Kind::Float, device))?;
        if let (EmptyCrop::Last(last), false) = (empty, self.has_center) {
            return Ok(sum.f_add_scalar(last)?);
        }
        for Group { mask, centers, share } in self.groups.iter().flatten() {
            let count: f64 = centers.iter().map(|&center| f64::from(center)).sum();
            let found = if self.has_center { 0.0 } else { FOUND_SHARE * f64::from(mask.iter().sum::<f32>()) };
            let (mask, centers) = (tensor(mask, &size, device)?, tensor(centers, &size, device)?);
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

/// The mean difference between a map (…) and a smoothed version of it at half the resolution.
fn roughness(map: &Tensor) -> Result<Tensor, NnError> {
    let map = map.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let size = ops::spatial_size(&map);
    let coarse = ops::nearest(&smooth(&map, 2)?, &size)?;
    Ok(map.f_sub(&smooth(&coarse, 1)?)?.f_abs()?.f_mean(Kind::Float)?)
}

/// A Gaussian along every axis, zero outside, taken at every `stride`-th voxel.
fn smooth(map: &Tensor, stride: i64) -> Result<Tensor, NnError> {
    let mut map = map.shallow_clone();
    for axis in 2..map.dim() as i64 {
        let (radius, deviation) = if map.dim() == 5 && axis == 2 { SMOOTH_Z } else { SMOOTH_YX };
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
        map = smoothed.unwrap_or(padded);
    }
    Ok(map)
}

fn intensity_loss(logarithms: &Tensor, images: &Tensor) -> Result<Tensor, NnError> {
    let class = |index: i64| logarithms.f_narrow(1, index, 1)?.f_exp();
    let distance = |map: &Tensor| map.f_sub(images)?.f_abs()?.f_mean(Kind::Float);
    let foreground = class(0)?.f_neg()?.f_add_scalar(1.0)?;
    Ok(distance(&class(2)?)?.f_add(&distance(&foreground)?)?)
}
