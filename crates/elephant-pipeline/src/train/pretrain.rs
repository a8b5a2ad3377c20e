//! Training a network on synthetic scenes alone, before it has seen any movie: how the networks that come with the program
//! are made.

mod pairs;

use std::{
    f64::consts::PI,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use elephant_checkpoint::{Checkpoint, OptimizerState, Provenance};
use elephant_fs::{FolderLock, FsError};
use elephant_image::{BACKGROUND, LabelFrame};
use elephant_model::{ModelInTraining, Objective, SegmentationModel, TrainableModel, TrainingBatch, TrainingOptions};
use elephant_synth::{Content, Scene, SceneOptions, SceneSet};
use elephant_types::{
    CancelToken, Cancelled, KeepAxials, NetworkKind, NetworkTask, NetworkType, Numerics, TaskContext, TrainingStep,
};
use fastrand::Rng;
use ndarray::{Array3, Axis};

use super::crops::stack;
use crate::{PipelineError, scenes};

/// Learning rate of Adam after the warm-up; it then falls to 0 as half a cosine.
const LEARNING_RATE: f64 = 1e-3;
/// The same of a flow network, which has no norms that keep its features in bounds.
const FLOW_LEARNING_RATE: f64 = 3e-4;
/// Steps over which the learning rate rises from 0.
const WARM_UP: f64 = 100.0;
/// How long a state may be in memory only.
const SAVE_INTERVAL: Duration = Duration::from_mins(2);
/// The share of all steps after which false positives in scenes without a nucleus are punished. A network that does not find
/// nuclei yet would learn from them to find nothing at all.
const PUNISHED_FROM: f64 = 0.4;
/// The share of images of noise alone that become flat from then on.
const FLAT_SHARE: f64 = 0.2;
/// Scenes in a step: planes are small.
const PLANAR_SCENES: u64 = 4;

/// How a network is pretrained. The same values give the same network, but for rounding,
/// which differs between devices.
#[derive(Clone, Debug)]
pub struct Pretraining {
    /// Which network.
    pub network: NetworkType,
    /// Steps of the optimiser in all.
    pub steps: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Folder for the state, from which an interrupted training goes on.
    pub folder: PathBuf,
}

/// Trains a network on synthetic scenes, or goes on where an earlier call with the same folder was interrupted. Each step
/// learns from scenes of its own.
///
/// # Errors
/// When the state cannot be read or written, the device fails, or the task is cancelled; the folder then has the state
/// after the last step.
pub fn pretrain<N: SegmentationModel + TrainableModel>(
    request: &Pretraining,
    network: &N,
    context: &TaskContext,
) -> Result<Checkpoint, PipelineError> {
    fs::create_dir_all(&request.folder).map_err(FsError::io("create", &request.folder))?;
    let _lock = FolderLock::try_acquire(&request.folder, "a pretraining")?;
    let folder = StateFolder(request);
    let (start, checkpoint, state) = match folder.newest()? {
        Some((checkpoint, state)) => (state.step, checkpoint, Some(state)),
        None => (0, network.initialise(request.network, request.seed)?, None),
    };
    if start >= request.steps {
        return Ok(provenanced(checkpoint, request));
    }
    let objective = match request.network.task {
        NetworkTask::Detection => Objective::default(),
        NetworkTask::Flow => pairs::objective(),
    };
    let options = TrainingOptions { objective, numerics: Numerics::Corrected };
    let model = network.begin(checkpoint, options, state, context.cancel_token())?;
    thread::scope(|scope| {
        let (batches, received) = sync_channel(2);
        scope.spawn(move || send_batches(request, start, &batches, context.cancel_token()));
        train_steps(request, start, &*model, received, &folder, context)
    })
}

fn train_steps(
    request: &Pretraining,
    start: u64,
    model: &dyn ModelInTraining,
    batches: Receiver<Result<TrainingBatch, PipelineError>>,
    folder: &StateFolder<'_>,
    context: &TaskContext,
) -> Result<Checkpoint, PipelineError> {
    let mut saved = Instant::now();
    for (step, batch) in (start..request.steps).zip(batches) {
        let stepped = batch.and_then(|batch| {
            context.check()?;
            Ok(model.step(batch, learning_rate(request.network.task, step, request.steps), context.cancel_token())?)
        });
        let loss = match stepped {
            Ok(loss) => loss,
            Err(error) => {
                // The first error is the reason; a failed device may not give a snapshot.
                if let Err(unsaved) = model.snapshot().map_err(PipelineError::from).and_then(|last| folder.save(&last))
                {
                    tracing::warn!(error = %unsaved, "the last steps are not saved");
                }
                return Err(error);
            }
        };
        let step = TrainingStep { done: step + 1, total: Some(request.steps), loss: loss.total, parts: loss.parts };
        context.tell(step);
        if saved.elapsed() > SAVE_INTERVAL {
            folder.save(&model.snapshot()?)?;
            saved = Instant::now();
        }
    }
    let last = model.snapshot()?;
    folder.save(&last)?;
    Ok(provenanced(last.0, request))
}

fn provenanced(checkpoint: Checkpoint, request: &Pretraining) -> Checkpoint {
    let what = if request.network.task == NetworkTask::Flow { "moving synthetic nuclei" } else { "synthetic nuclei" };
    let origin = format!("trained on {what} by elephant-server pretrain, seed {}", request.seed);
    Checkpoint { provenance: Some(Provenance { origin, steps: request.steps }), ..checkpoint }
}

fn learning_rate(task: NetworkTask, step: u64, steps: u64) -> f64 {
    let highest = match task {
        NetworkTask::Detection => LEARNING_RATE,
        NetworkTask::Flow => FLOW_LEARNING_RATE,
    };
    let warm_up = ((step + 1) as f64 / WARM_UP).min(1.0);
    let progress = step as f64 / steps as f64;
    highest * warm_up * 0.5 * (1.0 + (PI * progress).cos())
}

/// Sends the batches of all steps from `start` on, until the receiver is gone.
fn send_batches(
    request: &Pretraining,
    start: u64,
    batches: &SyncSender<Result<TrainingBatch, PipelineError>>,
    cancel: &CancelToken,
) {
    for step in start..request.steps {
        let batch = cancel.check().map_err(PipelineError::from).and_then(|()| batch(request, step, cancel));
        if batches.send(batch).is_err() {
            return;
        }
    }
}

/// The batch of a step.
fn batch(request: &Pretraining, step: u64, cancel: &CancelToken) -> Result<TrainingBatch, PipelineError> {
    let kind = request.network.kind;
    if request.network.task == NetworkTask::Flow {
        return pairs::batch(kind, request.seed, step, step as f64 / request.steps as f64, cancel);
    }
    let is_planar = kind == NetworkKind::Planar;
    let count = if is_planar { PLANAR_SCENES } else { 1 };
    let punishes_false_positives = step as f64 >= PUNISHED_FROM * request.steps as f64;
    let first = request.seed.rotate_left(32).wrapping_add(step * count);
    let mut crops = Vec::new();
    let mut keep_axials = None;
    for seed in first..first + count {
        let options = SceneOptions::draw(SceneSet::Trained, is_planar, seed);
        let scene = Scene::render(&options);
        keep_axials = Some(scenes::keep_axials(&scene));
        let mut image = scenes::normalized(&scene);
        vary_range(&mut image, seed);
        if punishes_false_positives && options.content == Content::Noise && Rng::with_seed(!seed).f64() < FLAT_SHARE {
            image.fill(0.0);
        }
        crops.push((image, labels(&scene, kind, cancel)?));
    }
    let batch = stack(crops, keep_axials.unwrap_or(KeepAxials::first(0)))?;
    Ok(TrainingBatch { punishes_false_positives, ..batch })
}

/// Dims half of the scenes: in a whole frame, something outside a scene may be brighter than all that it shows.
fn vary_range(image: &mut Array3<f32>, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    if rng.bool() {
        let gain = 0.15_f32.powf(rng.f32());
        image.mapv_inplace(|value| gain * value);
    }
}

/// Every voxel's class: background, border or centre.
fn labels(scene: &Scene, kind: NetworkKind, cancel: &CancelToken) -> Result<Array3<u8>, Cancelled> {
    let (depth, height, width) = scene.image.dim();
    let shape = [depth, height, width];
    let mut frame = LabelFrame::new(shape, scene.voxel_size, scenes::CENTER_RATIO, scenes::dims(kind));
    for nucleus in &scene.nuclei {
        // One that lies in the margin shows nothing of itself.
        let _ = frame.add(&scenes::tagged(nucleus));
    }
    let mut labels = Array3::from_elem(shape, BACKGROUND);
    for (z, plane) in labels.axis_iter_mut(Axis(0)).enumerate() {
        frame.draw(z, [0, 0], plane, cancel)?;
    }
    Ok(labels)
}

/// Where the state of a training is saved: `KIND-seedSEED-ofSTEPS-STEP.pth`, with `flow-` in front for a flow network, and, beside it, the optimiser's state. The files
/// of a step are complete before those of the step before are removed.
struct StateFolder<'a>(&'a Pretraining);

