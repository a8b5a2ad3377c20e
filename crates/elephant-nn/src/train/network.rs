//! The forward and the backward pass of the detection network: logits, and gradients by every parameter.

use elephant_types::{CancelToken, KeepAxials};
use tch::Tensor;

use super::{
    layer::{self, Place},
    pool,
};
use crate::{
    NnError, Precision,
    architecture::{BLOCKS, LEVELS},
    ops::{self, Arithmetic},
    unet,
};

/// Tensors of a block: weight and bias of two convolutions and two norms.
const BLOCK_TENSORS: usize = 8;
/// Where the output convolution's weight is among the parameters; its bias follows.
const OUTPUT: usize = BLOCKS.len() * BLOCK_TENSORS;

/// What the forward pass saves for the backward pass.
pub(super) struct Trace {
    /// The layers, in the order they were passed.
    layers: Vec<layer::Trace>,
    /// For each level, what was pooled and what came of it.
    pools: Vec<Pool>,
    /// The output convolution: the recorded result, its weight and its bias.
    output: [Tensor; 3],
    arithmetic: Arithmetic,
}

struct Pool {
    input: Tensor,
    /// Recorded by libtorch where this crate's own backward pass does not apply.
    recorded: Option<[Tensor; 2]>,
    keep_z: bool,
}

/// The logits (n, class, …) of `images` (n, 1, …), whose sizes must be multiples of what the poolings need. `parameters`
/// are in the order of the original's checkpoints.
pub(super) fn forward(
    parameters: &[Tensor],
    keep_axials: KeepAxials,
    arithmetic: Arithmetic,
    precision: Precision,
    images: &Tensor,
    cancel: &CancelToken,
) -> Result<(Tensor, Trace), NnError> {
    let keep_z = keep_axials.0;
    let (mut layers, mut pools) = (Vec::new(), Vec::new());
    let mut block = |index: usize, input: &Tensor, below: Option<(&Tensor, bool)>| -> Result<Tensor, NnError> {
        let place = |half: usize| Place {
            first: index * BLOCK_TENSORS + half * 4,
            is_first_layer: index + half == 0,
            arithmetic,
            kind: unet::layer_kind(index, precision),
        };
        let (middle, trace) = layer::forward(parameters, place(0), input, below, cancel)?;
        layers.push(trace);
        let (output, trace) = layer::forward(parameters, place(1), &middle, None, cancel)?;
        layers.push(trace);
        Ok(output)
    };
    let mut x = ops::arrange(images, arithmetic)?;
    for (level, keep_z) in keep_z.into_iter().enumerate() {
        let features = block(level, &x, None)?;
        let pool = Pool::new(features, keep_z, arithmetic)?;
        x = pool.forward()?;
        pools.push(pool);
    }
    x = block(LEVELS, &x, None)?;
    for (index, pool) in (LEVELS + 1..BLOCKS.len()).zip(pools.iter().rev()) {
        x = block(index, &pool.input, Some((&x, pool.keep_z)))?;
    }
    let leaf = |at: usize| -> Result<Tensor, NnError> {
        Ok(ops::arrange(&parameters[at], arithmetic)?.detach().set_requires_grad(true))
    };
    let (weight, bias) = (leaf(OUTPUT)?, parameters[OUTPUT + 1].detach().set_requires_grad(true));
    let logits = tch::with_grad(|| ops::convolution(&x, &weight, &bias, arithmetic))?;
    Ok((logits.detach(), Trace { layers, pools, output: [logits, weight, bias], arithmetic }))
}

