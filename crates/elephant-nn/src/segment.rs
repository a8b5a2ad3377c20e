//! The result of a network for a whole image: read tiles, compute, blend, pass on.
//!
//! The next tiles are read while these are computed. Memory does not grow with the image's depth: tiles are read when their
//! turn comes, and planes are handed on when no later tile changes them.

use std::{collections::VecDeque, ops::Range, sync::mpsc, thread};

use elephant_model::{ImageSource, ProbabilityOutput, SegmentationOptions};
use elephant_types::{CancelToken, NetworkKind, TaskContext};
use tch::{Device, Tensor};
use tracing::Span;

use crate::{
    NnError,
    blending::{self, Blending, Slab},
    network::{self, Network},
    ops::Arithmetic,
    spec::{Head, NetworkSpec},
    tiles::{TileBatch, TileGrid},
    walk,
};

/// Results of constant tiles that are kept. Most frames have one background.
const KEPT_CONSTANTS: usize = 2;

/// The channels of a network's outputs that the caller needs.
fn channels(spec: &NetworkSpec, output: ProbabilityOutput) -> Range<usize> {
    match (spec.head, output) {
        // Background, border and centre.
        (Head::Classes, ProbabilityOutput::Center) => 2..3,
        (Head::Classes, ProbabilityOutput::AllClasses) | (Head::Vectors, _) => 0..spec.outputs,
    }
}

/// Computes the mean of the networks' results and gives `hand_on` the planes as they are finished, in ascending z.
///
/// # Errors
/// Those of `hand_on` and of the image; [`NnError::InvalidRequest`] for an image or tiles that cannot be segmented.
pub(crate) fn segment(
    networks: &[Network],
    image: &dyn ImageSource,
    options: &SegmentationOptions,
    context: &TaskContext,
    hand_on: &mut dyn FnMut(Slab) -> Result<(), NnError>,
) -> Result<(), NnError> {
    let grid = TileGrid::new(image.shape(), options)?;
    let computation = Computation::new(networks, &grid, options, context.cancel_token())?;
    if image.channels() != computation.spec.inputs {
        let (found, needed) = (image.channels(), computation.spec.inputs);
        let reason = format!("the image has {found} channels, but the network takes {needed}");
        return Err(NnError::InvalidRequest { reason });
    }
    let mut blending = Blending::new(&grid, computation.channels.len());
    let mut constants = ConstantTiles::default();
    let total = grid.len() as u64;
    context.report(0, total);
    let mut done = 0;
    thread::scope(|scope| {
        // Without room: one batch is ready while another one is computed.
        let (sender, batches) = mpsc::sync_channel(0);
        let (grid, cancel, span) = (&grid, context.cancel_token(), Span::current());
        scope.spawn(move || {
            let _entered = span.enter();
            let mut indices = grid.indices();
            loop {
                let batch: Vec<[usize; 3]> = indices.by_ref().take(options.batch_size.max(1)).collect();
                // The receiver is gone when computing has failed.
                if batch.is_empty() || sender.send(TileBatch::read(image, grid, batch, cancel)).is_err() {
                    return;
                }
            }
        });
        for batch in batches {
            let batch = batch?;
            let values = computation.varying_tiles(&batch)?;
            let mut values = values.chunks_exact(computation.result_length());
            for (index, constant) in &batch.tiles {
                let slab = match constant {
                    Some(value) => blending.add(*index, constants.result(value, &computation)?),
                    None => blending.add(*index, values.next().unwrap_or_default()),
                };
                if let Some(slab) = slab {
                    hand_on(slab)?;
                }
            }
            done += batch.tiles.len() as u64;
            context.report(done, total);
        }
        Ok::<(), NnError>(())
    })?;
    hand_on(blending.finish())
}

/// The computation of a tile's result.
struct Computation<'a> {
    networks: &'a [Network],
    spec: &'static NetworkSpec,
    device: Device,
    is_pad: bool,
    channels: Range<usize>,
    /// Voxels of a tile, (z, y, x).
    size: [usize; 3],
    cancel: &'a CancelToken,
}

impl<'a> Computation<'a> {
    fn new(
        networks: &'a [Network],
        grid: &TileGrid,
        options: &SegmentationOptions,
        cancel: &'a CancelToken,
    ) -> Result<Self, NnError> {
        let network = networks.first().ok_or_else(|| NnError::WrongModel { reason: "it is empty".into() })?;
        let (spec, device) = (network.spec(), network.config().device);
        let channels = channels(spec, options.output);
        Ok(Self { networks, spec, device, is_pad: options.is_pad, channels, size: grid.tile_size(), cancel })
    }

    /// Numbers in the result of a tile.
    fn result_length(&self) -> usize {
        self.channels.len() * self.size.iter().product::<usize>()
    }

    /// The mean results (n, c, z, y, x) in C order of the tiles that are not constant; empty where all are.
    fn varying_tiles(&self, batch: &TileBatch) -> Result<Vec<f32>, NnError> {
        if batch.values.is_empty() {
            return Ok(Vec::new());
        }
        self.predict(&Tensor::f_from_slice(&batch.values)?)
    }

