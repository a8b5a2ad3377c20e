//! PyTorch's gradients for weights and crops that a formula gives (`tests/golden/nn`), and what must follow from them:
//! devices that share a batch compute the same.

use std::ops::Range;

use elephant_checkpoint::{Checkpoint, StateDict, Tensor as Parameter};
use elephant_model::{Objective, Targets, TrainingBatch, TrainingOptions};
use elephant_testkit::{golden, golden_number, golden_parameter, read_json};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, NetworkType, Numerics};
use ndarray::{Array4, Array5, Axis, s};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{Hardware, Trainer};
use crate::{Model, NnError};

/// Largest difference of a gradient's norm and of its dot product from PyTorch's, relative to that norm. PyTorch computed
/// in f64; nine blocks of normalisations amplify what rounding to f32 changes, up to a ReLU that turns over.
fn tolerance(numerics: Numerics) -> f64 {
    match numerics {
        Numerics::Original => 1e-2,
        Numerics::Corrected => 3e-2,
    }
}

/// The network of `generate.py`.
fn network(kind: NetworkKind, member: u64) -> StateDict {
    let names_and_shapes = Model::random(kind, 0).unwrap();
    let parameter = |(stream, (name, like)): (u64, (&str, &Parameter))| {
        let values = golden_parameter(1000 * member + stream, name, like.shape());
        (name.to_owned(), Parameter::from_f32(like.shape().to_vec(), &values).unwrap())
    };
    (0..).zip(names_and_shapes.checkpoint().members[0].iter()).map(parameter).collect()
}

fn kind(case: &Value) -> NetworkKind {
    if case["ndim"] == 3 { NetworkKind::Volumetric } else { NetworkKind::Planar }
}

/// The crops of `generate.py`, with labels of 0 to 6.
fn batch(case: &Value) -> TrainingBatch {
    let shape: Vec<usize> = case["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let shape = [shape[0], shape[1], shape[2], shape[3]];
    let numbers = |stream| (0..shape.iter().product::<usize>() as u64).map(move |index| golden_number(stream, index));
    TrainingBatch::labelled(
        Array4::from_shape_vec(shape, numbers(9101).map(|value| value as f32).collect()).unwrap(),
        Array4::from_shape_vec(shape, numbers(9100).map(|value| (7.0 * value) as u8).collect()).unwrap(),
        KeepAxials::first(case["n_keep_axials"].as_i64().unwrap()),
    )
}

fn classes(batch: &mut TrainingBatch) -> &mut Array4<u8> {
    match &mut batch.targets {
        Targets::Classes(labels) => labels,
        other => panic!("{other:?} are not classes"),
    }
}

fn from_labels(numerics: Numerics) -> TrainingOptions {
    TrainingOptions { objective: Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 }, numerics }
}

fn trainer(members: Vec<StateDict>, options: TrainingOptions, hardware: &Hardware) -> Trainer {
    Trainer::new(&Model::new(Checkpoint::new(members)).unwrap(), options, None, hardware).unwrap()
}

#[test]
fn gradients_are_pytorchs() {
    let _no_grad = tch::no_grad_guard();
    for case in read_json(&golden("nn/gradients.json")).as_array().unwrap() {
        for numerics in [Numerics::Original, Numerics::Corrected] {
            let trainer = trainer(vec![network(kind(case), 0)], from_labels(numerics), &Hardware::cpu());
            for (name, gradient) in trainer.gradients(&batch(case)) {
                let directions: Vec<f64> =
                    (0..gradient.numel() as u64).map(|index| 2.0 * golden_number(9102, index) - 1.0).collect();
                let gradient = gradient.to_kind(Kind::Double).reshape([-1]);
                let dot = gradient.dot(&Tensor::from_slice(&directions)).double_value(&[]);
                let expected = &case["gradients"][&name];
                let norm = expected["norm"].as_f64().unwrap();
                let difference = (gradient.norm().double_value(&[]) - norm).abs();
                let difference = difference.max((dot - expected["dot"].as_f64().unwrap()).abs());
                assert!(difference < tolerance(numerics) * norm, "{numerics:?} {name}: {difference:e} of {norm:e}");
            }
        }
    }
}

