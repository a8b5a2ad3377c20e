//! The runs of some rows of a volume, as far as they are connected among themselves.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use elephant_types::CancelToken;
use ndarray::{ArrayView3, Axis};

use super::{Connectivity, sets::DisjointSets};
use crate::ImageError;

/// The rows of a volume, numbered in raster order.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Rows in a plane.
    pub ny: usize,
    pub connectivity: Connectivity,
}

impl Rows {
    /// The rows before `row` with voxels that may be neighbours of its voxels: one in its own plane, up to three in the
    /// plane before; and how far apart along x such voxels may be.
    pub(super) fn earlier_neighbours(self, row: usize) -> impl Iterator<Item = (usize, u32)> {
        let (z, y) = (row / self.ny, row % self.ny);
        let before = row.wrapping_sub(self.ny);
        let (straight, diagonal) = (self.connectivity.reach(1), self.connectivity.reach(2));
        let candidates = [
            (z > 0 && y > 0, before.wrapping_sub(1), diagonal),
            (z > 0, before, straight),
            (z > 0 && y + 1 < self.ny, before.wrapping_add(1), diagonal),
            (y > 0, row.wrapping_sub(1), straight),
        ];
        candidates.into_iter().filter_map(|(exists, neighbour, reach)| Some((exists.then_some(neighbour)?, reach?)))
    }
}

/// Voxels `start..end` of a row.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub start: u32,
    pub end: u32,
}

/// What the threads that search slabs at the same time have in common.
pub(super) struct Search<'a> {
    /// Some planes of the volume.
    pub planes: ArrayView3<'a, f32>,
    /// The number of their first row in the volume.
    pub first_row: usize,
    pub rows: Rows,
    pub threshold: f32,
    /// Runs that were found, and how many there may be.
    pub found: AtomicU64,
    pub most_runs: u64,
    pub cancel: &'a CancelToken,
}

impl Search<'_> {
    fn count_runs(&self, count: usize) -> Result<(), ImageError> {
        let before = self.found.fetch_add(count as u64, Ordering::Relaxed);
        if before + count as u64 > self.most_runs {
            return Err(ImageError::TooManyPieces { pieces: self.most_runs });
        }
        Ok(())
    }
}

/// The runs of a range of rows.
pub(super) struct Slab {
    pub rows: Range<usize>,
    /// The number of its first run in the volume, once it is known.
    pub first_run: usize,
    pub runs: Vec<Piece>,
    /// For each run, the sum of the image over it.
    pub sums: Vec<f64>,
    /// Where each row's runs begin in `runs`; one entry more than rows.
    row_starts: Vec<u32>,
}

/// Often enough that threads do not exceed the limit by much, seldom enough that they do not wait for each other.
const COUNTED_AT_ONCE: usize = 1 << 16;

impl Slab {
    /// Finds the runs of some rows, and which of them are connected.
    pub(super) fn scan(search: &Search<'_>, rows: Range<usize>) -> Result<(Self, DisjointSets), ImageError> {
        let mut row_starts = Vec::with_capacity(rows.len() + 1);
        row_starts.push(0);
        let mut slab = Self { rows: rows.clone(), first_run: 0, runs: Vec::new(), sums: Vec::new(), row_starts };
        let mut sets = DisjointSets::default();
        let mut buffer = Vec::new();
        let mut counted = 0;
        for row in rows {
            let local = row - search.first_row;
            let (z, y) = (local / search.rows.ny, local % search.rows.ny);
            if slab.runs.len() - counted >= COUNTED_AT_ONCE {
                search.count_runs(slab.runs.len() - counted)?;
                counted = slab.runs.len();
            }
            if y == 0 {
                search.cancel.check()?;
            }
            let view = search.planes.index_axis_move(Axis(0), z).index_axis_move(Axis(0), y);
            if let Some(values) = view.to_slice() {
                slab.push_row(values, search.threshold);
            } else {
                buffer.clear();
                buffer.extend(view.iter().copied());
                slab.push_row(&buffer, search.threshold);
            }
            sets.grow_to(slab.runs.len());
            slab.join_row(row, search.rows, &mut sets);
        }
        search.count_runs(slab.runs.len() - counted)?;
        Ok((slab, sets))
    }

    /// The runs of a row of this slab, and the number of the first of them in the slab.
    pub(super) fn runs_of(&self, row: usize) -> (&[Piece], usize) {
        let local = row - self.rows.start;
        let (start, end) = (self.row_starts[local] as usize, self.row_starts[local + 1] as usize);
        (&self.runs[start..end], start)
    }

    /// For each row its number and the range of its runs in `runs`.
    pub(super) fn runs_by_row(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let bounds = self.row_starts.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize);
        self.rows.clone().zip(bounds)
    }

    /// Joins the runs of `row` with their neighbours in the earlier rows of this slab.
    fn join_row(&self, row: usize, rows: Rows, sets: &mut DisjointSets) {
        let (runs, first) = self.runs_of(row);
        if runs.is_empty() {
            return;
        }
        for (neighbour, reach) in rows.earlier_neighbours(row).filter(|(neighbour, _)| self.rows.contains(neighbour)) {
            let (others, first_other) = self.runs_of(neighbour);
            for_each_touching(runs, others, reach, |i, j| sets.join(first + i, first_other + j));
        }
    }

    /// Appends a row with the given values.
    fn push_row(&mut self, values: &[f32], threshold: f32) {
        /// Long enough to be compared in vector registers, short enough to skip most of a row with few cells.
        const BLOCK: usize = 32;
        let is_foreground = |value: f32| value > threshold && value <= f32::MAX;
        let mut open: Option<(Piece, f64)> = None;
        let mut close = |open: Option<(Piece, f64)>| {
            if let Some((run, sum)) = open {
                self.runs.push(run);
                self.sums.push(sum);
            }
        };
        for (block, chunk) in values.chunks(BLOCK).enumerate() {
            let any = chunk.iter().fold(false, |any, &value| any | is_foreground(value));
            if !any {
                close(open.take());
                continue;
            }
            for (offset, &value) in chunk.iter().enumerate() {
                if is_foreground(value) {
                    let x = (block * BLOCK + offset) as u32;
                    let (run, sum) = open.get_or_insert((Piece { start: x, end: x }, 0.0));
                    run.end = x + 1;
                    *sum += f64::from(value);
                } else {
                    close(open.take());
                }
            }
        }
        close(open);
        self.row_starts.push(self.runs.len() as u32);
    }
}

/// Calls `touch(i, j)` for the runs `a[i]` and `b[j]` of two rows that have voxels at most `reach` (0 or 1) apart along x.
pub(super) fn for_each_touching(a: &[Piece], b: &[Piece], reach: u32, mut touch: impl FnMut(usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i].start < b[j].end + reach && b[j].start < a[i].end + reach {
            touch(i, j);
        }
        if a[i].end < b[j].end { i += 1 } else { j += 1 }
    }
}
