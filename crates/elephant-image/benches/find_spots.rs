//! Probability map to cells on 64 × 384 × 384 voxels with 300 cells, against scikit-image's route.
//!
//! `cargo bench -p elephant-image`; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and scikit-image.

use std::{
    env,
    error::Error,
    fs::File,
    hint::black_box,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use elephant_image::{Dims, SpotOptions, find_spots, normalize, resize_trilinear};
use elephant_types::{CancelToken, Numerics, SplitMix64, VoxelSize};
use ndarray::{Array3, Axis};
use rayon::prelude::*;

const SHAPE: [usize; 3] = [64, 384, 384];
const VOXEL_UM: [f64; 3] = [2.0, 0.5, 0.5];
const CELLS: usize = 300;
const RUNS: usize = 15;

type AnyResult<T> = Result<T, Box<dyn Error>>;

fn main() -> AnyResult<()> {
    let map = probability_map();
    let mut peer = Peer::start(&map)?;
    let (mut ours, mut floor, mut theirs) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let (seconds, cells) = timed(|| find_spots(map.view(), &options(), &CancelToken::default()).map(|s| s.len()));
        assert_eq!(cells?, CELLS);
        ours = ours.min(seconds);
        floor = floor.min(timed(|| highest(&map)).0);
        if let Some(peer) = &mut peer {
            let (seconds, cells) = peer.run()?;
            assert_eq!(cells, CELLS, "the peer finds the same cells");
            theirs = theirs.min(seconds);
        }
    }
    let (ours, floor, theirs) = (ours * 1e3, floor * 1e3, theirs * 1e3);
    match peer {
        Some(_) => println!("find_spots: ours {ours:.2} ms, peer {theirs:.2} ms, ratio {:.1}", theirs / ours),
        None => println!("find_spots: ours {ours:.2} ms, peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
    println!("find_spots, reading the map once: {floor:.2} ms, ours / floor {:.2}", ours / floor);
    others(&map);
    Ok(())
}

/// Figures without a peer: an untrained network's map, and the preparation of a frame.
fn others(map: &Array3<f32>) {
    let noise = Array3::from_shape_fn(SHAPE, |(z, y, x)| noise((z * 384 + y) * 384 + x));
    let best = |run: &mut dyn FnMut()| (0..5).map(|_| timed(&mut *run).0).fold(f64::INFINITY, f64::min) * 1e3;
    for threshold in [0.95, 0.5] {
        let options = SpotOptions { p_thresh: threshold, ..options() };
        let search = best(&mut || {
            black_box(find_spots(noise.view(), &options, &CancelToken::default()).is_ok());
        });
        println!("find_spots on noise, {:.0} % foreground: ours {search:.1} ms", 100.0 * (1.0 - threshold));
    }
    let mut frame = map.clone();
    println!("normalize: ours {:.1} ms", best(&mut || normalize(frame.view_mut())));
    let resize = best(&mut || {
        black_box(resize_trilinear(map.view(), [48, 400, 400], &CancelToken::default()).is_ok());
    });
    println!("resize_trilinear to 48 x 400 x 400: ours {resize:.1} ms");
}

fn options() -> SpotOptions {
    SpotOptions {
        t: 0,
        voxel_size: VoxelSize::new(VOXEL_UM).expect("the edges are positive"),
        origin_vox: [0.0; 3],
        c_ratio: 0.4,
        p_thresh: 0.5,
        r_min_um: 1.0,
        r_max_um: 8.0,
        dims: Dims::ThreeD,
        use_2d: false,
        numerics: Numerics::Original,
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = black_box(run());
    (start.elapsed().as_secs_f64(), result)
}

/// The least that any search must do: look at every value once, on all threads.
fn highest(map: &Array3<f32>) -> f32 {
    let highest = |plane: ndarray::ArrayView2<'_, f32>| plane.fold(0.0_f32, |high, &value| high.max(value));
    map.axis_iter(Axis(0)).into_par_iter().map(highest).reduce(|| 0.0, f32::max)
}

/// A number from 0 to 1, the same on every machine.
fn noise(index: usize) -> f32 {
    let number = SplitMix64::mix((index as u64).wrapping_mul(SplitMix64::GAMMA));
    (number >> 40) as f32 / (1 << 24) as f32
}

/// Nucleus centres (radius 2.4 µm) on a jittered grid, over faint background.
fn probability_map() -> Array3<f32> {
    let mut map = Array3::from_shape_fn(SHAPE, |(z, y, x)| 0.1 * noise((z * 384 + y) * 384 + x));
    for cell in 0..CELLS {
        let (column, row, layer) = (cell % 10, cell / 10 % 10, cell / 100);
        let jitter = |axis: usize| f64::from(noise(1_000_000_000 + 3 * cell + axis)) - 0.5;
        let center = [
            (layer as f64 + 0.5) * 64.0 / 3.0 + 6.0 * jitter(0),
            (row as f64 + 0.5) * 38.4 + 12.0 * jitter(1),
            (column as f64 + 0.5) * 38.4 + 12.0 * jitter(2),
        ];
        draw_cell(&mut map, center);
    }
    map
}

fn draw_cell(map: &mut Array3<f32>, center: [f64; 3]) {
    const RADIUS_UM: f64 = 2.4;
    let range = |axis: usize| {
        let reach = 2.0 * RADIUS_UM / VOXEL_UM[axis];
        (center[axis] - reach).max(0.0) as usize..((center[axis] + reach) as usize + 1).min(SHAPE[axis])
    };
    for z in range(0) {
        for y in range(1) {
            for x in range(2) {
                let square: f64 =
                    (0..3).map(|axis| (([z, y, x][axis] as f64 - center[axis]) * VOXEL_UM[axis]).powi(2)).sum();
                let probability = 1.0 / (1.0 + (square / (RADIUS_UM * RADIUS_UM)).powi(4));
                map[(z, y, x)] = map[(z, y, x)].max(probability as f32);
            }
        }
    }
}

/// The Python peer, which runs once for each line it gets.
struct Peer {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn start(map: &Array3<f32>) -> AnyResult<Option<Self>> {
        let Ok(python) = env::var("ELEPHANT_PEER_PYTHON") else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("map.npy");
        write_npy(&path, map)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/peers/find_spots.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(&path)
            .args(["--r-max", "8"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(process.stdout.take().ok_or("the peer has no output")?);
        Ok(Some(Self { process, answers, _folder: folder }))
    }

    fn run(&mut self) -> AnyResult<(f64, usize)> {
        let input = self.process.stdin.as_mut().ok_or("the peer has no input")?;
        writeln!(input)?;
        input.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (seconds, cells) = line.trim().split_once(' ').ok_or("the peer failed")?;
        Ok((seconds.parse()?, cells.parse()?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "a temporary file of this run")]
fn write_npy(path: &Path, map: &Array3<f32>) -> AnyResult<()> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {:?}, }}", map.dim());
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for value in map {
        file.write_all(&value.to_le_bytes())?;
    }
    Ok(file.flush()?)
}