/// The whole gradient and the loss.
fn derivative(batch: &TrainingBatch, options: &TrainingOptions, hardware: &Hardware) -> (Tensor, f64) {
    let mut trainer = trainer(vec![network(NetworkKind::Volumetric, 0)], options.clone(), hardware);
    let gradients = trainer.gradients(batch);
    let flat = gradients.iter().map(|(_, gradient)| gradient.reshape([-1])).collect::<Vec<_>>();
    let values = trainer.step(batch, 1e-3, &CancelToken::default()).unwrap();
    (Tensor::cat(&flat, 0), values.total)
}

/// Some crops of a batch.
fn crops(batch: &TrainingBatch, range: Range<usize>) -> TrainingBatch {
    let inputs = batch.inputs.slice(s![range.clone(), .., .., .., ..]).to_owned();
    let targets = match &batch.targets {
        Targets::Classes(labels) => Targets::Classes(labels.slice(s![range, .., .., ..]).to_owned()),
        Targets::Vectors { values, weight } => Targets::Vectors {
            values: values.slice(s![range.clone(), .., .., .., ..]).to_owned(),
            weight: weight.slice(s![range, .., .., ..]).to_owned(),
        },
        Targets::Inputs => Targets::Inputs,
    };
    TrainingBatch { inputs, targets, ..batch.clone() }
}

/// Two devices have shares of two crops and of one. Every crop that has a label weighs the same, wherever it is computed.
#[test]
fn devices_that_share_a_batch_compute_what_one_does() {
    let _no_grad = tch::no_grad_guard();
    let three = batch(&read_json(&golden("nn/gradients.json"))[1]);
    assert_eq!(three.crop_count(), 3);
    let without = |crop: usize| {
        let mut batch = three.clone();
        classes(&mut batch).index_axis_mut(Axis(0), crop).fill(0);
        batch
    };
    let (one, two) = (Hardware::cpu(), Hardware { devices: vec![Device::Cpu, Device::Cpu], ..Hardware::cpu() });
    let labels = |numerics| from_labels(numerics);
    let intensities = TrainingOptions { objective: Objective::Intensities, ..labels(Numerics::Original) };
    let unlabelled = TrainingBatch { targets: Targets::Inputs, ..three.clone() };
    for (batch, options, weights) in [
        (&three, labels(Numerics::Original), [2.0, 1.0]),
        (&three, labels(Numerics::Corrected), [2.0, 1.0]),
        (&without(2), labels(Numerics::Original), [1.0, 0.0]),
        (&without(0), labels(Numerics::Original), [1.0, 1.0]),
        (&unlabelled, intensities, [2.0, 1.0]),
    ] {
        let (found, found_loss) = derivative(batch, &options, &two);
        let (mut expected, mut expected_loss) = (found.zeros_like(), 0.0);
        for (range, weight) in [0..2, 2..3].into_iter().zip(weights).filter(|(_, weight)| *weight > 0.0) {
            let (gradient, loss) = derivative(&crops(batch, range), &options, &one);
            expected += gradient * (weight / (weights[0] + weights[1]));
            expected_loss += loss * weight / (weights[0] + weights[1]);
        }
        let difference = |other: &Tensor| (&found - other).norm().double_value(&[]) / found.norm().double_value(&[]);
        assert!(difference(&expected) < 1e-5, "{options:?}: {:e}", difference(&expected));
        assert!((found_loss / expected_loss - 1.0).abs() < 1e-5, "{options:?}: {found_loss}, not {expected_loss}");
        // As one batch, the convolutions round differently, which the normalisations amplify.
        let (whole, whole_loss) = derivative(batch, &options, &one);
        assert!(difference(&whole) < 1e-2, "{options:?}: {:e}", difference(&whole));
        assert!((found_loss / whole_loss - 1.0).abs() < 1e-5, "{options:?}: {found_loss}, not {whole_loss}");
    }
}

