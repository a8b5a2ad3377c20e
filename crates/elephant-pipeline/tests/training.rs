//! Trainings with the fake network, which only counts its steps: what it is given, and what is kept of it when.

#![allow(clippy::disallowed_methods)]

use std::{
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_memory::Memory;
use elephant_model::{ModelError, Objective, Targets, TrainingBatch, fake::FakeNetwork};
use elephant_pipeline::{
    CropOptions, FlowLabels, Labels, ModelDownload, Models, PipelineError, PretrainedNetwork, PretrainedNetworks,
    TrainRequest, Trainer, TrainingControl, TrainingMode, TrainingOverrides, UpdateLabels, Workspace,
};
use elephant_testkit::eventually;
use elephant_types::{
    CancelToken, Coded, DatasetName, ErrorCode, KeepAxials, NetworkKind, Numerics, SpotTag, TaggedSpot, TaskContext,
    TaskEvent, VoxelSize,
};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::{Array4, ArrayD, IxDyn};

const SHAPE: DatasetShape = DatasetShape { timepoints: 4, frame: [4, 24, 24], is_3d: true };

fn steps(checkpoint: &Checkpoint) -> u64 {
    FakeNetwork::steps(checkpoint).unwrap()
}

fn trained(steps: u64) -> Checkpoint {
    FakeNetwork::checkpoint(NetworkKind::Volumetric, steps)
}

fn classes(batch: &TrainingBatch) -> &Array4<u8> {
    match &batch.targets {
        Targets::Classes(labels) => labels,
        other => panic!("{other:?} are not classes"),
    }
}

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, _: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        Err(ModelError::new(ErrorCode::Unavailable, "no network"))
    }
}

struct NoControl;

impl TrainingControl for NoControl {
    fn overrides(&self) -> TrainingOverrides {
        TrainingOverrides::default()
    }

    fn show_followed_timepoint(&self, _: Option<usize>) {}
}

struct Fixture {
    trainer: Arc<Trainer>,
    labels: Labels,
    network: FakeNetwork,
    model: PathBuf,
    dataset: PathBuf,
    _folder: tempfile::TempDir,
}

fn name() -> DatasetName {
    "fly".parse().unwrap()
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    let dataset = workspace.dataset(&name()).unwrap();
    Dataset::create(&dataset, SHAPE, DataType::U8).unwrap();
    let network = FakeNetwork::default();
    let nowhere = PretrainedNetwork { bundled: Some(b""), given: None, original: None };
    let pretrained = PretrainedNetworks {
        volumetric: nowhere.clone(),
        planar: nowhere.clone(),
        volumetric_flow: nowhere.clone(),
        planar_flow: nowhere,
    };
    let models = Arc::new(Models::new(&workspace, Arc::new(network.clone()), Arc::new(NoDownload), pretrained));
    let model = workspace.path().join("models/m.pth");
    trained(0).write(&model).unwrap();
    let labels = Labels::new(&workspace, Memory::default(), Numerics::Corrected);
    let trained = Arc::new(network.clone());
    let (flow_labels, memory, numerics) =
        (FlowLabels::new(&workspace, Numerics::Corrected), Memory::default(), Numerics::Corrected);
    let trainer = Trainer::new(&workspace, models, trained, labels.clone(), flow_labels, memory, numerics);
    Fixture { trainer: Arc::new(trainer), labels, network, model, dataset, _folder: folder }
}

fn update(t: usize, tag: SpotTag) -> UpdateLabels {
    let covariance_um2 = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]];
    UpdateLabels {
        dataset: name(),
        spots: vec![TaggedSpot { t, center_um: [2.0, 12.0, 12.0], covariance_um2, tag, label: "cell".into() }],
        voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
        center_ratio: 0.4,
        background_threshold: 0.0,
        is_live: false,
    }
}

