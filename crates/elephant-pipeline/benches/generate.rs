//! Dataset generation against the original's way (`benches/peers/generate_dataset.py`), and against its floor's larger part.
//!
//! `cargo bench -p elephant-pipeline`; set `ELEPHANT_PEER_PYTHON` to a Python with h5py, NumPy and zarr<3, and
//! `ELEPHANT_BENCH_MOVIE` to a `.h5` file to convert another movie than the synthetic one.

#![allow(clippy::disallowed_methods)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use elephant_bdv::{BdvFile, Scale};
use elephant_pipeline::{GenerateOptions, generate_dataset};
use elephant_synth::{EmbryoOptions, Preset, write_movie};
use elephant_testkit::project_root;
use elephant_types::TaskContext;

const ROUNDS: usize = 3;

fn main() {
    let movie = env::var_os("ELEPHANT_BENCH_MOVIE").map_or_else(synthetic_movie, PathBuf::from);
    let peer = env::var_os("ELEPHANT_PEER_PYTHON").map(PathBuf::from);
    // The datasets stay until the end: after many files were deleted, ext4 is slow to make new ones for some minutes.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut ours, mut theirs, mut reading) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    let mut peak = None;
    for round in 0..ROUNDS {
        let output = folder.path().join(format!("ours{round}"));
        ours = ours.min(seconds(|| convert(&movie, &output)));
        peak = peak.or_else(peak_memory);
        reading = reading.min(seconds(|| read_only(&movie)));
        if let Some(python) = &peer {
            theirs = theirs.min(run_peer(python, &movie, &folder.path().join(format!("peer{round}"))));
        }
    }
    let rate = voxels(&movie) as f64 / ours / 1e6;
    let (ours, theirs, reading) = (ours * 1e3, theirs * 1e3, reading * 1e3);
    match peer {
        Some(_) => println!("generate_dataset: ours {ours:.0} ms, peer {theirs:.0} ms, ratio {:.1}", theirs / ours),
        None => println!("generate_dataset: ours {ours:.0} ms, peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
    if let Some(peak) = peak {
        println!("generate_dataset, peak memory: {peak} MB");
    }
    println!(
        "generate_dataset, {rate:.0} Mvoxel/s; reading the movie alone: {reading:.0} ms, ours / that {:.2}",
        ours / reading
    );
}

/// The most memory that this process has used so far, in MB, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024 / 1_000_000)
}

/// An embryo of the size of a small real movie's frames, kept between runs.
fn synthetic_movie() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-embryo");
    let options = EmbryoOptions {
        timepoints: 10,
        shape: [64, 384, 384],
        nuclei: 300,
        radius_um: 6.0,
        ..EmbryoOptions::preset(Preset::Small, 0)
    };
    if !folder.join("embryo.xml").is_file() {
        let name = "embryo".parse().expect("a valid name");
        write_movie(&folder, &name, &options, &TaskContext::detached()).expect("the movie is written");
    }
    folder.join("embryo.h5")
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

fn convert(movie: &Path, folder: &Path) {
    generate_dataset(&GenerateOptions::new(movie, folder), &TaskContext::detached())
        .expect("the movie can be converted");
}

fn read_only(path: &Path) {
    let movie = BdvFile::open(path).expect("the movie opens");
    let mut voxels = Vec::new();
    for &t in movie.timepoints() {
        let volume = movie.volume(t, 0, 0).expect("the volume opens").expect("the movie has no gaps");
        let [z, y, x] = volume.shape();
        voxels.resize(z * y * x, 0);
        volume.read(&[0..z, 0..y, 0..x], &Scale::default(), &mut voxels).expect("the volume is readable");
    }
}

fn voxels(path: &Path) -> usize {
    let movie = BdvFile::open(path).expect("the movie opens");
    let shape = movie.first_volume(movie.timepoints(), 0, 0).expect("the movie has a volume").shape();
    movie.timepoints().len() * shape.iter().product::<usize>()
}

fn run_peer(python: &Path, movie: &Path, folder: &Path) -> f64 {
    let script = project_root().join("benches/peers/generate_dataset.py");
    let output = Command::new(python).arg(script).arg(movie).arg(folder).output().expect("the peer starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("the peer failed: {}", String::from_utf8_lossy(&output.stderr)))
}
