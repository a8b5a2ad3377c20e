//! Networks as data: blocks, channels, and the parameters that follow from them. No libtorch here.
//!
//! All networks are of one shape: four encoder blocks with poolings, a base block, four decoder blocks that see the
//! encoder's features and the upsampled ones from below, and a 1×1 convolution at the end. Names and shapes of
//! parameters are those of the original server's checkpoints (docs/method.md, "Detection network" and "Flow network"),
//! so that files go both ways.

use std::collections::HashSet;

use elephant_checkpoint::{StateDict, Tensor};
use elephant_types::{NetworkKind, NetworkTask, NetworkType};

use crate::{NnError, random::Normal};

/// Pooling levels.
pub(crate) const LEVELS: usize = 4;
/// Blocks: encoder, base, decoder.
const BLOCKS: usize = 2 * LEVELS + 1;
/// The 1×1 convolution at the end.
const OUTPUT: &str = "out_conv";
/// Length of the vectors of a network that has learnt nothing, relative to what the initial values of its last convolution
/// would otherwise give.
const FIRST_VECTORS: f64 = 0.01;

/// Operations of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Twice: 3×3×3 convolution, ReLU, group norm.
    Normed,
    /// `leaky((res(x) + conv2(leaky(conv1(x)))) / 2)` with 3×3×3 convolutions and a 1×1×1 convolution `res`.
    Residual,
    /// Twice: 3×3×3 convolution, leaky ReLU.
    Plain,
}

/// Activation after the last convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Probabilities of classes, by softmax.
    Classes,
    /// Components of vectors between -1 and 1, by tanh.
    Vectors,
}

/// One block of a network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BlockSpec {
    name: &'static str,
    inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kind: BlockKind,
}

/// A network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NetworkSpec {
    pub(crate) task: NetworkTask,
    pub(crate) dims: NetworkKind,
    /// Channels of the image.
    pub(crate) inputs: usize,
    /// Channels of the result.
    pub(crate) outputs: usize,
    pub(crate) head: Head,
    /// From the finest encoder level over the base to the finest decoder level.
    pub(crate) blocks: [BlockSpec; BLOCKS],
}

/// The channels of the blocks. A decoder block's inputs are the encoder's features of its size and those from below.
const fn blocks(inputs: usize, encoder: BlockKind, decoder: BlockKind) -> [BlockSpec; BLOCKS] {
    const fn block(name: &'static str, inputs: usize, outputs: usize, kind: BlockKind) -> BlockSpec {
        BlockSpec { name, inputs, outputs, kind }
    }
    [
        block("encoder.0", inputs, 16, encoder),
        block("encoder.1", 16, 32, encoder),
        block("encoder.2", 32, 64, encoder),
        block("encoder.3", 64, 128, encoder),
        block("base", 128, 256, encoder),
        block("decoder.0", 256 + 128, 128, decoder),
        block("decoder.1", 128 + 64, 64, decoder),
        block("decoder.2", 64 + 32, 32, decoder),
        block("decoder.3", 32 + 16, 16, decoder),
    ]
}

/// What a parameter is for, which decides its initial value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    ConvolutionWeight,
    NormWeight,
    Bias,
}

struct Parameter {
    name: String,
    shape: Vec<usize>,
    role: Role,
}

