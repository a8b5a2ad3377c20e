//! The original's numbers: losses with their gradients (three cases in `tests/golden/nn/losses`, more in `../shared`), and
//! five steps of Adam (`../shared`).

use std::path::{Path, PathBuf};

use elephant_model::{LossValues, Objective, TrainingBatch, TrainingOptions};
use elephant_testkit::{golden, read_json, read_npy, shared};
use elephant_types::{CancelToken, KeepAxials, Numerics};
use ndarray::{ArrayD, Axis};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{
    Hardware, Trainer,
    loss::{self, EmptyCrop},
};
use crate::Model;

fn tensor(array: &ArrayD<f32>) -> Tensor {
    let size: Vec<i64> = array.shape().iter().map(|&size| size as i64).collect();
    Tensor::from_slice(array.as_slice().unwrap()).reshape(size)
}

/// The oracle's targets are labels minus 1.
fn labels(array: &ArrayD<f32>) -> ArrayD<u8> {
    array.mapv(|target| (target + 1.0) as u8)
}

fn objective(case: &Value) -> Objective {
    let weights: Vec<f64> = case["class_weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect();
    Objective::Labels {
        class_weights: weights.try_into().unwrap(),
        false_weight: case["false_weight"].as_f64().unwrap(),
    }
}

fn file(folder: &Path, case: &Value, key: &str) -> Option<ArrayD<f32>> {
    let path = folder.join(case[key]["file"].as_str()?);
    path.exists().then(|| read_npy(&path))
}

fn assert_relative(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1e-6), "{what}: {found} instead of {expected}");
}

#[test]
fn losses_and_gradients_are_the_originals() {
    assert_eq!(compare_losses(&golden("nn/losses")), 3);
    if let Some(folder) = shared("oracle/losses") {
        let compared = compare_losses(&folder);
        assert!(compared >= 8, "{compared} cases");
    }
}

/// The number of cases.
fn compare_losses(folder: &Path) -> usize {
    let mut compared = 0;
    for case in read_json(&folder.join("manifest.json")).as_array().unwrap() {
        let is_ours = matches!(case["kind"].as_str(), Some("seg" | "ae")) && case["is_oldloss"] != true;
        let (true, Some(prediction), Some(target)) =
            (is_ours, file(folder, case, "prediction"), file(folder, case, "target"))
        else {
            continue;
        };
        let name = case["name"].as_str().unwrap();
        let (objective, labels, images) = if case["kind"] == "ae" {
            (Objective::Intensities, ArrayD::zeros(vec![0]), tensor(&target))
        } else {
            (objective(case), labels(&target), Tensor::from(0.0f32))
        };
        let (values, gradient) =
            differentiate(&objective, &tensor(&prediction), &labels, &images, EmptyCrop::Last(0.0));
        assert_relative(values.total, case["loss"].as_f64().unwrap(), 1e-5, name);
        for ((_, found), key) in values.parts.iter().zip(["nll_loss", "center_loss", "smooth_loss"]) {
            assert_relative(*found, case[key].as_f64().unwrap(), 1e-5, &format!("{name} {key}"));
        }
        if let Some(expected) = file(folder, case, "grad") {
            let expected = tensor(&expected);
            let norm = expected.norm().double_value(&[]);
            let difference = (&gradient - expected).norm().double_value(&[]);
            assert!(difference < 1e-4 * norm, "{name}: the gradient differs by {difference} of {norm}");
        }
        compared += 1;
    }
    compared
}

fn differentiate(
    objective: &Objective,
    logarithms: &Tensor,
    labels: &ArrayD<u8>,
    images: &Tensor,
    empty: EmptyCrop,
) -> (LossValues, Tensor) {
    let crops = logarithms.size()[0] as usize;
    let targets = loss::targets(objective, crops, labels).unwrap();
    loss::differentiate(logarithms, &targets, crops, images, empty).unwrap()
}

#[test]
fn without_a_centre_the_last_dice_loss_stands_in() {
    let logarithms = Tensor::from_slice(&[0.2f32, 0.3, 0.5].map(f32::ln)).reshape([1, 3, 1, 1, 1]);
    let objective = Objective::Labels { class_weights: [1.0; 3], false_weight: 1.0 };
    let labels = ArrayD::from_elem(vec![1, 1, 1, 1], 1);
    let (values, _) = differentiate(&objective, &logarithms, &labels, &Tensor::from(0.0f32), EmptyCrop::Last(0.625));
    assert_eq!(values.parts[1], ("center_dice_loss", 0.625));
    assert_relative(values.parts[0].1, -f64::from(0.2f32.ln()), 1e-6, "likelihood");
}

