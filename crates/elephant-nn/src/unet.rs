//! The detection network of the original server (contract section 6.2), for prediction.
//!
//! Not here: training, tiling, and the choice of channels.

use std::ops::Range;

use elephant_checkpoint::StateDict;
use elephant_types::{CancelToken, KeepAxials, NetworkKind};
use tch::{Device, Kind, Tensor};

use crate::{
    NnError, Precision,
    architecture::{self, BLOCKS, LEVELS, OUTPUT},
    norm::Norm,
    ops::{self, Arithmetic},
};

/// How a network is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Build {
    pub(crate) kind: NetworkKind,
    /// Pooling along z.
    pub(crate) keep_axials: KeepAxials,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

/// Memory in bytes that a forward pass on the CPU holds at once for each voxel of its images, padding included; measured
/// on the 3-D network and rounded up.
pub(crate) fn bytes_per_voxel(arithmetic: Arithmetic) -> u64 {
    match arithmetic {
        Arithmetic::Original => 900,
        Arithmetic::Fast => 400,
    }
}

/// A network with its weights on a device.
#[derive(Debug)]
pub(crate) struct Unet {
    build: Build,
    encoder: Vec<[Layer; 2]>,
    base: [Layer; 2],
    decoder: Vec<[Layer; 2]>,
    output: (Tensor, Tensor),
}

/// Convolution, ReLU, group norm.
#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    /// In the first layer of a decoder block, the part of the convolution that sees the level below, folded with the
    /// upsampling. Without it, `weight` is for both.
    upsampling: Option<Tensor>,
    arithmetic: Arithmetic,
    norm: Norm,
}

impl Unet {
    /// Puts the weights on the device. `dict` must have been found to be of the kind.
    pub(crate) fn new(dict: &StateDict, build: Build) -> Result<Self, NnError> {
        let weights = Weights { dict, build };
        let block = |index: usize| -> Result<[Layer; 2], NnError> {
            Ok([weights.layer(index, 0, 2)?, weights.layer(index, 3, 5)?])
        };
        Ok(Self {
            build,
            encoder: (0..LEVELS).map(block).collect::<Result<_, _>>()?,
            base: block(LEVELS)?,
            decoder: (LEVELS + 1..BLOCKS.len()).map(block).collect::<Result<_, _>>()?,
            output: (
                ops::arrange(&weights.tensor(&format!("{}.weight", OUTPUT.0))?, build.arithmetic)?,
                weights.tensor(&format!("{}.bias", OUTPUT.0))?,
            ),
        })
    }

    /// How the network was built.
    pub(crate) fn build(&self) -> Build {
        self.build
    }

    /// The logarithms of some classes' probabilities, (n, class, z, y, x) in f32, of images (n, 1, z, y, x); without z
    /// for a planar network. `is_pad` pads by replication before, and cuts after. Looks at `cancel` between the layers.
    pub(crate) fn forward(
        &self,
        images: &Tensor,
        is_pad: bool,
        classes: &Range<usize>,
        cancel: &CancelToken,
    ) -> Result<Tensor, NnError> {
        let multiples = size_multiples(self.build.kind, self.build.keep_axials);
        let padding: Vec<i64> = multiples.iter().map(|multiple| multiple / 2).collect();
        let padded = if is_pad { ops::replicate(images, &padding)? } else { images.shallow_clone() };
        let size = ops::spatial_size(&padded);
        let fitting = fitting_size(&size, self.build.kind, self.build.keep_axials);
        let is_resized = size != fitting;

        let x = if is_resized { ops::resize(&padded, &fitting)? } else { padded };
        let logits = self.levels(ops::arrange(&x, self.build.arithmetic)?, cancel)?;
        let mut logarithms =
            logits.f_log_softmax(1, Kind::Float)?.f_narrow(1, classes.start as i64, classes.len() as i64)?;
        if is_resized {
            logarithms = ops::resize(&logarithms, &size)?;
        }
        if is_pad { ops::crop(&logarithms, &padding) } else { Ok(logarithms) }
    }

    /// Encoder, base, decoder and output convolution.
    fn levels(&self, images: Tensor, cancel: &CancelToken) -> Result<Tensor, NnError> {
        let keep_z = self.build.keep_axials.0;
        let mut x = images;
        let mut skipped = Vec::with_capacity(LEVELS);
        for ([first, second], keep_z) in self.encoder.iter().zip(keep_z) {
            let features = second.forward(&first.forward(&x, None, cancel)?, None, cancel)?;
            x = ops::max_pool(&features, keep_z)?;
            skipped.push(features);
        }
        let [first, second] = &self.base;
        x = second.forward(&first.forward(&x, None, cancel)?, None, cancel)?;
        let levels = self.decoder.iter().zip(skipped.into_iter().zip(keep_z).rev());
        for ([first, second], (features, keep_z)) in levels {
            let merged = first.forward(&features, Some((&x, keep_z)), cancel)?;
            drop((features, x));
            x = second.forward(&merged, None, cancel)?;
        }
        let (weight, bias) = &self.output;
        ops::convolution(&x.f_to_kind(Kind::Float)?, weight, bias, self.build.arithmetic)
    }
}