    /// The mean result (c, z, y, x) in C order of a tile whose voxels all have this value in each channel.
    fn constant_tile(&self, value: &[f32]) -> Result<Vec<f32>, NnError> {
        let voxels = self.size.iter().product::<usize>() as i64;
        let values = Tensor::f_from_slice(value)?.f_reshape([-1, 1])?.f_expand([-1, voxels], false)?;
        self.predict(&values.f_contiguous()?)
    }

    fn predict(&self, values: &Tensor) -> Result<Vec<f32>, NnError> {
        let [z, y, x] = self.size.map(|size| size as i64);
        let inputs = self.spec.inputs as i64;
        let values = values.f_to_device(self.device)?;
        let images = match self.spec.dims {
            NetworkKind::Volumetric => values.f_reshape([-1, inputs, z, y, x])?,
            NetworkKind::Planar => values.f_reshape([-1, inputs, y, x])?,
        };
        let mut sum: Option<Tensor> = None;
        for network in self.networks {
            let result = network.forward(&images, self.is_pad, &self.channels, self.cancel)?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&result)?,
                None => result,
            });
        }
        let sum = sum.ok_or_else(|| NnError::WrongModel { reason: "it is empty".into() })?;
        let mean = if self.networks.len() == 1 { sum } else { sum.f_div_scalar(self.networks.len() as f64)? };
        let mean = mean.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0.0; mean.numel()];
        mean.f_copy_data(&mut values, mean.numel())?;
        Ok(values)
    }
}

/// The last results of tiles whose voxels are all the same, as in frames whose background was set to zero. Such a tile is
/// computed alone, never in a batch, so that its result has the same bits wherever in the image it is.
#[derive(Default)]
struct ConstantTiles(VecDeque<(Vec<u32>, Vec<f32>)>);

impl ConstantTiles {
    fn result(&mut self, value: &[f32], computation: &Computation<'_>) -> Result<&[f32], NnError> {
        let bits: Vec<u32> = value.iter().map(|value| value.to_bits()).collect();
        let kept = match self.0.iter().position(|(kept, _)| *kept == bits) {
            Some(at) => self.0.remove(at),
            None => None,
        };
        // Makes room before the next result is computed.
        self.0.truncate(KEPT_CONSTANTS - 1);
        let kept = match kept {
            Some(kept) => kept,
            None => (bits, computation.constant_tile(value)?),
        };
        self.0.push_front(kept);
        Ok(self.0.front().map(|(_, result)| result.as_slice()).unwrap_or_default())
    }
}

/// Memory of a prediction while it is computed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentationBytes {
    /// What one forward pass holds at once on its device.
    pub(crate) activations: u64,
    /// Tiles, their results, and planes that are blended or wait to be used; on the computer in any case.
    pub(crate) buffers: u64,
}

impl SegmentationBytes {
    /// For an image of `shape` (z, y, x) and a network of `spec`.
    ///
    /// # Errors
    /// [`NnError::InvalidRequest`] for an image or tiles that cannot be segmented.
    pub(crate) fn new(spec: &NetworkSpec, shape: [usize; 3], options: &SegmentationOptions) -> Result<Self, NnError> {
        const VALUE: u64 = size_of::<f32>() as u64;
        let grid = TileGrid::new(shape, options)?;
        let product = |factors: &[usize]| factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64));
        let multiples = walk::size_multiples(options.kind, options.keep_axials);
        let multiples =
            std::iter::repeat_n(1, 3 - multiples.len()).chain(multiples.into_iter().map(|size| size as u64));
        let size = grid.tile_size();
        // Sizes that go through the network: padded, then resized to multiples.
        let edges = size.into_iter().zip(multiples).map(|(size, multiple)| {
            let padding = if options.is_pad && multiple > 1 { multiple } else { 0 };
            (size as u64 + padding).next_multiple_of(multiple)
        });
        let tiles = options.batch_size.clamp(1, grid.len()) as u64;
        let voxels = edges.fold(tiles, u64::saturating_mul);
        let activations = voxels.saturating_mul(network::bytes_per_voxel(Arithmetic::of(options.numerics)));

        let (tile, inputs) = (product(&size), spec.inputs as u64);
        let channels = channels(spec, options.output).len() as u64;
        let [depth, _, _] = size;
        let row = product(&[depth, shape[1], shape[2]]).saturating_mul(channels);
        let planes = row.saturating_mul(blending::buffer_count(&grid) as u64);
        // A batch waits while another one is computed; results of a batch and of constant tiles.
        let constants = if grid.len() > 1 { KEPT_CONSTANTS as u64 } else { 0 };
        let read = (2 * tiles).min(grid.len() as u64).saturating_mul(inputs);
        let held_tiles = read.saturating_add((tiles + constants).saturating_mul(channels));
        let buffers = planes.saturating_add(tile.saturating_mul(held_tiles)).saturating_mul(VALUE);
        Ok(Self { activations, buffers })
    }
}

#[cfg(test)]
mod tests;
