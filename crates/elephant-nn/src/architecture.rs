//! The parameters of the detection network: names, shapes and random initial values. No libtorch here.
//!
//! Names and shapes are those of the original server's checkpoints (contract section 6.2), so that files go both ways.

use std::collections::HashSet;

use elephant_checkpoint::{StateDict, Tensor};
use elephant_types::NetworkKind;

use crate::{NnError, random::Normal};

/// Channels in and out of the four encoder levels, the base and the four decoder levels. A decoder level sees the
/// encoder's features of its size and the upsampled ones of the level below.
pub(crate) const BLOCKS: [(&str, usize, usize); 9] = [
    ("encoder.0", 1, 16),
    ("encoder.1", 16, 32),
    ("encoder.2", 32, 64),
    ("encoder.3", 64, 128),
    ("base", 128, 256),
    ("decoder.0", 384, 128),
    ("decoder.1", 192, 64),
    ("decoder.2", 96, 32),
    ("decoder.3", 48, 16),
];
/// The 1×1 convolution at the end.
pub(crate) const OUTPUT: (&str, usize, usize) = ("out_conv", 16, 3);
/// Pooling levels.
pub(crate) const LEVELS: usize = 4;

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

/// Every parameter, in the order of the original's checkpoints. A block is convolution (0), ReLU (1), norm (2),
/// convolution (3), ReLU (4), norm (5).
fn parameters(kind: NetworkKind) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, weight: Role| {
        let channels = shape[0];
        parameters.push(Parameter { name: format!("{name}.weight"), shape, role: weight });
        parameters.push(Parameter { name: format!("{name}.bias"), shape: vec![channels], role: Role::Bias });
    };
    for (block, inputs, outputs) in BLOCKS {
        for (convolution, norm, inputs) in [(0, 2, inputs), (3, 5, outputs)] {
            add(format!("{block}.{convolution}"), kernel_shape(kind, outputs, inputs, 3), Role::ConvolutionWeight);
            add(format!("{block}.{norm}"), vec![outputs], Role::NormWeight);
        }
    }
    let (name, inputs, outputs) = OUTPUT;
    add(name.into(), kernel_shape(kind, outputs, inputs, 1), Role::ConvolutionWeight);
    parameters
}

/// Every parameter's name, in the order of the original's checkpoints.
pub(crate) fn names(kind: NetworkKind) -> Vec<String> {
    parameters(kind).into_iter().map(|parameter| parameter.name).collect()
}

/// (out, in, …kernel)
fn kernel_shape(kind: NetworkKind, outputs: usize, inputs: usize, size: usize) -> Vec<usize> {
    let mut shape = vec![outputs, inputs];
    shape.extend(std::iter::repeat_n(size, axes(kind)));
    shape
}

/// Axes that the network convolves over.
pub(crate) fn axes(kind: NetworkKind) -> usize {
    match kind {
        NetworkKind::Volumetric => 3,
        NetworkKind::Planar => 2,
    }
}

/// Which network a state dict holds, once every parameter is there with its shape and no other.
///
/// # Errors
/// [`NnError::WrongModel`] naming the first parameter that is missing, unexpected, of another shape or not finite.
pub(crate) fn identify(dict: &StateDict) -> Result<NetworkKind, NnError> {
    let wrong = |reason: String| NnError::WrongModel { reason };
    let first = format!("{}.0.weight", BLOCKS[0].0);
    let first = dict.get(&first).ok_or_else(|| wrong(format!("the parameter {first} is missing")))?;
    let kind = match first.shape().len() {
        4 => NetworkKind::Planar,
        _ => NetworkKind::Volumetric,
    };
    let mut expected = HashSet::new();
    for Parameter { name, shape, .. } in parameters(kind) {
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
        None => Ok(kind),
    }
}

/// Random initial parameters: convolutions from a normal distribution of variance 2 / fan-in (He et al., ICCV 2015),
/// norms the identity, biases 0. The same seed gives the same parameters everywhere.
pub(crate) fn random(kind: NetworkKind, seed: u64) -> Result<StateDict, NnError> {
    let mut normal = Normal::new(seed);
    let tensor = |Parameter { name, shape, role }| {
        let length = shape.iter().product();
        let values = match role {
            Role::ConvolutionWeight => {
                let fan_in: usize = shape[1..].iter().product();
                let deviation = (2.0 / fan_in as f64).sqrt();
                (0..length).map(|_| (deviation * normal.sample()) as f32).collect()
            }
            Role::NormWeight => vec![1.0; length],
            Role::Bias => vec![0.0; length],
        };
        Ok((name, Tensor::from_f32(shape, &values)?))
    };
    parameters(kind).into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_as_many_as_the_originals() {
        let count = |kind| parameters(kind).iter().map(|p| p.shape.iter().product::<usize>()).sum::<usize>();
        assert_eq!(count(NetworkKind::Volumetric), 5_887_011);
        assert_eq!(count(NetworkKind::Planar), 1_965_315);
    }

    #[test]
    fn the_parameter_that_does_not_fit_is_named() {
        let good = random(NetworkKind::Planar, 1).unwrap();
        assert_eq!(identify(&good).unwrap(), NetworkKind::Planar);
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
        let dict = random(NetworkKind::Volumetric, 7).unwrap();
        assert_eq!(dict, random(NetworkKind::Volumetric, 7).unwrap());
        assert_ne!(dict, random(NetworkKind::Volumetric, 8).unwrap());
        let weights = dict.get("base.3.weight").unwrap().to_f32();
        let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / weights.len() as f64;
        let variance = weights.iter().map(|w| (f64::from(*w) - mean).powi(2)).sum::<f64>() / weights.len() as f64;
        assert!(mean.abs() < 1e-4, "{mean}");
        assert!((variance * (256.0 * 27.0) / 2.0 - 1.0).abs() < 0.01, "{variance}");
    }
}
