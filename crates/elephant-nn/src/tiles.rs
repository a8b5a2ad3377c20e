//! The tiles of an image: where they are, and what the network reads in them.

use elephant_model::{ImageSource, SegmentationOptions};
use elephant_types::CancelToken;
use ndarray::ArrayViewMut3;

use crate::{NnError, tiling::AxisTiles, walk};

/// Voxels along y and x that a tile has at least, unless it covers the image: below, the tiles of an image are too many.
const SMALLEST_TILE: usize = 16;

/// The tiles of an image along z, y and x.
pub(crate) struct TileGrid {
    pub(crate) axes: [AxisTiles; 3],
    /// Size of the image, (z, y, x).
    pub(crate) image: [usize; 3],
}

impl TileGrid {
    /// Cuts an image of `shape` (z, y, x) as `options` say.
    ///
    /// # Errors
    /// [`NnError::InvalidRequest`] when the image or the tile is empty, or the tile is below [`SMALLEST_TILE`].
    pub(crate) fn new(shape: [usize; 3], options: &SegmentationOptions) -> Result<Self, NnError> {
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
        let multiples = walk::size_multiples(options.kind, options.keep_axials);
        let axis = |image, patch, multiple| AxisTiles::new(options.numerics, image, patch, multiple as usize);
        let axes = match multiples[..] {
            [mz, my, mx] => [axis(depth, z, mz), axis(height, y, my), axis(width, x, mx)],
            _ => [AxisTiles::planes(depth), axis(height, y, multiples[0]), axis(width, x, multiples[1])],
        };
        Ok(Self { axes, image: shape })
    }

    /// Voxels of a tile along each axis.
    pub(crate) fn tile_size(&self) -> [usize; 3] {
        self.axes.each_ref().map(|axis| axis.size)
    }

    /// The number of tiles.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().map(|axis| axis.starts.len()).product()
    }

    /// The first voxel of a tile.
    pub(crate) fn origin(&self, index: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| self.axes[axis].starts[index[axis]])
    }

    /// Every tile as its number along z, y and x, in raster order.
    pub(crate) fn indices(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [z, y, x] = self.axes.each_ref().map(|axis| axis.starts.len());
        (0..z).flat_map(move |z| (0..y).flat_map(move |y| (0..x).map(move |x| [z, y, x])))
    }
}

/// Tiles that go through the network together.
pub(crate) struct TileBatch {
    /// Every tile's place in the grid, and its value in each channel where that is the same in all its voxels.
    pub(crate) tiles: Vec<([usize; 3], Option<Vec<f32>>)>,
    /// Intensities of the tiles that are not constant, (n, c, z, y, x) in C order.
    pub(crate) values: Vec<f32>,
}

impl TileBatch {
    /// Reads tiles of an image.
    pub(crate) fn read(
        image: &dyn ImageSource,
        grid: &TileGrid,
        indices: Vec<[usize; 3]>,
        cancel: &CancelToken,
    ) -> Result<Self, NnError> {
        let (size, channels) = (grid.tile_size(), image.channels());
        let length = size.iter().product::<usize>();
        let (mut tiles, mut values) = (Vec::with_capacity(indices.len()), Vec::new());
        for index in indices {
            let begin = values.len();
            values.resize(begin + channels * length, 0.0);
            for (channel, values) in values[begin..].chunks_exact_mut(length).enumerate() {
                cancel.check()?;
                let out = ArrayViewMut3::from_shape(size, values);
                let out = out.map_err(|error| NnError::InvalidRequest { reason: error.to_string() })?;
                image.read(channel, grid.origin(index), out, cancel).map_err(NnError::Caller)?;
            }
            let constant = values[begin..].chunks_exact(length).map(constant_value).collect::<Option<Vec<f32>>>();
            if constant.is_some() {
                values.truncate(begin);
            }
            tiles.push((index, constant));
        }
        Ok(Self { tiles, values })
    }
}

/// The value that all voxels have; bits are compared, so that NaN and -0 are values like others.
fn constant_value(voxels: &[f32]) -> Option<f32> {
    let first = *voxels.first()?;
    voxels.iter().all(|value| value.to_bits() == first.to_bits()).then_some(first)
}
