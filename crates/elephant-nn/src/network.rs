//! A network on a device, for prediction.
//!
//! Not here: training, tiling, and the choice of channels.

use std::ops::Range;

use elephant_checkpoint::StateDict;
use elephant_types::{CancelToken, KeepAxials};
use tch::{Device, Kind, Tensor};

use crate::{
    NnError, Precision,
    block::ConvolutionBlock,
    convolution::{Below, Convolution, Merge},
    norm::Norm,
    ops::{self, Arithmetic},
    spec::{BlockKind, Head, LEVELS, NetworkSpec},
    walk::{self, Pass},
};

/// Settings of a network's computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkConfig {
    /// Levels whose pooling leaves z alone.
    pub(crate) keep_axials: KeepAxials,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

/// Memory in bytes that a forward pass on the CPU holds at once for each voxel of its images, padding included; measured
/// on the 3-D detection network and rounded up.
pub(crate) fn bytes_per_voxel(arithmetic: Arithmetic) -> u64 {
    match arithmetic {
        Arithmetic::Original => 900,
        Arithmetic::Fast => 400,
    }
}

/// A network with its weights on a device.
#[derive(Debug)]
pub(crate) struct Network {
    spec: &'static NetworkSpec,
    config: NetworkConfig,
    blocks: Vec<Block>,
    output: Convolution,
}

#[derive(Debug)]
enum Block {
    Normed([Layer; 2]),
    Convolutions(ConvolutionBlock),
}

/// Convolution, ReLU, group norm.
#[derive(Debug)]
struct Layer {
    convolution: Convolution,
    norm: Norm,
}

impl Network {
    /// Puts the weights on the device. `dict` must have been found to be a network of `spec`.
    pub(crate) fn new(dict: &StateDict, spec: &'static NetworkSpec, config: NetworkConfig) -> Result<Self, NnError> {
        let names = spec.names();
        let parameters = names.iter().map(|name| parameter(dict, name, config.device));
        Self::from_parameters(&parameters.collect::<Result<Vec<_>, _>>()?, spec, config)
    }

    /// A network of these tensors, in the order of the original's checkpoints.
    pub(crate) fn from_parameters(
        parameters: &[Tensor],
        spec: &'static NetworkSpec,
        config: NetworkConfig,
    ) -> Result<Self, NnError> {
        let NetworkConfig { arithmetic, precision, .. } = config;
        let block = |index: usize| -> Result<Block, NnError> {
            let (first, count) = spec.block_parameters(index);
            let (parameters, merge) = (&parameters[first..first + count], merge(spec, index, config.keep_axials));
            let kind = walk::block_kind(index, precision);
            let to_kinds = |c: Convolution| c.to_kinds(kind, walk::low_kind(precision));
            Ok(if let Some(block) = convolution_block(spec.blocks[index].kind, parameters, merge, arithmetic)? {
                Block::Convolutions(block.try_map(to_kinds)?)
            } else {
                let layer = |parameters: &[Tensor], merge| -> Result<Layer, NnError> {
                    let convolution = Convolution::new(&parameters[0], Some(&parameters[1]), merge, arithmetic)?;
                    let values = |t: &Tensor| Vec::<f32>::try_from(t.f_to_device(Device::Cpu)?);
                    let norm = Norm::new(values(&parameters[2])?, values(&parameters[3])?, config.device)?;
                    Ok(Layer { convolution: to_kinds(convolution)?, norm })
                };
                Block::Normed([layer(&parameters[..4], merge)?, layer(&parameters[4..], None)?])
            })
        };
        let blocks = (0..spec.blocks.len()).map(block).collect::<Result<_, _>>()?;
        let (last, _) = spec.block_parameters(spec.blocks.len());
        let output = Convolution::new(&parameters[last], Some(&parameters[last + 1]), None, arithmetic)?;
        Ok(Self { spec, config, blocks, output })
    }

