//! Reading a movie against its floor: inflating the chunks, which are in memory already, on all cores.
//!
//! `ELEPHANT_BENCH_MOVIE` names a `.h5` file with gzip-compressed chunks.

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use elephant_h5::BdvFile;
use libdeflater::Decompressor;
use rayon::prelude::*;

const ROUNDS: usize = 3;

fn main() {
    let Some(movie) = env::var_os("ELEPHANT_BENCH_MOVIE").map(PathBuf::from) else {
        println!("movie reading: skipped, set ELEPHANT_BENCH_MOVIE to a BigDataViewer .h5 file");
        return;
    };
    let (chunks, chunk_bytes) = stored_chunks(&movie);
    let (mut reading, mut inflating, mut voxels) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        reading = reading.min(seconds(|| voxels = read(&movie)));
        inflating = inflating.min(seconds(|| inflate(&chunks, chunk_bytes)));
    }
    let rate = voxels as f64 / reading / 1e6;
    println!(
        "movie reading: ours {:.0} ms ({rate:.0} Mvoxel/s), inflating alone {:.0} ms, ratio to the floor {:.2}",
        reading * 1e3,
        inflating * 1e3,
        reading / inflating
    );
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

fn read(path: &Path) -> usize {
    let movie = BdvFile::open(path).expect("the movie opens");
    let mut voxels = Vec::new();
    for &t in movie.timepoints() {
        let volume = movie.volume(t, 0, 0).expect("the volume opens").expect("the movie has no gaps");
        let [z, y, x] = volume.shape();
        voxels.resize(z * y * x, 0);
        volume.read(&[0..z, 0..y, 0..x], &mut voxels).expect("the volume is readable");
    }
    movie.timepoints().len() * voxels.len()
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
