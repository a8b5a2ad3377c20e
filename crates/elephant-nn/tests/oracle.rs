//! The original server's own numbers, computed by its own functions (`../shared/oracle`).

#![allow(clippy::disallowed_methods)]

use std::{path::Path, sync::Arc};

use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model};
use elephant_testkit::{read_json, read_npy, shared};
use elephant_types::{KeepAxials, NetworkKind, Numerics, ProbabilityOutput, SegmentationRequest, TaskContext};
use ndarray::{Array3, Array4, ArrayD, Axis, Ix3, Ix4};
use serde_json::Value;

/// Largest difference from the original's probabilities and, where these are not tiny, from their logarithms. On the
/// machine that made the numbers it is 0 with the original's numerics.
const TOLERANCE: f32 = 1e-4;

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
    request: SegmentationRequest,
    expected: ArrayD<f32>,
}

/// A manifest's case, or `None` when its arrays are not there.
fn load<'a>(folder: &Path, models: &Path, case: &'a Value) -> Option<Case<'a>> {
    let input = folder.join(text(&case["input"], "file"));
    let output = folder.join(text(&case["output"], "file"));
    let model = models.join(text(case, "model"));
    if !input.exists() || !output.exists() || !model.exists() {
        return None;
    }
    let model = Arc::new(Model::read(&model).unwrap());
    let kind = model.kind();
    let patch: Vec<usize> =
        case["patch_zyx"].as_array().into_iter().flatten().map(|p| p.as_u64().unwrap() as usize).collect();
    let request = SegmentationRequest {
        image: volume(read_npy(&input), kind),
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
    Some(Case { name: text(case, "name"), model, request, expected: read_npy(&output) })
}

#[test]
fn forward_passes_match_the_originals() {
    let Some(models) = shared("oracle/models") else { return };
    let manifest = read_json(&models.join("manifest.json"));
    let device = device();
    let mut checked = 0;
    for case in manifest["cases"].as_array().unwrap().iter().filter(|case| text(case, "kind") == "seg") {
        let Some(case) = load(&models, &models, case) else { continue };
        let predict = |numerics| {
            let request = SegmentationRequest { numerics, ..case.request.clone() };
            device.segment(Arc::clone(&case.model), request, TaskContext::detached()).unwrap()
        };
        let logarithms = classes(case.expected.index_axis_move(Axis(0), 0), case.model.kind());
        let original = predict(Numerics::Original);
        for (probability, logarithm) in original.iter().zip(&logarithms).filter(|(p, _)| **p > 1e-4) {
            assert!(
                (probability.ln() - logarithm).abs() < TOLERANCE,
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
        let expected = classes(case.expected, case.model.kind());
        for batch_size in [1, 3] {
            let request = SegmentationRequest { batch_size, ..case.request.clone() };
            let found = device.segment(Arc::clone(&case.model), request, TaskContext::detached()).unwrap();
            let difference = largest_difference(&found, &expected);
            assert!(difference < TOLERANCE, "{}: {difference}", case.name);
        }
        checked += 1;
    }
    assert!(checked >= 4, "{checked} cases");
}
