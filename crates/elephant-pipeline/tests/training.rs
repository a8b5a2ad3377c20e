//! Trainings with a network that only counts its steps: what it is given, and what is kept of it when.

#![allow(clippy::disallowed_methods)]

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use elephant_checkpoint::{Checkpoint, OptimizerState, StateDict, Tensor};
use elephant_fs::FileVersion;
use elephant_memory::Memory;
use elephant_pipeline::{
    CropOptions, Labels, Lessons, ModelDownload, ModelInTraining, Models, PipelineError, PortError, PretrainedNetwork,
    PretrainedNetworks, SegmentationModel, TrainRequest, TrainableModel, Trainer, TrainingControl, UpdateLabels,
    Workspace,
};
use elephant_testkit::eventually;
use elephant_types::{
    CancelToken, Coded, DatasetName, ErrorCode, KeepAxials, LossValues, NetworkKind, Numerics, Objective,
    SegmentationOptions, SegmentationRequest, SpotTag, TaggedSpot, TaskContext, TaskEvent, TrainingBatch,
    TrainingOptions, VoxelSize,
};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::{Array4, ArrayD, IxDyn};

const SHAPE: DatasetShape = DatasetShape { timepoints: 4, frame: [4, 24, 24], is_3d: true };

/// Called with the number of a step, after it.
type Hook = Box<dyn Fn(u64, &TrainingBatch) + Send + Sync>;

#[derive(Default)]
struct Shared {
    /// The steps of the snapshots that were published, and 0 for a withdrawal.
    published: Mutex<Vec<f32>>,
    /// Nothing can be published.
    refuses: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

/// A "network" of one parameter, the number of steps.
#[derive(Default)]
struct Counter(Arc<Shared>);

struct Counting {
    steps: Mutex<u64>,
    shared: Arc<Shared>,
}

fn dict(steps: u64) -> StateDict {
    [("steps".to_owned(), Tensor::from_f32(vec![1], &[steps as f32]).unwrap())].into_iter().collect()
}

fn steps(checkpoint: &Checkpoint) -> f32 {
    f32::from_le_bytes(checkpoint.members[0].get("steps").unwrap().bytes().try_into().unwrap())
}

impl SegmentationModel for Counter {
    fn segment(&self, _: &Path, _: SegmentationRequest, _: &TaskContext) -> Result<Array4<f32>, PortError> {
        Err(PortError::new(ErrorCode::Internal, "it cannot predict"))
    }

    fn segment_bytes(&self, _: [usize; 3], _: &SegmentationOptions) -> Result<u64, PortError> {
        Ok(0)
    }

    fn identify(&self, _: &Checkpoint) -> Result<NetworkKind, PortError> {
        Ok(NetworkKind::Volumetric)
    }

    fn initialise(&self, _: NetworkKind, _: u64) -> Result<Checkpoint, PortError> {
        Ok(dict(0).into())
    }
}

impl TrainableModel for Counter {
    fn device_count(&self) -> Result<usize, PortError> {
        Ok(1)
    }

    fn step_bytes(&self, _: u64, _: Numerics) -> Result<u64, PortError> {
        Ok(0)
    }

    fn begin(
        &self,
        _: Checkpoint,
        _: TrainingOptions,
        _: Option<OptimizerState>,
        _: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, PortError> {
        Ok(Box::new(Counting { steps: Mutex::new(0), shared: self.0.clone() }))
    }

    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), PortError> {
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorCode::Internal, "it refuses"));
        }
        assert_eq!(FileVersion::of(path).unwrap(), version);
        self.0.published.lock().unwrap().push(steps(model));
        Ok(())
    }

    fn withdraw(&self, _: &Path) {
        self.0.published.lock().unwrap().push(0.0);
    }
}

impl ModelInTraining for Counting {
    fn step(&self, batch: TrainingBatch, _: f64, cancel: &CancelToken) -> Result<LossValues, PortError> {
        cancel.check().map_err(|_| PortError::new(ErrorCode::Cancelled, "cancelled"))?;
        let mut steps = self.steps.lock().unwrap();
        *steps += 1;
        if let Some(hook) = &*self.shared.hook.lock().unwrap() {
            hook(*steps, &batch);
        }
        Ok(LossValues { total: 0.5, parts: Vec::new() })
    }

    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), PortError> {
        let step = *self.steps.lock().unwrap();
        let moments = || vec![dict(step)];
        Ok((dict(step).into(), OptimizerState { step, first_moments: moments(), second_moments: moments() }))
    }
}