/// As [`update`], of a cell whose centre is at y = x.
fn update_at(t: usize, tag: SpotTag, yx: f64) -> UpdateLabels {
    let mut update = update(t, tag);
    update.spots[0].center_um = [2.0, yx, yx];
    update
}

fn request(mode: TrainingMode, crops_per_timepoint: u32) -> TrainRequest {
    TrainRequest {
        dataset: name(),
        model: "m.pth".parse().unwrap(),
        mode,
        crops: CropOptions {
            is_3d: true,
            keep_axials: KeepAxials::first(0),
            voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
            input_size: None,
            crop_size: [4, 16, 16],
            scale_factor: 0.0,
            rotation_degrees: 0.0,
            contrast: 0.0,
        },
        objective: Objective::Labels { class_weights: [1.0; 3], false_weight: 1.0 },
        learning_rate: 1e-3,
        batch_size: 1,
        crops_per_timepoint,
        log_interval: 1,
        log_folder: "log".parse().unwrap(),
        seed: 1,
    }
}

fn epochs(epochs: u32, crops_per_timepoint: u32) -> TrainRequest {
    request(TrainingMode::Spots { labels: update(0, SpotTag::TruePositive), epochs }, crops_per_timepoint)
}

fn live(crops_per_timepoint: u32) -> TrainRequest {
    request(TrainingMode::Live { after: Some(0) }, crops_per_timepoint)
}

impl Fixture {
    fn train(&self, request: &TrainRequest, context: &TaskContext) -> Result<(), PipelineError> {
        self.trainer.train(request, &NoControl, context)
    }

    fn update(&self, t: usize, tag: SpotTag) {
        self.labels.update(&update(t, tag), &TaskContext::detached()).unwrap();
        self.trainer.live().updated(&name(), t);
    }
}

#[test]
fn predictions_use_what_was_learnt_before_the_file_is_written() {
    let fixture = fixture();
    let (model, network) = (fixture.model.clone(), fixture.network.clone());
    fixture.network.after_each_step(move |step, _| {
        if step == 3 {
            eventually("the first epoch is used", || network.published().contains(&2));
        }
        assert_eq!(steps(&Checkpoint::read(&model).unwrap()), 0);
    });
    let updates = Arc::new(Mutex::new(0));
    let told = updates.clone();
    let context = TaskContext::watched(CancelToken::default(), move |event| {
        *told.lock().unwrap() += usize::from(event == TaskEvent::model_updated());
    });
    fixture.train(&epochs(4, 2), &context).unwrap();
    let published = fixture.network.published();
    assert_eq!(published[published.len() - 2..], [8, 0]);
    assert_eq!(*updates.lock().unwrap(), published.len() - 1);
    let saved = Checkpoint::read(&fixture.model).unwrap();
    assert_eq!((steps(&saved), saved.provenance.as_ref().unwrap().steps), (8, 8));
    let state = OptimizerState::read(&saved, &fixture.model.with_file_name(".m.pth.adam")).unwrap();
    assert_eq!(state.unwrap().step, 8);
}

#[test]
fn a_stopped_training_keeps_what_it_has_learnt() {
    let fixture = fixture();
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    fixture.network.after_each_step(move |step, _| {
        if step == 7 {
            stop.cancel();
        }
    });
    let error = fixture.train(&epochs(9, 5), &TaskContext::new(cancel, |_| {})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 7);
}

#[test]
fn a_model_that_another_program_wrote_is_not_overwritten() {
    let fixture = fixture();
    let (model, aside) = (fixture.model.clone(), fixture.model.with_file_name("trained-m.pth"));
    trained(99).write(&aside).unwrap();
    fixture.network.after_each_step(move |step, _| {
        if step == 1 {
            trained(77).write(&model).unwrap();
        }
    });
    let error = fixture.train(&epochs(3, 2), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    assert!(error.to_string().contains("kept as trained-m-2.pth"), "{error}");
    let at = |name: &str| steps(&Checkpoint::read(&fixture.model.with_file_name(name)).unwrap());
    assert_eq!((at("m.pth"), at("trained-m.pth")), (77, 99));
    assert!(at("trained-m-2.pth") >= 2);
}

#[test]
fn a_model_that_was_deleted_is_made_again() {
    let fixture = fixture();
    let model = fixture.model.clone();
    fixture.network.after_each_step(move |step, _| {
        if step == 1 {
            std::fs::remove_file(&model).unwrap();
        }
    });
    fixture.train(&epochs(2, 2), &TaskContext::detached()).unwrap();
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 4);
}

