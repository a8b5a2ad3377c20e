//! A model in training through the device's thread.

mod common;

use std::sync::{Arc, LazyLock};

use elephant_checkpoint::Fingerprint;
use elephant_model::{
    ModelInTraining, Objective, ProbabilityOutput, SegmentationOptions, Targets, TrainingBatch, TrainingOptions,
};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, Precision, Training};
use elephant_types::{CancelToken, Coded, ErrorCode, KeepAxials, NetworkKind, NetworkType, Numerics, TaskContext};
use ndarray::{Array3, Array4, Array5, Axis};

static DEVICE: LazyLock<DeviceHandle> = LazyLock::new(|| {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() }).unwrap()
});

fn options(objective: Objective) -> TrainingOptions {
    TrainingOptions { objective, numerics: Numerics::Corrected }
}

fn from_labels() -> TrainingOptions {
    options(Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 })
}

fn random(kind: NetworkKind) -> Arc<Model> {
    Arc::new(Model::random(kind, 3).unwrap())
}

/// A bright ball with its labels; `number` moves it.
fn batch(count: usize, [depth, height, width]: [usize; 3], number: usize) -> TrainingBatch {
    let distance = |n: usize, z: usize, y: usize, x: usize| {
        let square = |at: usize, center: usize| (at as f64 - center as f64).powi(2);
        let center = 8 + (3 * n + 5 * number) % 7;
        (4.0 * square(z, depth / 2) + square(y, center) + square(x, center)).sqrt()
    };
    let shape = (count, depth, height, width);
    TrainingBatch::labelled(
        Array4::from_shape_fn(shape, |(n, z, y, x)| (-distance(n, z, y, x) / 4.0).exp() as f32),
        Array4::from_shape_fn(shape, |(n, z, y, x)| match distance(n, z, y, x) {
            d if d < 3.0 => 3,
            d if d < 5.0 => 2,
            d if d < 9.0 => 1,
            _ => 0,
        }),
        KeepAxials::first(2),
    )
}

fn step(training: &Training, batch: TrainingBatch) -> f64 {
    training.step(batch, 1e-3, &CancelToken::default()).unwrap().total
}

fn fingerprint(training: &Training) -> Fingerprint {
    training.snapshot().unwrap().0.fingerprint()
}

#[test]
fn the_loss_falls() {
    let cancel = CancelToken::default();
    for (kind, shape) in [(NetworkKind::Volumetric, [8, 32, 32]), (NetworkKind::Planar, [1, 33, 40])] {
        for options in [from_labels(), options(Objective::Intensities)] {
            let training = DEVICE.train(random(kind), options.clone(), None, &cancel).unwrap();
            let inputs_only = options.objective == Objective::Intensities;
            let batch = |number| match batch(2, shape, number) {
                batch if inputs_only => TrainingBatch { targets: Targets::Inputs, ..batch },
                batch => batch,
            };
            let losses: Vec<f64> = (0..12).map(|number| step(&training, batch(number))).collect();
            assert!(losses[11] < 0.8 * losses[0], "{kind:?} {options:?} {losses:?}");
        }
    }
}

/// Balls that move by `voxels` along x and half of that along y, with their displacement where they are.
fn pairs(count: usize, kind: NetworkKind, voxels: f32) -> TrainingBatch {
    let (depth, components) = if kind == NetworkKind::Planar { (1, 2) } else { (4, 3) };
    let square = |n: usize, z: usize, y: f32, x: f32| {
        let center = 14.0 + 2.0 * n as f32;
        4.0 * (z as f32 - depth as f32 / 2.0).powi(2) + (y - center).powi(2) + (x - center).powi(2)
    };
    let inputs = Array5::from_shape_fn((count, 2, depth, 32, 32), |(n, frame, z, y, x)| {
        let moved = if frame == 0 { voxels } else { 0.0 };
        (-square(n, z, y as f32 - 0.5 * moved, x as f32 - moved) / 30.0).exp()
    });
    let values = Array5::from_shape_fn((count, components, depth, 32, 32), |(_, component, ..)| {
        [voxels, 0.5 * voxels, 0.0][component] / 20.0
    });
    let weight = Array4::from_shape_fn((count, depth, 32, 32), |(n, z, y, x)| {
        f32::from(square(n, z, y as f32, x as f32) < 40.0)
    });
    let targets = Targets::Vectors { values, weight };
    TrainingBatch { inputs, targets, keep_axials: KeepAxials::first(2), punishes_false_positives: false }
}