struct NoDownload;

impl ModelDownload for NoDownload {
    fn open(&self, _: &str) -> Result<Box<dyn Read + Send>, PortError> {
        Err(PortError::new(ErrorCode::Unavailable, "no network"))
    }
}

struct NoControl;

impl TrainingControl for NoControl {
    fn changes(&self) -> (Option<f64>, Option<u32>) {
        (None, None)
    }

    fn follows(&self, _: Option<usize>) {}
}

struct Fixture {
    trainer: Arc<Trainer>,
    labels: Labels,
    shared: Arc<Shared>,
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
    let network = Arc::new(Counter::default());
    let nowhere = PretrainedNetwork { bundled: b"", given: None, original: String::new() };
    let pretrained = PretrainedNetworks { volumetric: nowhere.clone(), planar: nowhere };
    let models = Arc::new(Models::new(&workspace, network.clone(), Arc::new(NoDownload), pretrained));
    let model = workspace.path().join("models/m.pth");
    Checkpoint::from(dict(0)).write(&model).unwrap();
    let labels = Labels::new(&workspace, Memory::default(), Numerics::Corrected);
    let shared = network.0.clone();
    let trainer = Trainer::new(&workspace, models, network, labels.clone(), Memory::default(), Numerics::Corrected);
    Fixture { trainer: Arc::new(trainer), labels, shared, model, dataset, _folder: folder }
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

fn request(lessons: Lessons, crops_per_timepoint: u32) -> TrainRequest {
    TrainRequest {
        dataset: name(),
        model: "m.pth".parse().unwrap(),
        lessons,
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
    request(Lessons::Spots { labels: update(0, SpotTag::TruePositive), epochs }, crops_per_timepoint)
}

fn live(crops_per_timepoint: u32) -> TrainRequest {
    request(Lessons::Live { after: Some(0) }, crops_per_timepoint)
}

impl Fixture {
    fn after_each_step(&self, hook: impl Fn(u64, &TrainingBatch) + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Box::new(hook));
    }

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
    let (model, shared) = (fixture.model.clone(), fixture.shared.clone());
    fixture.after_each_step(move |step, _| {
        if step == 3 {
            eventually("the first epoch is used", || shared.published.lock().unwrap().contains(&2.0));
        }
        assert_eq!(steps(&Checkpoint::read(&model).unwrap()), 0.0);
    });
    let updates = Arc::new(Mutex::new(0));
    let told = updates.clone();
    let context = TaskContext::watched(CancelToken::default(), move |event| {
        *told.lock().unwrap() += usize::from(event == TaskEvent::model_updated());
    });
    fixture.train(&epochs(4, 2), &context).unwrap();
    let published = fixture.shared.published.lock().unwrap().clone();
    assert_eq!(published[published.len() - 2..], [8.0, 0.0]);
    assert_eq!(*updates.lock().unwrap(), published.len() - 1);
    let saved = Checkpoint::read(&fixture.model).unwrap();
    assert_eq!((steps(&saved), saved.provenance.as_ref().unwrap().steps), (8.0, 8));
    let state = OptimizerState::read(&saved, &fixture.model.with_file_name(".m.pth.adam")).unwrap();
    assert_eq!(state.unwrap().step, 8);
}

#[test]
fn a_stopped_training_keeps_what_it_has_learnt() {
    let fixture = fixture();
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    fixture.after_each_step(move |step, _| {
        if step == 7 {
            stop.cancel();
        }
    });
    let error = fixture.train(&epochs(9, 5), &TaskContext::new(cancel, |_| {})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 7.0);
}

#[test]
fn nobodys_model_is_overwritten() {
    let fixture = fixture();
    let (model, aside) = (fixture.model.clone(), fixture.model.with_file_name("trained-m.pth"));
    Checkpoint::from(dict(99)).write(&aside).unwrap();
    fixture.after_each_step(move |step, _| {
        if step == 1 {
            Checkpoint::from(dict(77)).write(&model).unwrap();
        }
    });
    let error = fixture.train(&epochs(3, 2), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    assert!(error.to_string().contains("kept as trained-m-2.pth"), "{error}");
    let at = |name: &str| steps(&Checkpoint::read(&fixture.model.with_file_name(name)).unwrap());
    assert_eq!((at("m.pth"), at("trained-m.pth")), (77.0, 99.0));
    assert!(at("trained-m-2.pth") >= 2.0);
}

#[test]
fn a_model_that_was_deleted_is_made_again() {
    let fixture = fixture();
    let model = fixture.model.clone();
    fixture.after_each_step(move |step, _| {
        if step == 1 {
            std::fs::remove_file(&model).unwrap();
        }
    });
    fixture.train(&epochs(2, 2), &TaskContext::detached()).unwrap();
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 4.0);
}

#[test]
fn what_predictions_cannot_use_is_written() {
    let fixture = fixture();
    fixture.shared.refuses.store(true, Ordering::Relaxed);
    let error = fixture.train(&epochs(1, 3), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("it refuses"), "{error}");
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 3.0);
    assert_eq!(*fixture.shared.published.lock().unwrap(), [0.0]);
}

