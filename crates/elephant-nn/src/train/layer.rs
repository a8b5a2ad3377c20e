//! One layer of the network (convolution, ReLU, group norm): forward and backward pass.
//!
//! On the CPU, libtorch differentiates by the convolution's weight only. The gradient by its input is a convolution
//! itself, and the norm is this crate's own; both are faster than what libtorch would record, and nothing runs longer than
//! one convolution without looking whether the training was stopped. Elsewhere libtorch records the layer as a whole.

use elephant_types::CancelToken;
use tch::{Device, Kind, Tensor};

use super::norm;
use crate::{
    NnError,
    convolution::{Below, Convolution, Merge},
    norm::{EPSILON, MAX_GROUPS, Norm},
    ops::{self, Arithmetic},
};

/// One layer of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerSpec {
    /// Index of the convolution's weight among the network's parameters; its bias and the norm's weight and bias follow.
    pub(super) first: usize,
    /// Whether the input is the image, whose gradient is not needed.
    pub(super) is_first_layer: bool,
    pub(super) arithmetic: Arithmetic,
    /// What a recorded convolution multiplies in; everything else is in f32.
    pub(super) kind: Kind,
}

/// What the forward pass saves for the backward pass.
#[derive(Debug)]
pub(super) struct SavedForBackward {
    spec: LayerSpec,
    /// The recorded result and the tensors that it was computed from.
    result: Tensor,
    leaves: Leaves,
    /// `None` where libtorch recorded the whole layer.
    norm: Option<(Norm, norm::SavedForBackward)>,
}

#[derive(Debug)]
struct Leaves {
    input: Tensor,
    below: Option<Below>,
    convolution: Convolution,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
}

/// The gradients by a layer's or a block's inputs, where they are needed.
#[derive(Debug)]
pub(super) struct InputGradients {
    pub(super) input: Option<Tensor>,
    pub(super) below: Option<Tensor>,
}

/// Whether this crate's kernels for the CPU compute norm and pooling.
pub(super) fn uses_cpu_kernels(x: &Tensor, arithmetic: Arithmetic) -> bool {
    x.device() == Device::Cpu && arithmetic == Arithmetic::Fast && tch::utils::has_mkldnn()
}

/// A tensor that shares the memory of `x`. libtorch records what is computed from it if `requires_gradient`.
pub(super) fn leaf(x: &Tensor, requires_gradient: bool) -> Tensor {
    x.detach().set_requires_grad(requires_gradient)
}

/// The layer's result for `input` and the features from `below`.
pub(super) fn forward(
    parameters: &[Tensor],
    spec: LayerSpec,
    merge: Option<Merge>,
    input: &Tensor,
    below: Option<&Below>,
    cancel: &CancelToken,
) -> Result<(Tensor, SavedForBackward), NnError> {
    cancel.check()?;
    let cpu_kernels = uses_cpu_kernels(input, spec.arithmetic);
    let [weight, bias, norm_weight, norm_bias] = std::array::from_fn(|i| &parameters[spec.first + i]);
    let bias = leaf(bias, !cpu_kernels);
    let mut convolution = Convolution::new(weight, Some(&bias), merge, spec.arithmetic)?;
    convolution.weight = leaf(&convolution.weight, true);
    convolution.folded = convolution.folded.map(|folded| leaf(&folded, true));
    let leaves = Leaves {
        input: leaf(input, !cpu_kernels && !spec.is_first_layer),
        below: below
            .map(|Below { features, keep_z }| Below { features: leaf(features, !cpu_kernels), keep_z: *keep_z }),
        convolution,
        bias,
        norm_weight: leaf(norm_weight, !cpu_kernels),
        norm_bias: leaf(norm_bias, !cpu_kernels),
    };
    let result = tch::with_grad(|| leaves.forward(spec, cpu_kernels, cancel))?;
    if !cpu_kernels {
        return Ok((result.detach(), SavedForBackward { spec, result, leaves, norm: None }));
    }
    let values = |t: &Tensor| Vec::<f32>::try_from(t).map_err(NnError::from);
    let norm = Norm::new(values(norm_weight)?, values(norm_bias)?, Device::Cpu)?;
    let input = ops::to_memory_layout(&result.detach(), spec.arithmetic)?;
    let (output, saved) = norm::forward(&norm, input)?.ok_or_else(unexpected_layout)?;
    Ok((output, SavedForBackward { spec, result, leaves, norm: Some((norm, saved)) }))
}