fn from_vectors() -> TrainingOptions {
    options(Objective::Vectors { max_displacement: 20.0, axis_weights: [1.0; 3] })
}

#[test]
fn a_flow_network_learns_which_way_cells_moved() {
    let cancel = CancelToken::default();
    for kind in [NetworkKind::Volumetric, NetworkKind::Planar] {
        let model = Arc::new(Model::random_of(NetworkType::flow(kind), 1).unwrap());
        let training = DEVICE.train(model, from_vectors(), None, &cancel).unwrap();
        let distances = (0..80).map(|number| {
            let voxels = if number % 2 == 0 { 4.0 } else { -4.0 };
            let values = training.step(pairs(2, kind, voxels), 5e-4, &cancel).unwrap();
            let names: Vec<_> = values.parts.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["instance_loss", "SSIM_loss", "smooth_loss"]);
            values.parts[0].1
        });
        let distances: Vec<f64> = distances.collect();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        // The same vector for both ways would leave the distance as it is.
        assert!(mean(&distances[70..]) < 0.4 * mean(&distances[..2]), "{kind:?} {distances:?}");
    }
}

#[test]
fn what_does_not_fit_a_flow_network_is_refused() {
    let cancel = CancelToken::default();
    let kind = NetworkKind::Volumetric;
    let flow = Arc::new(Model::random_of(NetworkType::flow(kind), 1).unwrap());
    let error = DEVICE.train(flow.clone(), from_labels(), None, &cancel).unwrap_err().to_string();
    assert!(error.contains("3-D flow network") && error.contains("3-D detection one"), "{error}");
    let error = DEVICE.train(random(kind), from_vectors(), None, &cancel).unwrap_err().to_string();
    assert!(error.contains("3-D detection network") && error.contains("3-D flow one"), "{error}");

    let training = DEVICE.train(flow, from_vectors(), None, &cancel).unwrap();
    let changed = |change: &dyn Fn(&mut Array5<f32>, &mut Array4<f32>)| {
        let mut batch = pairs(1, kind, 2.0);
        let Targets::Vectors { values, weight } = &mut batch.targets else { panic!("no vectors") };
        change(values, weight);
        batch
    };
    let planar = TrainingBatch { inputs: pairs(1, kind, 2.0).inputs, ..pairs(1, NetworkKind::Planar, 2.0) };
    let one_frame = batch(1, [4, 16, 16], 1);
    let labels = TrainingBatch { targets: Targets::Classes(Array4::zeros((1, 4, 32, 32))), ..pairs(1, kind, 2.0) };
    for (wrong, word) in [
        (changed(&|_, weight| weight.fill(0.0)), "no labelled voxel"),
        (changed(&|values, _| values[[0, 1, 2, 3, 4]] = f32::NAN), "not finite"),
        (changed(&|_, weight| weight[[0, 1, 2, 3]] = f32::INFINITY), "not finite"),
        (planar, "differ in size"),
        (one_frame, "1 channels"),
        (labels, "vectors are needed"),
    ] {
        let error = training.step(wrong, 1e-3, &cancel).unwrap_err().to_string();
        assert!(error.starts_with("cannot train: ") && error.contains(word), "{error}");
    }
    training.step(pairs(1, kind, 2.0), 1e-3, &cancel).unwrap();
}

#[test]
fn a_training_goes_on_exactly_where_it_stopped() {
    let cancel = CancelToken::default();
    let shape = [4, 16, 16];
    let whole = DEVICE.train(random(NetworkKind::Volumetric), from_labels(), None, &cancel).unwrap();
    let losses: Vec<f64> = (0..4).map(|number| step(&whole, batch(1, shape, number))).collect();

    let first = DEVICE.train(random(NetworkKind::Volumetric), from_labels(), None, &cancel).unwrap();
    let mut parts: Vec<f64> = (0..2).map(|number| step(&first, batch(1, shape, number))).collect();
    let (model, state) = first.snapshot().unwrap();
    assert_eq!(state.step, 2);
    drop(first);
    let second = DEVICE.train(Arc::new(Model::new(model).unwrap()), from_labels(), Some(state), &cancel).unwrap();
    parts.extend((2..4).map(|number| step(&second, batch(1, shape, number))));
    assert_eq!(parts, losses);
    assert_eq!(whole.snapshot().unwrap().1, second.snapshot().unwrap().1);
    assert_eq!(fingerprint(&whole), fingerprint(&second));
}

