//! ReLU and group norm in one, in place, for tensors on the CPU with the channels last.
//!
//! libtorch needs three passes and a new tensor for it, and its kernel for this layout sums squares in f32, which loses
//! the variance where the mean is large. This one reads the tensor once and rewrites it once, and sums in f64. What one
//! task sums does not depend on the number of threads, so neither does the result.

use half::bf16;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::{NnError, ops};

/// Added to the variance (docs/method.md, "Detection network").
pub(crate) const EPSILON: f64 = 1e-5;
/// Groups at most (docs/method.md, "Detection network"); fewer where there are fewer channels.
pub(crate) const MAX_GROUPS: usize = 32;
/// Voxels that one task reads.
pub(crate) const TASK_VOXELS: usize = 4096;
/// Voxels that stay in the first cache while their channels are summed.
pub(crate) const CACHED_VOXELS: usize = 64;
/// Channels summed together in registers.
const SUM_LANES: usize = 8;
/// Channels rewritten together in registers.
pub(crate) const LANES: usize = 16;

/// The affine part of a group norm: a weight and a bias for each channel.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    bias: Vec<f32>,
    /// The same for libtorch's kernels, where this module's do not apply.
    tensors: (Tensor, Tensor),
}

impl Norm {
    pub(crate) fn new(weight: Vec<f32>, bias: Vec<f32>, device: Device) -> Result<Self, NnError> {
        let tensor = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        let tensors = (tensor(&weight)?, tensor(&bias)?);
        Ok(Self { weight, bias, tensors })
    }

    /// `group_norm(relu(x))`, reusing the memory of `x` (n, c, …) where possible.
    pub(crate) fn after_relu(&self, mut x: Tensor) -> Result<Tensor, NnError> {
        let kind = x.kind();
        let done = match kind {
            Kind::Float => values_mut::<f32>(&mut x).map(|values| self.in_place(values)),
            Kind::BFloat16 => values_mut::<bf16>(&mut x).map(|values| self.in_place(values)),
            _ => None,
        };
        if done.is_some() {
            return Ok(x);
        }
        let (weight, bias) = (self.tensors.0.f_to_kind(kind)?, self.tensors.1.f_to_kind(kind)?);
        let groups = MAX_GROUPS.min(self.weight.len()) as i64;
        Ok(x.f_relu_()?.f_group_norm(groups, Some(weight), Some(bias), EPSILON, true)?)
    }

    fn in_place<T: ActivationElement>(&self, samples: SamplesMut<'_, T>) {
        let SamplesMut { values, sample_length } = samples;
        for sample in values.chunks_exact_mut(sample_length) {
            let affine = self.affine(&self.statistics(sample));
            apply(sample, &affine);
        }
    }

    /// Channels that are normalised together.
    pub(crate) fn group_channels(&self) -> usize {
        let channels = self.weight.len();
        channels / MAX_GROUPS.min(channels)
    }

    /// What the channels of a sample `relu(x)` are normalised with.
    pub(crate) fn statistics<T: ActivationElement>(&self, sample: &[T]) -> Vec<Statistics> {
        let moments = moments(sample, self.weight.len());
        let group_channels = self.group_channels();
        let groups = moments.chunks_exact(group_channels).map(|group| {
            let average = |value: &dyn Fn(&Moments) -> f64| group.iter().map(value).sum::<f64>() / group.len() as f64;
            let mean = average(&|channel| channel.mean);
            let variance = average(&|channel| channel.variance + (channel.mean - mean).powi(2));
            Statistics { mean, inverse: 1.0 / (variance + EPSILON).sqrt() }
        });
        groups.flat_map(|group| std::iter::repeat_n(group, group_channels)).collect()
    }

    /// What to subtract from, multiply with and add to each channel.
    pub(crate) fn affine(&self, statistics: &[Statistics]) -> Vec<Affine> {
        let affine = statistics.iter().zip(self.weight.iter().zip(&self.bias)).map(|(statistics, (weight, bias))| {
            let Statistics { mean, inverse } = *statistics;
            let scale = inverse * f64::from(*weight);
            let rounded = mean as f32;
            // What rounding takes from the mean goes into the bias: it would move all voxels the same way.
            let bias = f64::from(*bias) - (mean - f64::from(rounded)) * scale;
            Affine { mean: rounded, scale: scale as f32, bias: bias as f32 }
        });
        affine.collect()
    }
}

/// The mean of a channel's group, and one over its standard deviation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    pub(crate) mean: f64,
    pub(crate) inverse: f64,
}

/// Mean and variance of a channel's voxels.
#[derive(Clone, Copy, Debug)]
struct Moments {
    mean: f64,
    variance: f64,
}

/// A channel becomes `(relu(x) − mean) · scale + bias`.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    mean: f32,
    scale: f32,
    bias: f32,
}

