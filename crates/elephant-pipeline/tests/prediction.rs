//! Predictions with a network that takes intensities for probabilities: what they may take, what they store, and what is left
//! when they fail.

#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use elephant_fs::FolderLock;
use elephant_image::{normalize, resampled_pitch, resize_trilinear};
use elephant_memory::Memory;
use elephant_model::{ModelError, fake::FakeNetwork};
use elephant_pipeline::{
    CropBox, ModelDownload, Models, PredictRequest, Predictor, PretrainedNetwork, PretrainedNetworks, Workspace,
};
use elephant_types::{CancelToken, Coded, ErrorCode, KeepAxials, NetworkKind, Numerics, TaskContext, VoxelSize};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use half::f16;
use ndarray::{Array3, Array4, ArrayD, Axis, Ix4, IxDyn, s};

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        unreachable!("{url} is not needed")
    }
}

struct Fixture {
    predictor: Predictor,
    network: FakeNetwork,
    dataset: PathBuf,
    _folder: tempfile::TempDir,
}

/// A dataset with one frame, and a network.
fn fixture(frame: [usize; 3], network: FakeNetwork) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    let dataset = folder.path().join("datasets/fly");
    Dataset::create(&dataset, DatasetShape { timepoints: 1, frame, is_3d: true }, DataType::U8).unwrap();
    FakeNetwork::checkpoint(NetworkKind::Volumetric, 0).write(&folder.path().join("models/m.pth")).unwrap();
    let nowhere = PretrainedNetwork { bundled: Some(b""), given: None, original: None };
    let pretrained = PretrainedNetworks {
        volumetric: nowhere.clone(),
        planar: nowhere.clone(),
        volumetric_flow: nowhere.clone(),
        planar_flow: nowhere,
    };
    let port = Arc::new(network.clone());
    let models = Arc::new(Models::new(&workspace, port.clone(), Arc::new(NoDownload), pretrained));
    let predictor = Predictor::new(&workspace, models, port, Memory::default(), Numerics::Corrected);
    Fixture { predictor, network, dataset, _folder: folder }
}

/// Every voxel is a centre with the probability 1.
fn marker() -> FakeNetwork {
    FakeNetwork::with_center_probability(|_| 1.0)
}

fn request() -> PredictRequest {
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
        crop: None,
        input_size: None,
        batch_size: 1,
    }
}

/// The stored probabilities, (z, y, x, class).
fn stored(dataset: &Path) -> Array4<f16> {
    let dataset = Dataset::open(dataset).unwrap();
    let [z, y, x] = dataset.frame_shape();
    let mut stored = ArrayD::from_elem(IxDyn(&[1, z, y, x, 3]), f16::NAN);
    dataset.store(Store::SegOutputs).read(&[0; 5], stored.view_mut()).unwrap();
    stored.index_axis_move(Axis(0), 0).into_dimensionality::<Ix4>().unwrap()
}

/// Writes a frame with two blobs, and returns it.
fn blobs(dataset: &Path) -> Array3<u8> {
    let dataset = Dataset::open(dataset).unwrap();
    let image = Array3::from_shape_fn(dataset.frame_shape(), |(z, y, x)| {
        let distance = |center: [f64; 3]| {
            [z, y, x].iter().zip(center).map(|(&at, center)| (at as f64 - center).powi(2)).sum::<f64>()
        };
        let brightness = |center| 200.0 / (1.0 + distance(center) / 12.0);
        (20.0 + brightness([4.0, 10.0, 12.0]) + brightness([9.0, 30.0, 40.0])) as u8
    });
    let frame = image.view().insert_axis(Axis(0)).into_dyn();
    dataset.store(Store::Images).write(&[0; 4], frame).unwrap();
    image
}

#[test]
fn a_prediction_that_would_not_fit_is_refused_before_it_begins() {
    let fixture = fixture([2, 64, 64], marker());
    fixture.network.set_segment_bytes(1 << 50);
    let error = fixture.predictor.predict(&request(), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge, "{error}");
    assert!(error.to_string().starts_with("too little memory: use smaller patches"), "{error}");
    assert_eq!(fixture.network.segment_calls(), 0);
    fixture.network.set_segment_bytes(1 << 20);
    fixture.predictor.predict(&request(), &TaskContext::detached()).unwrap();
}