#[test]
fn a_failed_or_cancelled_step_changes_nothing() {
    let cancel = CancelToken::default();
    let training = DEVICE.train(random(NetworkKind::Volumetric), from_labels(), None, &cancel).unwrap();
    let shape = [4, 16, 16];
    step(&training, batch(1, shape, 0));
    let before = fingerprint(&training);
    let unlabelled = TrainingBatch { targets: Targets::Classes(Array4::zeros((1, 4, 16, 16))), ..batch(1, shape, 1) };
    let other_size = TrainingBatch { targets: Targets::Classes(Array4::zeros((1, 4, 16, 17))), ..batch(1, shape, 1) };
    let empty = batch(0, shape, 1);
    for (wrong, word) in [(unlabelled, "labelled"), (other_size, "size"), (empty, "empty")] {
        let error = training.step(wrong, 1e-3, &cancel).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("cannot train: ") && message.contains(word), "{message}");
    }
    let mut undefined = batch(1, shape, 1);
    undefined.inputs[[0, 0, 1, 1, 1]] = f32::NAN;
    let diverged = training.step(undefined, 1e-3, &cancel).unwrap_err().to_string();
    assert!(diverged.starts_with("the training diverged"), "{diverged}");
    cancel.cancel();
    assert_eq!(training.step(batch(1, shape, 1), 1e-3, &cancel).unwrap_err().code(), ErrorCode::Cancelled);
    assert_eq!(fingerprint(&training), before);
    assert_eq!(training.snapshot().unwrap().1.step, 1);
}

#[test]
fn an_ensemble_learns_with_every_member() {
    let members = [1, 2].map(|seed| Model::random(NetworkKind::Volumetric, seed).unwrap());
    let members = members.map(|model| model.checkpoint().members[0].clone());
    let model = Model::new(elephant_checkpoint::Checkpoint::new(members.clone().into())).unwrap();
    let training = DEVICE.train(Arc::new(model), from_labels(), None, &CancelToken::default()).unwrap();
    step(&training, batch(1, [4, 16, 16], 0));
    let (trained, state) = training.snapshot().unwrap();
    assert_eq!(state.first_moments.len(), 2);
    for (before, after) in members.iter().zip(&trained.members) {
        assert_ne!(before, after);
    }
}

#[test]
fn predictions_find_their_turn_between_steps_and_see_the_model_they_ask_for() {
    let cancel = CancelToken::default();
    let model = random(NetworkKind::Volumetric);
    let training = DEVICE.train(model.clone(), from_labels(), None, &cancel).unwrap();
    let image: Array3<f32> = batch(1, [4, 32, 32], 0).inputs.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0);
    let options = SegmentationOptions {
        kind: NetworkKind::Volumetric,
        keep_axials: KeepAxials::first(2),
        tile: None,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::AllClasses,
    };
    let predict =
        |model: &Arc<Model>| common::segment(&DEVICE, model, &image, &options, &TaskContext::detached()).unwrap();
    let before = predict(&model);
    step(&training, batch(1, [4, 32, 32], 0));
    assert_eq!(predict(&model), before);
    assert_ne!(predict(&Arc::new(Model::new(training.snapshot().unwrap().0).unwrap())), before);
}

/// Where there is a GPU; see `scripts/gpu_check.sh`.
#[test]
fn gpus_learn_what_the_cpu_learns() {
    let cancel = CancelToken::default();
    let losses = |device: &DeviceHandle| -> Vec<f64> {
        let training = device.train(random(NetworkKind::Volumetric), from_labels(), None, &cancel).unwrap();
        (0..6).map(|number| step(&training, batch(2, [8, 32, 32], number))).collect()
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let device = DeviceHandle::start(DeviceOptions { precision, ..DeviceOptions::default() }).unwrap();
        if device.info().unwrap().gpu.is_none() {
            elephant_testkit::skip("this machine has no GPU");
            return;
        }
        let (expected, found) = (losses(&DEVICE), losses(&device));
        let tolerance = if precision == Precision::F32 { 0.02 } else { 0.1 };
        let agree = expected.iter().zip(&found).all(|(cpu, gpu)| (cpu - gpu).abs() < tolerance * cpu);
        assert!(agree, "{precision:?}: {found:?} instead of {expected:?}");
    }
}
