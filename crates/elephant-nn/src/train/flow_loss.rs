//! What the training of a flow network minimises (docs/method.md, "Losses", "Flow").

use elephant_types::Numerics;
use ndarray::ArrayViewD;
use tch::{Device, Kind, Tensor};

use super::loss::{Parts, roughness, windowed};
use crate::{NnError, ops};

/// Names of the parts, as the original's TensorBoard tags.
const NAMES: [&str; 3] = ["instance_loss", "SSIM_loss", "smooth_loss"];
/// Shares of distance, similarity and smoothness.
const SHARES: [f64; 3] = [1.0 / 1.02, 0.01 / 1.02, 0.01 / 1.02];
/// Displacements in voxels along x, y and z that the original warps frames by where a vector's component is 1, whatever the
/// labels were divided by.
const ORIGINAL_NORMS: [f64; 3] = [80.0, 80.0, 10.0];
/// Radius of the window of the similarity along z, and along y and x, in voxels.
const WINDOW_RADII: (i64, i64) = (1, 3);
/// Standard deviation of the window in voxels.
const WINDOW_DEVIATION: f64 = 1.5;
/// Constants of the similarity for intensities of 0 to 1.
const SIMILARITY: [f64; 2] = [1e-4, 9e-4];

/// Vectors that one crop is compared with.
#[derive(Debug)]
pub(super) struct VectorTarget<'a> {
    /// Components (x, y, z), (c, …).
    pub(super) values: ArrayViewD<'a, f32>,
    /// Above 0 where the vector is known, (…).
    pub(super) weight: ArrayViewD<'a, f32>,
    /// Share of a voxel whose vector is known in the distance of the batch.
    pub(super) share: f32,
}

impl VectorTarget<'_> {
    /// The vectors, and each voxel's share in the distance.
    fn tensors(&self, device: Device) -> Result<[Tensor; 2], NnError> {
        let shares = self.weight.mapv(|weight| if weight > 0.0 { self.share } else { 0.0 });
        Ok([tensor(&self.values, device)?, tensor(&shares.view(), device)?])
    }
}

fn tensor(values: &ArrayViewD<'_, f32>, device: Device) -> Result<Tensor, NnError> {
    let shape: Vec<i64> = values.shape().iter().map(|&size| size as i64).collect();
    let values = Tensor::f_from_slice(values.as_standard_layout().as_slice().unwrap_or_default())?;
    Ok(values.f_reshape(shape)?.f_to_device(device)?)
}

/// How vectors are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct VectorRules {
    /// Displacement in voxels along x, y and z that a component of 1 stands for.
    norms: [f64; 3],
    /// Weights of the axes x, y and z in the distance; their mean is 1 over the axes that the network has.
    weights: [f64; 3],
    numerics: Numerics,
}

impl VectorRules {
    /// The rules of an objective for a network of so many axes. The original's numbers take neither its norms nor its
    /// weights into account.
    pub(super) fn new(norms: [f64; 3], weights: [f64; 3], axes: usize, numerics: Numerics) -> Self {
        match numerics {
            Numerics::Original => Self { norms: ORIGINAL_NORMS, weights: [1.0; 3], numerics },
            Numerics::Corrected => {
                let mean = weights[..axes].iter().sum::<f64>() / axes as f64;
                let weights = weights.map(|weight| if mean > 0.0 { weight / mean } else { 1.0 });
                Self { norms, weights, numerics }
            }
        }
    }
}

