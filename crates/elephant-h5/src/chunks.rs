//! Chunks read around the HDF5 library: its index says where they lie, the rest is `pread` and inflating in parallel,
//! outside the library's global lock.

use std::ops::Range;

use hdf5_metno::Dataset;
use rayon::prelude::*;

use crate::{
    H5Error, Scale,
    element::{Element, Stored},
    file::{OpenFile, brief},
    filters::{Pipeline, Scratch},
    virtual_dataset::Sources,
    volume::{padded, product},
};

/// Most chunks of an image, those of all its sources together; the place of each takes 32 bytes.
const MAX_CHUNKS: usize = 1 << 23;
/// What the chunks that are being decoded may take together in all workers, in bytes, unless one alone takes more.
const DECODING_BYTES: usize = 128 << 20;

/// How a dataset is cut into chunks, and what they hold; axes (z, y, x).
#[derive(Debug)]
pub(crate) struct Grid {
    pub shape: [usize; 3],
    pub chunk: [usize; 3],
    pub element: Element,
    pub pipeline: Pipeline,
    /// The bytes of a voxel in chunks that were never written.
    pub fill: Vec<u8>,
}

impl Grid {
    fn chunk_bytes(&self) -> usize {
        self.chunk.iter().product::<usize>() * self.element.size()
    }

    /// The number of the chunk that begins at the voxel `start`, C order, or `None` outside the volume.
    fn number(&self, start: &[u64]) -> Option<u64> {
        let start = padded(start, 0)?;
        let inside = start.iter().zip(self.shape).all(|(&start, edge)| start < edge as u64);
        inside.then(|| self.number_of(std::array::from_fn(|axis| start[axis] as usize / self.chunk[axis])))
    }

    /// How many chunks there may be.
    fn chunks(&self) -> u64 {
        (0..3).map(|axis| self.shape[axis].div_ceil(self.chunk[axis]) as u64).product()
    }

    fn number_of(&self, [z, y, x]: [usize; 3]) -> u64 {
        let [_, rows, columns] = std::array::from_fn(|axis| self.shape[axis].div_ceil(self.chunk[axis]) as u64);
        (z as u64 * rows + y as u64) * columns + x as u64
    }
}

/// Where one chunk lies in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    offset: u64,
    length: usize,
    /// Bit i is set when filter i was left out for this chunk.
    skipped: u32,
}

/// The chunks of one dataset.
#[derive(Debug)]
pub(crate) struct ChunkIndex {
    grid: Grid,
    /// Sorted by number; chunks that were never written are missing.
    places: Vec<Place>,
}

impl ChunkIndex {
    /// Lists the chunks of `dataset` and checks that all of them lie in the file.
    pub fn list(
        file: &OpenFile,
        object: &str,
        dataset: &Dataset,
        grid: Grid,
        sources: &Sources,
    ) -> Result<Self, H5Error> {
        // Deflate grows data by a few bytes in a block at most; a longer chunk is damaged or hostile.
        let longest = grid.chunk_bytes() as u64 + grid.chunk_bytes() as u64 / 100 + 1024;
        // An index may lead to the same chunks again and again. Each one takes eight bytes at least, with its address.
        let most = grid.chunks().min(file.len() / 8) as usize;
        let room = MAX_CHUNKS - sources.chunks.get();
        let mut places = Vec::new();
        let mut damage = None;
        let visited = dataset.chunks_visit(|info| {
            let reason = match grid.number(info.offset) {
                None => "a chunk lies outside the volume",
                Some(_) if !file.holds(info.addr, info.size) => "a chunk lies beyond the end of the file",
                Some(_) if info.size > longest => "a chunk is longer than its voxels",
                Some(_) if places.len() == most => "its index lists more chunks than there are",
                Some(_) if places.len() == room => {
                    "its images have more than 8 million chunks; save it with larger ones"
                }
                Some(number) => {
                    places.push(Place {
                        number,
                        offset: info.addr,
                        length: info.size as usize,
                        skipped: info.filter_mask,
                    });
                    return 0;
                }
            };
            damage = Some(reason);
            -1
        });
        if let Some(reason) = damage {
            return Err(H5Error::object(&file.name, object, reason));
        }
        visited.map_err(|error| H5Error::object(&file.name, object, brief(&error)))?;
        sources.chunks.update(|chunks| chunks + places.len());
        places.sort_unstable_by_key(|place| place.number);
        Ok(Self { grid, places })
    }

    /// Edge lengths of a chunk (z, y, x).
    pub fn chunk(&self) -> [usize; 3] {
        self.grid.chunk
    }

    /// Bytes of all chunks in the file.
    pub fn stored_bytes(&self) -> u64 {
        self.places.iter().map(|place| place.length as u64).sum()
    }

    /// Voxels that are decoded to read a box.
    pub fn decoded(&self, region: &[Range<usize>; 3]) -> u64 {
        product(&std::array::from_fn(|axis| {
            let edge = self.grid.chunk[axis];
            covering(&region[axis], edge).len().saturating_mul(edge)
        }))
    }