#[test]
fn overlapping_crops_that_are_predicted_at_once_lose_nothing() {
    let fixture = fixture([2, 64, 64], marker());
    for _ in 0..8 {
        std::thread::scope(|scope| {
            for quarter in 0..4 {
                let fixture = &fixture;
                let origin = [0, 24 * (quarter / 2), 24 * (quarter % 2)];
                let crop = Some(CropBox { origin, size: [2, 40, 40] });
                let request = PredictRequest { crop, ..request() };
                scope.spawn(move || fixture.predictor.predict(&request, &TaskContext::detached()).unwrap());
            }
        });
        assert!(stored(&fixture.dataset).slice(s![.., .., .., 2]).iter().all(|&value| value == f16::ONE));
        Dataset::open(&fixture.dataset).unwrap().store(Store::SegOutputs).clear().unwrap();
    }
}

#[test]
fn nothing_is_predicted_while_the_dataset_is_generated_again() {
    let fixture = fixture([2, 64, 64], marker());
    let making = FolderLock::try_acquire(&fixture.dataset, "a test").unwrap();
    let error = fixture.predictor.predict(&request(), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    drop(making);
    fixture.predictor.predict(&request(), &TaskContext::detached()).unwrap();
}

#[test]
fn a_prediction_that_is_cancelled_on_its_way_changes_no_probabilities() {
    let fixture = fixture([12, 48, 56], marker());
    fixture.predictor.predict(&request(), &TaskContext::detached()).unwrap();
    let before = stored(&fixture.dataset);
    let files = || fs::read_dir(&fixture.dataset).unwrap().count();
    let files_before = files();
    // Blobs are something else than ones, so that a change would show.
    let Fixture { dataset, .. } = &fixture;
    blobs(dataset);
    let cancel = CancelToken::default();
    let reported = cancel.clone();
    let context = TaskContext::new(cancel, move |progress| {
        // The first planes have been taken by then.
        if progress.done == 3 {
            reported.cancel();
        }
    });
    let crop = Some(CropBox { origin: [1, 2, 3], size: [10, 40, 50] });
    let error = fixture.predictor.predict(&PredictRequest { crop, ..request() }, &context).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert_eq!(stored(dataset), before);
    assert_eq!(files(), files_before, "no staging folder stays");
}

#[test]
fn planes_are_found_and_stored_as_if_the_frame_was_predicted_in_one_piece() {
    let whole = CropBox { origin: [0; 3], size: [12, 48, 56] };
    let part = CropBox { origin: [1, 2, 3], size: [10, 40, 50] };
    for (crop, input_size, cells) in [
        (whole, None, 2),
        (part, None, 2),
        (whole, Some([12, 24, 28]), 2),
        (whole, Some([5, 60, 56]), 2),
        (whole, Some([23, 48, 20]), 2),
        (part, Some([6, 48, 28]), 2),
        // Half of the planes are one, in which one of the cells is too faint.
        (part, Some([1, 24, 28]), 1),
    ] {
        let fixture = fixture([12, 48, 56], FakeNetwork::default());
        let image = blobs(&fixture.dataset);
        let [z, y, x] = std::array::from_fn(|d| crop.origin[d]..crop.origin[d] + crop.size[d]);
        let mut seen = image.slice(s![z.clone(), y.clone(), x.clone()]).mapv(f32::from);
        normalize(seen.view_mut());
        let given = Some(crop).filter(|_| crop != whole);
        let request = PredictRequest { crop: given, input_size, threshold: 0.6, ..request() };
        let spots = fixture.predictor.predict(&request, &TaskContext::detached()).unwrap();
        assert_eq!(spots.len(), cells, "{crop:?} {input_size:?}");
        if let Some(input) = input_size {
            // Stored voxels that a rescaled one spans; the part is rescaled to the size that comes closest.
            let size = std::array::from_fn(|d| {
                let pitch = resampled_pitch([12, 48, 56][d], input[d], Numerics::Corrected);
                ((crop.size[d] - 1) as f64 / pitch).round() as usize + 1
            });
            let never = CancelToken::default();
            let small = resize_trilinear(seen.view(), size, &never).unwrap();
            seen = resize_trilinear(small.view(), crop.size, &never).unwrap();
        }
        let mut expected = Array3::from_elem([12, 48, 56], f16::ZERO);
        expected.slice_mut(s![z, y, x]).assign(&seen.mapv(f16::from_f32));
        assert_eq!(stored(&fixture.dataset).index_axis(Axis(3), 2), expected, "{crop:?} {input_size:?}");
    }
}
