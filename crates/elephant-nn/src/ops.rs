//! libtorch operations that are the same in two and three dimensions. Tensors are (n, c, y, x) or (n, c, z, y, x).

use elephant_types::Numerics;
use tch::{Device, Tensor};

use crate::NnError;

/// How the network's sums are formed. The results differ by rounding alone, which a network may amplify to 1e-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// The original's calls to libtorch, so that the numbers are the same to the last bit.
    Original,
    /// The device's fastest way. On the CPU, tensors lie in memory with the channels last, which is how oneDNN's
    /// kernels read them; otherwise it copies every tensor there and back.
    Fast,
}

impl Arithmetic {
    /// The arithmetic of these numerics.
    pub(crate) fn of(numerics: Numerics) -> Self {
        match numerics {
            Numerics::Original => Self::Original,
            Numerics::Corrected => Self::Fast,
        }
    }
}

/// The device's name: `cpu`, `cuda:0`.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".into(),
        Device::Vulkan => "vulkan".into(),
    }
}

/// Whether a tensor has a z axis.
fn has_z(x: &Tensor) -> bool {
    x.dim() == 5
}

/// Sizes of the axes behind batch and channel.
pub(crate) fn spatial_size(x: &Tensor) -> Vec<i64> {
    x.size().split_off(2)
}

/// The strides of a tensor of this size with the channels last, none left out where an axis has one element.
pub(crate) fn channels_last_strides(size: &[i64]) -> Vec<i64> {
    let channels = size[1];
    let mut strides = vec![1; size.len()];
    let mut stride = channels;
    for axis in (2..size.len()).rev() {
        strides[axis] = stride;
        stride *= size[axis];
    }
    strides[0] = stride;
    strides
}

/// The tensor in the memory layout that goes with the arithmetic. It shares the memory of `x` where that lies so already.
pub(crate) fn to_memory_layout(x: &Tensor, arithmetic: Arithmetic) -> Result<Tensor, NnError> {
    if x.device() != Device::Cpu || arithmetic == Arithmetic::Original {
        return Ok(x.f_contiguous()?);
    }
    let mut order: Vec<i64> = (0..x.dim() as i64).collect();
    order[1..].rotate_left(1);
    let dense = x.f_permute(&order)?.f_contiguous()?;
    let size = x.size();
    Ok(dense.f_as_strided(&size, channels_last_strides(&size), None)?)
}

/// Convolution with zero padding that keeps the size.
pub(crate) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    arithmetic: Arithmetic,
) -> Result<Tensor, NnError> {
    let axes = x.dim() - 2;
    let (ones, padding) = (vec![1; axes], vec![weight.size()[2] / 2; axes]);
    if arithmetic == Arithmetic::Fast && x.device() == Device::Cpu && tch::utils::has_mkldnn() {
        // Asked for by name: libtorch's own choice falls on a kernel many times slower where x has few elements.
        return Ok(x.f_mkldnn_convolution(weight, bias, &padding, &ones, &ones, 1)?);
    }
    Ok(if has_z(x) {
        x.f_conv3d(weight, bias, &ones, &padding, &ones, 1)?
    } else {
        x.f_conv2d(weight, bias, &ones, &padding, &ones, 1)?
    })
}

/// `x` where it is above 0, a tenth of it elsewhere.
pub(crate) fn leaky_relu(x: &Tensor) -> Result<Tensor, NnError> {
    const SLOPE: f32 = 0.1;
    // The binding of libtorch's `leaky_relu` leaves no choice of the slope.
    let slope = Tensor::f_from_slice(&[SLOPE])?.f_to_device(x.device())?.f_to_kind(x.kind())?;
    Ok(x.f_prelu(&slope)?)
}

/// The weight for [`upsampled_convolution`], (in, out, …kernel), from a convolution's, (out, in, …3).
///
/// Repeating every voxel twice and convolving with (a, b, c) is the same as one transposed convolution of stride 2 with
/// (c, b + c, a + b, a): each of the two copies meets two of the taps in one input voxel. It takes 8 of 27 multiplications
/// in 3-D (12 where z is kept), and neither the repeated tensor nor its concatenation with another is ever written.
pub(crate) fn fold_upsampling(weight: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
    let axes: Vec<i64> = (2..weight.dim() as i64).collect();
    let mut folded = weight.f_flip(&axes)?.f_transpose(0, 1)?;
    for &axis in &axes {
        let is_z = axes.len() == 3 && axis == 2;
        if is_z && keep_z {
            continue;
        }
        // libtorch takes pairs of (before, after), last axis first.
        let pair = 2 * (folded.dim() - 1 - axis as usize);
        let pad = |side: usize| {
            let mut pads = vec![0; 2 * folded.dim()];
            pads[pair + side] = 1;
            folded.f_constant_pad_nd(pads)
        };
        folded = pad(0)?.f_add(&pad(1)?)?;
    }
    Ok(folded)
}

/// The nearest voxel's value at every voxel of another size.
pub(crate) fn nearest(x: &Tensor, size: &[i64]) -> Result<Tensor, NnError> {
    Ok(if has_z(x) {
        x.f_upsample_nearest3d(size, None, None, None)?
    } else {
        x.f_upsample_nearest2d(size, None, None)?
    })
}

