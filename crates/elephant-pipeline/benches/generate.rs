//! Dataset generation against the original's way (`benches/peers/generate_dataset.py`).
//!
//! `ELEPHANT_BENCH_MOVIE` names the `.h5` file to convert, `ELEPHANT_PEER_PYTHON` a Python with h5py, numpy and zarr<3.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use elephant_h5::BdvFile;
use elephant_pipeline::{GenerateOptions, generate_dataset};
use elephant_testkit::project_root;
use elephant_types::TaskContext;

const ROUNDS: usize = 3;

fn main() {
    let Some(movie) = env::var_os("ELEPHANT_BENCH_MOVIE").map(PathBuf::from) else {
        println!("dataset generation: skipped, set ELEPHANT_BENCH_MOVIE to a BigDataViewer .h5 file");
        return;
    };
    let peer = env::var_os("ELEPHANT_PEER_PYTHON").map(PathBuf::from);
    let (mut ours, mut theirs, mut reading) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        ours = ours.min(seconds(|| convert(&movie, folder.path())));
        reading = reading.min(seconds(|| read_only(&movie)));
        if let Some(python) = &peer {
            theirs = theirs.min(run_peer(python, &movie));
        }
    }
    let size = voxels(&movie) as f64;
    println!(
        "dataset generation: ours {:.0} ms, {:.0} Mvoxel/s; reading alone {:.0} ms",
        ours * 1e3,
        size / ours / 1e6,
        reading * 1e3
    );
    match peer {
        Some(_) => println!(
            "dataset generation: ours {:.0} ms, peer {:.0} ms, ratio {:.1}",
            ours * 1e3,
            theirs * 1e3,
            theirs / ours
        ),
        None => println!("dataset generation: peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
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
        volume.read(&[0..z, 0..y, 0..x], &mut voxels).expect("the volume is readable");
    }
}

fn voxels(path: &Path) -> usize {
    let movie = BdvFile::open(path).expect("the movie opens");
    let shape = movie.first_volume(0, 0).expect("the movie has a volume").shape();
    movie.timepoints().len() * shape.iter().product::<usize>()
}

fn run_peer(python: &Path, movie: &Path) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = project_root().join("benches/peers/generate_dataset.py");
    let output = Command::new(python).arg(script).arg(movie).arg(folder.path()).output().expect("the peer starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("the peer failed: {}", String::from_utf8_lossy(&output.stderr)))
}
