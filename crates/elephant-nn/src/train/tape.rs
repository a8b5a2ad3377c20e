//! The forward pass that keeps what the backward pass needs, and the backward pass: gradients by every parameter.

use elephant_types::{CancelToken, KeepAxials};
use tch::{Kind, Tensor};

use super::{
    layer::{self, InputGradients, LayerSpec, differentiate, leaf},
    pool,
};
use crate::{
    NnError, Precision,
    convolution::{Below, Convolution},
    network,
    ops::{self, Arithmetic},
    spec::{LEVELS, NetworkSpec},
    walk::{self, Pass},
};

/// How a training computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct TapeConfig {
    pub(super) spec: &'static NetworkSpec,
    pub(super) keep_axials: KeepAxials,
    pub(super) arithmetic: Arithmetic,
    pub(super) precision: Precision,
}

/// What the forward pass saves for the backward pass.
pub(super) struct Tape<'a> {
    config: TapeConfig,
    parameters: &'a [Tensor],
    cancel: &'a CancelToken,
    /// The blocks, in the order they were passed.
    blocks: Vec<SavedBlock>,
    /// For each level, what was pooled and what came of it.
    pools: Vec<SavedPool>,
    output: Option<SavedOutput>,
}

/// A block of the network.
enum SavedBlock {
    Normed(Box<[layer::SavedForBackward; 2]>),
    Recorded(RecordedBlock),
}

/// A block that libtorch recorded as a whole.
struct RecordedBlock {
    result: Tensor,
    /// Index of the block's first parameter.
    first: usize,
    parameters: Vec<Tensor>,
    /// `None` for the image, whose gradient is not needed.
    input: Option<Tensor>,
    below: Option<Tensor>,
}

struct SavedPool {
    input: Tensor,
    /// Recorded by libtorch where this crate's own backward pass does not apply.
    recorded: Option<[Tensor; 2]>,
    keep_z: bool,
}

/// The convolution at the end: its recorded result, its weight and its bias.
struct SavedOutput {
    logits: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// The logits (n, outputs, …) of `images` (n, inputs, …), whose sizes must be [fitting](walk::fit). `parameters` are in the
/// order of the original's checkpoints.
pub(super) fn forward<'a>(
    parameters: &'a [Tensor],
    config: TapeConfig,
    images: &Tensor,
    cancel: &'a CancelToken,
) -> Result<(Tensor, Tape<'a>), NnError> {
    let mut tape = Tape { config, parameters, cancel, blocks: Vec::new(), pools: Vec::new(), output: None };
    let images = ops::to_memory_layout(images, config.arithmetic)?;
    let logits = walk::walk(&mut tape, images, config.keep_axials)?;
    Ok((logits, tape))
}

impl Pass for Tape<'_> {
    fn block(&mut self, index: usize, input: Tensor, below: Option<Below>) -> Result<Tensor, NnError> {
        let TapeConfig { spec, keep_axials, arithmetic, precision } = self.config;
        let (first, count) = spec.block_parameters(index);
        let merge = network::merge(spec, index, keep_axials);
        let (kind, is_first) = (walk::block_kind(index, precision), index == 0);
        let leaves: Vec<Tensor> = self.parameters[first..first + count].iter().map(|p| leaf(p, true)).collect();
        let block = || {
            let block = network::convolution_block(spec.blocks[index].kind, &leaves, merge, arithmetic)?;
            block.map(|block| block.try_map(|convolution| convolution.to_kinds(kind, kind))).transpose()
        };
        if let Some(block) = tch::with_grad(block)? {
            let input = leaf(&input, !is_first);
            let below = below.map(|Below { features, keep_z }| Below { features: leaf(&features, true), keep_z });
            let apply =
                || block.apply(&input, below.as_ref(), self.cancel)?.f_to_kind(Kind::Float).map_err(NnError::from);
            let result = tch::with_grad(apply)?;
            let output = result.detach();
            let (input, below) = ((!is_first).then_some(input), below.map(|below| below.features));
            self.blocks.push(SavedBlock::Recorded(RecordedBlock { result, first, parameters: leaves, input, below }));
            return Ok(output);
        }
        let layer = |half: usize| LayerSpec {
            first: first + half * 4,
            is_first_layer: is_first && half == 0,
            arithmetic,
            kind,
        };
        let (middle, saved) = layer::forward(self.parameters, layer(0), merge, &input, below.as_ref(), self.cancel)?;
        let (output, saved_second) = layer::forward(self.parameters, layer(1), None, &middle, None, self.cancel)?;
        self.blocks.push(SavedBlock::Normed(Box::new([saved, saved_second])));
        Ok(output)
    }

    fn pool(&mut self, features: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
        let pool = SavedPool::new(features.shallow_clone(), keep_z, self.config.arithmetic)?;
        let pooled = pool.forward()?;
        self.pools.push(pool);
        Ok(pooled)
    }

    fn output(&mut self, features: &Tensor) -> Result<Tensor, NnError> {
        let arithmetic = self.config.arithmetic;
        let (first, _) = self.config.spec.block_parameters(self.config.spec.blocks.len());
        let bias = leaf(&self.parameters[first + 1], true);
        let mut convolution = Convolution::new(&self.parameters[first], Some(&bias), None, arithmetic)?;
        convolution.weight = leaf(&convolution.weight, true);
        let logits = tch::with_grad(|| convolution.apply(features, None, self.cancel))?;
        let found = logits.detach();
        self.output = Some(SavedOutput { logits, weight: convolution.weight, bias });
        Ok(found)
    }
}