impl Trace {
    /// Adds to `gradients` those by the parameters, from `gradient`, the one by the logits.
    pub(super) fn backward(
        mut self,
        gradient: &Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<(), NnError> {
        let [logits, weight, bias] = &self.output;
        let found = layer::differentiate(logits, gradient, &[weight, bias])?;
        for (sum, found) in gradients[OUTPUT..].iter_mut().zip(found) {
            let _ = sum.f_add_(&found)?;
        }
        let mut x = layer::convolution_backward(gradient, weight, self.arithmetic)?;
        let mut skipped = Vec::new();
        for _ in 0..LEVELS {
            let (input, below) = self.block(x, gradients, cancel)?;
            skipped.push(input.ok_or_else(no_gradient)?);
            x = below.ok_or_else(no_gradient)?;
        }
        let mut pooled = self.block(x, gradients, cancel)?.0;
        for (pool, skipped) in std::mem::take(&mut self.pools).into_iter().zip(skipped).rev() {
            x = pool.add_backward(&pooled.ok_or_else(no_gradient)?, skipped)?;
            pooled = self.block(x, gradients, cancel)?.0;
        }
        Ok(())
    }

    /// The backward pass through the last block that is left.
    fn block(
        &mut self,
        gradient: Tensor,
        gradients: &mut [Tensor],
        cancel: &CancelToken,
    ) -> Result<(Option<Tensor>, Option<Tensor>), NnError> {
        let mut layer =
            |gradient: Tensor| self.layers.pop().ok_or_else(no_gradient)?.backward(gradient, gradients, cancel);
        let middle = layer(gradient)?.input.ok_or_else(no_gradient)?;
        let found = layer(middle)?;
        Ok((found.input, found.below))
    }
}

fn no_gradient() -> NnError {
    NnError::Torch { message: "a gradient is missing".into() }
}

impl Pool {
    fn new(input: Tensor, keep_z: bool, arithmetic: Arithmetic) -> Result<Self, NnError> {
        let recorded = if layer::is_own(&input, arithmetic) {
            None
        } else {
            let leaf = input.detach().set_requires_grad(true);
            Some([tch::with_grad(|| ops::max_pool(&leaf, keep_z))?, leaf])
        };
        Ok(Self { input, recorded, keep_z })
    }

    fn forward(&self) -> Result<Tensor, NnError> {
        match &self.recorded {
            Some([pooled, _]) => Ok(pooled.detach()),
            None => ops::max_pool(&self.input, self.keep_z),
        }
    }

    /// `gradient`, the one by the input from elsewhere, plus the one that comes back through the pooling. Overwrites it.
    #[expect(clippy::needless_pass_by_value, reason = "nobody may look at the gradient afterwards")]
    fn add_backward(self, pooled: &Tensor, gradient: Tensor) -> Result<Tensor, NnError> {
        if let Some([result, leaf]) = &self.recorded {
            return match layer::differentiate(result, pooled, &[leaf])?.pop() {
                Some(found) => Ok(found.f_add(&gradient)?),
                None => Err(no_gradient()),
            };
        }
        let (pooled, mut sum) = (ops::arrange(pooled, Arithmetic::Fast)?, ops::arrange(&gradient, Arithmetic::Fast)?);
        pool::add_backward(&self.input, &pooled, &mut sum, self.keep_z)
            .ok_or_else(|| NnError::Torch { message: "a tensor lies in memory in an unexpected order".into() })?;
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::NetworkKind;
    use tch::{Device, Kind};

    use super::*;
    use crate::{Model, architecture, random::normal_tensor};

    fn parameters() -> Vec<Tensor> {
        let model = Model::random(NetworkKind::Planar, 1).unwrap();
        let parameter = |name: &String| {
            let parameter = model.checkpoint().members[0].get(name).unwrap();
            let shape: Vec<i64> = parameter.shape().iter().map(|&size| size as i64).collect();
            Tensor::from_slice(&parameter.to_f32()).reshape(shape)
        };
        architecture::names(NetworkKind::Planar).iter().map(parameter).collect()
    }

    #[test]
    fn both_passes_stop_when_they_are_cancelled() {
        let _no_grad = tch::no_grad_guard();
        let parameters = parameters();
        let images = normal_tensor(1, &[1, 1, 32, 32], Kind::Float);
        for arithmetic in [Arithmetic::Original, Arithmetic::Fast] {
            let cancel = CancelToken::default();
            let pass = |cancel: &CancelToken| {
                forward(&parameters, KeepAxials::first(4), arithmetic, Precision::F32, &images, cancel)
            };
            let (logits, saved) = pass(&cancel).unwrap();
            let gradient = Tensor::ones(logits.size(), (Kind::Float, Device::Cpu));
            let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
            cancel.cancel();
            let stopped = saved.backward(&gradient, &mut gradients, &cancel);
            assert!(matches!(stopped, Err(NnError::Cancelled(_))), "{arithmetic:?} backward");
            assert!(matches!(pass(&cancel).err(), Some(NnError::Cancelled(_))), "{arithmetic:?} forward");
        }
    }
}
