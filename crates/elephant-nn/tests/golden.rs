//! PyTorch's numbers for weights and images that a formula gives (`tests/golden/nn`).

mod common;

use std::sync::{Arc, LazyLock};

use elephant_checkpoint::{Checkpoint, StateDict, Tensor};
use elephant_model::{
    ModelInTraining, Objective, ProbabilityOutput, SegmentationOptions, TrainingBatch, TrainingOptions,
};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model};
use elephant_testkit::{golden, golden_number, golden_parameter, read_json, read_npy};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, Numerics, TaskContext};
use ndarray::{Array3, Array4, Ix4, s};
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

fn member(names_and_shapes: &Model, member: u64) -> StateDict {
    let parameters = names_and_shapes.checkpoint().members[0].iter();
    let parameter = |(stream, (name, like)): (u64, (&str, &Tensor))| {
        let values = golden_parameter(1000 * member + stream, name, like.shape());
        (name.to_owned(), Tensor::from_f32(like.shape().to_vec(), &values).unwrap())
    };
    (0..).zip(parameters).map(parameter).collect()
}

struct Case {
    name: String,
    model: Arc<Model>,
    image: Array3<f32>,
    options: SegmentationOptions,
    expected: Array4<f32>,
}

/// Built once: the formula takes a while for millions of weights.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let manifest = read_json(&golden("nn/cases.json"));
    manifest.as_array().unwrap().iter().enumerate().map(|(number, case)| load(number as u64, case)).collect()
});

static DEVICE: LazyLock<DeviceHandle> = LazyLock::new(|| start(2));

fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap()
}

fn load(case_number: u64, case: &Value) -> Case {
    let kind = if case["ndim"] == 3 { NetworkKind::Volumetric } else { NetworkKind::Planar };
    let sizes = |field: &str| -> Option<[usize; 3]> {
        let sizes: Vec<usize> = case[field].as_array()?.iter().map(|size| size.as_u64().unwrap() as usize).collect();
        Some([sizes[0], sizes[1], sizes[2]])
    };
    let shape = sizes("shape").unwrap();
    let pixels =
        (0..shape.iter().product::<usize>() as u64).map(|i| golden_number(9000 + case_number, i) as f32).collect();
    let names_and_shapes = Model::random(kind, 0).unwrap();
    let members = (0..case["members"].as_u64().unwrap()).map(|i| member(&names_and_shapes, i)).collect();
    let name = case["name"].as_str().unwrap().to_owned();
    Case {
        model: Arc::new(Model::new(Checkpoint::new(members)).unwrap()),
        image: Array3::from_shape_vec(shape, pixels).unwrap(),
        options: SegmentationOptions {
            kind,
            keep_axials: KeepAxials::first(case["n_keep_axials"].as_i64().unwrap()),
            tile: sizes("patch"),
            is_pad: case["is_pad"].as_bool().unwrap(),
            batch_size: 1,
            numerics: Numerics::Original,
            output: ProbabilityOutput::AllClasses,
        },
        expected: read_npy(&golden(&format!("nn/{name}.npy"))).into_dimensionality::<Ix4>().unwrap(),
        name,
    }
}

fn start(threads: usize) -> DeviceHandle {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, threads: Some(threads), ..DeviceOptions::default() })
        .unwrap()
}

fn predict(device: &DeviceHandle, case: &Case, options: SegmentationOptions) -> Array4<f32> {
    common::segment(device, &case.model, &case.image, &options, &TaskContext::detached()).unwrap()
}

