//! Adding up the results of overlapping tiles, with no more planes in memory than one row of tiles has.

use ndarray::{Array4, ArrayView4, Axis, s};
use rayon::prelude::*;

use crate::tiles::TileGrid;

/// Planes of the result that no later tile changes.
pub(crate) struct Slab {
    /// Index of the first plane in the image.
    pub(crate) z: usize,
    /// Planes (c, z, y, x), of which the first `count` are finished.
    planes: Array4<f32>,
    count: usize,
}

impl Slab {
    /// The finished planes, (c, z, y, x).
    pub(crate) fn planes(&self) -> ArrayView4<'_, f32> {
        self.planes.slice(s![.., ..self.count, .., ..])
    }
}

/// The sum of the tiles so far. Tiles come in raster order, so that the order of summation is the same for every voxel.
pub(crate) struct Blending<'a> {
    grid: &'a TileGrid,
    /// Index along z of the row of tiles that is being added.
    row: usize,
    /// The planes (c, z, y, x) of that row.
    planes: Array4<f32>,
}

impl<'a> Blending<'a> {
    pub(crate) fn new(grid: &'a TileGrid, channels: usize) -> Self {
        Self { grid, row: 0, planes: zeros(grid, channels) }
    }

    /// Adds the result of a tile, (c, z, y, x) in C order, weighted. Returns the planes that this tile's row and all later
    /// ones leave alone, at the beginning of a row.
    pub(crate) fn add(&mut self, index: [usize; 3], values: &[f32]) -> Option<Slab> {
        let slab = if index[0] == self.row { None } else { self.next_row(index[0]) };
        let [_, y0, x0] = self.grid.origin(index);
        let [depth, height, width] = self.grid.tile_size();
        let [wz, wy, wx] = [0, 1, 2].map(|axis| &self.grid.axes[axis].weights[index[axis]]);
        let mut tile = self.planes.slice_mut(s![.., .., y0..y0 + height, x0..x0 + width]);
        // Each row of voxels is a task of its own, so every voxel gets one addition.
        tile.axis_iter_mut(Axis(2)).into_par_iter().enumerate().for_each(|(y, mut rows)| {
            for ((channel, z), mut row) in
                (0..).flat_map(|channel| (0..depth).map(move |z| (channel, z))).zip(rows.rows_mut())
            {
                let values = &values[((channel * depth + z) * height + y) * width..][..width];
                let weight = wz[z] * wy[y];
                for (sum, (value, wx)) in row.iter_mut().zip(values.iter().zip(wx)) {
                    *sum += value * (weight * wx);
                }
            }
        });
        slab
    }

    /// The planes that are left after the last tile.
    pub(crate) fn finish(self) -> Slab {
        let z = self.grid.axes[0].starts[self.row];
        Slab { z, count: self.planes.len_of(Axis(1)), planes: self.planes }
    }

    /// Goes on to another row of tiles. Returns the planes before it, if there are any.
    fn next_row(&mut self, row: usize) -> Option<Slab> {
        let starts = &self.grid.axes[0].starts;
        let (z, count) = (starts[self.row], starts[row] - starts[self.row]);
        self.row = row;
        if count == 0 {
            return None;
        }
        let mut planes = zeros(self.grid, self.planes.len_of(Axis(0)));
        let overlap = self.planes.slice(s![.., count.., .., ..]);
        planes.slice_mut(s![.., ..overlap.len_of(Axis(1)), .., ..]).assign(&overlap);
        Some(Slab { z, count, planes: std::mem::replace(&mut self.planes, planes) })
    }
}

fn zeros(grid: &TileGrid, channels: usize) -> Array4<f32> {
    let [_, height, width] = grid.image;
    Array4::zeros((channels, grid.axes[0].size, height, width))
}

/// Buffers of the planes of a row of tiles that exist at once: one is added to, one is copied from, and one waits while the
/// caller uses another one.
pub(crate) fn buffer_count(grid: &TileGrid) -> usize {
    grid.axes[0].starts.len().min(4)
}
