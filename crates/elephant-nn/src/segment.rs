//! Class probabilities of a whole image: cut into tiles, predict, blend.

use std::ops::Range;

use elephant_types::{
    CancelToken, NetworkKind, ProbabilityOutput, SegmentationOptions, SegmentationRequest, TaskContext,
};
use ndarray::{Array3, Array4, s};
use tch::{Device, Tensor};

use crate::{
    NnError,
    ops::Arithmetic,
    tiling::AxisTiles,
    unet::{self, Unet},
};

/// Voxels along y and x that a tile has at least, unless it covers the image: below, the tiles of an image are too many.
const SMALLEST_TILE: usize = 16;

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
    let SegmentationRequest { image, options } = request;
    let (depth, height, width) = image.dim();
    let grid = TileGrid::new([depth, height, width], options)?;
    let build = networks.first().ok_or_else(|| NnError::WrongModel { reason: "it is empty".into() })?.build();
    let mut probabilities = Array4::zeros((classes(options.output).len(), depth, height, width));
    let total = grid.len() as u64;
    context.report(0, total);
    let mut done = 0;
    let mut indices = grid.indices();
    loop {
        let batch: Vec<[usize; 3]> = indices.by_ref().take(options.batch_size.max(1)).collect();
        if batch.is_empty() {
            return Ok(probabilities);
        }
        let images = gather(image, &grid, &batch, options.kind, build.device)?;
        let values = predict(networks, &images, options, context.cancel_token())?;
        let tile_length = values.len() / batch.len();
        for (index, values) in batch.iter().zip(values.chunks_exact(tile_length)) {
            blend(&mut probabilities, values, &grid, *index);
        }
        done += batch.len() as u64;
        context.report(done, total);
    }
}