#[track_caller]
fn assert_close(name: &str, found: &Array4<f32>, expected: &Array4<f32>) {
    assert_eq!(found.dim(), expected.dim(), "{name}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < TOLERANCE, "{name}: {difference}");
}

#[test]
fn predictions_match_pytorchs() {
    for case in CASES.iter() {
        assert_close(&case.name, &predict(&DEVICE, case, case.options), &case.expected);
    }
}

/// Where there is one tile, the two numerics differ in the order of sums alone.
#[test]
fn the_fast_arithmetic_differs_by_rounding() {
    for case in CASES.iter().filter(|case| case.options.tile.is_none()) {
        let options = SegmentationOptions { numerics: Numerics::Corrected, ..case.options };
        assert_close(&case.name, &predict(&DEVICE, case, options), &case.expected);
    }
}

#[test]
fn threads_and_batches_change_nothing_but_rounding() {
    let one_thread = start(1);
    for case in CASES.iter() {
        let options = |batch_size| SegmentationOptions { numerics: Numerics::Corrected, batch_size, ..case.options };
        let expected = predict(&DEVICE, case, options(1));
        // On processors without AVX-512, MKL adds up in an order that depends on the threads.
        assert_close(&case.name, &predict(&one_thread, case, options(1)), &expected);
        assert_close(&case.name, &predict(&DEVICE, case, options(3)), &expected);
    }
}

#[test]
fn the_center_alone_is_the_last_class() {
    let case = case("volume_tiled");
    for numerics in [Numerics::Original, Numerics::Corrected] {
        let options = |output| SegmentationOptions { numerics, output, ..case.options };
        let all = predict(&DEVICE, case, options(ProbabilityOutput::AllClasses));
        let center = predict(&DEVICE, case, options(ProbabilityOutput::Center));
        assert!(center == all.slice(s![2..3, .., .., ..]), "{numerics:?}");
    }
}

#[test]
fn corrected_probabilities_sum_to_one_everywhere() {
    let case = case("volume_tiled");
    // Sizes that are not resampled, which changes sums. Eleven planes in tiles of four: the original gives the fifth no
    // weight at all.
    let options = |numerics| SegmentationOptions { numerics, tile: Some([4, 16, 16]), ..case.options };
    let sums = |numerics| predict(&DEVICE, case, options(numerics)).sum_axis(ndarray::Axis(0));
    assert!(sums(Numerics::Corrected).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    assert!(sums(Numerics::Original).slice(s![4, .., ..]).iter().all(|sum| *sum == 0.0));
}

#[test]
fn a_step_of_adam_is_pytorchs() {
    for case in read_json(&golden("nn/adam_step.json")).as_array().unwrap() {
        let kind = if case["ndim"] == 3 { NetworkKind::Volumetric } else { NetworkKind::Planar };
        let shape: Vec<usize> =
            case["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let shape = [shape[0], shape[1], shape[2], shape[3]];
        let numbers =
            |stream| (0..shape.iter().product::<usize>() as u64).map(move |index| golden_number(stream, index));
        let batch = TrainingBatch::labelled(
            Array4::from_shape_vec(shape, numbers(9101).map(|value| value as f32).collect()).unwrap(),
            Array4::from_shape_vec(shape, numbers(9100).map(|value| (7.0 * value) as u8).collect()).unwrap(),
            KeepAxials::first(case["n_keep_axials"].as_i64().unwrap()),
        );
        let model = Arc::new(Model::new(member(&Model::random(kind, 0).unwrap(), 0).into()).unwrap());
        let options = TrainingOptions {
            objective: Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 },
            numerics: Numerics::Original,
        };
        let cancel = CancelToken::default();
        let training = DEVICE.train(model, options, None, &cancel).unwrap();
        let values = training.step(batch, 1e-3, &cancel).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        assert!((values.total / expected - 1.0).abs() < 1e-5, "{} instead of {expected}", values.total);
        let (model, _) = training.snapshot().unwrap();
        for (name, tensor) in model.members[0].iter() {
            let (values, expected) = (tensor.to_f32(), &case["parameters"][name]);
            let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let ends = [("first", &values[..3]), ("last", &values[values.len() - 3..])];
            let pairs = ends.iter().flat_map(|(end, values)| values.iter().zip(expected[end].as_array().unwrap()));
            // The first step moves every parameter by the sign of its gradient, which rounding decides where that is 0:
            // so it is for biases, which the norm behind them takes away again.
            let is_bias = name.ends_with("bias");
            let tolerance = if is_bias { 1e-3 } else { 1e-5 };
            for (found, expected) in pairs.filter(|_| !is_bias) {
                let expected = expected.as_f64().unwrap();
                assert!((f64::from(*found) - expected).abs() < tolerance, "{name}: {found} instead of {expected}");
            }
            let expected = expected["norm"].as_f64().unwrap();
            assert!((norm / expected - 1.0).abs() < tolerance, "{name}: norm {norm} instead of {expected}");
        }
    }
}
