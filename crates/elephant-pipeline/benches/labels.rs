//! Drawing the labels of 100 spots in one frame of 64 × 512 × 512, against the original's way
//! (`benches/peers/update_labels.py`), and against writing the files alone. Then reading the list of labels of a long movie,
//! as each epoch of a training does, against parsing all of it, as the original does for each crop.
//!
//! `cargo bench -p elephant-pipeline --bench labels`; set `ELEPHANT_PEER_PYTHON` to a Python with NumPy and zarr<3. Peer and we
//! draw in turns, each into frames of its own; the peer then compares: not a voxel may be different. That run of ours is with
//! the original's numerics, the timed ones with the default ones.

#![allow(clippy::disallowed_methods)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use elephant_fs::replace_unflushed;
use elephant_memory::Memory;
use elephant_pipeline::{Labels, UpdateLabels, Workspace};
use elephant_testkit::project_root;
use elephant_types::{Numerics, SpotTag, TaggedSpot, TaskContext, VoxelSize};
use elephant_volume::{Attributes, DataType, Dataset, DatasetShape, Store};
use ndarray::Array4;
use serde_json::json;

const ROUNDS: usize = 6;
const FRAME: [usize; 3] = [64, 512, 512];
const VOXEL_UM: [f64; 3] = [1.0, 0.5, 0.5];
const CENTER_RATIO: f64 = 0.4;

/// Timepoints and cells in each of them.
const LIST: [usize; 2] = [500, 2000];

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let workspace = Workspace::open(folder.path()).expect("a workspace");
    let dataset = workspace.dataset(&"bench".parse().expect("a valid name")).expect("a folder");
    make_dataset(&dataset);
    measure_list(&workspace);
    let bench = Bench {
        labels: Labels::new(&workspace, Memory::default(), Numerics::Corrected),
        original: Labels::new(&workspace, Memory::default(), Numerics::Original),
        dataset,
        peer: env::var_os("ELEPHANT_PEER_PYTHON").map(PathBuf::from),
    };
    bench.measure("update_labels, 100 spots", |_| Request { spots: spots(0), background: 0.0 });
    // Frames have labels from here on.
    bench.measure("update_labels, 100 spots, one of them corrected", |round| {
        let correct = |spot: TaggedSpot| if *spot.label == *round.to_string() { wrong(spot) } else { spot };
        Request { spots: spots(0).into_iter().map(correct).collect(), background: 0.0 }
    });
    bench.measure("update_labels, 100 spots, all moved", |_| Request { spots: spots(1), background: 0.0 });
    bench.measure("update_labels, 100 spots and background", |_| Request { spots: spots(2), background: 0.2 });
}

struct Request {
    spots: Vec<TaggedSpot>,
    background: f64,
}

struct Bench {
    labels: Labels,
    original: Labels,
    dataset: PathBuf,
    peer: Option<PathBuf>,
}

impl Bench {
    fn measure(&self, name: &str, request: impl Fn(usize) -> Request) {
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for t in 0..ROUNDS {
            let request = request(t);
            ours = ours.min(seconds(|| update(&self.labels, t, &request)));
            if let Some(python) = &self.peer {
                theirs = theirs.min(self.run_peer(python, ROUNDS + t, &request));
            }
        }
        if let Some(python) = &self.peer {
            let request = request(0);
            update(&self.original, 2 * ROUNDS, &request);
            self.run_peer(python, 2 * ROUNDS, &request);
        }
        let files = chunk_files(&self.dataset);
        let copies = self.dataset.join("copies");
        let writing = (0..ROUNDS).map(|_| seconds(|| write_copies(&files, &copies))).fold(f64::INFINITY, f64::min);
        let (ours, theirs, writing) = (ours * 1e3, theirs * 1e3, writing * 1e3);
        match self.peer {
            Some(_) => println!("{name}: ours {ours:.1} ms, peer {theirs:.0} ms, ratio {:.0}", theirs / ours),
            None => println!("{name}: ours {ours:.1} ms, peer skipped: set ELEPHANT_PEER_PYTHON"),
        }
        let ratio = ours / writing;
        println!("{name}: {} new files in one thread {writing:.1} ms, ours / that {ratio:.2}", files.len());
    }