#[test]
fn what_predictions_cannot_use_is_written() {
    let fixture = fixture();
    fixture.network.refuse_to_publish();
    let error = fixture.train(&epochs(1, 3), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("refuses to publish"), "{error}");
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 3);
    assert_eq!(fixture.network.published(), [0]);
}

#[test]
fn a_live_training_learns_from_every_update() {
    let fixture = Arc::new(fixture());
    let cancel = CancelToken::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (updating, stop, noted) = (fixture.clone(), cancel.clone(), seen.clone());
    fixture.network.after_each_step(move |step, batch| {
        // The tag of a timepoint's labels identifies the timepoint.
        noted.lock().unwrap().push(classes(batch).iter().copied().max());
        if step == 1 {
            updating.update(2, SpotTag::TrueBorder);
            updating.update(3, SpotTag::FalsePositive);
            updating.update(2, SpotTag::FalseBorder);
        }
    });
    let request = live(2);
    fixture.update(0, SpotTag::TrueNegative);
    let training = std::thread::spawn(move || fixture.train(&request, &TaskContext::new(cancel, |_| {})));
    eventually("all are learnt from", || seen.lock().unwrap().len() >= 6);
    stop.cancel();
    assert_eq!(training.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 4, 4, 5, 5].map(Some), "twice each, the frame that was updated twice as it is at last");
}

#[test]
fn the_list_of_labels_is_read_once_in_an_epoch() {
    let fixture = fixture();
    let attributes = fixture.dataset.join("seg_labels.zarr/.zattrs");
    fixture.network.after_each_step(move |step, _| {
        if step == 1 {
            std::fs::write(&attributes, "damaged").unwrap();
        }
    });
    let error = fixture.train(&epochs(2, 20), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("seg_labels.zarr"), "{error}");
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 20, "the first epoch was finished");
}

#[test]
fn labels_that_vanish_are_not_learnt_from() {
    let fixture = fixture();
    let labels = fixture.labels.clone();
    fixture.network.after_each_step(move |step, _| {
        if step == 1 {
            labels.reset(&name()).unwrap();
        }
    });
    let error = fixture.train(&epochs(9, 1), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().starts_with("nothing to train"), "{error}");
}