impl Leaves {
    fn forward(&self, spec: LayerSpec, cpu_kernels: bool, cancel: &CancelToken) -> Result<Tensor, NnError> {
        let convolution = self.convolution.to_kinds(spec.kind, spec.kind)?;
        let y = convolution.apply(&self.input, self.below.as_ref(), cancel)?.f_to_kind(Kind::Float)?;
        if cpu_kernels {
            return Ok(y);
        }
        let groups = (MAX_GROUPS as i64).min(y.size()[1]);
        Ok(y.f_relu()?.f_group_norm(groups, Some(&self.norm_weight), Some(&self.norm_bias), EPSILON, true)?)
    }
}

fn unexpected_layout() -> NnError {
    NnError::Torch { message: "a tensor lies in memory in an unexpected order".into() }
}

impl SavedForBackward {
    /// Adds the gradients by the layer's parameters to `gradients`, and returns those by its input.
    pub(super) fn backward(
        self,
        gradient: Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<InputGradients, NnError> {
        cancel.check()?;
        if self.norm.is_some() {
            self.backward_with_cpu_kernels(gradient, gradients, cancel)
        } else {
            self.recorded_backward(&gradient, gradients)
        }
    }

    /// `gradient` is overwritten.
    #[expect(clippy::needless_pass_by_value, reason = "the gradient is changed and must not be used afterwards")]
    fn backward_with_cpu_kernels(
        mut self,
        gradient: Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<InputGradients, NnError> {
        let mut gradient = ops::to_memory_layout(&gradient, Arithmetic::Fast)?;
        let (norm, saved) = self.norm.take().ok_or_else(unexpected_layout)?;
        let sums = norm::backward(&norm, &saved, &mut gradient).ok_or_else(unexpected_layout)?;
        drop(saved);
        for (at, sum) in [(1, sums.input_bias), (2, sums.weight), (3, sums.bias)] {
            let _ = gradients[self.spec.first + at].f_add_(&Tensor::f_from_slice(&sum)?)?;
        }
        let Leaves { convolution: Convolution { weight, folded, .. }, below, .. } = &self.leaves;
        let weights: Vec<&Tensor> = std::iter::once(weight).chain(folded).collect();
        let mut found = differentiate(&self.result, &gradient, &weights)?.into_iter();
        self.add_weight_gradients(&mut gradients[self.spec.first], found.next(), found.next())?;

        cancel.check()?;
        let input = if self.spec.is_first_layer {
            None
        } else {
            Some(convolution_backward(&gradient, weight, Arithmetic::Fast)?)
        };
        cancel.check()?;
        let below = match (below, folded) {
            (Some(Below { keep_z, .. }), Some(folded)) => {
                Some(ops::upsampled_convolution_backward(&gradient, folded, *keep_z)?)
            }
            _ => None,
        };
        Ok(InputGradients { input, below })
    }

    fn recorded_backward(self, gradient: &Tensor, gradients: &mut [Tensor]) -> Result<InputGradients, NnError> {
        let Leaves { input, below, convolution, bias, norm_weight, norm_bias } = &self.leaves;
        let Convolution { weight, folded, .. } = convolution;
        let mut leaves = vec![bias, norm_weight, norm_bias, weight];
        leaves.extend(folded);
        leaves.extend(below.as_ref().map(|below| &below.features));
        leaves.extend((!self.spec.is_first_layer).then_some(input));
        let mut found = differentiate(&self.result, gradient, &leaves)?.into_iter();
        for at in 1..4 {
            if let Some(found) = found.next() {
                let _ = gradients[self.spec.first + at].f_add_(&found)?;
            }
        }
        let weight = found.next();
        let folded = if folded.is_some() { found.next() } else { None };
        self.add_weight_gradients(&mut gradients[self.spec.first], weight, folded)?;
        let below = if below.is_some() { found.next() } else { None };
        Ok(InputGradients { input: found.next(), below })
    }

    /// Adds the gradient by the whole weight, from those by its two parts.
    fn add_weight_gradients(
        &self,
        sum: &mut Tensor,
        weight: Option<Tensor>,
        folded: Option<Tensor>,
    ) -> Result<(), NnError> {
        let skipped = self.leaves.convolution.weight.size()[1];
        if let Some(weight) = weight {
            let _ = sum.f_narrow(1, 0, skipped)?.f_add_(&weight)?;
        }
        if let Some(folded) = folded {
            let keep_z = self.leaves.below.as_ref().is_some_and(|below| below.keep_z);
            let mut part = sum.f_narrow(1, skipped, sum.size()[1] - skipped)?;
            // Folding is linear, so where it is differentiated does not matter.
            let weight = part.f_zeros_like()?.set_requires_grad(true);
            let refolded = tch::with_grad(|| ops::fold_upsampling(&weight, keep_z))?;
            for gradient in differentiate(&refolded, &folded, &[&weight])? {
                let _ = part.f_add_(&gradient)?;
            }
        }
        Ok(())
    }
}

/// The gradients of the sum of `result · gradient`; fastest where both lie in memory in the same order.
pub(super) fn differentiate(result: &Tensor, gradient: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>, NnError> {
    // As one axis in the order of memory: a dot product writes nothing in the forward pass.
    let mut order: Vec<i64> = (0..result.dim() as i64).collect();
    order.sort_by_key(|&axis| std::cmp::Reverse(gradient.stride()[axis as usize]));
    let flat = |t: &Tensor| t.f_permute(&order)?.f_reshape([-1]);
    let product = tch::with_grad(|| flat(result)?.f_dot(&flat(gradient)?))?;
    Ok(Tensor::f_run_backward(&[product], leaves, false, false)?)
}

/// The gradient by the input of a convolution that keeps the size: a convolution with the weight turned round.
pub(super) fn convolution_backward(
    gradient: &Tensor,
    weight: &Tensor,
    arithmetic: Arithmetic,
) -> Result<Tensor, NnError> {
    let weight = weight.detach();
    let axes: Vec<i64> = (2..weight.dim() as i64).collect();
    let turned = ops::to_memory_layout(&weight.f_flip(&axes)?.f_transpose(0, 1)?, arithmetic)?;
    ops::convolution(gradient, &turned, None, arithmetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal_tensor;

    /// Result, gradients by input and below, and gradients by the four parameters.
    fn passed(
        (arithmetic, kind): (Arithmetic, Kind),
        parameters: &[Tensor],
        input: &Tensor,
        below: Option<(&Tensor, bool)>,
    ) -> Vec<Tensor> {
        let spec = LayerSpec { first: 0, is_first_layer: input.size()[1] == 1, arithmetic, kind };
        let merge = below.map(|(_, keep_z)| Merge { skipped: input.size()[1], keep_z });
        let below = below.map(|(below, keep_z)| {
            let features = ops::to_memory_layout(below, arithmetic).unwrap();
            Below { features, keep_z }
        });
        let cancel = CancelToken::default();
        let input = ops::to_memory_layout(input, arithmetic).unwrap();
        let (result, saved) = forward(parameters, spec, merge, &input, below.as_ref(), &cancel).unwrap();
        let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
        let gradient = normal_tensor(7, &result.size(), Kind::Float);
        let inputs = saved.backward(gradient, &mut gradients, &cancel).unwrap();
        [Some(result), inputs.input, inputs.below].into_iter().flatten().chain(gradients).collect()
    }

    #[test]
    fn the_fast_backward_pass_is_the_recorded_one() {
        let _no_grad = tch::no_grad_guard();
        let normal = |size: &[i64]| normal_tensor(6, size, Kind::Float);
        for (input, below, outputs, keep_z) in [
            (vec![2, 1, 4, 16, 18], None, 16, true),
            (vec![1, 16, 5, 20, 22], None, 32, true),
            (vec![2, 16, 4, 12, 8], Some(vec![2, 32, 4, 6, 4]), 16, true),
            (vec![1, 64, 4, 12, 8], Some(vec![1, 128, 2, 6, 4]), 64, false),
            (vec![2, 1, 32, 48], None, 16, true),
            (vec![2, 16, 32, 48], Some(vec![2, 32, 16, 24]), 16, true),
        ] {
            let inputs = input[1] + below.as_ref().map_or(0, |below: &Vec<i64>| below[1]);
            let mut weight = vec![outputs, inputs];
            weight.resize(input.len(), 3);
            let parameters =
                [normal(&weight) * 0.1, normal(&[outputs]) * 0.1, normal(&[outputs]) * 0.2 + 1.0, normal(&[outputs])];
            let x = normal(&input);
            let below = below.map(|below| normal(&below));
            let below = below.as_ref().map(|below| (below, keep_z));
            let expected = passed((Arithmetic::Original, Kind::Float), &parameters, &x, below);
            // Rounding to bf16 moves some inputs of the ReLU to its other side, with all of their gradient.
            let ways = [(Arithmetic::Fast, Kind::Float, 1e-5), (Arithmetic::Original, Kind::BFloat16, 0.2)];
            for (arithmetic, kind, tolerance) in ways {
                let found = passed((arithmetic, kind), &parameters, &x, below);
                assert_eq!(expected.len(), found.len());
                for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
                    assert_eq!((expected.size(), found.kind()), (found.size(), Kind::Float));
                    let difference = (expected - found).norm().double_value(&[]) / expected.norm().double_value(&[]);
                    assert!(difference < tolerance, "{input:?} number {index} {kind:?}: {difference:e}");
                }
            }
        }
    }
}