#[test]
fn a_live_training_learns_from_every_update() {
    let fixture = Arc::new(fixture());
    let cancel = CancelToken::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (updating, stop, noted) = (fixture.clone(), cancel.clone(), seen.clone());
    fixture.after_each_step(move |step, batch| {
        // Of each timepoint's labels, the tag tells which it is.
        noted.lock().unwrap().push(batch.labels.iter().copied().max());
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
    fixture.after_each_step(move |step, _| {
        if step == 1 {
            std::fs::write(&attributes, "damaged").unwrap();
        }
    });
    let error = fixture.train(&epochs(2, 20), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("seg_labels.zarr"), "{error}");
    assert_eq!(steps(&Checkpoint::read(&fixture.model).unwrap()), 20.0, "the first epoch was finished");
}

#[test]
fn labels_that_vanish_are_not_learnt_from() {
    let fixture = fixture();
    let labels = fixture.labels.clone();
    fixture.after_each_step(move |step, _| {
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
    let (seen, stop) = (fixture.shared.clone(), cancel.clone());
    let tags = Arc::new(Mutex::new(Vec::new()));
    let noted = tags.clone();
    fixture.after_each_step(move |step, batch| {
        noted.lock().unwrap().push(batch.labels.iter().copied().max().unwrap());
        if step == 1 {
            // The training is not told, so that only its first epoch can learn from it.
            labels.update(&update_at(1, SpotTag::FalsePositive, 20.0), &TaskContext::detached()).unwrap();
        }
    });
    fixture.labels.update(&update_at(1, SpotTag::TrueNegative, 3.0), &TaskContext::detached()).unwrap();
    let mut request = live(12);
    request.crops.crop_size = [4, 8, 8];
    fixture.trainer.live().updated(&name(), 1);
    let training = std::thread::spawn(move || fixture.train(&request, &TaskContext::new(cancel, |_| {})));
    eventually("the epoch ends", || training.is_finished() || seen.published.lock().unwrap().contains(&12.0));
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
    fixture.after_each_step(move |step, batch| {
        noted.lock().unwrap()[usize::from(batch.labels.iter().all(|&label| label <= 1))] += 1;
        if step == 1 {
            labels.update(&range, &TaskContext::detached()).unwrap();
        }
    });
    fixture.train(&request(Lessons::Spots { labels: all, epochs: 2 }, 20), &TaskContext::detached()).unwrap();
    let [others, erased] = *seen.lock().unwrap();
    assert_eq!(others, 80, "both epochs learn from all labels that are there");
    assert!(erased <= 4, "{erased}");
}

#[test]
fn a_live_training_goes_on_after_a_reset_of_the_labels() {
    let fixture = Arc::new(fixture());
    let cancel = CancelToken::default();
    let (resetting, stop, shared) = (fixture.clone(), cancel.clone(), fixture.shared.clone());
    fixture.after_each_step(move |step, _| {
        if step == 1 {
            resetting.labels.reset(&name()).unwrap();
        }
    });
    let request = live(20);
    fixture.update(0, SpotTag::TruePositive);
    let running = fixture.clone();
    let training = std::thread::spawn(move || running.train(&request, &TaskContext::new(cancel, |_| {})));
    eventually("the epoch ends", || training.is_finished() || !shared.published.lock().unwrap().is_empty());
    fixture.update(2, SpotTag::TruePositive);
    eventually("it learns again", || training.is_finished() || shared.published.lock().unwrap().len() == 2);
    stop.cancel();
    assert_eq!(training.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    let published = shared.published.lock().unwrap().clone();
    assert!(published[0] <= 4.0, "{published:?}");
    assert_eq!(published[1], published[0] + 20.0);
    *shared.hook.lock().unwrap() = None;
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
fn values_that_are_no_labels_are_named() {
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
