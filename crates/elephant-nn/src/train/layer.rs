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
    norm::{EPSILON, MAX_GROUPS, Norm},
    ops::{self, Arithmetic},
};

/// Where a layer's four tensors are among the network's, and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index of the convolution's weight; its bias and the norm's weight and bias follow.
    pub(super) first: usize,
    /// Whether the input is the image, whose gradient nobody needs.
    pub(super) is_first_layer: bool,
    pub(super) arithmetic: Arithmetic,
    /// What a recorded convolution multiplies in; everything else is in f32.
    pub(super) kind: Kind,
}

impl Place {
    /// Whether this crate's own kernels do the work.
    fn is_own(self, x: &Tensor) -> bool {
        is_own(x, self.arithmetic)
    }
}

/// What the forward pass saves for the backward pass.
#[derive(Debug)]
pub(super) struct Trace {
    place: Place,
    /// The recorded result and the tensors that it was computed from.
    result: Tensor,
    leaves: Leaves,
    /// `None` where libtorch recorded the whole layer.
    own: Option<(Norm, norm::Trace)>,
    keep_z: bool,
}

#[derive(Debug)]
struct Leaves {
    input: Tensor,
    below: Option<Tensor>,
    weight: Tensor,
    /// For the features from below, folded with the upsampling; without it, `weight` is for both.
    folded: Option<Tensor>,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
}

/// The gradients by what came in.
#[derive(Debug)]
pub(super) struct InputGradients {
    pub(super) input: Option<Tensor>,
    pub(super) below: Option<Tensor>,
}

/// Whether this crate's own kernels do the work.
pub(super) fn is_own(x: &Tensor, arithmetic: Arithmetic) -> bool {
    x.device() == Device::Cpu && arithmetic == Arithmetic::Fast && tch::utils::has_mkldnn()
}

/// A tensor that shares the memory of `x`. libtorch records what is computed from it if `is_wanted`.
fn leaf(x: &Tensor, is_wanted: bool) -> Tensor {
    x.detach().set_requires_grad(is_wanted)
}

/// The layer's result for `input` and the features from `below`, with whether z was kept on the way to these.
pub(super) fn forward(
    parameters: &[Tensor],
    place: Place,
    input: &Tensor,
    below: Option<(&Tensor, bool)>,
    cancel: &CancelToken,
) -> Result<(Tensor, Trace), NnError> {
    cancel.check()?;
    let is_own = place.is_own(input);
    let keep_z = below.is_some_and(|(_, keep_z)| keep_z);
    let [weight, bias, norm_weight, norm_bias] = std::array::from_fn(|i| &parameters[place.first + i]);
    let arrange = |t: &Tensor| ops::arrange(t, place.arithmetic);
    let (weight, folded) = match below {
        Some((below, _)) if place.arithmetic == Arithmetic::Fast => {
            let (skipped, below) = (input.size()[1], below.size()[1]);
            let folded = ops::fold_upsampling(&weight.f_narrow(1, skipped, below)?, keep_z)?;
            (weight.f_narrow(1, 0, skipped)?, Some(arrange(&folded)?.set_requires_grad(true)))
        }
        _ => (weight.shallow_clone(), None),
    };
    let leaves = Leaves {
        input: leaf(input, !is_own && !place.is_first_layer),
        below: below.map(|(below, _)| leaf(below, !is_own)),
        weight: leaf(&arrange(&weight)?, true),
        folded,
        bias: leaf(bias, !is_own),
        norm_weight: leaf(norm_weight, !is_own),
        norm_bias: leaf(norm_bias, !is_own),
    };
    let result = tch::with_grad(|| leaves.forward(place, keep_z, cancel))?;
    if !is_own {
        return Ok((result.detach(), Trace { place, result, leaves, own: None, keep_z }));
    }
    let values = |t: &Tensor| Vec::<f32>::try_from(t).map_err(NnError::from);
    let norm = Norm::new(values(norm_weight)?, values(norm_bias)?, Device::Cpu)?;
    let (output, trace) = norm::forward(&norm, arrange(&result.detach())?)?.ok_or_else(unexpected_layout)?;
    Ok((output, Trace { place, result, leaves, own: Some((norm, trace)), keep_z }))
}

impl Leaves {
    fn forward(&self, place: Place, keep_z: bool, cancel: &CancelToken) -> Result<Tensor, NnError> {
        let low = |t: &Tensor| t.f_to_kind(place.kind);
        let (weight, bias) = (low(&self.weight)?, low(&self.bias)?);
        let convolution = |input: &Tensor| ops::convolution(&low(input)?, &weight, &bias, place.arithmetic);
        let y = match (&self.below, &self.folded) {
            (None, _) => convolution(&self.input)?,
            (Some(below), Some(folded)) => {
                let upsampled = ops::upsampled_convolution(&low(below)?, &low(folded)?, keep_z)?;
                cancel.check()?;
                convolution(&self.input)?.f_add_(&upsampled)?
            }
            (Some(below), None) => convolution(&Tensor::f_cat(&[&self.input, &ops::upsample(below, keep_z)?], 1)?)?,
        };
        let y = y.f_to_kind(Kind::Float)?;
        if place.is_own(&self.input) {
            return Ok(y);
        }
        let groups = (MAX_GROUPS as i64).min(y.size()[1]);
        Ok(y.f_relu()?.f_group_norm(groups, Some(&self.norm_weight), Some(&self.norm_bias), EPSILON, true)?)
    }
}