    /// The seconds of an update by the peer. In the last frame it must not change a voxel.
    fn run_peer(&self, python: &Path, t: usize, request: &Request) -> f64 {
        let spots_file = self.dataset.join("spots.json");
        fs::write(&spots_file, to_json(t, request).to_string()).expect("the spots are written");
        let script = project_root().join("benches/peers/update_labels.py");
        let output = Command::new(python).arg(script).arg(&self.dataset).arg(spots_file).output();
        let output = output.expect("the peer starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.trim().split_once(' ');
        let (seconds, changed) =
            numbers.unwrap_or_else(|| panic!("the peer failed: {}", String::from_utf8_lossy(&output.stderr)));
        assert!(t < 2 * ROUNDS || changed == "0", "voxels are different");
        seconds.parse().expect("the peer prints seconds")
    }
}

fn update(labels: &Labels, t: usize, request: &Request) {
    let request = UpdateLabels {
        dataset: "bench".parse().expect("a valid name"),
        spots: request.spots.iter().map(|spot| TaggedSpot { t, ..spot.clone() }).collect(),
        voxel_size: VoxelSize::new(VOXEL_UM).expect("a valid size"),
        center_ratio: CENTER_RATIO,
        background_threshold: request.background,
        is_live: false,
    };
    labels.update(&request, &TaskContext::detached()).expect("the labels are drawn");
}

fn measure_list(workspace: &Workspace) {
    let [timepoints, cells] = LIST;
    let name = "long".parse().expect("a valid name");
    let folder = workspace.dataset(&name).expect("a folder");
    let shape = DatasetShape { timepoints, frame: FRAME, is_3d: true };
    let dataset = Dataset::create(&folder, shape, DataType::U8).expect("the dataset is made");
    let store = dataset.store(Store::SegLabels);
    let place = |t: usize, cell: usize| [(t + cell) % FRAME[0], (t + 37 * cell) % FRAME[1], (t + 71 * cell) % FRAME[2]];
    let list = |t: usize| serde_json::value::to_raw_value(&(0..cells).map(|cell| place(t, cell)).collect::<Vec<_>>());
    let attributes: Attributes =
        (0..timepoints).map(|t| (format!("label.indices.{t}"), list(t).expect("numbers have a JSON form"))).collect();
    let best = |work: &mut dyn FnMut()| (0..ROUNDS).map(|_| seconds(&mut *work)).fold(f64::INFINITY, f64::min) * 1e3;
    let written = best(&mut || store.replace_attributes(&attributes).expect("they are written"));
    let file = folder.join("seg_labels.zarr/.zattrs");
    let bytes = file.metadata().expect("the file is there").len();
    let read = best(&mut || drop(store.attributes().expect("they are read")));
    let labels = Labels::new(workspace, Memory::default(), Numerics::Corrected);
    let parsed = best(&mut || drop(labels.centroids(&name).expect("they are places")));
    let values = best(&mut || {
        let text = fs::read(&file).expect("the file is there");
        drop(serde_json::from_slice::<serde_json::Value>(&text).expect("it is JSON"));
    });
    let size = format!("list of {timepoints} timepoints with {cells} labels, {:.1} MB", bytes as f64 / 1e6);
    println!("{size}: written in {written:.1} ms, read in {read:.1} ms, all places of it in {parsed:.1} ms");
    println!("{size}: as JSON values in {values:.1} ms");
}

/// The same spot, found where there is no cell.
fn wrong(spot: TaggedSpot) -> TaggedSpot {
    TaggedSpot { tag: SpotTag::FalsePositive, ..spot }
}

/// Noise, so that the background is not all or nothing.
fn make_dataset(folder: &Path) {
    let shape = DatasetShape { timepoints: 2 * ROUNDS + 1, frame: FRAME, is_3d: true };
    let dataset = Dataset::create(folder, shape, DataType::U8).expect("the dataset is made");
    let [z, y, x] = FRAME;
    let mut state = 1_u32;
    let image = Array4::from_shape_simple_fn((1, z, y, x), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    for t in 0..=2 * ROUNDS {
        let images = dataset.store(Store::Images);
        images.write(&[t, 0, 0, 0], image.view().into_dyn()).expect("the image is written");
    }
}

/// A hundred cells of 4 to 6 µm, on a grid with some disorder, three of four found.
fn spots(shift: usize) -> Vec<TaggedSpot> {
    let spot = |index: usize| {
        let moved = index + 13 * shift;
        let place = |step: usize, modulus: usize| ((moved * step) % modulus) as f64 / modulus as f64;
        let [depth, height, width] = std::array::from_fn(|axis| FRAME[axis] as f64 * VOXEL_UM[axis]);
        let variance = |axis: usize| (4.0 + 2.0 * place(7 + axis * 12, 29)).powi(2);
        TaggedSpot {
            t: 0,
            center_um: [place(37, 101) * depth, place(53, 103) * height, place(71, 107) * width],
            covariance_um2: [[variance(0), 1.0, 0.5], [1.0, variance(1), -1.0], [0.5, -1.0, variance(2)]],
            tag: if index.is_multiple_of(4) { SpotTag::FalseNegative } else { SpotTag::TruePositive },
            label: index.to_string().into(),
        }
    };
    (0..100).map(spot).collect()
}

fn to_json(t: usize, request: &Request) -> serde_json::Value {
    let spot = |spot: &TaggedSpot| {
        let [z, y, x] = spot.center_um;
        let covariance: Vec<f64> = spot.covariance_um2.iter().flatten().rev().copied().collect();
        json!({"t": t, "pos": [x, y, z], "covariance": covariance, "tag": spot.tag.as_str()})
    };
    let [z, y, x] = VOXEL_UM;
    json!({
        "t": t, "scales": [x, y, z], "c_ratio": CENTER_RATIO, "auto_bg_thresh": request.background,
        "spots": request.spots.iter().map(spot).collect::<Vec<_>>()
    })
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// The chunks of the first frame's labels.
fn chunk_files(dataset: &Path) -> Vec<(String, Vec<u8>)> {
    let stores = [Store::SegLabels, Store::SegLabelsVis].map(|store| dataset.join(store.folder()));
    let entries = stores.iter().flat_map(|store| store.read_dir().expect("the store is there"));
    let paths = entries.map(|entry| entry.expect("the store is readable").path());
    let named = paths.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    let chunks = named.filter(|(name, _)| name.starts_with("0."));
    chunks.map(|(name, path)| (name, fs::read(path).expect("the chunk is there"))).collect()
}

/// Writes them as new files, as an update does.
fn write_copies(files: &[(String, Vec<u8>)], folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for (index, (name, content)) in files.iter().enumerate() {
        replace_unflushed(&folder.join(format!("{index}-{name}")), content).expect("the chunk is written");
    }
}
