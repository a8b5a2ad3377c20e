//! Predictions with a network that marks everything: what they may take, and what they write beside each other.

#![allow(clippy::disallowed_methods)]

use std::{io::Read, sync::Arc};

use elephant_fs::FolderLock;
use elephant_memory::Memory;
use elephant_model::{ModelError, fake::FakeNetwork};
use elephant_pipeline::{
    CropBox, ModelDownload, Models, PredictRequest, Predictor, PretrainedNetwork, PretrainedNetworks, Workspace,
};
use elephant_types::{Coded, ErrorCode, KeepAxials, NetworkKind, Numerics, TaskContext, VoxelSize};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use half::f16;
use ndarray::{ArrayD, IxDyn};

const SHAPE: DatasetShape = DatasetShape { timepoints: 1, frame: [2, 64, 64], is_3d: true };

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        unreachable!("nobody asked for {url}")
    }
}

struct Fixture {
    predictor: Predictor,
    network: FakeNetwork,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    Dataset::create(&folder.path().join("datasets/fly"), SHAPE, DataType::U8).unwrap();
    FakeNetwork::checkpoint(NetworkKind::Volumetric, 0).write(&folder.path().join("models/m.pth")).unwrap();
    // Every voxel is a centre, whatever the image.
    let network = FakeNetwork::with_center_probability(|_| 1.0);
    let nowhere = PretrainedNetwork { bundled: b"", given: None, original: String::new() };
    let pretrained = PretrainedNetworks { volumetric: nowhere.clone(), planar: nowhere };
    let models = Arc::new(Models::new(&workspace, Arc::new(network.clone()), Arc::new(NoDownload), pretrained));
    let predictor =
        Predictor::new(&workspace, models, Arc::new(network.clone()), Memory::default(), Numerics::Corrected);
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
    fixture.network.set_segment_bytes(1 << 50);
    let error = fixture.predictor.predict(&request(None), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge, "{error}");
    assert!(error.to_string().starts_with("too little memory: use smaller patches"), "{error}");
    assert_eq!(fixture.network.segment_calls(), 0);
    fixture.network.set_segment_bytes(1 << 20);
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
        let mut stored = ArrayD::from_elem(IxDyn(&[1, 2, 64, 64, 1]), f16::ZERO);
        dataset.store(Store::SegOutputs).read(&[0, 0, 0, 0, 2], stored.view_mut()).unwrap();
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