impl Layer {
    /// `below` are the features of the level below and whether z was kept on the way to it.
    fn forward(&self, x: &Tensor, below: Option<(&Tensor, bool)>, cancel: &CancelToken) -> Result<Tensor, NnError> {
        cancel.check()?;
        let x = x.f_to_kind(self.weight.kind())?;
        let convolution = |x: &Tensor| ops::convolution(x, &self.weight, &self.bias, self.arithmetic);
        let y = match (below, &self.upsampling) {
            (None, _) => convolution(&x)?,
            (Some((below, keep_z)), None) => convolution(&Tensor::f_cat(&[x, ops::upsample(below, keep_z)?], 1)?)?,
            (Some((below, keep_z)), Some(weight)) => {
                let mut y = convolution(&x)?;
                cancel.check()?;
                y.f_add_(&ops::upsampled_convolution(&below.f_to_kind(weight.kind())?, weight, keep_z)?)?
            }
        };
        self.norm.after_relu(y)
    }
}

/// Reads parameters and turns them into what the device computes with.
struct Weights<'a> {
    dict: &'a StateDict,
    build: Build,
}

impl Weights<'_> {
    fn values(&self, name: &str) -> Result<(Vec<f32>, Vec<i64>), NnError> {
        let missing = || NnError::WrongModel { reason: format!("the parameter {name} is missing") };
        let tensor = self.dict.get(name).ok_or_else(missing)?;
        Ok((tensor.to_f32(), tensor.shape().iter().map(|&size| size as i64).collect()))
    }

    fn tensor(&self, name: &str) -> Result<Tensor, NnError> {
        let (values, shape) = self.values(name)?;
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(self.build.device)?)
    }

    /// A layer of block `index`: the numbers of its convolution and its norm within the block.
    fn layer(&self, index: usize, convolution: usize, norm: usize) -> Result<Layer, NnError> {
        let (block, _, channels) = BLOCKS[index];
        let (kind, arithmetic) = (layer_kind(index, self.build.precision), self.build.arithmetic);
        let mut weight = self.tensor(&format!("{block}.{convolution}.weight"))?;
        let mut upsampling = None;
        if arithmetic == Arithmetic::Fast && index > LEVELS && convolution == 0 {
            // The decoder's first convolution sees the encoder's features, then those from below.
            let (skipped, below) = (channels as i64, weight.size()[1] - channels as i64);
            let keep_z = self.build.keep_axials.0[BLOCKS.len() - 1 - index];
            let folded = ops::fold_upsampling(&weight.f_narrow(1, skipped, below)?, keep_z)?;
            upsampling = Some(ops::arrange(&folded, arithmetic)?.f_to_kind(low_kind(self.build.precision))?);
            weight = weight.f_narrow(1, 0, skipped)?;
        }
        Ok(Layer {
            weight: ops::arrange(&weight, arithmetic)?.f_to_kind(kind)?,
            bias: self.tensor(&format!("{block}.{convolution}.bias"))?.f_to_kind(kind)?,
            upsampling,
            arithmetic,
            norm: Norm::new(
                self.values(&format!("{block}.{norm}.weight"))?.0,
                self.values(&format!("{block}.{norm}.bias"))?.0,
                self.build.device,
            )?,
        })
    }
}

/// The type of a block's convolutions. The two finest levels stay f32: they take a third of the operations and cause
/// most of what bf16 changes in the probabilities.
pub(crate) fn layer_kind(index: usize, precision: Precision) -> Kind {
    let level = index.min(BLOCKS.len() - 1 - index);
    if level < 2 { Kind::Float } else { low_kind(precision) }
}

fn low_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

/// What the network resizes its input to multiples of: 16 in y and x, and in z 2 for every level that pools it.
pub(crate) fn size_multiples(kind: NetworkKind, keep_axials: KeepAxials) -> Vec<i64> {
    let poolings = keep_axials.0.iter().filter(|keep| !**keep).count();
    let all = [1 << poolings, 16, 16];
    all[3 - architecture::axes(kind)..].to_vec()
}

/// The size that the network resizes an image to: the next multiples.
pub(crate) fn fitting_size(size: &[i64], kind: NetworkKind, keep_axials: KeepAxials) -> Vec<i64> {
    size.iter()
        .zip(size_multiples(kind, keep_axials))
        .map(|(&size, multiple)| (size + multiple - 1) / multiple * multiple)
        .collect()
}
