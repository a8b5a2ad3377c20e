//! What a prediction of displacements takes outside the network, for 1,000 cells of a pair of frames of 64 × 512 × 512 voxels
//! of 16 bit: with a fake network that returns at once, and from the dataset.
//!
//! `cargo bench -p elephant-pipeline --bench flow_prediction`

#![allow(clippy::disallowed_methods)]

use std::{io::Read, sync::Arc, time::Instant};

use elephant_memory::Memory;
use elephant_model::{ModelError, fake::FakeNetwork};
use elephant_pipeline::{
    FlowPredictor, FlowSpot, ModelDownload, Models, PredictFlowRequest, PretrainedNetwork, PretrainedNetworks,
    Workspace,
};
use elephant_types::{KeepAxials, NetworkKind, Numerics, SplitMix64, TaskContext, VoxelSize};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::ArrayD;

const FRAME: [usize; 3] = [64, 512, 512];
const CELLS: usize = 1000;
const RUNS: usize = 5;

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        unreachable!("nobody asked for {url}")
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workspace = Workspace::open(folder.path()).expect("the workspace opens");
    make_frames(&folder.path().join("datasets/fly"));
    let model = folder.path().join("models/flow.pth");
    FakeNetwork::flow_checkpoint(NetworkKind::Volumetric, 0).write(&model).expect("the model is written");
    let nowhere = PretrainedNetwork { bundled: Some(b""), given: None, original: None };
    let pretrained = PretrainedNetworks {
        volumetric: nowhere.clone(),
        planar: nowhere.clone(),
        volumetric_flow: nowhere.clone(),
        planar_flow: nowhere,
    };
    let network = Arc::new(FakeNetwork::default());
    network.set_displacement([0.01, -0.02, 0.03]);
    let models = Arc::new(Models::new(&workspace, network.clone(), Arc::new(NoDownload), pretrained));
    let predictor = FlowPredictor::new(&workspace, models, network, Memory::default(), Numerics::Corrected);
    let mut random = SplitMix64::new(1);
    let mut uniform = |edge: f64| random.next_f64() * edge;
    let cell = |id: i64| FlowSpot {
        id,
        center_um: [uniform(128.0), uniform(256.0), uniform(256.0)],
        covariance_um2: [[16.0, 0.0, 0.0], [0.0, 16.0, 0.0], [0.0, 0.0, 16.0]],
    };
    let mut request = PredictFlowRequest {
        dataset: "fly".parse().expect("a name"),
        model: "flow.pth".parse().expect("a name"),
        timepoint: 1,
        spots: (0..CELLS as i64).map(cell).collect(),
        voxel_size: VoxelSize::new([2.0, 0.5, 0.5]).expect("positive edges"),
        keep_axials: KeepAxials::first(2),
        is_3d: true,
        max_displacement: 80.0,
        output_prediction: false,
        patch: Some([24, 384, 384]),
        crop: None,
        input_size: None,
        batch_size: 1,
    };
    let run = |request: &PredictFlowRequest| {
        let (begin, before) = (Instant::now(), cpu_seconds());
        let answers = predictor.predict(request, &TaskContext::detached()).expect("the pair is predicted");
        assert_eq!(answers.len(), CELLS);
        [begin.elapsed().as_secs_f64(), cpu_seconds() - before]
    };
    let (mut computed, mut stored) = ([f64::INFINITY; 2], [f64::INFINITY; 2]);
    let least = |a: [f64; 2], b: [f64; 2]| [a[0].min(b[0]), a[1].min(b[1])];
    for number in 0..RUNS {
        // Another field each time.
        request.max_displacement = 80.0 + number as f64;
        computed = least(computed, run(&request));
        stored = least(stored, run(&request));
    }
    let [computed_wall, computed_cpu] = computed;
    let [stored_wall, stored_cpu] = stored;
    println!(
        "{CELLS} cells, {FRAME:?} voxels: {computed_wall:.3} s ({computed_cpu:.2} CPU s) outside the network, \
         {stored_wall:.3} s ({stored_cpu:.2} CPU s) from the dataset"
    );
}

/// CPU seconds of this process, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the state is read");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Two frames of noise, which takes as long to read as any image.
fn make_frames(folder: &std::path::Path) {
    let shape = DatasetShape { timepoints: 2, frame: FRAME, is_3d: true };
    let dataset = Dataset::create(folder, shape, DataType::U16).expect("the dataset is made");
    let mut random = SplitMix64::new(2);
    for t in 0..2 {
        let frame = ArrayD::from_shape_simple_fn(vec![1, FRAME[0], FRAME[1], FRAME[2]], || {
            1 + (random.next_u64() % 4000) as u16
        });
        dataset.store(Store::Images).write(&[t, 0, 0, 0], frame.view()).expect("the frame is written");
    }
}