impl StateFolder<'_> {
    /// What the names of this training's files begin with, and those of no other training.
    fn prefix(&self) -> String {
        let Pretraining { network, seed, steps, .. } = self.0;
        let task = if network.task == NetworkTask::Flow { "flow-" } else { "" };
        format!("{task}{}-seed{seed}-of{steps}-", network.kind.dims())
    }

    /// Steps of which there are files, the latest first.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>, PipelineError> {
        let entries = fs::read_dir(&self.0.folder).map_err(FsError::io("list", &self.0.folder))?;
        let prefix = self.prefix();
        let step_of = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(&prefix)?.strip_suffix(".pth")?.parse().ok()
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut steps: Vec<_> = paths.filter_map(|path| Some((step_of(&path)?, path))).collect();
        steps.sort_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    fn newest(&self) -> Result<Option<(Checkpoint, OptimizerState)>, PipelineError> {
        for (_, path) in self.steps()? {
            let checkpoint = Checkpoint::read(&path)?;
            let optimizer = path.with_extension("adam");
            // A kill may have come between the two files.
            if elephant_fs::metadata(&optimizer)?.is_some()
                && let Some(state) = OptimizerState::read(&checkpoint, &optimizer)?
            {
                return Ok(Some((checkpoint, state)));
            }
        }
        Ok(None)
    }

    fn save(&self, (checkpoint, state): &(Checkpoint, OptimizerState)) -> Result<(), PipelineError> {
        let old = self.steps()?;
        let path = self.0.folder.join(format!("{}{:06}.pth", self.prefix(), state.step));
        checkpoint.write(&path)?;
        state.write(checkpoint.fingerprint(), &path.with_extension("adam"))?;
        for (_, old) in old.into_iter().filter(|(step, _)| *step != state.step) {
            for file in [old.with_extension("adam"), old] {
                // What cannot be removed only takes room.
                let _ = fs::remove_file(file);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use elephant_model::Targets;

    use super::*;

    fn request(kind: NetworkKind) -> Pretraining {
        Pretraining { network: NetworkType::detection(kind), steps: 10, seed: 1, folder: PathBuf::new() }
    }

    #[test]
    fn every_voxel_of_a_batch_has_a_class() {
        for kind in [NetworkKind::Volumetric, NetworkKind::Planar] {
            for step in 0..3 {
                let cancel = CancelToken::default();
                let batch = batch(&request(kind), step, &cancel).unwrap();
                let Targets::Classes(labels) = &batch.targets else { panic!("the targets are not classes") };
                assert_eq!(batch.inputs.index_axis(Axis(1), 0).dim(), labels.dim());
                assert!(labels.iter().all(|label| (1..=3).contains(label)));
                assert!(batch.inputs.iter().all(|value| (0.0..=1.0).contains(value)));
                assert_eq!(batch, super::batch(&request(kind), step, &cancel).unwrap());
            }
        }
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let rates = [0, 99, 500, 999].map(|step| learning_rate(NetworkTask::Detection, step, 1000));
        assert!(rates[0] < rates[1] && rates[1] > rates[2] && rates[2] > rates[3], "{rates:?}");
        assert!(rates[3] < 1e-8);
    }
}