    /// The network's specification.
    pub(crate) fn spec(&self) -> &'static NetworkSpec {
        self.spec
    }

    /// The settings of its computation.
    pub(crate) fn config(&self) -> NetworkConfig {
        self.config
    }

    /// Some channels of the result, (n, c, z, y, x) in f32, for images (n, inputs, z, y, x); without z for a 2-D network:
    /// probabilities of classes, or components of vectors. `is_pad` pads by replication before, and crops after. Looks at
    /// `cancel` between the layers.
    pub(crate) fn forward(
        &self,
        images: &Tensor,
        is_pad: bool,
        channels: &Range<usize>,
        cancel: &CancelToken,
    ) -> Result<Tensor, NnError> {
        let keep_axials = self.config.keep_axials;
        let multiples = walk::size_multiples(self.spec.dims, keep_axials);
        let padding: Vec<i64> = multiples.iter().map(|multiple| multiple / 2).collect();
        let padded = if is_pad { ops::replicate(images, &padding)? } else { images.shallow_clone() };
        let (fitting, size) = walk::fit(self.spec, keep_axials, &padded)?;
        let arranged = ops::to_memory_layout(&fitting, self.config.arithmetic)?;
        drop((padded, fitting));
        let logits = walk::walk(&mut Prediction { network: self, cancel }, arranged, keep_axials)?;
        let mut result = walk::activate(self.spec, &logits, channels, size.as_deref())?;
        if is_pad {
            result = ops::crop(&result, &padding)?;
        }
        // The original, too, resizes log-probabilities.
        Ok(if self.spec.head == Head::Classes { result.f_exp()? } else { result })
    }
}

/// A parameter on the device.
pub(crate) fn parameter(dict: &StateDict, name: &str, device: Device) -> Result<Tensor, NnError> {
    let missing = || NnError::WrongModel { reason: format!("the parameter {name} is missing") };
    let tensor = dict.get(name).ok_or_else(missing)?;
    let shape: Vec<i64> = tensor.shape().iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_slice(&tensor.to_f32())?.f_reshape(shape)?.f_to_device(device)?)
}

/// How block `index` merges the features from below; `None` outside the decoder.
pub(crate) fn merge(spec: &NetworkSpec, index: usize, keep_axials: KeepAxials) -> Option<Merge> {
    let level = (2 * LEVELS).checked_sub(index).filter(|level| *level < LEVELS)?;
    Some(Merge { skipped: spec.blocks[level].outputs as i64, keep_z: keep_axials.0[level] })
}

/// The block of these parameters if it is of convolutions alone.
pub(crate) fn convolution_block(
    kind: BlockKind,
    parameters: &[Tensor],
    merge: Option<Merge>,
    arithmetic: Arithmetic,
) -> Result<Option<ConvolutionBlock>, NnError> {
    let convolution = |weight: usize, bias: Option<usize>, merge| {
        Convolution::new(&parameters[weight], bias.map(|bias| &parameters[bias]), merge, arithmetic)
    };
    Ok(match kind {
        BlockKind::Normed => None,
        BlockKind::Residual => Some(ConvolutionBlock::Residual {
            shortcut: convolution(0, None, None)?,
            first: convolution(1, Some(2), merge)?,
            second: convolution(3, Some(4), None)?,
        }),
        BlockKind::Plain => Some(ConvolutionBlock::Plain {
            first: convolution(0, Some(1), merge)?,
            second: convolution(2, Some(3), None)?,
        }),
    })
}

/// The forward pass of a prediction, which keeps nothing.
struct Prediction<'a> {
    network: &'a Network,
    cancel: &'a CancelToken,
}

impl Pass for Prediction<'_> {
    fn block(&mut self, index: usize, input: Tensor, below: Option<Below>) -> Result<Tensor, NnError> {
        match &self.network.blocks[index] {
            Block::Normed([first, second]) => {
                let features = first.forward(&input, below.as_ref(), self.cancel)?;
                drop((input, below));
                second.forward(&features, None, self.cancel)
            }
            Block::Convolutions(block) => block.apply(&input, below.as_ref(), self.cancel),
        }
    }

    fn pool(&mut self, features: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
        ops::max_pool(features, keep_z)
    }

    fn output(&mut self, features: &Tensor) -> Result<Tensor, NnError> {
        self.network.output.apply(&features.f_to_kind(Kind::Float)?, None, self.cancel)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, below: Option<&Below>, cancel: &CancelToken) -> Result<Tensor, NnError> {
        cancel.check()?;
        self.norm.after_relu(self.convolution.apply(x, below, cancel)?)
    }
}

#[cfg(test)]
mod tests;