/// Three crops of a pair, of which the second has no known vector, on two devices and on one.
#[test]
fn devices_that_share_pairs_compute_what_one_does() {
    let _no_grad = tch::no_grad_guard();
    let shape = [3, 2, 4, 32, 32];
    let count = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let numbers = |stream, count| (0..count).map(move |index| golden_number(stream, index) as f32).collect::<Vec<_>>();
    let inputs = Array5::from_shape_vec(shape, numbers(9101, count(&shape))).unwrap();
    let values = Array5::from_shape_vec([3, 3, 4, 32, 32], numbers(9103, count(&[3, 3, 4, 32, 32]))).unwrap() * 0.1;
    let weight = Array4::from_shape_fn((3, 4, 32, 32), |(n, _, y, _)| f32::from(n != 1 && y < 8 + 8 * n));
    let targets = Targets::Vectors { values, weight };
    let batch = TrainingBatch { inputs, targets, keep_axials: KeepAxials::first(2), punishes_false_positives: false };
    let objective = Objective::Vectors { max_displacement: 20.0, axis_weights: [1.0, 2.0, 3.0] };
    let options = TrainingOptions { objective, numerics: Numerics::Corrected };
    let model = Model::random_of(NetworkType::flow(NetworkKind::Volumetric), 1).unwrap();
    let found =
        [Hardware::cpu(), Hardware { devices: vec![Device::Cpu, Device::Cpu], ..Hardware::cpu() }].map(|hardware| {
            let mut trainer = Trainer::new(&model, options.clone(), None, &hardware).unwrap();
            let gradients: Vec<_> =
                trainer.gradients(&batch).iter().map(|(_, gradient)| gradient.reshape([-1])).collect();
            (Tensor::cat(&gradients, 0), trainer.step(&batch, 1e-3, &CancelToken::default()).unwrap())
        });
    let [(one, one_values), (two, two_values)] = found;
    let difference = (&one - two).norm().double_value(&[]) / one.norm().double_value(&[]);
    assert!(difference < 1e-2, "{difference:e}");
    for (one, two) in one_values.parts.iter().zip(&two_values.parts) {
        assert!((one.1 - two.1).abs() < 1e-5 * one.1.abs(), "{one:?} {two:?}");
    }
}

#[test]
fn a_member_that_diverges_leaves_all_members_as_they_were() {
    let _no_grad = tch::no_grad_guard();
    let case = &read_json(&golden("nn/gradients.json"))[0];
    let mut overflowing = network(NetworkKind::Volumetric, 1);
    overflowing.insert("out_conv.weight", Parameter::from_f32(vec![3, 16, 1, 1, 1], &[3e38; 48]).unwrap());
    let members = vec![network(NetworkKind::Volumetric, 0), overflowing];
    let mut trainer = trainer(members, from_labels(Numerics::Corrected), &Hardware::cpu());
    let before = trainer.snapshot().unwrap();
    let error = trainer.step(&batch(case), 1e-3, &CancelToken::default()).unwrap_err();
    assert!(matches!(error, NnError::Diverged), "{error}");
    let after = trainer.snapshot().unwrap();
    assert_eq!((before.0.fingerprint(), before.1), (after.0.fingerprint(), after.1));
}

#[test]
fn a_step_that_would_leave_the_numbers_is_not_made() {
    let _no_grad = tch::no_grad_guard();
    let case = &read_json(&golden("nn/gradients.json"))[0];
    let members = vec![network(NetworkKind::Volumetric, 0)];
    let mut trainer = trainer(members, from_labels(Numerics::Corrected), &Hardware::cpu());
    let before = trainer.snapshot().unwrap();
    let error = trainer.step(&batch(case), 1e39, &CancelToken::default()).unwrap_err();
    assert!(matches!(error, NnError::Diverged), "{error}");
    let after = trainer.snapshot().unwrap();
    assert_eq!((before.0.fingerprint(), before.1), (after.0.fingerprint(), after.1));
}

#[test]
fn values_that_no_label_has_are_refused() {
    let _no_grad = tch::no_grad_guard();
    let case = &read_json(&golden("nn/gradients.json"))[0];
    let members = vec![network(NetworkKind::Volumetric, 0)];
    let mut trainer = trainer(members, from_labels(Numerics::Corrected), &Hardware::cpu());
    let mut batch = batch(case);
    classes(&mut batch)[[0, 1, 2, 3]] = 7;
    let error = trainer.step(&batch, 1e-3, &CancelToken::default()).unwrap_err();
    assert!(error.to_string().contains("hold the value 7, but labels are 0 to 6"), "{error}");
}
