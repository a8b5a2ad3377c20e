//! libtorch operations that are the same in two and three dimensions. Tensors are (n, c, y, x) or (n, c, z, y, x).

use tch::{Device, Tensor};

use crate::NnError;

/// The device as people call it.
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

/// Convolution with zero padding that keeps the size.
pub(crate) fn convolution(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, NnError> {
    let axes = x.dim() - 2;
    let padding = weight.size()[2] / 2;
    let (ones, padding) = (vec![1; axes], vec![padding; axes]);
    Ok(match axes {
        3 => x.f_conv3d(weight, Some(bias), &ones, &padding, &ones, 1)?,
        _ => x.f_conv2d(weight, Some(bias), &ones, &padding, &ones, 1)?,
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

/// The reverse of [`max_pool`]: every voxel repeated.
pub(crate) fn upsample(x: &Tensor, keep_z: bool) -> Result<Tensor, NnError> {
    let size = spatial_size(x);
    Ok(match size[..] {
        [z, y, x_size] => {
            let z = if keep_z { z } else { 2 * z };
            x.f_upsample_nearest3d([z, 2 * y, 2 * x_size], None, None, None)?
        }
        _ => x.f_upsample_nearest2d([2 * size[0], 2 * size[1]], None, None)?,
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
    // libtorch takes pairs, last axis first.
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
