//! A network without libtorch, for tests: fast, deterministic, and the same on every machine.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use elephant_checkpoint::{Checkpoint, OptimizerState, StateDict, Tensor};
use elephant_fs::FileVersion;
use elephant_types::{CancelToken, Coded, ErrorCode, NetworkKind, NetworkTask, NetworkType, Numerics, TaskContext};
use ndarray::{Array3, Array4, Axis};

use crate::{
    FlowModel, FlowOptions, ImageSource, LossValues, ModelError, ModelInTraining, NetworkCatalogue, PlaneSink,
    SegmentationModel, SegmentationOptions, TrainableModel, TrainingBatch, TrainingOptions,
};

/// Planes that the sink gets at once.
const SLAB_PLANES: usize = 2;
/// The only parameter of a fake detection network: how many steps it was trained. It has three axes in 3-D and two in 2-D.
const STEPS: &str = "steps";
/// The same of a fake flow network.
const FLOW_STEPS: &str = "flow_steps";

/// A network whose probability of a centre is a function of the voxel's intensity, by default the intensity itself, so that
/// it finds bright blobs. As a flow network, it gives every voxel the same vector. Its only parameter counts the steps of its
/// training. Clones share state.
#[derive(Clone, Default)]
pub struct FakeNetwork(Arc<State>);

#[derive(Default)]
struct State {
    center_probability: Option<fn(f32) -> f32>,
    segment_bytes: AtomicU64,
    segment_calls: AtomicU64,
    displacement: Mutex<[f32; 3]>,
    displacement_calls: AtomicU64,
    refuses_to_publish: AtomicBool,
    published: Mutex<Vec<u64>>,
    after_step: Mutex<Option<StepHook>>,
    before_prediction: Mutex<Option<PredictionHook>>,
}

/// Called with the task of a prediction, before the prediction.
type PredictionHook = Arc<dyn Fn(&TaskContext) + Send + Sync>;

/// Called with the number of a step and its batch, after the step.
type StepHook = Arc<dyn Fn(u64, &TrainingBatch) + Send + Sync>;

impl FakeNetwork {
    /// A network with another function from intensity to probability.
    pub fn with_center_probability(center_probability: fn(f32) -> f32) -> Self {
        Self(Arc::new(State { center_probability: Some(center_probability), ..State::default() }))
    }

    /// The checkpoint of a fake detection network that was trained for so many steps.
    pub fn checkpoint(kind: NetworkKind, steps: u64) -> Checkpoint {
        dict(NetworkType::detection(kind), steps).into()
    }

    /// The checkpoint of a fake flow network that was trained for so many steps.
    pub fn flow_checkpoint(kind: NetworkKind, steps: u64) -> Checkpoint {
        dict(NetworkType::flow(kind), steps).into()
    }

    /// The steps that a fake network's checkpoint was trained for; `None` for another checkpoint.
    pub fn steps(checkpoint: &Checkpoint) -> Option<u64> {
        let member = checkpoint.members.first()?;
        let value = *member.get(STEPS).or_else(|| member.get(FLOW_STEPS))?.to_f32().first()?;
        Some(value as u64)
    }