impl NetworkSpec {
    /// The original's U-Net: one image in, three classes out.
    pub(crate) fn detection(dims: NetworkKind) -> &'static Self {
        const fn spec(dims: NetworkKind) -> NetworkSpec {
            let blocks = blocks(1, BlockKind::Normed, BlockKind::Normed);
            NetworkSpec { task: NetworkTask::Detection, dims, inputs: 1, outputs: 3, head: Head::Classes, blocks }
        }
        static VOLUMETRIC: NetworkSpec = spec(NetworkKind::Volumetric);
        static PLANAR: NetworkSpec = spec(NetworkKind::Planar);
        match dims {
            NetworkKind::Volumetric => &VOLUMETRIC,
            NetworkKind::Planar => &PLANAR,
        }
    }

    /// The original's residual network for flow: two frames in, a vector out.
    pub(crate) fn flow(dims: NetworkKind) -> &'static Self {
        const fn spec(dims: NetworkKind, outputs: usize) -> NetworkSpec {
            let blocks = blocks(2, BlockKind::Residual, BlockKind::Plain);
            NetworkSpec { task: NetworkTask::Flow, dims, inputs: 2, outputs, head: Head::Vectors, blocks }
        }
        static VOLUMETRIC: NetworkSpec = spec(NetworkKind::Volumetric, 3);
        static PLANAR: NetworkSpec = spec(NetworkKind::Planar, 2);
        match dims {
            NetworkKind::Volumetric => &VOLUMETRIC,
            NetworkKind::Planar => &PLANAR,
        }
    }

    /// The network of this type.
    pub(crate) fn of(network: NetworkType) -> &'static Self {
        match network.task {
            NetworkTask::Detection => Self::detection(network.kind),
            NetworkTask::Flow => Self::flow(network.kind),
        }
    }

    /// The network's type.
    pub(crate) fn network_type(&self) -> NetworkType {
        NetworkType { task: self.task, kind: self.dims }
    }

    /// The network's name for messages: `3-D detection`.
    pub(crate) fn name(&self) -> String {
        self.network_type().to_string()
    }

    /// Axes that the network convolves over.
    pub(crate) fn axes(&self) -> usize {
        match self.dims {
            NetworkKind::Volumetric => 3,
            NetworkKind::Planar => 2,
        }
    }

    /// The first parameter of block `index`, or, for the index after the last block's, of the output convolution, and how
    /// many there are.
    pub(crate) fn block_parameters(&self, index: usize) -> (usize, usize) {
        let first = self.blocks[..index].iter().map(|block| block.kind.parameter_count()).sum();
        (first, self.blocks.get(index).map_or(2, |block| block.kind.parameter_count()))
    }

    /// Every parameter's name, in the order of the original's checkpoints.
    pub(crate) fn names(&self) -> Vec<String> {
        self.parameters().into_iter().map(|parameter| parameter.name).collect()
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for block in &self.blocks {
            self.add_block(block, &mut parameters);
        }
        let inputs = self.blocks[BLOCKS - 1].outputs;
        self.add_convolution(&mut parameters, OUTPUT, self.outputs, inputs, 1);
        add_bias(&mut parameters, OUTPUT, self.outputs);
        parameters
    }

    /// The parameters of a block. Numbers are places in PyTorch's sequence of convolutions, activations and norms.
    fn add_block(&self, block: &BlockSpec, parameters: &mut Vec<Parameter>) {
        let &BlockSpec { name, inputs, outputs, kind } = block;
        let full = |part: &str| format!("{name}.{part}");
        match kind {
            BlockKind::Normed => {
                for (convolution, norm, inputs) in [("0", "2", inputs), ("3", "5", outputs)] {
                    self.add_convolution(parameters, &full(convolution), outputs, inputs, 3);
                    add_bias(parameters, &full(convolution), outputs);
                    let name = format!("{}.weight", full(norm));
                    parameters.push(Parameter { name, shape: vec![outputs], role: Role::NormWeight });
                    add_bias(parameters, &full(norm), outputs);
                }
            }
            BlockKind::Residual => {
                self.add_convolution(parameters, &full("res"), outputs, inputs, 1);
                for (convolution, inputs) in [("conv1", inputs), ("conv2", outputs)] {
                    self.add_convolution(parameters, &full(convolution), outputs, inputs, 3);
                    add_bias(parameters, &full(convolution), outputs);
                }
            }
            BlockKind::Plain => {
                for (convolution, inputs) in [("0", inputs), ("2", outputs)] {
                    self.add_convolution(parameters, &full(convolution), outputs, inputs, 3);
                    add_bias(parameters, &full(convolution), outputs);
                }
            }
        }
    }

    /// The weight of a convolution, (out, in, …kernel).
    fn add_convolution(&self, parameters: &mut Vec<Parameter>, name: &str, outputs: usize, inputs: usize, size: usize) {
        let mut shape = vec![outputs, inputs];
        shape.resize(2 + self.axes(), size);
        parameters.push(Parameter { name: format!("{name}.weight"), shape, role: Role::ConvolutionWeight });
    }
}

impl BlockKind {
    fn parameter_count(self) -> usize {
        match self {
            Self::Normed => 8,
            Self::Residual => 5,
            Self::Plain => 4,
        }
    }
}

fn add_bias(parameters: &mut Vec<Parameter>, name: &str, outputs: usize) {
    parameters.push(Parameter { name: format!("{name}.bias"), shape: vec![outputs], role: Role::Bias });
}

/// Which network a state dict holds, once every parameter is there with its shape and no other.
///
/// # Errors
/// [`NnError::WrongModel`] naming the first parameter that is missing, unexpected, of another shape or not finite.
pub(crate) fn identify(dict: &StateDict) -> Result<&'static NetworkSpec, NnError> {
    let wrong = |reason: String| NnError::WrongModel { reason };
    let spec: fn(NetworkKind) -> &'static NetworkSpec = match dict.get("encoder.0.conv1.weight") {
        Some(_) => NetworkSpec::flow,
        None => NetworkSpec::detection,
    };
    let parameters = |dims| spec(dims).parameters();
    let first = parameters(NetworkKind::Volumetric).swap_remove(0).name;
    let first = dict.get(&first).ok_or_else(|| wrong(format!("the parameter {first} is missing")))?;
    let dims = match first.shape().len() {
        4 => NetworkKind::Planar,
        _ => NetworkKind::Volumetric,
    };
    let mut expected = HashSet::new();
    for Parameter { name, shape, .. } in parameters(dims) {
        let tensor = dict.get(&name).ok_or_else(|| wrong(format!("the parameter {name} is missing")))?;
        if tensor.shape() != shape {
            return Err(wrong(format!("the parameter {name} has the shape {:?} instead of {shape:?}", tensor.shape())));
        }
        if !tensor.to_f32().iter().all(|value| value.is_finite()) {
            return Err(wrong(format!("the parameter {name} holds numbers that are not finite")));
        }
        expected.insert(name);
    }
    match dict.iter().find(|(name, _)| !expected.contains(*name)) {
        Some((name, _)) => {
            let shown: String = name.chars().take(80).collect();
            Err(wrong(format!("it has an unknown parameter {shown:?}")))
        }
        None => Ok(spec(dims)),
    }
}

