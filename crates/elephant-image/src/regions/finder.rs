//! Connected components of a thresholded image, with the sums that describe each.
//!
//! No label volume is made. Rows are cut into runs of foreground voxels; a union-find joins touching runs; each
//! component keeps only its moments. The image is divided into slabs of rows whose size depends on the image alone, so
//! slabs run in parallel and yet every sum is added up in the same order on any number of threads.

mod pieces;

use std::ops::Range;

use elephant_types::CancelToken;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;

use self::pieces::Pieces;
use crate::{ImageError, Moments};

/// One connected component of the foreground.
#[derive(Clone, Debug)]
pub struct Component {
    /// Where its voxels are.
    pub moments: Moments,
    /// The sum of the image over its voxels.
    pub sum: f64,
}

impl Component {
    /// The mean of the image over the component's voxels.
    pub fn mean(&self) -> f64 {
        self.sum / self.moments.voxels as f64
    }

    fn merge(&mut self, other: &Self) {
        self.moments.merge(&other.moments);
        self.sum += other.sum;
    }
}

/// The components of the voxels above `threshold` (strictly), where voxels that share a face, an edge or a corner are
/// connected: 26 neighbours, or 8 in an image of one plane. They come in the raster order (z, y, x) of their first voxel.
/// Voxels that are not finite numbers are background.
///
/// # Errors
/// [`ImageError::TooLarge`] for more than 2^38 voxels or 2^24 along an axis; [`ImageError::TooManyPieces`] for noise, whose
/// components would take more memory than the image; [`ImageError::Cancelled`].
pub fn connected_components(
    image: ArrayView3<'_, f32>,
    threshold: f32,
    cancel: &CancelToken,
) -> Result<Vec<Component>, ImageError> {
    let (nz, ny, nx) = image.dim();
    let shape = [nz, ny, nx];
    let voxels = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
    if shape.iter().any(|&n| n > 1 << 24) || voxels.is_none_or(|n| n > 1 << 38) {
        return Err(ImageError::TooLarge { shape });
    }
    if voxels == Some(0) {
        return Ok(Vec::new());
    }
    let rows = Rows { nz, ny };
    let rows_per_slab = rows_per_slab(shape);
    let pieces = Pieces::default();
    let slabs = (0..rows.count().div_ceil(rows_per_slab))
        .into_par_iter()
        .map(|index| {
            let first = index * rows_per_slab;
            Slab::scan(image, rows, first..(first + rows_per_slab).min(rows.count()), threshold, &pieces, cancel)
        })
        .collect::<Result<Vec<_>, _>>()?;
    cancel.check()?;
    Ok(join(slabs, rows, rows_per_slab))
}

/// Memory that [`connected_components`] takes beside an image of so many voxels, in bytes at the most.
pub fn components_bytes(voxels: u64) -> u64 {
    let run = (size_of::<Run>() + size_of::<u32>() + size_of::<usize>()) as u64;
    // Twice: those of the slabs, and joined.
    let component = 2 * (size_of::<Component>() + size_of::<usize>()) as u64;
    let most_runs = Pieces::most_runs(voxels).min(voxels / 2 + 1);
    most_runs.saturating_mul(run).saturating_add(Pieces::MOST_COMPONENTS.min(voxels / 8 + 1) * component)
}

/// Small enough that many threads share the work, thick enough that few components cross a boundary.
fn rows_per_slab([nz, ny, nx]: [usize; 3]) -> usize {
    const VOXELS: usize = 1 << 18;
    const MOST_VOXELS: usize = 1 << 31; // keeps the number of runs in a slab below 2^32
    let planes = if nz > 1 { 4 * ny } else { 1 };
    (VOXELS / nx).max(planes).min(MOST_VOXELS / nx).max(1)
}

/// The rows of the image, numbered in raster order.
#[derive(Clone, Copy)]
struct Rows {
    nz: usize,
    ny: usize,
}

impl Rows {
    fn count(self) -> usize {
        self.nz * self.ny
    }

    /// The rows before `row` that touch it: one in its own plane, up to three in the plane before.
    fn earlier_neighbours(self, row: usize) -> impl Iterator<Item = usize> {
        let (z, y) = (row / self.ny, row % self.ny);
        let before = row.wrapping_sub(self.ny);
        let candidates = [
            (z > 0 && y > 0, before.wrapping_sub(1)),
            (z > 0, before),
            (z > 0 && y + 1 < self.ny, before.wrapping_add(1)),
            (y > 0, row.wrapping_sub(1)),
        ];
        candidates.into_iter().filter_map(|(exists, neighbour)| exists.then_some(neighbour))
    }
}

/// Consecutive foreground voxels `start..end` of one row.
struct Run {
    start: u32,
    end: u32,
    sum: f64,
}

