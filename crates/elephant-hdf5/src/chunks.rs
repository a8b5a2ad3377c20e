//! Chunks read around the HDF5 library: its index says where they lie, the rest is `pread` and inflating in parallel,
//! outside the library's global lock.

use std::ops::Range;

use elephant_memory::items_per_worker;
use hdf5_metno::Dataset;
use rayon::prelude::*;

use crate::{
    Hdf5Error,
    file::{OpenFile, brief},
    filters::{Pipeline, Scratch},
    numbers::{Convert, NumberType, StoredNumbers},
    virtual_dataset::Sources,
    volume::{padded, product},
};

/// Largest number of chunks of an image, those of all its sources together; the place of each takes 32 bytes.
const MAX_CHUNKS: usize = 1 << 23;
/// What the chunks that are being decoded may take together in all workers, in bytes, unless one alone takes more.
const DECODING_BYTES: usize = 128 << 20;

/// How a dataset is cut into chunks, and what they hold; axes (z, y, x).
#[derive(Debug)]
pub(crate) struct Grid {
    pub shape: [usize; 3],
    pub chunk: [usize; 3],
    pub number_type: NumberType,
    pub pipeline: Pipeline,
    /// The bytes of a voxel in chunks that were never written.
    pub fill: Vec<u8>,
}

impl Grid {
    fn chunk_bytes(&self) -> usize {
        self.chunk.iter().product::<usize>() * self.number_type.size
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
    ) -> Result<Self, Hdf5Error> {
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
            return Err(Hdf5Error::object(&file.name, object, reason));
        }
        visited.map_err(|error| Hdf5Error::object(&file.name, object, brief(&error)))?;
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
    /// number before conversion.
    pub fn read<C: Convert>(
        &self,
        file: &OpenFile,
        object: &str,
        region: &[Range<usize>; 3],
        convert: &C,
        out: &mut [C::Output],
    ) -> Result<f64, Hdf5Error> {
        let strips = self.strips(region, out);
        let worker_bytes = self.grid.pipeline.buffers() * self.grid.chunk_bytes();
        let at_least = items_per_worker(strips.len(), worker_bytes, DECODING_BYTES, rayon::current_num_threads());
        strips
            .into_par_iter()
            .with_min_len(at_least)
            .map_init(Scratch::default, |scratch, strip| self.read_strip(file, region, strip, convert, scratch))
            .try_reduce(|| f64::NEG_INFINITY, |largest, other| Ok(largest.max(other)))
            .map_err(|failed| match failed {
                Failed::Io(error) => error,
                Failed::Chunk(reason) => Hdf5Error::object(&file.name, object, reason),
            })
    }

    /// Hands out the rows of `out` to the rows of chunks that fill them.
    fn strips<'a, T>(&self, [z, y, x]: &[Range<usize>; 3], out: &'a mut [T]) -> Vec<Strip<'a, T>> {
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

    fn read_strip<C: Convert>(
        &self,
        file: &OpenFile,
        [z, y, x]: &[Range<usize>; 3],
        mut strip: Strip<'_, C::Output>,
        convert: &C,
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
                let (fill, value) = fill_value(self.grid.number_type, &self.grid.fill, convert);
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
                        let stored = StoredNumbers { number_type: self.grid.number_type, bytes, is_shuffled };
                        let value = convert.convert(stored, first, &mut row[columns.clone()]);
                        largest = largest.max(value);
                    }
                }
            }
        }
        Ok(largest)
    }
}

/// A number that was never written, after conversion and before it.
pub(crate) fn fill_value<C: Convert>(number_type: NumberType, bytes: &[u8], convert: &C) -> (C::Output, f64) {
    let mut number = [C::Output::default()];
    let value = convert.convert(StoredNumbers { number_type, bytes, is_shuffled: false }, 0, &mut number);
    (number[0], value)
}

/// Rows of the output, in (z, y) order, that one row of chunks along x fills.
struct Strip<'a, T> {
    z: usize,
    y: usize,
    rows: Vec<&'a mut [T]>,
}

enum Failed {
    Io(Hdf5Error),
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