fn unexpected_layout() -> NnError {
    NnError::Torch { message: "a tensor lies in memory in an unexpected order".into() }
}

impl Trace {
    /// Adds the gradients by the layer's parameters to `gradients`, and returns those by its input.
    pub(super) fn backward(
        self,
        gradient: Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<InputGradients, NnError> {
        cancel.check()?;
        if self.own.is_some() {
            self.own_backward(gradient, gradients, cancel)
        } else {
            self.recorded_backward(&gradient, gradients)
        }
    }

    /// `gradient` is overwritten.
    #[expect(clippy::needless_pass_by_value, reason = "nobody may look at the gradient afterwards")]
    fn own_backward(
        mut self,
        gradient: Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<InputGradients, NnError> {
        let mut gradient = ops::arrange(&gradient, Arithmetic::Fast)?;
        let (norm, trace) = self.own.as_ref().ok_or_else(unexpected_layout)?;
        let sums = norm::backward(norm, trace, &mut gradient).ok_or_else(unexpected_layout)?;
        for (at, sum) in [(1, sums.input_bias), (2, sums.weight), (3, sums.bias)] {
            let _ = gradients[self.place.first + at].f_add_(&Tensor::f_from_slice(&sum)?)?;
        }
        self.own = None;
        let Leaves { weight, folded, below, .. } = &self.leaves;
        let weights: Vec<&Tensor> = std::iter::once(weight).chain(folded).collect();
        let mut found = differentiate(&self.result, &gradient, &weights)?.into_iter();
        self.add_weight_gradients(&mut gradients[self.place.first], found.next(), found.next())?;

        cancel.check()?;
        let input = if self.place.is_first_layer {
            None
        } else {
            Some(convolution_backward(&gradient, weight, Arithmetic::Fast)?)
        };
        cancel.check()?;
        let below = match (below, folded) {
            (Some(_), Some(folded)) => Some(ops::upsampled_convolution_backward(&gradient, folded, self.keep_z)?),
            _ => None,
        };
        Ok(InputGradients { input, below })
    }

    fn recorded_backward(self, gradient: &Tensor, gradients: &mut [Tensor]) -> Result<InputGradients, NnError> {
        let Leaves { input, below, weight, folded, bias, norm_weight, norm_bias } = &self.leaves;
        let mut leaves = vec![bias, norm_weight, norm_bias, weight];
        leaves.extend(folded);
        leaves.extend(below);
        leaves.extend((!self.place.is_first_layer).then_some(input));
        let mut found = differentiate(&self.result, gradient, &leaves)?.into_iter();
        for at in 1..4 {
            if let Some(found) = found.next() {
                let _ = gradients[self.place.first + at].f_add_(&found)?;
            }
        }
        let weight = found.next();
        let folded = if folded.is_some() { found.next() } else { None };
        self.add_weight_gradients(&mut gradients[self.place.first], weight, folded)?;
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
        let skipped = self.leaves.weight.size()[1];
        if let Some(weight) = weight {
            let _ = sum.f_narrow(1, 0, skipped)?.f_add_(&weight)?;
        }
        if let Some(folded) = folded {
            let mut part = sum.f_narrow(1, skipped, sum.size()[1] - skipped)?;
            // Folding is linear, so where it is differentiated does not matter.
            let weight = part.f_zeros_like()?.set_requires_grad(true);
            let refolded = tch::with_grad(|| ops::fold_upsampling(&weight, self.keep_z))?;
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
    let turned = ops::arrange(&weight.f_flip(&axes)?.f_transpose(0, 1)?, arithmetic)?;
    let no_bias = Tensor::f_zeros([turned.size()[0]], (turned.kind(), turned.device()))?;
    ops::convolution(gradient, &turned, &no_bias, arithmetic)
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
        let place = Place { first: 0, is_first_layer: input.size()[1] == 1, arithmetic, kind };
        let below = below.map(|(below, keep_z)| (ops::arrange(below, arithmetic).unwrap(), keep_z));
        let below = below.as_ref().map(|(below, keep_z)| (below, *keep_z));
        let cancel = CancelToken::default();
        let (result, trace) =
            forward(parameters, place, &ops::arrange(input, arithmetic).unwrap(), below, &cancel).unwrap();
        let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
        let gradient = normal_tensor(7, &result.size(), Kind::Float);
        let inputs = trace.backward(gradient, &mut gradients, &cancel).unwrap();
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
