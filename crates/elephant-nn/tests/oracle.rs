//! The original server's own numbers, computed by its own functions (`../shared/oracle`).

#![allow(clippy::disallowed_methods)]

mod common;

use std::{path::Path, sync::Arc};

use elephant_model::{CollectedPlanes, FlowOptions, ImageSource, ProbabilityOutput, SegmentationOptions};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision};
use elephant_testkit::{read_json, read_npy, shared};
use elephant_types::{KeepAxials, NetworkKind, Numerics, TaskContext};
use ndarray::{Array3, Array4, ArrayD, Axis, Ix3, Ix4};
use serde_json::Value;

/// Largest difference from the original's probabilities. On the machine that made the numbers it is 0 with the original's
/// numerics.
const TOLERANCE: f32 = 1e-4;
/// The same for their logarithms, where they are not tiny. oneDNN sums in another order on another kind of processor.
const LOGARITHM_TOLERANCE: f32 = 3e-4;

fn device() -> DeviceHandle {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() }).unwrap()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} is not text"))
}

/// Batch and channel axes of length 1 removed, z added in 2-D.
fn volume(mut array: ArrayD<f32>, kind: NetworkKind) -> Array3<f32> {
    array = array.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0);
    if kind == NetworkKind::Planar {
        array.insert_axis_inplace(Axis(0));
    }
    array.into_dimensionality::<Ix3>().unwrap()
}

fn classes(mut array: ArrayD<f32>, kind: NetworkKind) -> Array4<f32> {
    if kind == NetworkKind::Planar {
        array.insert_axis_inplace(Axis(1));
    }
    array.into_dimensionality::<Ix4>().unwrap()
}

fn largest_difference(a: &Array4<f32>, b: &Array4<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

struct Case<'a> {
    name: &'a str,
    model: Arc<Model>,
    image: Array3<f32>,
    options: SegmentationOptions,
    expected: ArrayD<f32>,
}

impl Case<'_> {
    fn predict(&self, device: &DeviceHandle, options: &SegmentationOptions) -> Array4<f32> {
        common::segment(device, &self.model, &self.image, options, &TaskContext::detached()).unwrap()
    }
}

/// A manifest's case, or `None` when its arrays are not there.
fn load<'a>(folder: &Path, models: &Path, case: &'a Value) -> Option<Case<'a>> {
    let input = folder.join(text(&case["input"], "file"));
    let output = folder.join(text(&case["output"], "file"));
    let model = models.join(text(case, "model"));
    if [&input, &output, &model].iter().any(|path| !path.try_exists().unwrap()) {
        return None;
    }
    let model = Arc::new(Model::read(&model).unwrap());
    let kind = model.kind();
    let patch: Vec<usize> =
        case["patch_zyx"].as_array().into_iter().flatten().map(|p| p.as_u64().unwrap() as usize).collect();
    let image = volume(read_npy(&input), kind);
    let options = SegmentationOptions {
        kind,
        keep_axials: KeepAxials::first(case["n_keep_axials"].as_i64().unwrap()),
        tile: match patch[..] {
            [z, y, x] => Some([z, y, x]),
            [y, x] => Some([1, y, x]),
            _ => None,
        },
        is_pad: case["is_pad"].as_bool().unwrap(),
        batch_size: 1,
        numerics: Numerics::Original,
        output: ProbabilityOutput::AllClasses,
    };
    Some(Case { name: text(case, "name"), model, image, options, expected: read_npy(&output) })
}

#[test]
fn forward_passes_match_the_originals() {
    let Some(models) = shared("oracle/models") else { return };
    let manifest = read_json(&models.join("manifest.json"));
    let device = device();
    let mut checked = 0;
    for case in manifest["cases"].as_array().unwrap().iter().filter(|case| text(case, "kind") == "seg") {
        let Some(case) = load(&models, &models, case) else { continue };
        let predict = |numerics| case.predict(&device, &SegmentationOptions { numerics, ..case.options });
        let logarithms = classes(case.expected.clone().index_axis_move(Axis(0), 0), case.model.kind());
        let original = predict(Numerics::Original);
        for (probability, logarithm) in original.iter().zip(&logarithms).filter(|(p, _)| **p > 1e-4) {
            assert!(
                (probability.ln() - logarithm).abs() < LOGARITHM_TOLERANCE,
                "{}: {} {logarithm}",
                case.name,
                probability.ln()
            );
        }
        let expected = logarithms.mapv(f32::exp);
        for found in [&original, &predict(Numerics::Corrected)] {
            let difference = largest_difference(found, &expected);
            assert!(difference < TOLERANCE, "{}: {difference}", case.name);
        }
        checked += 1;
    }
    assert!(checked >= 8, "{checked} cases");
}

#[test]
fn tiled_predictions_match_the_originals() {
    let (Some(models), Some(folder)) = (shared("oracle/models"), shared("oracle/predict")) else { return };
    let manifest = read_json(&folder.join("manifest.json"));
    let device = device();
    let mut checked = 0;
    for case in manifest.as_array().unwrap().iter().filter(|case| text(case, "name").contains("_seg_")) {
        let Some(case) = load(&folder, &models, case) else { continue };
        let expected = classes(case.expected.clone(), case.model.kind());
        for batch_size in [1, 3] {
            let found = case.predict(&device, &SegmentationOptions { batch_size, ..case.options });
            let difference = largest_difference(&found, &expected);
            assert!(difference < TOLERANCE, "{}: {difference}", case.name);
        }
        checked += 1;
    }
    assert!(checked >= 4, "{checked} cases");
}