    /// Reads the box `region`, (z, y, x), into `out`, C order, which has room for exactly its voxels. Returns the largest
    /// value before division.
    pub fn read(
        &self,
        file: &OpenFile,
        object: &str,
        region: &[Range<usize>; 3],
        scale: &Scale,
        out: &mut [u16],
    ) -> Result<f64, H5Error> {
        let strips = self.strips(region, out);
        let at_least = least_strips(strips.len(), self.grid.pipeline.buffers() * self.grid.chunk_bytes());
        strips
            .into_par_iter()
            .with_min_len(at_least)
            .map_init(Scratch::default, |scratch, strip| self.read_strip(file, region, strip, scale, scratch))
            .try_reduce(|| f64::NEG_INFINITY, |largest, other| Ok(largest.max(other)))
            .map_err(|failed| match failed {
                Failed::Io(error) => error,
                Failed::Chunk(reason) => H5Error::object(&file.name, object, reason),
            })
    }

    /// Hands out the rows of `out` to the rows of chunks that fill them.
    fn strips<'a>(&self, [z, y, x]: &[Range<usize>; 3], out: &'a mut [u16]) -> Vec<Strip<'a>> {
        let [depth, height, _] = self.grid.chunk;
        let (z_chunks, y_chunks) = (covering(z, depth), covering(y, height));
        let mut strips: Vec<_> =
            z_chunks.clone().flat_map(|z| y_chunks.clone().map(move |y| Strip { z, y, rows: Vec::new() })).collect();
        let mut rows = out.chunks_exact_mut(x.len());
        for z in z.clone() {
            for y in y.clone() {
                let strip = (z / depth - z_chunks.start) * y_chunks.len() + y / height - y_chunks.start;
                strips[strip].rows.extend(rows.next());
            }
        }
        strips
    }

    fn read_strip(
        &self,
        file: &OpenFile,
        [z, y, x]: &[Range<usize>; 3],
        mut strip: Strip<'_>,
        scale: &Scale,
        scratch: &mut Scratch,
    ) -> Result<f64, Failed> {
        let [depth, height, width] = self.grid.chunk;
        let z = overlap(z, strip.z, depth);
        let y = overlap(y, strip.y, height);
        let mut largest = f64::NEG_INFINITY;
        for column in covering(x, width) {
            let inside = overlap(x, column, width);
            let columns = inside.start - x.start..inside.end - x.start;
            let number = self.grid.number_of([strip.z, strip.y, column]);
            let Ok(found) = self.places.binary_search_by_key(&number, |place| place.number) else {
                let (fill, value) = fill_value(self.grid.element, &self.grid.fill, scale);
                strip.rows.iter_mut().for_each(|row| row[columns.clone()].fill(fill));
                largest = largest.max(value);
                continue;
            };
            let place = self.places[found];
            scratch.stored.resize(place.length, 0);
            file.read_at(&mut scratch.stored, place.offset).map_err(Failed::Io)?;
            let undone = self.grid.pipeline.undo(place.skipped, self.grid.chunk_bytes(), scratch);
            let (bytes, is_shuffled) = undone.map_err(Failed::Chunk)?;
            let mut rows = strip.rows.iter_mut();
            for z in z.clone() {
                for y in y.clone() {
                    let first =
                        ((z - strip.z * depth) * height + y - strip.y * height) * width + inside.start - column * width;
                    if let Some(row) = rows.next() {
                        let stored = Stored { bytes, is_shuffled };
                        let value = self.grid.element.copy(stored, first, scale, &mut row[columns.clone()]);
                        largest = largest.max(value);
                    }
                }
            }
        }
        Ok(largest)
    }
}

/// How many of `strips` a worker takes at least: each has buffers of its own, so large chunks have few workers.
fn least_strips(strips: usize, worker_bytes: usize) -> usize {
    let workers = (DECODING_BYTES / worker_bytes.max(1)).max(1);
    if workers < rayon::current_num_threads() { strips.div_ceil(workers).max(1) } else { 1 }
}

/// A voxel that was never written, as 16 bit and before division.
pub(crate) fn fill_value(element: Element, bytes: &[u8], scale: &Scale) -> (u16, f64) {
    let mut voxel = [0];
    let value = element.copy(Stored { bytes, is_shuffled: false }, 0, scale, &mut voxel);
    (voxel[0], value)
}

/// Rows of the output, in (z, y) order, that one row of chunks along x fills.
struct Strip<'a> {
    z: usize,
    y: usize,
    rows: Vec<&'a mut [u16]>,
}

enum Failed {
    Io(H5Error),
    Chunk(&'static str),
}

/// The chunks of length `edge` that a range of voxels touches.
fn covering(range: &Range<usize>, edge: usize) -> Range<usize> {
    range.start / edge..range.end.div_ceil(edge)
}

/// The part of a range of voxels that chunk `index` of length `edge` covers.
fn overlap(range: &Range<usize>, index: usize, edge: usize) -> Range<usize> {
    range.start.max(index * edge)..range.end.min((index + 1) * edge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_with_large_chunks_are_few() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().unwrap();
        let least = |strips, worker_bytes| pool.install(|| least_strips(strips, worker_bytes));
        assert_eq!(least(100, 64 << 10), 1, "all threads work");
        assert_eq!(least(100, 32 << 20), 25, "four of them");
        assert_eq!(least(100, 768 << 20), 100, "one of them");
        assert_eq!(least(0, 768 << 20), 1);
        // What keeps rayon from giving a worker less.
        let workers = std::sync::atomic::AtomicUsize::new(0);
        pool.install(|| {
            let count = || workers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![(); 100].into_par_iter().with_min_len(25).map_init(count, |_, ()| ()).collect::<Vec<_>>()
        });
        assert!(workers.into_inner() <= 4);
    }
}
