//! The backward pass through max pooling, for tensors on the CPU with the channels last.

use rayon::prelude::*;
use tch::Tensor;

use crate::norm::{LANES, values, values_mut};

/// Adds the gradient by the pooled tensor to the one by the pooling's input: it goes to the first of the largest voxels of
/// each block, as in libtorch. `None` where the tensors are not ones that this loop takes.
pub(super) fn add_backward(
    input: &Tensor,
    pooled_gradient: &Tensor,
    gradient: &mut Tensor,
    keep_z: bool,
) -> Option<()> {
    let size = input.size();
    let (channels, [planes, rows, columns]) = (size[1] as usize, zyx(&size)?);
    let pooled_rows = rows / 2;
    let pooled_columns = columns / 2;
    let depth = if keep_z || size.len() == 4 { 1 } else { 2 };
    let (input, from, to) = (values::<f32>(input)?, values::<f32>(pooled_gradient)?, values_mut::<f32>(gradient)?);
    let row = columns * channels;
    let slab = depth * rows * row;
    // Planes that no block covers get nothing.
    let covered = planes / depth * depth * rows * row;
    let samples = size[0] as usize;
    for sample in 0..samples {
        let input = &input.values[sample * input.sample_length..][..covered];
        let to = &mut to.values[sample * to.sample_length..][..covered];
        let from = &from.values[sample * from.sample_length..][..from.sample_length];
        let slabs = input.par_chunks_exact(slab).zip(to.par_chunks_exact_mut(slab));
        slabs.zip(from.par_chunks_exact(pooled_rows * pooled_columns * channels)).for_each(|((input, to), from)| {
            for (block, from) in from.chunks_exact(channels).enumerate() {
                let corner = block / pooled_columns * 2 * row + block % pooled_columns * 2 * channels;
                for lane in (0..channels).step_by(LANES) {
                    let from = std::array::from_fn(|i| from[lane + i]);
                    let corners = [0, channels, row, row + channels].map(|at| corner + lane + at);
                    let all = corners.map(|at| [at, at + rows * row]);
                    if depth == 1 {
                        scatter(input, to, &from, &corners);
                    } else {
                        let [[a, e], [b, f], [c, g], [d, h]] = all;
                        scatter(input, to, &from, &[a, b, c, d, e, f, g, h]);
                    }
                }
            }
        });
    }
    Some(())
}

/// One block, a few channels: `corners` are where its voxels lie.
#[inline]
fn scatter<const N: usize>(input: &[f32], to: &mut [f32], from: &[f32; LANES], corners: &[usize; N]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for &corner in corners {
        let values = &input[corner..corner + LANES];
        for i in 0..LANES {
            largest[i] = largest[i].max(values[i]);
        }
    }
    let mut left = *from;
    for &corner in corners {
        let (values, to) = (&input[corner..corner + LANES], &mut to[corner..corner + LANES]);
        for i in 0..LANES {
            let is_largest = values[i] >= largest[i];
            to[i] += if is_largest { left[i] } else { 0.0 };
            left[i] = if is_largest { 0.0 } else { left[i] };
        }
    }
}

/// Sizes along z, y and x; a planar tensor has one plane.
fn zyx(size: &[i64]) -> Option<[usize; 3]> {
    match *size {
        [_, _, z, y, x] => Some([z as usize, y as usize, x as usize]),
        [_, _, y, x] => Some([1, y as usize, x as usize]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::ops::{self, Arithmetic};
    use crate::random::normal_tensor;

    #[test]
    fn it_is_the_derivative_of_max_pooling() {
        for (size, keep_z) in [(vec![2, 16, 4, 6, 8], true), (vec![2, 32, 4, 6, 8], false), (vec![1, 16, 6, 4], true)] {
            // Few different values, so that there are ties.
            let x = normal_tensor(1, &size, Kind::Float).abs().floor().clamp(0.0, 3.0);
            let x = ops::to_memory_layout(&x, Arithmetic::Fast).unwrap().set_requires_grad(true);
            let pooled = ops::max_pool(&x, keep_z).unwrap();
            let gradient =
                ops::to_memory_layout(&normal_tensor(2, &pooled.size(), Kind::Float), Arithmetic::Fast).unwrap();
            let expected = Tensor::run_backward(&[&pooled * &gradient], &[&x], false, false).remove(0) + 1.0;
            let mut found = ops::to_memory_layout(&expected.ones_like(), Arithmetic::Fast).unwrap();
            add_backward(&x.detach(), &gradient, &mut found, keep_z).unwrap();
            assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
