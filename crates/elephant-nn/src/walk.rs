//! The order of a network's operations, for prediction and for training.

use std::ops::Range;

use elephant_types::{KeepAxials, NetworkKind};
use tch::{Kind, Tensor};

use crate::{
    NnError, Precision,
    convolution::Below,
    ops,
    spec::{Head, LEVELS, NetworkSpec},
};

/// The operations of one pass: prediction keeps nothing, training keeps what the backward pass needs.
pub(crate) trait Pass {
    /// The result of block `index` for `input` and, in the decoder, the features of the level below. They are not needed
    /// afterwards.
    fn block(&mut self, index: usize, input: Tensor, below: Option<Below>) -> Result<Tensor, NnError>;

    /// The features at half the size.
    fn pool(&mut self, features: &Tensor, keep_z: bool) -> Result<Tensor, NnError>;

    /// The result of the convolution at the end.
    fn output(&mut self, features: &Tensor) -> Result<Tensor, NnError>;
}

/// The result (n, outputs, …) of the last convolution for `images` (n, inputs, …), whose sizes must be
/// [fitting](fit).
pub(crate) fn walk(pass: &mut impl Pass, images: Tensor, keep_axials: KeepAxials) -> Result<Tensor, NnError> {
    let mut x = images;
    let mut skipped = Vec::with_capacity(LEVELS);
    for (level, keep_z) in keep_axials.0.into_iter().enumerate() {
        let features = pass.block(level, x, None)?;
        x = pass.pool(&features, keep_z)?;
        skipped.push((features, keep_z));
    }
    x = pass.block(LEVELS, x, None)?;
    for (index, (features, keep_z)) in (LEVELS + 1..).zip(skipped.into_iter().rev()) {
        x = pass.block(index, features, Some(Below { features: x, keep_z }))?;
    }
    pass.output(&x)
}

/// What a network resizes its input to multiples of: 16 in y and x, and in z 2 for every level that pools it.
pub(crate) fn size_multiples(dims: NetworkKind, keep_axials: KeepAxials) -> Vec<i64> {
    let poolings = keep_axials.0.iter().filter(|keep| !**keep).count();
    let all = [1 << poolings, 16, 16];
    match dims {
        NetworkKind::Volumetric => all.to_vec(),
        NetworkKind::Planar => all[1..].to_vec(),
    }
}

/// The images at a size that the network can take, and the size to go back to where they had to be resized.
pub(crate) fn fit(
    spec: &NetworkSpec,
    keep_axials: KeepAxials,
    images: &Tensor,
) -> Result<(Tensor, Option<Vec<i64>>), NnError> {
    let size = ops::spatial_size(images);
    let multiples = size_multiples(spec.dims, keep_axials);
    let next_multiple = |(&size, multiple): (&i64, i64)| (size + multiple - 1) / multiple * multiple;
    let fitting: Vec<i64> = size.iter().zip(multiples).map(next_multiple).collect();
    if size == fitting {
        return Ok((images.shallow_clone(), None));
    }
    Ok((ops::resize(images, &fitting)?, Some(size)))
}

/// The network's result in some channels, from what the last convolution gives: log-probabilities of classes, or vectors, at
/// the `size` to go back to.
pub(crate) fn activate(
    spec: &NetworkSpec,
    logits: &Tensor,
    channels: &Range<usize>,
    size: Option<&[i64]>,
) -> Result<Tensor, NnError> {
    let all = match spec.head {
        Head::Classes => logits.f_log_softmax(1, Kind::Float)?,
        Head::Vectors => logits.f_tanh()?,
    };
    let some = all.f_narrow(1, channels.start as i64, channels.len() as i64)?;
    match size {
        Some(size) => ops::resize(&some, size),
        None => Ok(some),
    }
}

/// The type of a block's convolutions. The two finest levels stay f32: they take a third of the operations and cause
/// most of what bf16 changes in the probabilities.
pub(crate) fn block_kind(index: usize, precision: Precision) -> Kind {
    let level = index.min(2 * LEVELS - index);
    if level < 2 { Kind::Float } else { low_kind(precision) }
}

/// The type of convolutions whose precision matters little.
pub(crate) fn low_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}