/// What crops add to the loss of a batch of `count` crops, and its parts. `vectors` (n, c, …) are the network's, `images`
/// (n, 2, …) the earlier and the later frame.
pub(super) fn vector_loss(
    vectors: &Tensor,
    targets: &[&VectorTarget<'_>],
    count: usize,
    images: &Tensor,
    rules: VectorRules,
) -> Result<(Tensor, Parts), NnError> {
    let axes = vectors.dim() - 2;
    let mut distance = Tensor::f_zeros([], (Kind::Float, vectors.device()))?;
    for (index, target) in targets.iter().enumerate() {
        let [values, shares] = target.tensors(vectors.device())?;
        let difference = vectors.f_select(0, index as i64)?.f_sub(&values)?.f_abs()?.f_mul(&shares)?;
        for (axis, weight) in rules.weights.iter().enumerate().take(axes) {
            let part = difference.f_select(0, axis as i64)?.f_sum(Kind::Float)?.f_mul_scalar(weight / axes as f64)?;
            distance = distance.f_add(&part)?;
        }
    }
    let share = targets.len() as f64 / count as f64;
    let dissimilarity = similarity(vectors, images, rules)?.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(share)?;
    let roughness = roughness(vectors)?.f_mul_scalar(share)?;
    let mut loss = Tensor::f_zeros([], (Kind::Float, vectors.device()))?;
    let parts = [distance, dissimilarity, roughness];
    for (part, share) in parts.iter().zip(SHARES) {
        loss = loss.f_add(&part.f_mul_scalar(share)?)?;
    }
    Ok((loss, NAMES.into_iter().zip(parts).collect()))
}

/// The mean structural similarity (Wang et al., IEEE TIP 2004) of the earlier frame and the later one, moved by the vectors.
fn similarity(vectors: &Tensor, images: &Tensor, rules: VectorRules) -> Result<Tensor, NnError> {
    let (earlier, later) = (images.f_narrow(1, 0, 1)?, images.f_narrow(1, 1, 1)?);
    let grid = sampling_grid(vectors, rules)?;
    let moved = later.f_grid_sampler(&grid, 0, 0, true)?;
    let products = [
        earlier.shallow_clone(),
        moved.shallow_clone(),
        earlier.f_square()?,
        moved.f_square()?,
        earlier.f_mul(&moved)?,
    ];
    let windows = window(&Tensor::f_cat(&products, 1)?, rules.numerics)?;
    let mean = |index: i64| windows.f_narrow(1, index, 1);
    let (first, second) = (mean(0)?, mean(1)?);
    let (squares, product) = (first.f_square()?.f_add(&second.f_square()?)?, first.f_mul(&second)?);
    let covariance = mean(4)?.f_sub(&product)?;
    let variances = mean(2)?.f_add(&mean(3)?)?.f_sub(&squares)?;
    let [c1, c2] = SIMILARITY;
    let twice = |x: &Tensor, constant: f64| x.f_mul_scalar(2.0)?.f_add_scalar(constant);
    let numerator = twice(&product, c1)?.f_mul(&twice(&covariance, c2)?)?;
    let map = numerator.f_div(&squares.f_add_scalar(c1)?.f_mul(&variances.f_add_scalar(c2)?)?)?;
    let counted = match rules.numerics {
        // In 3-D, voxels whose window is black in one of the images are left out.
        Numerics::Original if vectors.dim() == 5 => product.detach().f_ne(0.0)?,
        Numerics::Original => product.detach().f_ones_like()?,
        // What was outside the crop in the other frame says nothing.
        Numerics::Corrected => grid.detach().f_abs()?.f_amax([-1i64].as_slice(), false)?.f_le(1.0)?.f_unsqueeze(1)?,
    };
    let counted = counted.f_to_kind(Kind::Float)?;
    // The original's mean is over all voxels of a batch; the corrected one is over crops, however devices share them.
    let crops = if rules.numerics == Numerics::Original { 1 } else { map.size()[0] };
    let sums =
        |values: &Tensor| values.f_reshape([crops, -1])?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let voxels = sums(&counted)?.f_clamp_min(1.0)?;
    Ok(sums(&map.f_mul(&counted)?)?.f_div(&voxels)?.f_mean(Kind::Float)?)
}

/// Where each voxel's cell was in the earlier frame's image of the later one: places (n, …, axes) in the order x, y, z, from
/// −1 at the first voxel's centre to 1 at the last one's.
fn sampling_grid(vectors: &Tensor, rules: VectorRules) -> Result<Tensor, NnError> {
    let sizes = ops::spatial_size(vectors);
    let axes = sizes.len();
    let options = (Kind::Float, vectors.device());
    let mut components = Vec::with_capacity(axes);
    for (component, norm) in rules.norms.iter().enumerate().take(axes) {
        let axis = axes - 1 - component;
        let length = (sizes[axis] - 1).max(1) as f64;
        let mut shape = vec![1; axes];
        shape[axis] = sizes[axis];
        let places = Tensor::f_arange(sizes[axis], options)?.f_mul_scalar(2.0 / length)?.f_sub_scalar(1.0)?;
        // The original moves places by lengths that are relative to the number of voxels.
        let unit = if rules.numerics == Numerics::Original { sizes[axis] as f64 } else { length };
        let moved = vectors.f_select(1, component as i64)?.f_mul_scalar(-2.0 * norm / unit)?;
        components.push(moved.f_add(&places.f_reshape(&shape)?)?);
    }
    Ok(Tensor::f_stack(&components, -1)?)
}

/// Gaussian means over windows, zeros outside the crop.
fn window(maps: &Tensor, numerics: Numerics) -> Result<Tensor, NnError> {
    let (z, yx) = WINDOW_RADII;
    let axes = maps.dim() as i64 - 2;
    let mut maps = maps.shallow_clone();
    for axis in 0..axes {
        let is_z = axes == 3 && axis == 0;
        let radius = if is_z { z } else { yx };
        // The original multiplies the weights along z with themselves.
        let is_squared = is_z && numerics == Numerics::Original;
        let deviation = if is_squared { WINDOW_DEVIATION / std::f64::consts::SQRT_2 } else { WINDOW_DEVIATION };
        maps = windowed(&maps, 2 + axis, radius, deviation, 1)?;
    }
    Ok(maps)
}