/// A range of rows with its components, as far as they are connected inside the range.
struct Slab {
    rows: Range<usize>,
    runs: Vec<Run>,
    /// Where each row's runs begin in `runs`; one entry more than rows.
    row_starts: Vec<usize>,
    /// For each run, the index of its component.
    labels: Vec<u32>,
    components: Vec<Component>,
}

/// Often enough that threads do not exceed the limit by much, seldom enough that they do not wait for each other.
const COUNTED_AT_ONCE: usize = 1 << 16;

impl Slab {
    fn scan(
        image: ArrayView3<'_, f32>,
        all: Rows,
        rows: Range<usize>,
        threshold: f32,
        pieces: &Pieces,
        cancel: &CancelToken,
    ) -> Result<Self, ImageError> {
        let mut slab = Self {
            row_starts: Vec::with_capacity(rows.len() + 1),
            rows: rows.clone(),
            runs: Vec::new(),
            labels: Vec::new(),
            components: Vec::new(),
        };
        slab.row_starts.push(0);
        let mut sets = DisjointSets::default();
        let mut buffer = Vec::new();
        let mut counted = 0;
        for row in rows {
            let (z, y) = (row / all.ny, row % all.ny);
            if slab.runs.len() - counted >= COUNTED_AT_ONCE {
                pieces.add_runs(slab.runs.len() - counted, image.len())?;
                counted = slab.runs.len();
            }
            if y == 0 {
                cancel.check()?;
            }
            let view = image.index_axis_move(Axis(0), z).index_axis_move(Axis(0), y);
            if let Some(values) = view.to_slice() {
                push_runs(values, threshold, &mut slab.runs);
            } else {
                buffer.clear();
                buffer.extend(view.iter().copied());
                push_runs(&buffer, threshold, &mut slab.runs);
            }
            slab.row_starts.push(slab.runs.len());
            sets.grow_to(slab.runs.len());
            slab.join_row(row, all, &mut sets);
        }
        pieces.add_runs(slab.runs.len() - counted, image.len())?;
        slab.collect_components(all, &mut sets, pieces)?;
        Ok(slab)
    }

    /// The runs of `row`, which lies in this slab.
    fn runs_of(&self, row: usize) -> Range<usize> {
        let local = row - self.rows.start;
        self.row_starts[local]..self.row_starts[local + 1]
    }

    /// Joins the runs of `row` with those they touch in the earlier rows of this slab.
    fn join_row(&self, row: usize, all: Rows, sets: &mut DisjointSets) {
        let here = self.runs_of(row);
        if here.is_empty() {
            return;
        }
        for neighbour in all.earlier_neighbours(row).filter(|neighbour| self.rows.contains(neighbour)) {
            let there = self.runs_of(neighbour);
            for_each_touching(&self.runs[here.clone()], &self.runs[there.clone()], |i, j| {
                sets.join(here.start + i, there.start + j);
            });
        }
    }

    /// Numbers the components in the order of their first runs, and adds up their voxels.
    fn collect_components(&mut self, all: Rows, sets: &mut DisjointSets, pieces: &Pieces) -> Result<(), ImageError> {
        self.labels.reserve_exact(self.runs.len());
        let mut counted = 0;
        for row in self.rows.clone() {
            if self.components.len() - counted >= COUNTED_AT_ONCE {
                pieces.add_components(self.components.len() - counted)?;
                counted = self.components.len();
            }
            for index in self.runs_of(row) {
                let run = &self.runs[index];
                let part = Component {
                    moments: Moments::of_run(row / all.ny, row % all.ny, run.start, run.end),
                    sum: run.sum,
                };
                let root = sets.find(index);
                if root == index {
                    self.labels.push(self.components.len() as u32);
                    self.components.push(part);
                } else {
                    // A root comes before all other runs of its set, so its label is known.
                    let label = self.labels[root];
                    self.components[label as usize].merge(&part);
                    self.labels.push(label);
                }
            }
        }
        pieces.add_components(self.components.len() - counted)
    }
}

/// Appends the runs of values above `threshold` in one row.
fn push_runs(values: &[f32], threshold: f32, runs: &mut Vec<Run>) {
    /// Long enough to be compared in vector registers, short enough to skip most of a row with few cells.
    const BLOCK: usize = 32;
    let is_foreground = |value: f32| value > threshold && value <= f32::MAX;
    let mut open: Option<Run> = None;
    for (block, chunk) in values.chunks(BLOCK).enumerate() {
        let any = chunk.iter().fold(false, |any, &value| any | is_foreground(value));
        if !any {
            runs.extend(open.take());
            continue;
        }
        for (offset, &value) in chunk.iter().enumerate() {
            if is_foreground(value) {
                let x = (block * BLOCK + offset) as u32;
                let run = open.get_or_insert(Run { start: x, end: x, sum: 0.0 });
                run.end = x + 1;
                run.sum += f64::from(value);
            } else {
                runs.extend(open.take());
            }
        }
    }
    runs.extend(open);
}