impl Affine {
    /// Mean, scale, bias.
    pub(crate) fn fields(&self) -> [f32; 3] {
        [self.mean, self.scale, self.bias]
    }
}

/// Number type of stored activations.
pub(crate) trait ActivationElement: Copy + Send + Sync {
    const KIND: Kind;
    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
}

impl ActivationElement for f32 {
    const KIND: Kind = Kind::Float;

    #[inline]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl ActivationElement for bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Rounds to the nearest, ties to even, without the branch for NaN that keeps `half`'s own from being vectorised: NaN
    /// only comes here out of infinite activations, which mean nothing either.
    #[inline]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        Self::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }
}

/// The numbers of a tensor (n, c, …) whose channels are last in memory.
pub(crate) struct Samples<'a, T> {
    pub(crate) values: &'a [T],
    /// Length of one of the n samples.
    pub(crate) sample_length: usize,
}

/// As [`Samples`], to be written.
pub(crate) struct SamplesMut<'a, T> {
    pub(crate) values: &'a mut [T],
    /// Length of one of the n samples.
    pub(crate) sample_length: usize,
}

/// Whether a tensor holds numbers of type `T` in this computer's memory, dense with the channels last, and so many channels
/// that the loops here take them.
fn fits<T: ActivationElement>(x: &Tensor) -> bool {
    let size = x.size();
    x.device() == Device::Cpu
        && x.kind() == T::KIND
        && size.len() >= 3
        && (size[1] as usize).is_multiple_of(LANES)
        && x.stride() == ops::channels_last_strides(&size)
        && x.numel() > 0
}

/// The numbers of a tensor, or `None` where it does not lie in memory as the loops here take it.
pub(crate) fn values<T: ActivationElement>(x: &Tensor) -> Option<Samples<'_, T>> {
    if !fits::<T>(x) {
        return None;
    }
    let (length, data) = (x.numel(), x.data_ptr().cast::<T>().cast_const());
    #[allow(unsafe_code, reason = "libtorch gives no safe view of a tensor's memory")]
    // SAFETY: the tensor is dense (its strides are those of its size) and of type T, so `length` numbers lie at `data`.
    // Whoever writes through `values_mut` owns the only handle to that memory, so nobody writes to this one.
    let values = unsafe { std::slice::from_raw_parts(data, length) };
    Some(Samples { values, sample_length: length / x.size()[0] as usize })
}

/// The numbers of a tensor to be written, or `None` as for [`values`]. The caller must own the tensor's memory: no other
/// handle to it is read afterwards.
pub(crate) fn values_mut<T: ActivationElement>(x: &mut Tensor) -> Option<SamplesMut<'_, T>> {
    if !fits::<T>(x) {
        return None;
    }
    let (length, data) = (x.numel(), x.data_ptr().cast::<T>());
    #[allow(unsafe_code, reason = "libtorch gives no safe view of a tensor's memory")]
    // SAFETY: as for `values`; the tensor is borrowed mutably for as long as the slice lives, and the functions that call
    // this were given the tensor by value or made it.
    let values = unsafe { std::slice::from_raw_parts_mut(data, length) };
    Some(SamplesMut { values, sample_length: length / x.size()[0] as usize })
}

/// NaN propagates, unlike with `f32::max`, so that a diverged network is noticed.
#[inline]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `relu(x)`, normalised.
#[inline]
pub(crate) fn normalized(x: f32, mean: f32, scale: f32, bias: f32) -> f32 {
    (relu(x) - mean) * scale + bias
}

/// A structure of arrays, [`LANES`] channels together, from an array of structures.
pub(crate) fn lanes<T, const N: usize>(channels: &[T], fields: impl Fn(&T) -> [f32; N]) -> Vec<[[f32; LANES]; N]> {
    let group = |group: &[T]| std::array::from_fn(|field| std::array::from_fn(|lane| fields(&group[lane])[field]));
    channels.chunks_exact(LANES).map(group).collect()
}

/// The sums over all voxels for each channel, from those that the tasks found; added in the order of the tasks, whichever
/// thread did them.
pub(crate) fn add_tasks<const N: usize>(
    tasks: impl ParallelIterator<Item = Vec<[f64; N]>>,
    channels: usize,
) -> Vec<[f64; N]> {
    let tasks: Vec<Vec<[f64; N]>> = tasks.collect();
    let mut sums = vec![[0.0; N]; channels];
    for task in tasks {
        for (sums, task) in sums.iter_mut().zip(task) {
            sums.iter_mut().zip(task).for_each(|(sum, task)| *sum += task);
        }
    }
    sums
}

/// Mean and variance of `relu(x)` for each channel of (voxels, channels).
fn moments<T: ActivationElement>(sample: &[T], channels: usize) -> Vec<Moments> {
    let tasks = sample.par_chunks(TASK_VOXELS * channels).map(|task| task_sums(task, channels));
    let count = (sample.len() / channels) as f64;
    let moments = |[sum, squares]: [f64; 2]| {
        let mean = sum / count;
        Moments { mean, variance: (squares / count - mean * mean).max(0.0) }
    };
    add_tasks(tasks, channels).into_iter().map(moments).collect()
}