    /// Lets [`SegmentationModel::segment_bytes`] return this.
    pub fn set_segment_bytes(&self, bytes: u64) {
        self.0.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How many predictions have begun.
    pub fn segment_calls(&self) -> u64 {
        self.0.segment_calls.load(Ordering::Relaxed)
    }

    /// Lets [`FlowModel::displacements`] return this vector, (x, y, z), in every voxel where the later frame is brighter than
    /// 0. Elsewhere, and without this call, it returns 0.
    pub fn set_displacement(&self, vector: [f32; 3]) {
        *lock(&self.0.displacement) = vector;
    }

    /// How many predictions of displacements have begun.
    pub fn displacement_calls(&self) -> u64 {
        self.0.displacement_calls.load(Ordering::Relaxed)
    }

    /// Lets [`TrainableModel::publish`] fail from now on.
    pub fn refuse_to_publish(&self) {
        self.0.refuses_to_publish.store(true, Ordering::Relaxed);
    }

    /// The steps of the checkpoints that were published, in order, and 0 for each withdrawal.
    pub fn published(&self) -> Vec<u64> {
        lock(&self.0.published).clone()
    }

    /// Calls `hook` with the number of each step and its batch, after the step and before it returns.
    pub fn after_each_step(&self, hook: impl Fn(u64, &TrainingBatch) + Send + Sync + 'static) {
        *lock(&self.0.after_step) = Some(Arc::new(hook));
    }

    /// Calls `hook` with the task of each prediction, before the prediction.
    pub fn before_each_prediction(&self, hook: impl Fn(&TaskContext) + Send + Sync + 'static) {
        *lock(&self.0.before_prediction) = Some(Arc::new(hook));
    }

    /// Drops the hooks, and with them what they hold.
    pub fn forget_hook(&self) {
        *lock(&self.0.after_step) = None;
        *lock(&self.0.before_prediction) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dict(network: NetworkType, steps: u64) -> StateDict {
    let axes = if network.kind == NetworkKind::Volumetric { 3 } else { 2 };
    let tensor = Tensor::from_f32(vec![1; axes], &[steps as f32]).unwrap_or_else(|error| unreachable!("{error}"));
    let name = if network.task == NetworkTask::Detection { STEPS } else { FLOW_STEPS };
    [(name.to_owned(), tensor)].into_iter().collect()
}

impl FakeNetwork {
    /// Calls the hook of a prediction, and reads and checks its model.
    fn begin_prediction(&self, model: &Path, network: NetworkType, context: &TaskContext) -> Result<(), ModelError> {
        let hook = lock(&self.0.before_prediction).clone();
        if let Some(hook) = hook {
            hook(context);
        }
        let checkpoint = Checkpoint::read(model).map_err(|error| ModelError::from_coded(&error))?;
        self.verify(&checkpoint, network)
    }
}

impl SegmentationModel for FakeNetwork {
    fn segment(
        &self,
        model: &Path,
        image: Arc<dyn ImageSource>,
        options: &SegmentationOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError> {
        self.0.segment_calls.fetch_add(1, Ordering::Relaxed);
        self.begin_prediction(model, NetworkType::detection(options.kind), context)?;
        let [depth, height, width] = image.shape();
        let center = self.0.center_probability.unwrap_or(|intensity| intensity);
        let total = depth.div_ceil(SLAB_PLANES) as u64;
        context.report(0, total);
        for (done, z) in (0..depth).step_by(SLAB_PLANES).enumerate() {
            context.check()?;
            let mut slab = Array3::zeros((SLAB_PLANES.min(depth - z), height, width));
            image.read(0, [z, 0, 0], slab.view_mut(), context.cancel_token())?;
            slab.mapv_inplace(center);
            let classes = options.output.channels();
            // Background, border and centre; the border is nowhere.
            let mut planes = Array4::zeros((classes, slab.len_of(Axis(0)), height, width));
            planes.index_axis_mut(Axis(0), 0).assign(&slab.mapv(|center| 1.0 - center));
            planes.index_axis_mut(Axis(0), classes - 1).assign(&slab);
            sink.take(z, planes.view(), context.cancel_token())?;
            context.report(done as u64 + 1, total);
        }
        Ok(())
    }

    fn segment_bytes(&self, _: [usize; 3], _: &SegmentationOptions) -> Result<u64, ModelError> {
        Ok(self.0.segment_bytes.load(Ordering::Relaxed))
    }
}

impl FlowModel for FakeNetwork {
    fn displacements(
        &self,
        model: &Path,
        pair: Arc<dyn ImageSource>,
        options: &FlowOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError> {
        self.0.displacement_calls.fetch_add(1, Ordering::Relaxed);
        self.begin_prediction(model, NetworkType::flow(options.kind), context)?;
        let [depth, height, width] = pair.shape();
        let vector = *lock(&self.0.displacement);
        let total = depth.div_ceil(SLAB_PLANES) as u64;
        context.report(0, total);
        for (done, z) in (0..depth).step_by(SLAB_PLANES).enumerate() {
            context.check()?;
            let mut later = Array3::zeros((SLAB_PLANES.min(depth - z), height, width));
            pair.read(1, [z, 0, 0], later.view_mut(), context.cancel_token())?;
            let size = (options.components(), later.len_of(Axis(0)), height, width);
            let planes = Array4::from_shape_fn(
                size,
                |(component, z, y, x)| {
                    if later[[z, y, x]] > 0.0 { vector[component] } else { 0.0 }
                },
            );
            sink.take(z, planes.view(), context.cancel_token())?;
            context.report(done as u64 + 1, total);
        }
        Ok(())
    }

    fn displacement_bytes(&self, _: [usize; 3], _: &FlowOptions) -> Result<u64, ModelError> {
        Ok(self.0.segment_bytes.load(Ordering::Relaxed))
    }
}

impl NetworkCatalogue for FakeNetwork {
    fn identify(&self, checkpoint: &Checkpoint) -> Result<NetworkType, ModelError> {
        let missing = || ModelError::new(ErrorCode::InvalidArgument, format!("the parameter {STEPS} is missing"));
        let member = checkpoint.members.first().ok_or_else(missing)?;
        let (task, tensor) = match (member.get(STEPS), member.get(FLOW_STEPS)) {
            (Some(tensor), _) => (NetworkTask::Detection, tensor),
            (None, Some(tensor)) => (NetworkTask::Flow, tensor),
            (None, None) => return Err(missing()),
        };
        let kind = if tensor.shape().len() == 2 { NetworkKind::Planar } else { NetworkKind::Volumetric };
        Ok(NetworkType { task, kind })
    }

    fn initialise(&self, network: NetworkType, _: u64) -> Result<Checkpoint, ModelError> {
        Ok(dict(network, 0).into())
    }
}

impl TrainableModel for FakeNetwork {
    fn device_count(&self) -> Result<usize, ModelError> {
        Ok(1)
    }

    fn step_bytes(&self, _: NetworkTask, _: u64, _: Numerics) -> Result<u64, ModelError> {
        Ok(0)
    }

    fn begin(
        &self,
        model: Checkpoint,
        _: TrainingOptions,
        _: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, ModelError> {
        cancel.check()?;
        let network = self.identify(&model)?;
        let steps = Self::steps(&model).unwrap_or_default();
        Ok(Box::new(FakeTraining { network, steps: Mutex::new(steps), state: self.0.clone() }))
    }

    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), ModelError> {
        if self.0.refuses_to_publish.load(Ordering::Relaxed) {
            return Err(ModelError::new(ErrorCode::Internal, "the fake network refuses to publish"));
        }
        let found = FileVersion::of(path).map_err(|error| ModelError::new(error.code(), error.to_string()))?;
        if found != version {
            return Err(ModelError::new(ErrorCode::Conflict, "the file has another version"));
        }
        self.identify(model)?;
        lock(&self.0.published).push(Self::steps(model).unwrap_or_default());
        Ok(())
    }

    fn withdraw(&self, _: &Path) {
        lock(&self.0.published).push(0);
    }
}

/// Counts steps.
struct FakeTraining {
    network: NetworkType,
    steps: Mutex<u64>,
    state: Arc<State>,
}

impl ModelInTraining for FakeTraining {
    fn step(&self, batch: TrainingBatch, _: f64, cancel: &CancelToken) -> Result<LossValues, ModelError> {
        cancel.check()?;
        let step = {
            let mut steps = lock(&self.steps);
            *steps += 1;
            *steps
        };
        let hook = lock(&self.state.after_step).clone();
        if let Some(hook) = hook {
            hook(step, &batch);
        }
        Ok(LossValues { total: 0.5, parts: Vec::new() })
    }

    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), ModelError> {
        let step = *lock(&self.steps);
        let parameters = || vec![dict(self.network, step)];
        let state = OptimizerState { step, first_moments: parameters(), second_moments: parameters() };
        Ok((Checkpoint::new(parameters()), state))
    }
}