impl Tape<'_> {
    /// Adds to `gradients` those by the parameters, from `gradient`, the one by the logits.
    pub(super) fn backward(mut self, gradient: &Tensor, gradients: &mut [Tensor]) -> Result<(), NnError> {
        let SavedOutput { logits, weight, bias } = self.output.take().ok_or_else(no_gradient)?;
        let (first, _) = self.config.spec.block_parameters(self.config.spec.blocks.len());
        let found = differentiate(&logits, gradient, &[&weight, &bias])?;
        for (sum, found) in gradients[first..].iter_mut().zip(found) {
            let _ = sum.f_add_(&found)?;
        }
        let mut x = layer::convolution_backward(gradient, &weight, self.config.arithmetic)?;
        let mut skipped = Vec::new();
        for _ in 0..LEVELS {
            let InputGradients { input, below } = self.last_block(x, gradients)?;
            skipped.push(input.ok_or_else(no_gradient)?);
            x = below.ok_or_else(no_gradient)?;
        }
        let mut pooled = self.last_block(x, gradients)?.input;
        for (pool, skipped) in std::mem::take(&mut self.pools).into_iter().zip(skipped).rev() {
            x = pool.add_backward(&pooled.ok_or_else(no_gradient)?, skipped)?;
            pooled = self.last_block(x, gradients)?.input;
        }
        Ok(())
    }

    /// The backward pass through the last block that is left.
    fn last_block(&mut self, gradient: Tensor, gradients: &mut [Tensor]) -> Result<InputGradients, NnError> {
        match self.blocks.pop().ok_or_else(no_gradient)? {
            SavedBlock::Normed(layers) => {
                let [first, second] = *layers;
                let middle = second.backward(gradient, gradients, self.cancel)?.input.ok_or_else(no_gradient)?;
                first.backward(middle, gradients, self.cancel)
            }
            SavedBlock::Recorded(block) => {
                self.cancel.check()?;
                block.backward(&gradient, gradients)
            }
        }
    }
}

impl RecordedBlock {
    fn backward(self, gradient: &Tensor, gradients: &mut [Tensor]) -> Result<InputGradients, NnError> {
        let leaves: Vec<&Tensor> = self.parameters.iter().chain(&self.input).chain(&self.below).collect();
        let mut found = differentiate(&self.result, gradient, &leaves)?.into_iter();
        for (sum, found) in gradients[self.first..].iter_mut().zip(found.by_ref().take(self.parameters.len())) {
            let _ = sum.f_add_(&found)?;
        }
        let input = if self.input.is_some() { found.next() } else { None };
        Ok(InputGradients { input, below: found.next() })
    }
}

fn no_gradient() -> NnError {
    NnError::Torch { message: "a gradient is missing".into() }
}