#[test]
fn false_positives_in_crops_without_a_centre_can_be_punished() {
    let objective = Objective::Labels { class_weights: [1.0; 3], false_weight: 1.0 };
    let labels = ArrayD::from_elem(vec![1, 1, 10, 10], 1);
    let dice = |found: f32| {
        let classes = [1.0 - found, 0.0, found]
            .map(|share| Tensor::full([100], f64::from(share.max(1e-9)), (Kind::Float, Device::Cpu)));
        let logarithms = Tensor::stack(&classes, 0).log().reshape([1, 3, 1, 10, 10]);
        let empty = EmptyCrop::PunishFalsePositives;
        differentiate(&objective, &logarithms, &labels, &Tensor::from(0.0f32), empty).0.parts[1].1
    };
    // One of the hundred voxels stands for a centre that was found: 1 - 2 / (100 p^2 + 2).
    for (found, expected) in [(0.0, 0.0), (0.1, 1.0 / 3.0), (1.0, 100.0 / 102.0)] {
        assert!((dice(found) - expected).abs() < 1e-5, "{found}: {}", dice(found));
    }
}

/// A case of the oracle: the model, how to train it, and what with.
fn steps_case(folder: &Path, case: &Value, numerics: Numerics) -> (Trainer, TrainingBatch) {
    let model = Model::read(&folder.join("..").join(case["model"].as_str().unwrap())).unwrap();
    let keep_axials = KeepAxials::first(case["n_keep_axials"].as_i64().unwrap_or(0));
    let options = TrainingOptions { objective: objective(case), numerics };
    let planar = |array: ArrayD<f32>| if array.ndim() == 3 { array.insert_axis(Axis(1)) } else { array };
    let images = file(folder, case, "x").unwrap().index_axis_move(Axis(1), 0);
    let batch = TrainingBatch::labelled(
        planar(images).into_dimensionality().unwrap(),
        labels(&planar(file(folder, case, "y").unwrap())).into_dimensionality().unwrap(),
        keep_axials,
    );
    (Trainer::new(&model, options, None, &Hardware::cpu()).unwrap(), batch)
}

/// The gradient by all parameters, one after the other.
fn whole_gradient(trainer: &Trainer, batch: &TrainingBatch) -> Tensor {
    let gradients = trainer.gradients(batch);
    Tensor::cat(&gradients.iter().map(|(_, gradient)| gradient.reshape([-1])).collect::<Vec<_>>(), 0)
}

fn cases() -> Option<(PathBuf, Vec<Value>)> {
    let folder = shared("oracle/steps")?;
    let cases = read_json(&folder.join("manifest.json")).as_array().unwrap().clone();
    let is_ours = |case: &Value| case["name"].as_str().unwrap().starts_with("seg");
    Some((folder, cases.into_iter().filter(is_ours).collect()))
}

#[test]
fn five_steps_are_the_originals() {
    let Some((folder, cases)) = cases() else { return };
    let _no_grad = tch::no_grad_guard();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (mut trainer, batch) = steps_case(&folder, &case, Numerics::Original);
        for (parameter, gradient) in trainer.gradients(&batch) {
            let expected = case["grad_norms_step0"][&parameter].as_f64().unwrap();
            // The nine blocks of normalisations amplify rounding, which differs between processors: without AVX-512 by 1.5e-3.
            assert_relative(gradient.norm().double_value(&[]), expected, 1e-2, &format!("{name} {parameter}"));
        }
        for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
            let values = trainer.step(&batch, case["lr"].as_f64().unwrap(), &CancelToken::default()).unwrap();
            // Every step amplifies what rounding changed before: PyTorch in f64 differs by 1e-2 after five, a processor
            // without AVX-512 by 5e-5 after one.
            let tolerance = [1e-5, 1e-3].get(step).copied().unwrap_or(2e-2);
            assert_relative(
                values.total,
                expected["loss"].as_f64().unwrap(),
                tolerance,
                &format!("{name} step {step}"),
            );
        }
        let (model, state) = trainer.snapshot().unwrap();
        assert_eq!(state.step, 5);
        // Biases move with the sign of gradients that are nearly 0.
        let weights =
            case["param_norms_after"].as_object().unwrap().iter().filter(|(name, _)| name.ends_with("weight"));
        for (parameter, expected) in weights {
            let values = model.members[0].get(parameter).unwrap().to_f32();
            let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            assert_relative(norm, expected.as_f64().unwrap(), 1e-4, &format!("{name} {parameter}"));
        }
    }
}

/// Each layer alone differs by less than 1e-5 (see its tests); nine blocks of normalisations amplify that.
#[test]
fn the_fast_arithmetic_changes_the_gradient_little() {
    let Some((folder, cases)) = cases() else { return };
    let _no_grad = tch::no_grad_guard();
    for case in cases {
        let [original, fast] = [Numerics::Original, Numerics::Corrected].map(|numerics| {
            let (trainer, batch) = steps_case(&folder, &case, numerics);
            whole_gradient(&trainer, &batch)
        });
        let difference = (&original - fast).norm().double_value(&[]) / original.norm().double_value(&[]);
        assert!(difference < 1e-2, "{}: {difference:e}", case["name"]);
        assert!(difference > 0.0, "both used the same arithmetic");
    }
}