#[test]
fn labels_that_move_during_an_epoch_are_found_again() {
    let fixture = fixture();
    let labels = fixture.labels.clone();
    let cancel = CancelToken::default();
    let (network, stop) = (fixture.network.clone(), cancel.clone());
    let tags = Arc::new(Mutex::new(Vec::new()));
    let noted = tags.clone();
    fixture.network.after_each_step(move |step, batch| {
        noted.lock().unwrap().push(classes(batch).iter().copied().max().unwrap());
        if step == 1 {
            // The training is not notified, so that only its first epoch can learn from it.
            labels.update(&update_at(1, SpotTag::FalsePositive, 20.0), &TaskContext::detached()).unwrap();
        }
    });
    fixture.labels.update(&update_at(1, SpotTag::TrueNegative, 3.0), &TaskContext::detached()).unwrap();
    let mut request = live(12);
    request.crops.crop_size = [4, 8, 8];
    fixture.trainer.live().updated(&name(), 1);
    let training = std::thread::spawn(move || fixture.train(&request, &TaskContext::new(cancel, |_| {})));
    eventually("the epoch ends", || training.is_finished() || network.published().contains(&12));
    stop.cancel();
    assert_eq!(training.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    // Up to three crops were cut out before.
    let tags = tags.lock().unwrap();
    assert_eq!((tags.len(), tags[0]), (12, 1));
    assert!(tags[4..].iter().all(|&tag| tag == 4), "{tags:?}");
}

#[test]
fn a_timepoint_that_loses_its_labels_is_left_out() {
    let fixture = fixture();
    let tags = [SpotTag::TruePositive, SpotTag::TrueNegative, SpotTag::TruePositive];
    let mut all = update(0, tags[0]);
    all.spots = (0..3).flat_map(|t| update(t, tags[t]).spots).collect();
    let mut range = all.clone();
    range.spots.remove(1);
    let (labels, seen) = (fixture.labels.clone(), Arc::new(Mutex::new([0_u64; 2])));
    let noted = seen.clone();
    fixture.network.after_each_step(move |step, batch| {
        noted.lock().unwrap()[usize::from(classes(batch).iter().all(|&label| label <= 1))] += 1;
        if step == 1 {
            labels.update(&range, &TaskContext::detached()).unwrap();
        }
    });
    fixture.train(&request(TrainingMode::Spots { labels: all, epochs: 2 }, 20), &TaskContext::detached()).unwrap();
    let [others, erased] = *seen.lock().unwrap();
    assert_eq!(others, 80, "both epochs learn from all labels that are there");
    assert!(erased <= 4, "{erased}");
}

#[test]
fn a_live_training_goes_on_after_a_reset_of_the_labels() {
    let fixture = Arc::new(fixture());
    let cancel = CancelToken::default();
    let (resetting, stop, network) = (fixture.clone(), cancel.clone(), fixture.network.clone());
    fixture.network.after_each_step(move |step, _| {
        if step == 1 {
            resetting.labels.reset(&name()).unwrap();
        }
    });
    let request = live(20);
    fixture.update(0, SpotTag::TruePositive);
    let running = fixture.clone();
    let training = std::thread::spawn(move || running.train(&request, &TaskContext::new(cancel, |_| {})));
    eventually("the epoch ends", || training.is_finished() || !network.published().is_empty());
    fixture.update(2, SpotTag::TruePositive);
    eventually("it learns again", || training.is_finished() || network.published().len() == 2);
    stop.cancel();
    assert_eq!(training.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    let published = network.published();
    assert!(published[0] <= 4, "{published:?}");
    assert_eq!(published[1], published[0] + 20);
    network.forget_hook();
}

#[test]
fn listed_labels_that_are_nowhere_are_an_error() {
    let fixture = fixture();
    fixture.update(0, SpotTag::TruePositive);
    let dataset = Dataset::open(&fixture.dataset).unwrap();
    let labels = dataset.store(Store::SegLabels);
    let listed = labels.attributes().unwrap();
    labels.clear().unwrap();
    labels.replace_attributes(&listed).unwrap();
    let request = live(1);
    fixture.trainer.live().updated(&name(), 0);
    let error = fixture.train(&request, &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("timepoint 0 hold no labelled voxel"), "{error}");
}

#[test]
fn values_that_are_not_labels_are_named() {
    let fixture = fixture();
    fixture.labels.update(&update(1, SpotTag::TruePositive), &TaskContext::detached()).unwrap();
    let store = Dataset::open(&fixture.dataset).unwrap();
    let strange = ArrayD::from_elem(IxDyn(&[1, 1, 1, 1]), 9_u8);
    store.store(Store::SegLabels).write(&[1, 2, 10, 13], strange.view()).unwrap();
    let request = live(1);
    fixture.trainer.live().updated(&name(), 1);
    let error = fixture.train(&request, &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    let message = error.to_string();
    for part in ["label 9", "[13, 10, 2] (x, y, z)", "timepoint 1", "dataset fly"] {
        assert!(message.contains(part), "{message}");
    }
}