impl SavedPool {
    fn new(input: Tensor, keep_z: bool, arithmetic: Arithmetic) -> Result<Self, NnError> {
        let recorded = if layer::uses_cpu_kernels(&input, arithmetic) {
            None
        } else {
            let input = leaf(&input, true);
            Some([tch::with_grad(|| ops::max_pool(&input, keep_z))?, input])
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
    #[expect(clippy::needless_pass_by_value, reason = "the gradient is changed and must not be used afterwards")]
    fn add_backward(self, pooled: &Tensor, gradient: Tensor) -> Result<Tensor, NnError> {
        if let Some([result, input]) = &self.recorded {
            return match differentiate(result, pooled, &[input])?.pop() {
                Some(found) => Ok(found.f_add(&gradient)?),
                None => Err(no_gradient()),
            };
        }
        let (pooled, mut sum) =
            (ops::to_memory_layout(pooled, Arithmetic::Fast)?, ops::to_memory_layout(&gradient, Arithmetic::Fast)?);
        pool::add_backward(&self.input, &pooled, &mut sum, self.keep_z)
            .ok_or_else(|| NnError::Torch { message: "a tensor lies in memory in an unexpected order".into() })?;
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::NetworkKind;
    use tch::Device;

    use super::*;
    use crate::{
        network::{Network, NetworkConfig, parameter},
        random::normal_tensor,
        spec,
    };

    fn parameters(spec: &NetworkSpec) -> Vec<Tensor> {
        let dict = spec::random(spec, 1).unwrap();
        spec.names().iter().map(|name| parameter(&dict, name, Device::Cpu).unwrap()).collect()
    }

    fn config(spec: &'static NetworkSpec, arithmetic: Arithmetic) -> TapeConfig {
        TapeConfig { spec, keep_axials: KeepAxials::first(2), arithmetic, precision: Precision::F32 }
    }

    fn images(spec: &NetworkSpec) -> Tensor {
        let mut size = vec![1, spec.inputs as i64];
        size.extend([4, 32, 32].split_at(3 - spec.axes()).1);
        normal_tensor(1, &size, Kind::Float)
    }

    #[test]
    fn both_passes_stop_when_they_are_cancelled() {
        let _no_grad = tch::no_grad_guard();
        for spec in [NetworkSpec::detection(NetworkKind::Planar), NetworkSpec::flow(NetworkKind::Planar)] {
            let (parameters, images) = (parameters(spec), images(spec));
            for arithmetic in [Arithmetic::Original, Arithmetic::Fast] {
                let cancel = CancelToken::default();
                let pass = || forward(&parameters, config(spec, arithmetic), &images, &cancel);
                let (logits, tape) = pass().unwrap();
                let gradient = Tensor::ones(logits.size(), (Kind::Float, Device::Cpu));
                let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
                cancel.cancel();
                let stopped = tape.backward(&gradient, &mut gradients);
                assert!(matches!(stopped, Err(NnError::Cancelled(_))), "{arithmetic:?} backward");
                assert!(matches!(pass().err(), Some(NnError::Cancelled(_))), "{arithmetic:?} forward");
            }
        }
    }

    /// libtorch records the whole network, which prediction and training walk in the same way.
    #[test]
    fn the_gradients_of_a_flow_network_are_those_that_libtorch_records() {
        let _no_grad = tch::no_grad_guard();
        for dims in [NetworkKind::Volumetric, NetworkKind::Planar] {
            let spec = NetworkSpec::flow(dims);
            let (parameters, images, cancel) = (parameters(spec), images(spec), CancelToken::default());
            let leaves: Vec<Tensor> = parameters.iter().map(|parameter| leaf(parameter, true)).collect();
            let (keep_axials, precision) = (KeepAxials::first(2), Precision::F32);
            let network =
                NetworkConfig { keep_axials, arithmetic: Arithmetic::Original, precision, device: Device::Cpu };
            let (expected, direction) = tch::with_grad(|| {
                let network = Network::from_parameters(&leaves, spec, network).unwrap();
                let vectors = network.forward(&images, false, &(0..spec.outputs), &cancel).unwrap();
                let direction = normal_tensor(2, &vectors.size(), Kind::Float);
                let sum = (vectors * &direction).sum(Kind::Float);
                (Tensor::run_backward(&[sum], &leaves, false, false), direction)
            });
            // Rounding otherwise may move an input of a leaky ReLU to its other side, with a tenth of its gradient: the
            // gradient as a whole is compared.
            for (arithmetic, tolerance) in [(Arithmetic::Original, 1e-4), (Arithmetic::Fast, 2e-2)] {
                let (logits, tape) = forward(&parameters, config(spec, arithmetic), &images, &cancel).unwrap();
                let gradient = direction.f_mul(&(1.0 - logits.tanh().square())).unwrap();
                let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
                tape.backward(&gradient, &mut gradients).unwrap();
                let [found, expected] = [&gradients, &expected].map(|gradients| {
                    Tensor::cat(&gradients.iter().map(|gradient| gradient.reshape([-1])).collect::<Vec<_>>(), 0)
                });
                let difference = (found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
                assert!(difference < tolerance, "{arithmetic:?} {dims:?}: {difference:e}");
            }
        }
    }
}