/// Sums of `relu(x)` and of its square.
fn task_sums<T: ActivationElement>(task: &[T], channels: usize) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; channels];
    for block in task.chunks(CACHED_VOXELS * channels) {
        for (at, sums) in sums.chunks_exact_mut(SUM_LANES).enumerate() {
            let (mut sum, mut squares) = ([0.0; SUM_LANES], [0.0; SUM_LANES]);
            for voxel in block.chunks_exact(channels) {
                let lanes = &voxel[at * SUM_LANES..][..SUM_LANES];
                for i in 0..SUM_LANES {
                    let value = f64::from(relu(lanes[i].to_f32()));
                    sum[i] += value;
                    squares[i] += value * value;
                }
            }
            for i in 0..SUM_LANES {
                sums[i][0] += sum[i];
                sums[i][1] += squares[i];
            }
        }
    }
    sums
}

/// `(relu(x) − mean) · scale + bias` for each channel.
fn apply<T: ActivationElement>(sample: &mut [T], affine: &[Affine]) {
    let channels = affine.len();
    let affine = lanes(affine, Affine::fields);
    sample.par_chunks_mut(TASK_VOXELS * channels).for_each(|task| {
        for voxel in task.chunks_exact_mut(channels) {
            for (lanes, [mean, scale, bias]) in voxel.chunks_exact_mut(LANES).zip(&affine) {
                for i in 0..LANES {
                    lanes[i] = T::from_f32(normalized(lanes[i].to_f32(), mean[i], scale[i], bias[i]));
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Arithmetic;
    use crate::random::normal_tensor;

    fn norm(channels: i64) -> (Norm, Tensor, Tensor) {
        let (weight, bias) =
            (normal_tensor(1, &[channels], Kind::Float) * 0.2 + 1.0, normal_tensor(2, &[channels], Kind::Float));
        let values = |t: &Tensor| Vec::<f32>::try_from(t).unwrap();
        (Norm::new(values(&weight), values(&bias), Device::Cpu).unwrap(), weight, bias)
    }

    fn expected(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let groups = x.size()[1].min(32);
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        double(x).relu().group_norm(groups, Some(double(weight)), Some(double(bias)), EPSILON, false)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
    }

    #[test]
    fn it_is_relu_and_group_norm() {
        for size in [[2, 16, 3, 40, 41], [1, 32, 2, 9, 5], [3, 64, 1, 4, 4], [1, 256, 2, 2, 2]] {
            let x = ops::to_memory_layout(&normal_tensor(3, &size, Kind::Float), Arithmetic::Fast).unwrap();
            let (norm, weight, bias) = norm(size[1]);
            let expected = expected(&x, &weight, &bias);
            let found = norm.after_relu(x).unwrap();
            assert!(largest_difference(&found, &expected) < 1e-5, "{size:?}");
        }
    }

    #[test]
    fn a_large_mean_does_not_hide_the_variance() {
        let x = normal_tensor(4, &[1, 16, 8, 64, 64], Kind::Float) * 0.01 + 20.0;
        let x = ops::to_memory_layout(&x, Arithmetic::Fast).unwrap();
        let (norm, weight, bias) = norm(16);
        let expected = expected(&x, &weight, &bias);
        let found = norm.after_relu(x).unwrap();
        assert!(largest_difference(&found, &expected) < 1e-3);
    }

    #[test]
    fn bf16_is_rounded_once() {
        let x = normal_tensor(5, &[1, 32, 2, 16, 16], Kind::Float).to_kind(Kind::BFloat16);
        let x = ops::to_memory_layout(&x, Arithmetic::Fast).unwrap();
        let (norm, weight, bias) = norm(32);
        let expected = expected(&x, &weight, &bias);
        let found = norm.after_relu(x).unwrap();
        let bound = expected.abs().max().double_value(&[]) / 256.0;
        assert!(largest_difference(&found, &expected) <= bound);
    }

    #[test]
    fn from_f32_rounds_to_the_nearest_even() {
        for value in [0.0f32, -0.0, 1.0, 1.003_906_2, 1.011_718_8, -3.3e38, 1e-40, f32::MAX, f32::INFINITY] {
            let own = <bf16 as ActivationElement>::from_f32(value);
            assert_eq!(own.to_bits(), bf16::from_f32(value).to_bits(), "{value}");
        }
    }

    #[test]
    fn other_layouts_are_left_to_libtorch() {
        let x = normal_tensor(6, &[2, 16, 3, 4, 5], Kind::Float);
        let (norm, weight, bias) = norm(16);
        let expected = expected(&x, &weight, &bias);
        assert!(largest_difference(&norm.after_relu(x).unwrap(), &expected) < 1e-5);
    }
}
