//! The detection network of the original server (contract section 6.2), for prediction.
//!
//! Not here: training, tiling, and the choice of channels.

use elephant_checkpoint::StateDict;
use elephant_types::{CancelToken, KeepAxials, NetworkKind};
use tch::{Device, Kind, Tensor};

use crate::{
    NnError,
    architecture::{self, BLOCKS, LEVELS, OUTPUT},
    ops,
};

/// Added to the variance by the group norms.
const NORM_EPSILON: f64 = 1e-5;
/// Group norms have at most this many groups.
const MAX_GROUPS: i64 = 32;

/// How one prediction runs through the network.
#[derive(Clone, Debug)]
pub(crate) struct Pass<'a> {
    /// Pooling along z.
    pub(crate) keep_axials: KeepAxials,
    /// Whether to pad by replication before, and cut after.
    pub(crate) is_pad: bool,
    /// Looked at between the layers.
    pub(crate) cancel: &'a CancelToken,
}

/// A network with its weights on a device.
#[derive(Debug)]
pub(crate) struct Unet {
    kind: NetworkKind,
    blocks: Vec<[Layer; 2]>,
    output_weight: Tensor,
    output_bias: Tensor,
}

/// Convolution, ReLU, group norm.
#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
}

impl Unet {
    /// Puts the weights on `device` as f32. `dict` must have been found to be of `kind`.
    pub(crate) fn build(dict: &StateDict, kind: NetworkKind, device: Device) -> Result<Self, NnError> {
        let parameter = |name: String| -> Result<Tensor, NnError> {
            let tensor = dict
                .get(&name)
                .ok_or_else(|| NnError::WrongModel { reason: format!("the parameter {name} is missing") })?;
            let shape: Vec<i64> = tensor.shape().iter().map(|&size| size as i64).collect();
            Ok(Tensor::f_from_slice(&tensor.to_f32())?.f_reshape(&shape)?.f_to_device(device)?)
        };
        let layer = |convolution: String, norm: String| -> Result<Layer, NnError> {
            Ok(Layer {
                weight: parameter(format!("{convolution}.weight"))?,
                bias: parameter(format!("{convolution}.bias"))?,
                norm_weight: parameter(format!("{norm}.weight"))?,
                norm_bias: parameter(format!("{norm}.bias"))?,
            })
        };
        let blocks = BLOCKS.iter().map(|(block, ..)| -> Result<_, NnError> {
            Ok([layer(format!("{block}.0"), format!("{block}.2"))?, layer(format!("{block}.3"), format!("{block}.5"))?])
        });
        Ok(Self {
            kind,
            blocks: blocks.collect::<Result<_, _>>()?,
            output_weight: parameter(format!("{}.weight", OUTPUT.0))?,
            output_bias: parameter(format!("{}.bias", OUTPUT.0))?,
        })
    }

    /// The logarithms of the class probabilities, (n, 3, z, y, x), of images (n, 1, z, y, x); without z for a planar
    /// network.
    pub(crate) fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor, NnError> {
        let multiples = size_multiples(self.kind, pass.keep_axials);
        let padding: Vec<i64> = multiples.iter().map(|multiple| multiple / 2).collect();
        let padded = if pass.is_pad { ops::replicate(images, &padding)? } else { images.shallow_clone() };
        let size = ops::spatial_size(&padded);
        let fitting: Vec<i64> = size.iter().zip(&multiples).map(|(&s, &m)| (s + m - 1) / m * m).collect();
        let is_resized = size != fitting;

        let x = if is_resized { ops::resize(&padded, &fitting)? } else { padded };
        let mut logarithms = self.levels(x, pass)?.f_log_softmax(1, Kind::Float)?;
        if is_resized {
            logarithms = ops::resize(&logarithms, &size)?;
        }
        if pass.is_pad { ops::crop(&logarithms, &padding) } else { Ok(logarithms) }
    }

    /// Encoder, base, decoder and output convolution.
    fn levels(&self, images: Tensor, pass: &Pass<'_>) -> Result<Tensor, NnError> {
        let (encoder, rest) = self.blocks.split_at(LEVELS);
        let (base, decoder) = rest.split_at(1);
        let mut x = images;
        let mut skipped = Vec::with_capacity(LEVELS);
        for (level, block) in encoder.iter().enumerate() {
            let features = Self::block(x, block, pass)?;
            x = ops::max_pool(&features, pass.keep_axials.0[level])?;
            skipped.push(features);
        }
        x = Self::block(x, &base[0], pass)?;
        for (level, block) in (0..LEVELS).rev().zip(decoder) {
            let upsampled = ops::upsample(&x, pass.keep_axials.0[level])?;
            let features = skipped.pop().expect("one was pushed for each level");
            x = Tensor::f_cat(&[features, upsampled], 1)?;
            x = Self::block(x, block, pass)?;
        }
        ops::convolution(&x, &self.output_weight, &self.output_bias)
    }

    fn block(mut x: Tensor, layers: &[Layer; 2], pass: &Pass<'_>) -> Result<Tensor, NnError> {
        for layer in layers {
            pass.cancel.check()?;
            x = ops::convolution(&x, &layer.weight, &layer.bias)?.f_relu_()?;
            let groups = MAX_GROUPS.min(layer.norm_weight.size()[0]);
            x = x.f_group_norm(groups, Some(&layer.norm_weight), Some(&layer.norm_bias), NORM_EPSILON, true)?;
        }
        Ok(x)
    }
}

/// What the network resizes its input to multiples of: 16 in y and x, and in z 2 for every level that pools it.
pub(crate) fn size_multiples(kind: NetworkKind, keep_axials: KeepAxials) -> Vec<i64> {
    let poolings = keep_axials.0.iter().filter(|keep| !**keep).count();
    let all = [1 << poolings, 16, 16];
    all[3 - architecture::axes(kind)..].to_vec()
}
