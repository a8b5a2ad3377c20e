//! Reading volumes against their floor: inflating the chunks, which are in memory already, on all cores.
//!
//! `cargo bench -p elephant-hdf5`; set `ELEPHANT_BENCH_MOVIE` to the `.h5` file of a BigDataViewer movie with
//! gzip-compressed chunks of 16 bit to read it instead of the synthetic one.

#![allow(clippy::disallowed_methods)]

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use elephant_hdf5::{Convert, Hdf5File, Reach, StoredNumbers, Writer};
use libdeflater::Decompressor;
use ndarray::Array3;
use rayon::prelude::*;

const ROUNDS: usize = 3;
const SHAPE: [usize; 3] = [64, 384, 384];
const CHUNK: [usize; 3] = [4, 32, 32];
const TIMEPOINTS: usize = 10;

fn main() {
    let movie = env::var_os("ELEPHANT_BENCH_MOVIE").map_or_else(noise, PathBuf::from);
    let (chunks, chunk_bytes) = stored_chunks(&movie);
    let (mut reading, mut inflating, mut voxels) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        reading = reading.min(seconds(|| voxels = read(&movie)));
        inflating = inflating.min(seconds(|| inflate(&chunks, chunk_bytes)));
    }
    let rate = voxels as f64 / reading / 1e6;
    let (reading, inflating) = (reading * 1e3, inflating * 1e3);
    println!("read a movie: {reading:.0} ms, {rate:.0} Mvoxel/s");
    println!("read a movie, inflating alone: {inflating:.0} ms, ours / floor {:.2}", reading / inflating);
}

/// A movie of a camera's noise, kept between runs.
fn noise() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-noise-volumes.h5");
    if !path.is_file() {
        let unfinished = path.with_extension("part");
        let writer = Writer::create(&unfinished, &path).expect("the movie is created");
        let mut state = 1_u64;
        for t in 0..TIMEPOINTS {
            let frame = Array3::from_shape_simple_fn(SHAPE, || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                90 + ((state >> 40) & 31) as i16 + ((state >> 50) & 31) as i16
            });
            let group = format!("t{t:05}/s00/0");
            writer.group(&group).expect("the group is made");
            writer.volume(&format!("{group}/cells"), frame.view(), CHUNK).expect("the frame is written");
        }
        writer.close().expect("the movie is complete");
        std::fs::rename(unfinished, &path).expect("the movie is moved");
    }
    path
}

/// Numbers of 16 bit as they are.
struct As16Bit;

impl Convert for As16Bit {
    type Output = u16;

    fn convert(&self, stored: StoredNumbers<'_>, first: usize, out: &mut [u16]) -> f64 {
        stored.copy_u16(first, out);
        out.iter().max().map_or(f64::NEG_INFINITY, |&largest| largest.into())
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

fn read(path: &Path) -> usize {
    let file = Hdf5File::open(path, Reach::Folder).expect("the movie opens");
    let root = file.root().expect("the movie has a root");
    let (mut voxels, mut total) = (Vec::new(), 0);
    for name in root.members().expect("the movie has groups") {
        let Some(cells) = root.dataset(&format!("{name}/s00/0/cells")).expect("the dataset opens") else { continue };
        let volume = cells.volume().expect("the volume opens");
        let [z, y, x] = volume.shape();
        voxels.resize(z * y * x, 0);
        volume.read(&[0..z, 0..y, 0..x], &As16Bit, &mut voxels).expect("the volume is readable");
        total += voxels.len();
    }
    total
}

/// The compressed chunks of setup 0, level 0, and how many bytes each inflates to.
fn stored_chunks(path: &Path) -> (Vec<Vec<u8>>, usize) {
    let bytes = std::fs::read(path).expect("the movie is readable");
    let file = hdf5_metno::File::open(path).expect("the movie opens");
    let mut chunks = Vec::new();
    let mut chunk_bytes = 0;
    for name in file.member_names().expect("the file has groups") {
        let Ok(cells) = file.dataset(&format!("{name}/s00/0/cells")) else { continue };
        chunk_bytes = cells.chunk().expect("the volume is chunked").iter().product::<usize>() * 2;
        let visit = |info: hdf5_metno::dataset::ChunkInfoRef<'_>| {
            let start = info.addr as usize;
            chunks.push(bytes[start..start + info.size as usize].to_vec());
            0
        };
        cells.chunks_visit(visit).expect("the index is readable");
    }
    (chunks, chunk_bytes)
}

fn inflate(chunks: &[Vec<u8>], chunk_bytes: usize) {
    let buffers = || (Decompressor::new(), vec![0; chunk_bytes + 64]);
    chunks.par_iter().for_each_init(buffers, |(decompressor, out), chunk| {
        decompressor.zlib_decompress(chunk, out).expect("the chunks are gzip-compressed");
    });
}