/// Memory in bytes that one forward pass on the CPU holds at once for an image of `shape` (z, y, x), beside the image
/// and the probabilities that are returned.
pub(crate) fn activation_bytes(shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, NnError> {
    Ok(TileGrid::new(shape, options)?.activation_bytes(options))
}

/// The tiles of an image along z, y and x.
struct TileGrid {
    axes: [AxisTiles; 3],
}

impl TileGrid {
    /// Cuts an image of `shape` (z, y, x) as `options` say.
    ///
    /// # Errors
    /// [`NnError::InvalidRequest`] when the image or the tile is empty, or the tile is below [`SMALLEST_TILE`].
    fn new(shape: [usize; 3], options: &SegmentationOptions) -> Result<Self, NnError> {
        let [depth, height, width] = shape;
        let invalid = |reason: String| NnError::InvalidRequest { reason };
        if shape.contains(&0) {
            return Err(invalid(format!("the image is empty ({depth} × {height} × {width} voxels)")));
        }
        let [z, y, x] = options.tile.unwrap_or(shape);
        if z == 0 || y < SMALLEST_TILE.min(height) || x < SMALLEST_TILE.min(width) {
            return Err(invalid(format!(
                "patches of {x} × {y} × {z} voxels (x, y, z) are too small; they must have at least {SMALLEST_TILE} \
                 voxels along x and y, or the image's whole width and height, and 1 along z"
            )));
        }
        let multiples = unet::size_multiples(options.kind, options.keep_axials);
        let axis = |image, patch, multiple| AxisTiles::new(options.numerics, image, patch, multiple as usize);
        let axes = match multiples[..] {
            [mz, my, mx] => [axis(depth, z, mz), axis(height, y, my), axis(width, x, mx)],
            _ => [AxisTiles::planes(depth), axis(height, y, multiples[0]), axis(width, x, multiples[1])],
        };
        Ok(Self { axes })
    }

    /// Voxels of a tile along each axis.
    fn tile_size(&self) -> [usize; 3] {
        self.axes.each_ref().map(|axis| axis.size)
    }

    /// The number of tiles.
    fn len(&self) -> usize {
        self.axes.iter().map(|axis| axis.starts.len()).product()
    }

    /// Every tile as its number along z, y and x.
    fn indices(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [z, y, x] = self.axes.each_ref().map(|axis| axis.starts.len());
        (0..z).flat_map(move |z| (0..y).flat_map(move |y| (0..x).map(move |x| [z, y, x])))
    }

    /// See [`activation_bytes`]. Sizes are those that go through the network: padded, then resized to multiples.
    fn activation_bytes(&self, options: &SegmentationOptions) -> u64 {
        let multiples = unet::size_multiples(options.kind, options.keep_axials);
        let multiples =
            std::iter::repeat_n(1, 3 - multiples.len()).chain(multiples.into_iter().map(|size| size as u64));
        let edges = self.tile_size().into_iter().zip(multiples).map(|(size, multiple)| {
            let padding = if options.is_pad && multiple > 1 { multiple } else { 0 };
            (size as u64 + padding).next_multiple_of(multiple)
        });
        let tiles = options.batch_size.clamp(1, self.len()) as u64;
        let voxels = edges.fold(tiles, u64::saturating_mul);
        voxels.saturating_mul(unet::bytes_per_voxel(Arithmetic::of(options.numerics)))
    }
}

/// The images of some tiles, (n, 1, z, y, x), or (n, 1, y, x) for a planar network.
fn gather(
    image: &Array3<f32>,
    grid: &TileGrid,
    batch: &[[usize; 3]],
    kind: NetworkKind,
    device: Device,
) -> Result<Tensor, NnError> {
    let [depth, height, width] = grid.tile_size();
    let mut values = Vec::<f32>::with_capacity(batch.len() * depth * height * width);
    for index in batch {
        let [z, y, x] = [0, 1, 2].map(|axis| grid.axes[axis].starts[index[axis]]);
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
    options: &SegmentationOptions,
    cancel: &CancelToken,
) -> Result<Vec<f32>, NnError> {
    let classes = classes(options.output);
    let mut sum: Option<Tensor> = None;
    for network in networks {
        let probabilities = network.forward(images, options.is_pad, &classes, cancel)?.f_exp()?;
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
fn blend(probabilities: &mut Array4<f32>, values: &[f32], grid: &TileGrid, index: [usize; 3]) {
    let [depth, height, width] = grid.tile_size();
    let [z0, y0, x0] = [0, 1, 2].map(|axis| grid.axes[axis].starts[index[axis]]);
    let [wz, wy, wx] = [0, 1, 2].map(|axis| &grid.axes[axis].weights[index[axis]]);
    let mut tile = probabilities.slice_mut(s![.., z0..z0 + depth, y0..y0 + height, x0..x0 + width]);
    for (mut row, (row_number, values)) in tile.rows_mut().into_iter().zip(values.chunks_exact(width).enumerate()) {
        let weight = wz[row_number / height % depth] * wy[row_number % height];
        for (sum, (value, wx)) in row.iter_mut().zip(values.iter().zip(wx)) {
            *sum += value * (weight * wx);
        }
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::{KeepAxials, Numerics};

    use super::*;

    fn options(tile: Option<[usize; 3]>) -> SegmentationOptions {
        SegmentationOptions {
            kind: NetworkKind::Volumetric,
            keep_axials: KeepAxials::first(2),
            tile,
            is_pad: false,
            batch_size: 1,
            numerics: Numerics::Corrected,
            output: ProbabilityOutput::Center,
        }
    }

    #[test]
    fn activations_are_those_of_the_tiles_that_exist() {
        let bytes = |shape, options: SegmentationOptions| activation_bytes(shape, &options).unwrap();
        let shape = [16, 64, 96];
        let one = 400 * 16 * 64 * 96;
        assert_eq!(bytes(shape, options(None)), one);
        // One tile, however many are asked for at once.
        assert_eq!(bytes(shape, SegmentationOptions { batch_size: 8, ..options(None) }), one);
        // Two tiles of 16 × 64 × 64.
        let tiled = SegmentationOptions { batch_size: 8, ..options(Some([16, 64, 64])) };
        assert_eq!(bytes(shape, tiled), 2 * 400 * 16 * 64 * 64);
        // z is pooled twice, y and x four times.
        let padded = SegmentationOptions { is_pad: true, ..options(None) };
        assert_eq!(bytes(shape, padded), 400 * (16 + 4) * (64 + 16) * (96 + 16));
        assert_eq!(bytes([15, 63, 96], options(None)), one);
        assert_eq!(bytes(shape, SegmentationOptions { numerics: Numerics::Original, ..options(None) }), one / 4 * 9);
        // A planar network sees one plane of a volume at a time.
        let planar = SegmentationOptions { kind: NetworkKind::Planar, is_pad: true, ..options(None) };
        assert_eq!(bytes(shape, planar), 400 * (64 + 16) * (96 + 16));
    }

    #[test]
    fn patches_that_make_too_many_tiles_are_refused() {
        for tile in [[1, 15, 96], [16, 64, 1], [0, 64, 96], [1, 0, 0]] {
            let error = activation_bytes([16, 64, 96], &options(Some(tile))).unwrap_err().to_string();
            assert!(error.contains("at least 16 voxels along x and y"), "{error}");
        }
        for (shape, tile) in [([16, 64, 96], [1, 16, 16]), ([16, 5, 96], [4, 5, 16]), ([1, 5, 7], [9, 9, 9])] {
            activation_bytes(shape, &options(Some(tile))).unwrap();
        }
    }

    #[test]
    fn tiles_are_numbered_in_raster_order() {
        let grid = TileGrid::new([4, 64, 64], &options(Some([2, 64, 32]))).unwrap();
        let indices: Vec<_> = grid.indices().collect();
        assert_eq!(indices.len(), grid.len());
        assert!(indices.is_sorted() && indices.len() > 2, "{indices:?}");
    }
}