/// Calls `touch(i, j)` for the runs `a[i]` and `b[j]` of two neighbouring rows that overlap or meet at a corner.
fn for_each_touching(a: &[Run], b: &[Run], mut touch: impl FnMut(usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i].start <= b[j].end && b[j].start <= a[i].end {
            touch(i, j);
        }
        if a[i].end < b[j].end { i += 1 } else { j += 1 }
    }
}

/// Joins the components of all slabs across their boundaries.
fn join(slabs: Vec<Slab>, rows: Rows, rows_per_slab: usize) -> Vec<Component> {
    let mut offsets = Vec::with_capacity(slabs.len());
    let mut total = 0;
    for slab in &slabs {
        offsets.push(total);
        total += slab.components.len();
    }
    let mut sets = DisjointSets::default();
    sets.grow_to(total);
    for (index, slab) in slabs.iter().enumerate() {
        let boundary = slab.rows.start..slab.rows.end.min(slab.rows.start + rows.ny + 1);
        for row in boundary {
            let here = slab.runs_of(row);
            if here.is_empty() {
                continue;
            }
            for neighbour in rows.earlier_neighbours(row).filter(|&neighbour| neighbour < slab.rows.start) {
                let other = neighbour / rows_per_slab;
                let there = slabs[other].runs_of(neighbour);
                for_each_touching(&slab.runs[here.clone()], &slabs[other].runs[there.clone()], |i, j| {
                    let a = offsets[index] + slab.labels[here.start + i] as usize;
                    let b = offsets[other] + slabs[other].labels[there.start + j] as usize;
                    sets.join(a, b);
                });
            }
        }
    }
    let mut joined: Vec<Component> = Vec::new();
    let mut places = vec![0; total];
    for (id, component) in slabs.into_iter().flat_map(|slab| slab.components).enumerate() {
        let root = sets.find(id);
        if root == id {
            places[id] = joined.len();
            joined.push(component);
        } else {
            joined[places[root]].merge(&component);
        }
    }
    joined
}

