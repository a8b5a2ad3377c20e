//! Class probabilities of a whole image: cut into tiles, predict, blend.

use std::ops::Range;

use elephant_types::{CancelToken, NetworkKind, ProbabilityOutput, SegmentationRequest, TaskContext};
use ndarray::{Array3, Array4, s};
use tch::{Device, Tensor};

use crate::{
    NnError, memory,
    tiling::AxisTiles,
    unet::{self, Unet},
};

/// Background, border and centre, as far as they are wanted.
fn classes(output: ProbabilityOutput) -> Range<usize> {
    match output {
        ProbabilityOutput::Center => 2..3,
        ProbabilityOutput::AllClasses => 0..3,
    }
}

/// The mean of the networks' probabilities, (c, z, y, x).
pub(crate) fn segment(
    networks: &[Unet],
    request: &SegmentationRequest,
    context: &TaskContext,
) -> Result<Array4<f32>, NnError> {
    let (depth, height, width) = request.image.dim();
    if request.image.is_empty() {
        return Err(NnError::InvalidRequest {
            reason: format!("the image is empty ({depth} × {height} × {width} voxels)"),
        });
    }
    let build = networks.first().ok_or_else(|| NnError::WrongModel { reason: "it is empty".into() })?.build();
    let axes = tiles(request);
    let batch_size = request.batch_size.max(1);
    if build.device == Device::Cpu {
        memory::require(build.bytes_per_voxel().saturating_mul(voxels_at_once(&axes, request, batch_size)))?;
    }
    let mut probabilities = Array4::zeros((classes(request.output).len(), depth, height, width));
    let places = places(&axes);
    context.report(0, places.len() as u64);
    let mut done = 0;
    for batch in places.chunks(batch_size) {
        let images = gather(&request.image, &axes, batch, request.kind, build.device)?;
        let values = predict(networks, &images, request, context.cancel_token())?;
        let tile_length = values.len() / batch.len();
        for (place, values) in batch.iter().zip(values.chunks_exact(tile_length)) {
            blend(&mut probabilities, values, &axes, *place);
        }
        done += batch.len();
        context.report(done as u64, places.len() as u64);
    }
    Ok(probabilities)
}

/// The tiles along z, y and x.
fn tiles(request: &SegmentationRequest) -> [AxisTiles; 3] {
    let (depth, height, width) = request.image.dim();
    let [z, y, x] = request.tile.unwrap_or([depth, height, width]);
    let multiples = unet::size_multiples(request.kind, request.keep_axials);
    let axis = |image, patch, multiple| AxisTiles::new(request.numerics, image, patch, multiple as usize);
    match multiples[..] {
        [mz, my, mx] => [axis(depth, z, mz), axis(height, y, my), axis(width, x, mx)],
        _ => [AxisTiles::planes(depth), axis(height, y, multiples[0]), axis(width, x, multiples[1])],
    }
}

/// Voxels that go through the network together, padding included.
fn voxels_at_once(axes: &[AxisTiles; 3], request: &SegmentationRequest, batch_size: usize) -> u64 {
    let multiples = unet::size_multiples(request.kind, request.keep_axials);
    let padding = multiples.iter().map(|&multiple| if request.is_pad { multiple as u64 } else { 0 });
    let padding = std::iter::repeat_n(0, 3 - multiples.len()).chain(padding);
    let tile: u64 = axes.iter().zip(padding).map(|(axis, padding)| axis.size as u64 + padding).product();
    let tiles: usize = axes.iter().map(|axis| axis.starts.len()).product();
    tile.saturating_mul(batch_size.min(tiles) as u64)
}

/// Every tile as its number along z, y and x.
fn places(axes: &[AxisTiles; 3]) -> Vec<[usize; 3]> {
    let [z, y, x] = axes.each_ref().map(|axis| axis.starts.len());
    let all = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [z, y, x])));
    all.collect()
}

/// The images of some tiles, (n, 1, z, y, x), or (n, 1, y, x) for a planar network.
fn gather(
    image: &Array3<f32>,
    axes: &[AxisTiles; 3],
    batch: &[[usize; 3]],
    kind: NetworkKind,
    device: Device,
) -> Result<Tensor, NnError> {
    let [depth, height, width] = axes.each_ref().map(|axis| axis.size);
    let mut values = Vec::<f32>::with_capacity(batch.len() * depth * height * width);
    for place in batch {
        let [z, y, x] = [0, 1, 2].map(|axis| axes[axis].starts[place[axis]]);
        let tile = image.slice(s![z..z + depth, y..y + height, x..x + width]);
        values.extend(tile.iter());
    }
    let [n, z, y, x] = [batch.len(), depth, height, width].map(|size| size as i64);
    let images = Tensor::f_from_slice(&values)?.f_to_device(device)?;
    Ok(match kind {
        NetworkKind::Volumetric => images.f_reshape([n, 1, z, y, x])?,
        NetworkKind::Planar => images.f_reshape([n, 1, y, x])?,
    })
}

/// The mean probabilities of the tiles, (n, c, z, y, x) in C order.
fn predict(
    networks: &[Unet],
    images: &Tensor,
    request: &SegmentationRequest,
    cancel: &CancelToken,
) -> Result<Vec<f32>, NnError> {
    let classes = classes(request.output);
    let mut sum: Option<Tensor> = None;
    for network in networks {
        let probabilities = network.forward(images, request.is_pad, &classes, cancel)?.f_exp()?;
        sum = Some(match sum {
            Some(mut sum) => sum.f_add_(&probabilities)?,
            None => probabilities,
        });
    }
    let sum = sum.ok_or_else(|| NnError::WrongModel { reason: "it is empty".into() })?;
    let mean = if networks.len() == 1 { sum } else { sum.f_div_scalar(networks.len() as f64)? };
    let mean = mean.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; mean.numel()];
    mean.f_copy_data(&mut values, mean.numel())?;
    Ok(values)
}

/// Adds a tile's probabilities, (c, z, y, x), to the image's, weighted.
fn blend(probabilities: &mut Array4<f32>, values: &[f32], axes: &[AxisTiles; 3], place: [usize; 3]) {
    let [depth, height, width] = axes.each_ref().map(|axis| axis.size);
    let [z0, y0, x0] = [0, 1, 2].map(|axis| axes[axis].starts[place[axis]]);
    let [wz, wy, wx] = [0, 1, 2].map(|axis| &axes[axis].weights[place[axis]]);
    let mut tile = probabilities.slice_mut(s![.., z0..z0 + depth, y0..y0 + height, x0..x0 + width]);
    for (mut row, (index, values)) in tile.rows_mut().into_iter().zip(values.chunks_exact(width).enumerate()) {
        let weight = wz[index / height % depth] * wy[index % height];
        for (sum, (value, wx)) in row.iter_mut().zip(values.iter().zip(wx)) {
            *sum += value * (weight * wx);
        }
    }
}