/// Random initial parameters: convolutions from a normal distribution of variance 2 / fan-in (He et al., ICCV 2015),
/// norms the identity, biases 0. A network of vectors begins with short ones. The same seed gives the same parameters
/// everywhere.
pub(crate) fn random(spec: &NetworkSpec, seed: u64) -> Result<StateDict, NnError> {
    let mut normal = Normal::new(seed);
    let tensor = |Parameter { name, shape, role }| {
        let length = shape.iter().product();
        let values = match role {
            Role::ConvolutionWeight => {
                let fan_in: usize = shape[1..].iter().product();
                let share =
                    if spec.head == Head::Vectors && name == format!("{OUTPUT}.weight") { FIRST_VECTORS } else { 1.0 };
                let deviation = share * (2.0 / fan_in as f64).sqrt();
                (0..length).map(|_| (deviation * normal.sample()) as f32).collect()
            }
            Role::NormWeight => vec![1.0; length],
            Role::Bias => vec![0.0; length],
        };
        Ok((name, Tensor::from_f32(shape, &values)?))
    };
    spec.parameters().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_as_many_as_the_originals() {
        let count =
            |spec: &NetworkSpec| spec.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum::<usize>();
        assert_eq!(count(NetworkSpec::detection(NetworkKind::Volumetric)), 5_887_011);
        assert_eq!(count(NetworkSpec::detection(NetworkKind::Planar)), 1_965_315);
        assert_eq!(count(NetworkSpec::flow(NetworkKind::Volumetric)), 5_928_051);
        assert_eq!(count(NetworkSpec::flow(NetworkKind::Planar)), 2_006_050);
    }

    #[test]
    fn the_parameter_that_does_not_fit_is_named() {
        let spec = NetworkSpec::detection(NetworkKind::Planar);
        let good = random(spec, 1).unwrap();
        assert_eq!(identify(&good).unwrap(), spec);
        let without: StateDict =
            good.iter().filter(|(name, _)| *name != "base.3.bias").map(|(name, t)| (name.into(), t.clone())).collect();
        assert!(identify(&without).unwrap_err().to_string().contains("base.3.bias is missing"));
        let scalar = Tensor::from_f32(vec![1], &[0.0]).unwrap();
        let mut extra = good.clone();
        extra.insert("encoder.4.0.weight", scalar.clone());
        assert!(identify(&extra).unwrap_err().to_string().contains("unknown parameter \"encoder.4.0.weight\""));
        let mut diverged = good.clone();
        diverged.insert("base.2.bias", Tensor::from_f32(vec![256], &[f32::NAN; 256]).unwrap());
        assert!(identify(&diverged).unwrap_err().to_string().contains("base.2.bias holds numbers that are not finite"));
        let mut misshapen = good.clone();
        misshapen.insert("out_conv.bias", scalar);
        assert!(
            identify(&misshapen).unwrap_err().to_string().contains("out_conv.bias has the shape [1] instead of [3]")
        );
    }

    #[test]
    fn initial_values_are_seeded_and_have_the_right_spread() {
        let spec = NetworkSpec::detection(NetworkKind::Volumetric);
        let dict = random(spec, 7).unwrap();
        assert_eq!(dict, random(spec, 7).unwrap());
        assert_ne!(dict, random(spec, 8).unwrap());
        let weights = dict.get("base.3.weight").unwrap().to_f32();
        let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / weights.len() as f64;
        let variance = weights.iter().map(|w| (f64::from(*w) - mean).powi(2)).sum::<f64>() / weights.len() as f64;
        assert!(mean.abs() < 1e-4, "{mean}");
        assert!((variance * (256.0 * 27.0) / 2.0 - 1.0).abs() < 0.01, "{variance}");
    }

    #[test]
    fn a_state_dict_tells_which_network_it_holds() {
        for dims in [NetworkKind::Volumetric, NetworkKind::Planar] {
            for spec in [NetworkSpec::detection(dims), NetworkSpec::flow(dims)] {
                assert_eq!(identify(&random(spec, 1).unwrap()).unwrap(), spec);
            }
        }
    }

    #[test]
    fn blocks_know_their_parameters() {
        for spec in [NetworkSpec::detection(NetworkKind::Volumetric), NetworkSpec::flow(NetworkKind::Planar)] {
            let names = spec.names();
            for (index, block) in spec.blocks.iter().enumerate() {
                let (first, count) = spec.block_parameters(index);
                assert!(names[first..first + count].iter().all(|name| name.starts_with(block.name)), "{index}");
            }
            let (first, count) = spec.block_parameters(BLOCKS);
            assert_eq!(names[first..], ["out_conv.weight", "out_conv.bias"]);
            assert_eq!(first + count, names.len());
        }
    }
}
