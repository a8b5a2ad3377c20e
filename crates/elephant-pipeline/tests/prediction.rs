//! Predictions with a network that marks everything: what they may take, and what they write beside each other.

#![allow(clippy::disallowed_methods)]

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use elephant_checkpoint::{Checkpoint, StateDict, Tensor};
use elephant_fs::FolderLock;
use elephant_memory::Memory;
use elephant_pipeline::{
    CropBox, ModelDownload, Models, PortError, PredictRequest, Predictor, PretrainedNetwork, PretrainedNetworks,
    SegmentationModel, Workspace,
};
use elephant_types::{
    Coded, ErrorCode, KeepAxials, NetworkKind, Numerics, ProbabilityOutput, SegmentationOptions, SegmentationRequest,
    TaskContext, VoxelSize,
};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use half::f16;
use ndarray::{Array4, ArrayD, IxDyn};

const SHAPE: DatasetShape = DatasetShape { timepoints: 1, frame: [2, 64, 64], is_3d: true };

/// Every voxel is a centre with the probability 1.
#[derive(Default)]
struct Marker {
    bytes: AtomicU64,
    calls: AtomicUsize,
}

impl SegmentationModel for Marker {
    fn segment(&self, _: &Path, request: SegmentationRequest, _: &TaskContext) -> Result<Array4<f32>, PortError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (z, y, x) = request.image.dim();
        let classes = if request.options.output == ProbabilityOutput::Center { 1 } else { 3 };
        Ok(Array4::ones((classes, z, y, x)))
    }

    fn segment_bytes(&self, _: [usize; 3], _: &SegmentationOptions) -> Result<u64, PortError> {
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    fn identify(&self, _: &Checkpoint) -> Result<NetworkKind, PortError> {
        Ok(NetworkKind::Volumetric)
    }

    fn initialise(&self, _: NetworkKind, _: u64) -> Result<Checkpoint, PortError> {
        unreachable!("the model is there")
    }
}

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, PortError> {
        unreachable!("nobody asked for {url}")
    }
}

struct Fixture {
    predictor: Predictor,
    network: Arc<Marker>,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    Dataset::create(&folder.path().join("datasets/fly"), SHAPE, DataType::U8).unwrap();
    let parameter = ("p".to_owned(), Tensor::from_f32(vec![1], &[0.0]).unwrap());
    let dict: StateDict = [parameter].into_iter().collect();
    Checkpoint::from(dict).write(&folder.path().join("models/m.pth")).unwrap();
    let network = Arc::new(Marker::default());
    let nowhere = PretrainedNetwork { bundled: b"", given: None, original: String::new() };
    let pretrained = PretrainedNetworks { volumetric: nowhere.clone(), planar: nowhere };
    let models = Arc::new(Models::new(&workspace, network.clone(), Arc::new(NoDownload), pretrained));
    let predictor = Predictor::new(&workspace, models, network.clone(), Memory::default(), Numerics::Corrected);
    Fixture { predictor, network, folder }
}

fn request(crop: Option<CropBox>) -> PredictRequest {
    PredictRequest {
        dataset: "fly".parse().unwrap(),
        model: "m.pth".parse().unwrap(),
        timepoint: 0,
        voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
        keep_axials: KeepAxials::first(0),
        is_3d: true,
        use_2d: false,
        is_pad: false,
        use_median: false,
        output_prediction: true,
        center_ratio: 0.4,
        threshold: 0.5,
        min_radius_um: 0.0,
        max_radius_um: 1000.0,
        patch: None,
        crop,
        input_size: None,
        batch_size: 1,
    }
}

#[test]
fn what_would_not_fit_is_refused_before_it_begins() {
    let fixture = fixture();
    fixture.network.bytes.store(1 << 50, Ordering::Relaxed);
    let error = fixture.predictor.predict(&request(None), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge, "{error}");
    assert!(error.to_string().starts_with("too little memory: use smaller patches"), "{error}");
    assert_eq!(fixture.network.calls.load(Ordering::Relaxed), 0);
    fixture.network.bytes.store(1 << 20, Ordering::Relaxed);
    fixture.predictor.predict(&request(None), &TaskContext::detached()).unwrap();
}

#[test]
fn overlapping_crops_that_are_predicted_at_once_lose_nothing() {
    let fixture = fixture();
    for _ in 0..8 {
        std::thread::scope(|scope| {
            for quarter in 0..4 {
                let fixture = &fixture;
                let origin = [0, 24 * (quarter / 2), 24 * (quarter % 2)];
                let crop = Some(CropBox { origin, size: [2, 40, 40] });
                scope.spawn(move || fixture.predictor.predict(&request(crop), &TaskContext::detached()).unwrap());
            }
        });
        let dataset = Dataset::open(&fixture.folder.path().join("datasets/fly")).unwrap();
        let mut stored = ArrayD::from_elem(IxDyn(&[1, 2, 64, 64, 3]), f16::ZERO);
        dataset.store(Store::SegOutputs).read(&[0; 5], stored.view_mut()).unwrap();
        assert!(stored.iter().all(|&value| value == f16::ONE));
        dataset.store(Store::SegOutputs).clear().unwrap();
    }
}

#[test]
fn nothing_is_predicted_while_the_dataset_is_made_anew() {
    let fixture = fixture();
    let making = FolderLock::try_acquire(&fixture.folder.path().join("datasets/fly"), "a test").unwrap();
    let error = fixture.predictor.predict(&request(None), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    drop(making);
    fixture.predictor.predict(&request(None), &TaskContext::detached()).unwrap();
}