#[test]
fn tiled_displacements_match_the_originals() {
    let (Some(models), Some(folder)) = (shared("oracle/models"), shared("oracle/predict")) else { return };
    let manifest = read_json(&folder.join("manifest.json"));
    let mut checked = 0;
    for case in manifest.as_array().unwrap().iter().filter(|case| text(case, "name").contains("_flow_")) {
        let model = Arc::new(Model::read(&models.join(text(case, "model"))).unwrap());
        let pair = read_npy(&folder.join(text(&case["input"], "file"))).index_axis_move(Axis(0), 0);
        let pair: Array4<f32> = pair.into_dimensionality().unwrap();
        let expected = classes(read_npy(&folder.join(text(&case["output"], "file"))), model.kind());
        let patch: Vec<usize> =
            case["patch_zyx"].as_array().unwrap().iter().map(|p| p.as_u64().unwrap() as usize).collect();
        for batch_size in [1, 3] {
            let options = FlowOptions {
                kind: model.kind(),
                keep_axials: KeepAxials::first(case["n_keep_axials"].as_i64().unwrap()),
                tile: Some([patch[0], patch[1], patch[2]]),
                is_pad: case["is_pad"].as_bool().unwrap(),
                batch_size,
                numerics: Numerics::Original,
            };
            let image: Arc<dyn ImageSource> = Arc::new(pair.clone());
            let mut collected = CollectedPlanes::new(image.shape());
            let context = TaskContext::detached();
            device().displacements(model.clone(), image, &options, &mut collected, &context).unwrap();
            let found = collected.into_map();
            // The original stores half precision, which is exact to 5e-4 below 1.
            let difference = largest_difference(&found, &expected);
            assert!(difference < 5e-4, "{}: {difference}", text(case, "name"));
        }
        checked += 1;
    }
    assert_eq!(checked, 1);
}

#[test]
fn half_precision_checkpoints_predict_almost_the_same() {
    let Some(models) = shared("oracle/models") else { return };
    let manifest = read_json(&models.join("manifest.json"));
    let case = manifest["cases"].as_array().unwrap().iter().find(|case| case["name"] == "seg_2d_s0_k4_nopad").unwrap();
    let case = load(&models, &models, case).unwrap();
    let half = Arc::new(Model::read(&models.join("seg_2d_float16.pth")).unwrap());
    assert_ne!(half.fingerprint(), case.model.fingerprint());
    let found = common::segment(&device(), &half, &case.image, &case.options, &TaskContext::detached()).unwrap();
    let expected = classes(case.expected.index_axis_move(Axis(0), 0), NetworkKind::Planar).mapv(f32::exp);
    let difference = largest_difference(&found, &expected);
    assert!(difference > 0.0 && difference < 5e-2, "{difference}");
}

/// Blurred nuclei of several sizes and brightnesses over noise, from 0 to 1.
fn nuclei(shape: [usize; 3]) -> Array3<f32> {
    let noise = |index: usize| ((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32;
    let [depth, height, width] = shape;
    let mut image = Array3::from_shape_fn(shape, |(z, y, x)| 0.1 * noise((z * height + y) * width + x));
    for cell in 0..24 {
        let at = |axis: usize, size: usize| noise(1_000_000 + 8 * cell + axis) * size as f32;
        let (z0, y0, x0) = (at(0, depth), at(1, height), at(2, width));
        let (radius, brightness) = (6.0 + at(3, 4), 0.4 + 0.5 * at(4, 1));
        for ((z, y, x), value) in image.indexed_iter_mut() {
            // A voxel is four times as deep as wide.
            let square = 16.0 * (z as f32 - z0).powi(2) + (y as f32 - y0).powi(2) + (x as f32 - x0).powi(2);
            *value = value.max(brightness / (1.0 + (square / (radius * radius)).powi(3)));
        }
    }
    image
}

#[test]
fn bf16_stays_close_to_f32_for_a_trained_network() {
    let Some(path) = shared("oracle/trained/seg_tiny.pth") else { return };
    let options = DeviceOptions { device: DeviceChoice::Cpu, precision: Precision::Bf16, ..DeviceOptions::default() };
    let half = DeviceHandle::start(options).unwrap();
    if half.info().unwrap().precision != Precision::Bf16 {
        elephant_testkit::skip("this CPU does not multiply bf16");
        return;
    }
    let (model, single) = (Arc::new(Model::read(&path).unwrap()), device());
    for n_keep_axials in [2, 4] {
        let options = SegmentationOptions {
            kind: NetworkKind::Volumetric,
            keep_axials: KeepAxials::first(n_keep_axials),
            tile: None,
            is_pad: true,
            batch_size: 1,
            numerics: Numerics::Corrected,
            output: ProbabilityOutput::AllClasses,
        };
        let image = nuclei([32, 96, 96]);
        let predict = |device| common::segment(device, &model, &image, &options, &TaskContext::detached());
        let (single, half) = (predict(&single).unwrap(), predict(&half).unwrap());
        let foreground = single.index_axis(Axis(0), 2).iter().filter(|center| **center > 0.5).count();
        assert!((1000..100_000).contains(&foreground), "the network finds something: {foreground}");
        let difference = largest_difference(&single, &half);
        assert!(difference > 0.0 && difference < 2e-2, "{n_keep_axials}: {difference}");
    }
}