/// A union-find whose sets are named by their lowest member.
#[derive(Default)]
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    /// Adds sets of one member each, up to `members` members in all.
    fn grow_to(&mut self, members: usize) {
        self.0.extend(self.0.len()..members);
    }

    fn find(&mut self, mut member: usize) -> usize {
        while self.0[member] != member {
            // Path halving.
            self.0[member] = self.0[self.0[member]];
            member = self.0[member];
        }
        member
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        let (low, high) = (a.min(b), a.max(b));
        self.0[high] = low;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, s};
    use proptest::prelude::*;

    use super::*;

    /// Flood fill from each voxel that no earlier fill reached: slow and plainly right.
    fn naive(image: &Array3<f32>, threshold: f32) -> Vec<(Moments, f64)> {
        let (nz, ny, nx) = image.dim();
        let mut seen = Array3::from_elem(image.dim(), false);
        let mut found = Vec::new();
        for start in ndarray::indices(image.dim()) {
            if seen[start] || image[start].is_nan() || image[start] <= threshold {
                continue;
            }
            seen[start] = true;
            let mut stack = vec![start];
            let mut voxels = Vec::new();
            while let Some((z, y, x)) = stack.pop() {
                voxels.push((z, y, x));
                for dz in z.saturating_sub(1)..(z + 2).min(nz) {
                    for dy in y.saturating_sub(1)..(y + 2).min(ny) {
                        for dx in x.saturating_sub(1)..(x + 2).min(nx) {
                            let next = (dz, dy, dx);
                            if !seen[next] && image[next] > threshold {
                                seen[next] = true;
                                stack.push(next);
                            }
                        }
                    }
                }
            }
            voxels.sort_unstable();
            let single = |&(z, y, x): &(usize, usize, usize)| Moments::of_run(z, y, x as u32, x as u32 + 1);
            let mut moments = single(&voxels[0]);
            voxels[1..].iter().for_each(|voxel| moments.merge(&single(voxel)));
            let sum = voxels.iter().map(|&voxel| f64::from(image[voxel])).sum();
            found.push((moments, sum));
        }
        found
    }

    fn components_of(image: ArrayView3<'_, f32>) -> Vec<Component> {
        connected_components(image, 0.5, &CancelToken::default()).unwrap()
    }

    fn assert_same(found: &[Component], expected: &[(Moments, f64)]) {
        assert_eq!(found.len(), expected.len());
        for (found, (moments, sum)) in found.iter().zip(expected) {
            assert_eq!(&found.moments, moments);
            assert!((found.sum - sum).abs() <= 1e-9 * sum);
        }
    }

    /// Numbers that look random, the same for everyone.
    fn noise(seed: u64, index: usize) -> f32 {
        let mut state = (seed << 32) ^ index as u64;
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((state ^ (state >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    /// Noise whose foreground has about the given share of the voxels.
    fn noise_image(shape: (usize, usize, usize), share: f32, seed: u64) -> Array3<f32> {
        let mut index = 0;
        Array3::from_shape_simple_fn(shape, || {
            index += 1;
            (noise(seed, index) - (1.0 - share)) * 0.5 / share + 0.5
        })
    }

    proptest! {
        #[test]
        fn agrees_with_flood_fill(
            shape in (1..7_usize, 1..12_usize, 1..70_usize), share in 0.01..0.6_f32, seed in any::<u32>(),
        ) {
            let image = noise_image(shape, share, seed.into());
            assert_same(&components_of(image.view()), &naive(&image, 0.5));
        }
    }

    #[test]
    fn components_cross_slabs_of_planes_and_of_rows() {
        // Slabs of four planes, and of rows within a plane: more than one of each.
        for (shape, share) in
            [((40_usize, 50_usize, 140), 0.02), ((40, 50, 140), 0.05), ((1, 900, 700), 0.2), ((1, 900, 700), 0.4)]
        {
            let slabs = (shape.0 * shape.1).div_ceil(rows_per_slab([shape.0, shape.1, shape.2]));
            assert!(slabs > 1, "{shape:?}");
            let image = noise_image(shape, share, 7);
            assert_same(&components_of(image.view()), &naive(&image, 0.5));
        }
    }

    #[test]
    fn other_memory_layouts_give_the_same() {
        let image = noise_image((9, 14, 40), 0.1, 3);
        let mut wide = Array3::from_elem((9, 14, 80), 1.0);
        wide.slice_mut(s![.., .., ..;2]).assign(&image);
        assert_same(&components_of(wide.slice(s![.., .., ..;2])), &naive(&image, 0.5));
        let flipped = image.slice(s![.., .., ..;-1]).to_owned();
        assert_same(&components_of(image.slice(s![.., .., ..;-1])), &naive(&flipped, 0.5));
    }

    #[test]
    fn thread_counts_give_the_same_bits() {
        let image = noise_image((40, 64, 120), 0.12, 11);
        let bits = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| components_of(image.view()));
            found.into_iter().map(|component| (component.moments, component.sum.to_bits())).collect::<Vec<_>>()
        };
        let one = bits(1);
        assert!(one.len() > 100);
        assert_eq!(one, bits(2));
        assert_eq!(one, bits(7));
    }

    #[test]
    fn values_that_are_no_numbers_are_background() {
        let mut image = Array3::from_elem((2, 3, 40), f32::NAN);
        image[(0, 0, 0)] = f32::INFINITY;
        image[(1, 2, 39)] = 0.75;
        let found = components_of(image.view());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].moments.min, [1, 2, 39]);
        assert_eq!(found[0].mean(), 0.75);
    }

    #[test]
    fn noise_is_refused_before_it_takes_more_memory_than_the_image() {
        // Single voxels apart: more components than any embryo has cells.
        let mut image = Array3::zeros((1, 3000, 3000));
        image.slice_mut(s![.., ..;2, ..;3]).fill(1.0);
        let found = connected_components(image.view(), 0.5, &CancelToken::default());
        assert!(matches!(found, Err(ImageError::TooManyPieces { pieces }) if pieces == 1 << 20), "{:?}", found.err());
        // Every other column: few components, but as many runs as there can be.
        let mut image = Array3::zeros((1, 3000, 3000));
        image.slice_mut(s![.., .., ..;2]).fill(1.0);
        let found = connected_components(image.view(), 0.5, &CancelToken::default());
        assert!(matches!(found, Err(ImageError::TooManyPieces { pieces }) if pieces == 1 << 22), "{:?}", found.err());
    }

    #[test]
    fn empty_images_have_no_components() {
        for shape in [(0, 5, 5), (5, 0, 5), (5, 5, 0)] {
            assert!(components_of(Array3::zeros(shape).view()).is_empty());
        }
    }

    #[test]
    fn a_cancelled_search_stops() {
        let cancel = CancelToken::default();
        cancel.cancel();
        let image = Array3::zeros((3, 4, 5));
        assert!(matches!(connected_components(image.view(), 0.5, &cancel), Err(ImageError::Cancelled(_))));
    }
}
