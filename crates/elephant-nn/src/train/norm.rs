//! ReLU and group norm for training, for tensors on the CPU with the channels last: the result beside its input, and the
//! gradient. Two passes over memory for each.

use rayon::prelude::*;
use tch::Tensor;

use crate::{
    NnError,
    norm::{
        Affine, CACHED_VOXELS, LANES, Norm, Statistics, TASK_VOXELS, add_tasks, lanes, normalized, relu, values,
        values_mut,
    },
};

/// What the forward pass saves for the backward pass.
#[derive(Debug)]
pub(super) struct SavedForBackward {
    /// What came in, before the ReLU.
    input: Tensor,
    /// For each sample and channel.
    statistics: Vec<Vec<Statistics>>,
}

/// Gradients of what has one number for each channel.
#[derive(Debug)]
pub(super) struct ChannelGradients {
    /// Gradient by the norm's weight.
    pub(super) weight: Vec<f32>,
    /// Gradient by the norm's bias.
    pub(super) bias: Vec<f32>,
    /// Gradient by the bias of the convolution before, which was added to the input.
    pub(super) input_bias: Vec<f32>,
}

/// `group_norm(relu(input))`, or `None` where the tensor is not one that this module's loops take.
pub(super) fn forward(norm: &Norm, input: Tensor) -> Result<Option<(Tensor, SavedForBackward)>, NnError> {
    let mut output = input.f_empty_like()?;
    let statistics = {
        let (Some(from), Some(to)) = (values::<f32>(&input), values_mut::<f32>(&mut output)) else {
            return Ok(None);
        };
        let samples = from.values.chunks_exact(from.sample_length).zip(to.values.chunks_exact_mut(to.sample_length));
        let each = samples.map(|(from, to)| {
            let statistics = norm.statistics(from);
            apply(from, to, &norm.affine(&statistics));
            statistics
        });
        each.collect()
    };
    Ok(Some((output, SavedForBackward { input, statistics })))
}

/// Turns `gradient`, of the loss by the output, into the one by the input, in place.
pub(super) fn backward(norm: &Norm, saved: &SavedForBackward, gradient: &mut Tensor) -> Option<ChannelGradients> {
    let channels = norm.weight.len();
    let zeros = || vec![0.0; channels];
    let mut found = ChannelGradients { weight: zeros(), bias: zeros(), input_bias: zeros() };
    let (inputs, gradients) = (values::<f32>(&saved.input)?, values_mut::<f32>(gradient)?);
    let samples = inputs.values.chunks_exact(inputs.sample_length);
    let samples = samples.zip(gradients.values.chunks_exact_mut(gradients.sample_length)).zip(&saved.statistics);
    for ((input, gradient), statistics) in samples {
        let channel_sums = channel_sums(input, gradient, channels);
        let slopes = slopes(norm, statistics, &channel_sums, input.len() / channels);
        rewrite(input, gradient, &slopes);
        for channel in 0..channels {
            let (sums, slope) = (&channel_sums[channel], &slopes[channel]);
            let Statistics { mean, inverse } = statistics[channel];
            found.bias[channel] += sums.gradient as f32;
            found.weight[channel] += ((sums.product - mean * sums.gradient) * inverse) as f32;
            // The sum of what `rewrite` writes, whose terms nearly cancel.
            let constant = slope.constant * sums.positive;
            found.input_bias[channel] +=
                (slope.from_gradient * sums.positive_gradient + slope.from_input * sums.input + constant) as f32;
        }
    }
    Some(found)
}

/// `(relu(x) − mean) · scale + bias` for each channel.
fn apply(from: &[f32], to: &mut [f32], affine: &[Affine]) {
    let channels = affine.len();
    let affine = lanes(affine, Affine::fields);
    let tasks = from.par_chunks(TASK_VOXELS * channels).zip(to.par_chunks_mut(TASK_VOXELS * channels));
    tasks.for_each(|(from, to)| {
        for (from, to) in from.chunks_exact(channels).zip(to.chunks_exact_mut(channels)) {
            let lanes = from.chunks_exact(LANES).zip(to.chunks_exact_mut(LANES)).zip(&affine);
            for ((from, to), [mean, scale, bias]) in lanes {
                for i in 0..LANES {
                    to[i] = normalized(from[i], mean[i], scale[i], bias[i]);
                }
            }
        }
    });
}

/// Sums over a channel's voxels, with `input` after the ReLU.
#[derive(Clone, Copy, Debug)]
struct BackwardSums {
    gradient: f64,
    product: f64,
    input: f64,
    /// Voxels where the input is above 0.
    positive: f64,
    /// The gradient there.
    positive_gradient: f64,
}

impl From<[f64; 5]> for BackwardSums {
    fn from([gradient, product, input, positive, positive_gradient]: [f64; 5]) -> Self {
        Self { gradient, product, input, positive, positive_gradient }
    }
}

fn channel_sums(input: &[f32], gradient: &[f32], channels: usize) -> Vec<BackwardSums> {
    let tasks = input.par_chunks(TASK_VOXELS * channels).zip(gradient.par_chunks(TASK_VOXELS * channels));
    let tasks = tasks.map(|(input, gradient)| {
        let mut sums = vec![[0.0; 5]; channels];
        let blocks = input.chunks(CACHED_VOXELS * channels).zip(gradient.chunks(CACHED_VOXELS * channels));
        for (input, gradient) in blocks {
            for (at, sums) in sums.chunks_exact_mut(LANES).enumerate() {
                let block = block_sums(input, gradient, at * LANES, channels);
                for (lane, sums) in sums.iter_mut().enumerate() {
                    sums.iter_mut().zip(&block).for_each(|(sum, block)| *sum += f64::from(block[lane]));
                }
            }
        }
        sums
    });
    add_tasks(tasks, channels).into_iter().map(BackwardSums::from).collect()
}

