//! Peak memory of predictions of sparse frames of 128, 256 and 512 planes of 2048 × 2048 voxels of 16 bit, with the fake
//! network, which takes intensities for probabilities: what the prediction itself holds, without any activations.
//!
//! `cargo bench -p elephant-pipeline --bench sparse_prediction`

#![allow(clippy::disallowed_methods)]

use std::{fs, io::Read, sync::Arc, time::Instant};

use elephant_memory::Memory;
use elephant_model::{ModelError, fake::FakeNetwork};
use elephant_pipeline::{
    ModelDownload, Models, PredictRequest, Predictor, PretrainedNetwork, PretrainedNetworks, Workspace,
};
use elephant_types::{KeepAxials, NetworkKind, Numerics, TaskContext, VoxelSize};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::ArrayD;

const PLANE: usize = 2048;
/// One blob for so many planes.
const PLANES_PER_BLOB: usize = 16;

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        unreachable!("nobody asked for {url}")
    }
}

fn main() {
    for (output_prediction, input_size) in [(false, false), (true, false), (true, true)] {
        for planes in [128, 256, 512] {
            predict(planes, output_prediction, input_size);
        }
    }
}

fn predict(planes: usize, output_prediction: bool, is_rescaled: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workspace = Workspace::open(folder.path()).expect("the workspace opens");
    let frame = [planes, PLANE, PLANE];
    make_frame(&folder.path().join("datasets/fly"), frame);
    let model = folder.path().join("models/m.pth");
    FakeNetwork::checkpoint(NetworkKind::Volumetric, 0).write(&model).expect("the model is written");
    let nowhere = PretrainedNetwork { bundled: Some(b""), given: None, original: None };
    let pretrained = PretrainedNetworks {
        volumetric: nowhere.clone(),
        planar: nowhere.clone(),
        volumetric_flow: nowhere.clone(),
        planar_flow: nowhere,
    };
    let network = Arc::new(FakeNetwork::default());
    let models = Arc::new(Models::new(&workspace, network.clone(), Arc::new(NoDownload), pretrained));
    let predictor = Predictor::new(&workspace, models, network, Memory::default(), Numerics::Corrected);
    let request = PredictRequest {
        dataset: "fly".parse().expect("a name"),
        model: "m.pth".parse().expect("a name"),
        timepoint: 0,
        voxel_size: VoxelSize::new([1.0; 3]).expect("positive edges"),
        keep_axials: KeepAxials::first(0),
        is_3d: true,
        use_2d: false,
        is_pad: false,
        use_median: false,
        output_prediction,
        center_ratio: 0.4,
        threshold: 0.5,
        min_radius_um: 0.0,
        max_radius_um: 1000.0,
        patch: Some([16, 384, 384]),
        crop: None,
        input_size: is_rescaled.then_some([planes / 2, PLANE / 2, PLANE / 2]),
        batch_size: 1,
    };
    let before = forget_peak();
    let begin = Instant::now();
    let spots = predictor.predict(&request, &TaskContext::detached()).expect("the frame is predicted");
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(spots.len(), planes / PLANES_PER_BLOB);
    println!(
        "{planes} planes, probabilities stored: {output_prediction}, rescaled: {is_rescaled}: {:.0} MB more at the peak, \
         {seconds:.1} s",
        (memory("VmHWM:") - before) as f64 / 1e3
    );
}

/// Blobs of 10 × 20 × 20 voxels; chunks without one have no file.
fn make_frame(folder: &std::path::Path, frame: [usize; 3]) {
    let shape = DatasetShape { timepoints: 1, frame, is_3d: true };
    let dataset = Dataset::create(folder, shape, DataType::U16).expect("the dataset is made");
    let blob = ArrayD::from_elem(vec![1, 10, 20, 20], 1000_u16);
    for (index, z) in (0..frame[0]).step_by(PLANES_PER_BLOB).enumerate() {
        let start = [0, z + 3, 97 * index % (PLANE - 20), 211 * index % (PLANE - 20)];
        dataset.store(Store::Images).write(&start, blob.view()).expect("the blob is written");
    }
}

/// Lets the peak begin at what is in use now, and returns that in kB.
fn forget_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").expect("the peak is forgotten");
    memory("VmRSS:")
}

/// A figure of this process in kB.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status is read");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the figure is there");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}