/// Every voxel repeated: twice in y and x, and in z unless `keep_z`.
pub(crate) fn upsample(x: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
    Ok(match spatial_size(x)[..] {
        [z, y, x_size] => {
            let z = if keep_z { z } else { 2 * z };
            x.f_upsample_nearest3d([z, 2 * y, 2 * x_size], None, None, None)?
        }
        [y, x_size] => x.f_upsample_nearest2d([2 * y, 2 * x_size], None, None)?,
        _ => return Err(NnError::Torch { message: format!("cannot upsample a tensor of {} axes", x.dim()) }),
    })
}

/// [`upsample`], then a convolution with a weight from
/// [`fold_upsampling`] and without bias.
pub(crate) fn upsampled_convolution(x: &Tensor, folded: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
    let none: Option<Tensor> = None;
    Ok(if has_z(x) {
        let stride = [if keep_z { 1 } else { 2 }, 2, 2];
        x.f_conv_transpose3d(folded, none, stride, [1, 1, 1], [0, 0, 0], 1, [1, 1, 1])?
    } else {
        x.f_conv_transpose2d(folded, none, [2, 2], [1, 1], [0, 0], 1, [1, 1])?
    })
}

/// The gradient by the input of [`upsampled_convolution`]: a convolution of stride 2.
pub(crate) fn upsampled_convolution_backward(
    gradient: &Tensor,
    folded: &Tensor,
    keep_z: bool,
) -> Result<Tensor, NnError> {
    let (none, folded): (Option<Tensor>, _) = (None, folded.detach());
    Ok(if has_z(gradient) {
        let stride = [if keep_z { 1 } else { 2 }, 2, 2];
        gradient.f_conv3d(&folded, none, stride, [1, 1, 1], [1, 1, 1], 1)?
    } else {
        gradient.f_conv2d(&folded, none, [2, 2], [1, 1], [1, 1], 1)?
    })
}

/// Maximum over 2 by 2 voxels in y and x, and 2 in z unless `keep_z`.
pub(crate) fn max_pool(x: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
    let z = if keep_z { 1 } else { 2 };
    Ok(if has_z(x) {
        x.f_max_pool3d([z, 2, 2], [z, 2, 2], [0, 0, 0], [1, 1, 1], false)?
    } else {
        x.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?
    })
}

/// Linear interpolation in every axis; the first and last voxel stay where they are.
pub(crate) fn resize(x: &Tensor, size: &[i64]) -> Result<Tensor, NnError> {
    Ok(if has_z(x) {
        x.f_upsample_trilinear3d(size, true, None, None, None)?
    } else {
        x.f_upsample_bilinear2d(size, true, None, None)?
    })
}

/// Repeats the border `padding` times on both sides of each spatial axis.
pub(crate) fn replicate(x: &Tensor, padding: &[i64]) -> Result<Tensor, NnError> {
    let pairs: Vec<i64> = padding.iter().rev().flat_map(|&p| [p, p]).collect();
    Ok(if has_z(x) { x.f_replication_pad3d(&pairs)? } else { x.f_replication_pad2d(&pairs)? })
}

/// Cuts what [`replicate`] added.
pub(crate) fn crop(x: &Tensor, padding: &[i64]) -> Result<Tensor, NnError> {
    let mut cropped = x.shallow_clone();
    for (axis, (&padding, &size)) in padding.iter().zip(&spatial_size(x)).enumerate() {
        cropped = cropped.f_narrow(axis as i64 + 2, padding, size - 2 * padding)?;
    }
    Ok(cropped)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::random::normal_tensor;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn a_folded_convolution_is_upsampling_and_convolution() {
        for keep_z in [true, false] {
            let x = normal_tensor(1, &[2, 4, 3, 5, 7], Kind::Double);
            let weight = normal_tensor(2, &[6, 4, 3, 3, 3], Kind::Double);
            let upsampled = upsample(&x, keep_z).unwrap();
            let expected = upsampled.conv3d(&weight, None::<&Tensor>, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1);
            let folded = fold_upsampling(&weight, keep_z).unwrap();
            let found = upsampled_convolution(&x, &folded, keep_z).unwrap();
            assert!(largest_difference(&found, &expected) < 1e-12, "keep_z {keep_z}");
        }
        let x = normal_tensor(3, &[2, 4, 5, 7], Kind::Double);
        let weight = normal_tensor(4, &[6, 4, 3, 3], Kind::Double);
        let expected =
            x.upsample_nearest2d([10, 14], None, None).conv2d(&weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let folded = fold_upsampling(&weight, true).unwrap();
        assert!(largest_difference(&upsampled_convolution(&x, &folded, true).unwrap(), &expected) < 1e-12);
    }

    #[test]
    fn a_memory_layout_changes_memory_but_no_value() {
        for size in [[2, 1, 3, 4, 5], [1, 16, 1, 4, 1], [2, 3, 4, 5, 6]] {
            let x = normal_tensor(5, &size, Kind::Float);
            let arranged = to_memory_layout(&x, Arithmetic::Fast).unwrap();
            assert_eq!(arranged.stride(), channels_last_strides(&size));
            assert_eq!(largest_difference(&arranged, &x), 0.0);
        }
    }
}