/// The five sums of a few voxels and [`LANES`] channels from `first` on.
#[inline]
fn block_sums(input: &[f32], gradient: &[f32], first: usize, channels: usize) -> [[f32; LANES]; 5] {
    let mut sums = [[0.0f32; LANES]; 5];
    for (input, gradient) in input.chunks_exact(channels).zip(gradient.chunks_exact(channels)) {
        let (input, gradient) = (&input[first..first + LANES], &gradient[first..first + LANES]);
        for i in 0..LANES {
            let (input, gradient) = (relu(input[i]), gradient[i]);
            let positive = if input > 0.0 { 1.0 } else { 0.0 };
            sums[0][i] += gradient;
            sums[1][i] += gradient * input;
            sums[2][i] += input;
            sums[3][i] += positive;
            sums[4][i] += gradient * positive;
        }
    }
    sums
}

/// The gradient by the input is, where the input is above 0, `from_gradient · gradient + from_input · input + constant`.
#[derive(Clone, Copy)]
struct Slope {
    from_gradient: f64,
    from_input: f64,
    constant: f64,
}

/// The derivative of the normalisation (Wu and He, "Group Normalization", ECCV 2018), gathered by what it multiplies.
fn slopes(norm: &Norm, statistics: &[Statistics], sums: &[BackwardSums], voxels: usize) -> Vec<Slope> {
    let group_channels = norm.group_channels();
    let count = (voxels * group_channels) as f64;
    let groups = norm.weight.chunks_exact(group_channels).zip(sums.chunks_exact(group_channels));
    let groups = groups.zip(statistics.chunks_exact(group_channels));
    let slopes = groups.flat_map(|((weights, sums), statistics)| {
        let Statistics { mean, inverse } = statistics[0];
        let (mut gradient, mut product) = (0.0, 0.0);
        for (weight, sums) in weights.iter().zip(sums) {
            gradient += f64::from(*weight) * sums.gradient;
            product += f64::from(*weight) * (sums.product - mean * sums.gradient) * inverse;
        }
        let from_input = -inverse * inverse * product / count;
        let constant = -inverse * gradient / count - mean * from_input;
        weights.iter().map(move |weight| Slope { from_gradient: inverse * f64::from(*weight), from_input, constant })
    });
    slopes.collect()
}

fn rewrite(input: &[f32], gradient: &mut [f32], slopes: &[Slope]) {
    let channels = slopes.len();
    let slopes = lanes(slopes, |s| [s.from_gradient, s.from_input, s.constant].map(|value| value as f32));
    let tasks = input.par_chunks(TASK_VOXELS * channels).zip(gradient.par_chunks_mut(TASK_VOXELS * channels));
    tasks.for_each(|(input, gradient)| {
        for (input, gradient) in input.chunks_exact(channels).zip(gradient.chunks_exact_mut(channels)) {
            let lanes = input.chunks_exact(LANES).zip(gradient.chunks_exact_mut(LANES)).zip(&slopes);
            for ((input, gradient), [a, b, c]) in lanes {
                for i in 0..LANES {
                    let value = a[i] * gradient[i] + b[i] * input[i] + c[i];
                    gradient[i] = if input[i] > 0.0 { value } else { 0.0 };
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::random::normal_tensor;
    use crate::{
        norm::{EPSILON, MAX_GROUPS},
        ops::{self, Arithmetic},
    };

    #[test]
    fn it_is_the_derivative_of_relu_and_group_norm() {
        for size in [[2, 16, 3, 40, 41], [1, 32, 2, 9, 5], [3, 64, 1, 4, 4], [1, 256, 2, 2, 2]] {
            let leaf = |t: Tensor| t.set_requires_grad(true);
            let (x, gradient) = (leaf(normal_tensor(1, &size, Kind::Double)), normal_tensor(2, &size, Kind::Double));
            let (weight, bias) = (
                leaf(normal_tensor(3, &size[1..2], Kind::Double) * 0.2 + 1.0),
                leaf(normal_tensor(4, &size[1..2], Kind::Double)),
            );
            let groups = size[1].min(MAX_GROUPS as i64);
            let y = x.relu().group_norm(groups, Some(&weight), Some(&bias), EPSILON, false);
            let expected = Tensor::run_backward(&[&y * &gradient], &[&x, &weight, &bias], false, false);

            let single =
                |t: &Tensor| ops::to_memory_layout(&t.detach().to_kind(Kind::Float), Arithmetic::Fast).unwrap();
            let values = |t: &Tensor| Vec::<f32>::try_from(t.detach().to_kind(Kind::Float)).unwrap();
            let norm = Norm::new(values(&weight), values(&bias), Device::Cpu).unwrap();
            let (output, saved) = forward(&norm, single(&x)).unwrap().unwrap();
            let mut found = single(&gradient);
            let sums = backward(&norm, &saved, &mut found).unwrap();

            let assert_close = |found: &Tensor, expected: &Tensor| {
                let largest = expected.abs().max().double_value(&[]).max(1e-3);
                let difference = (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
                assert!(difference < 1e-4 * largest, "{difference} of {largest}");
            };
            assert_close(&output, &y.detach());
            assert_close(&found, &expected[0]);
            assert_close(&Tensor::from_slice(&sums.weight), &expected[1]);
            assert_close(&Tensor::from_slice(&sums.bias), &expected[2]);
            let sum = expected[0].transpose(0, 1).reshape([size[1], -1]).sum_dim_intlist(1i64, false, Kind::Double);
            // Its terms cancel.
            let difference = (Tensor::from_slice(&sums.input_bias) - sum).abs().max().double_value(&[]);
            assert!(difference < 1e-2, "{difference}");
        }
    }
}
