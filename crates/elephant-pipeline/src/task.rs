//! The shared entrance of HTTP, command line and workers: requests are plain data, and each of them runs as a job.

use std::{fmt::Debug, sync::Arc};

use elephant_jobs::{Activity, JobSpec, Jobs, LiveParameters, OnLeave, ProcessState, QueueSpec};
use elephant_types::{DatasetName, ModelName, NetworkKind, NetworkTask, NetworkType, Spot, TaskContext};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    EraseFlowLabels, FitRequest, FitSummary, FlowAnswer, FlowLabels, FlowPredictor, GenerateRequest, Generated, Labels,
    ModelSource, Models, PipelineError, PredictFlowRequest, PredictRequest, Predictor, SteerRequest, Steering,
    TrackRequest, TrackSummary, Tracker, TrainRequest, Trainer, TrainingControl, TrainingOverrides, UpdateFlowLabels,
    UpdateLabels, Uploads, Workspace, datasets, defaults,
};

/// Kinds of the jobs, in the order of a session.
pub const KINDS: [&str; 13] = [
    "generate",
    "predict",
    "reset",
    "update",
    "train",
    "predict_flow",
    "reset_flow",
    "update_flow",
    "train_flow",
    "track",
    "fit",
    "steer",
    "export",
];

/// The queue of predictions: one computes while the next one reads its image. The Java client sends one frame after the
/// other and never retries, so the queue has room for all clients of a laboratory.
pub const PREDICTIONS: QueueSpec = QueueSpec { name: "predictions", at_once: 2, waiting: 64, retry_after: 5 };

/// The resource of jobs that change a model: one of them runs at a time.
const MODELS: &str = "models";

/// A request: data that can leave the process, and the use case that fulfils it.
pub trait Request: Clone + Debug + Serialize + DeserializeOwned + Send + 'static {
    /// Its result.
    type Output: Send + 'static;

    /// The job that runs it.
    fn spec(&self) -> JobSpec;

    /// Checks everything that does not depend on the workspace.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field.
    fn validate(&self) -> Result<(), PipelineError>;

    /// Runs its use case.
    ///
    /// # Errors
    /// Those of the use case.
    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Self::Output, PipelineError>;

    /// Takes note of what an ELEPHANT client has after this answer to it, for the project that follows its session. Does
    /// not fail; what goes wrong is logged.
    fn mirror(&self, _: &UseCases, _: &Self::Output) {}
}

/// The use cases of one workspace. Clones share state.
#[derive(Clone)]
pub struct UseCases {
    /// The workspace.
    pub workspace: Workspace,
    /// Movies and models that arrive in pieces.
    pub uploads: Uploads,
    /// The models.
    pub models: Arc<Models>,
    /// Predictions.
    pub predictor: Arc<Predictor>,
    /// Labels.
    pub labels: Labels,
    /// Predictions of displacements.
    pub flow: Arc<FlowPredictor>,
    /// Labels of displacements.
    pub flow_labels: FlowLabels,
    /// Trainings.
    pub trainer: Arc<Trainer>,
    /// Tracking of whole movies.
    pub tracker: Arc<Tracker>,
    /// Answers to the ELEPHANT client's linking by tracking of whole movies.
    pub steering: Arc<Steering>,
    /// The jobs, through which trainings get changed parameters and show which timepoint they follow.
    pub jobs: Jobs,
}

/// Any request. In JSON it is an object whose one key says which: `{"predict": {"dataset": "fly", …}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Makes a dataset of its movie.
    Generate(GenerateRequest),
    /// Finds the cells of one frame.
    Predict(PredictRequest),
    /// Replaces a model.
    Reset(ResetRequest),
    /// Draws labels.
    Update(UpdateLabels),
    /// Erases all labels of a dataset.
    EraseLabels(EraseLabels),
    /// Trains a model.
    Train(TrainRequest),
    /// Finds the places of one frame's cells in the frame before.
    PredictFlow(PredictFlowRequest),
    /// Draws flow labels.
    UpdateFlow(UpdateFlowLabels),
    /// Erases all flow labels of a dataset.
    EraseFlowLabels(EraseFlowLabels),
    /// Finds and links the cells of a movie.
    Track(TrackRequest),
    /// Learns the costs of tracking.
    Fit(FitRequest),
    /// Says whether tracking of the whole movie answers the ELEPHANT client's linking.
    Steer(SteerRequest),
}

/// The result of a [`Task`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutput {
    /// The dataset is ready; always `true`.
    Ready(bool),
    /// The cells, in raster order of their first voxels.
    Spots(Vec<Spot>),
    /// The timepoints whose labels were drawn, in ascending order; of flow labels the sources' timepoints.
    Timepoints(Vec<usize>),
    /// Places in the frame before, in the order of the request.
    Flow(Vec<FlowAnswer>),
    /// What came of tracking.
    Tracked(TrackSummary),
    /// What the costs of tracking were learnt from.
    Fitted(FitSummary),
    /// The model was replaced or trained, the labels were erased, or linking is answered as asked.
    Done {},
}

/// Which model to replace, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    /// The model.
    pub model: ModelName,
    /// What its network computes.
    #[serde(default = "defaults::detection")]
    pub task: NetworkTask,
    /// The kind of its network.
    pub kind: NetworkKind,
    /// Where the new one comes from.
    pub source: ModelSource,
}

/// Which dataset to erase the labels of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseLabels {
    /// The dataset.
    pub dataset: DatasetName,
}

impl ResetRequest {
    fn network(&self) -> NetworkType {
        NetworkType { task: self.task, kind: self.kind }
    }
}

impl Request for GenerateRequest {
    type Output = Generated;

    fn spec(&self) -> JobSpec {
        JobSpec::new("generate", self.dataset.as_str())
    }

    fn validate(&self) -> Result<(), PipelineError> {
        crate::generate::check_divisor(self.divisor)
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Generated, PipelineError> {
        datasets::generate(&use_cases.workspace, self, context)
    }
}

impl Request for PredictRequest {
    type Output = Vec<Spot>;

    fn spec(&self) -> JobSpec {
        JobSpec {
            queue: Some(PREDICTIONS),
            on_leave: OnLeave::Cancel,
            activity: Activity::showing(ProcessState::Wait),
            ..JobSpec::new("predict", self.dataset.as_str())
        }
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Vec<Spot>, PipelineError> {
        use_cases.predictor.predict(self, context)
    }

    fn mirror(&self, use_cases: &UseCases, spots: &Vec<Spot>) {
        use_cases.mirror_prediction(self, spots);
    }
}

impl Request for ResetRequest {
    type Output = ();

    fn spec(&self) -> JobSpec {
        let kind = match self.task {
            NetworkTask::Detection => "reset",
            NetworkTask::Flow => "reset_flow",
        };
        changes_a_model(kind, "reset of a model", &self.model)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.source.validate(self.network())
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<(), PipelineError> {
        use_cases.trainer.reset(&self.model, self.network(), &self.source, context)
    }
}

impl Request for UpdateLabels {
    type Output = Vec<usize>;

    fn spec(&self) -> JobSpec {
        changes_labels(&self.dataset)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Vec<usize>, PipelineError> {
        let drawn = use_cases.labels.update(self, context)?;
        if let (true, Some(&t)) = (self.is_live, drawn.last()) {
            use_cases.trainer.live().updated(&self.dataset, t);
        }
        Ok(drawn)
    }

    fn mirror(&self, use_cases: &UseCases, _: &Vec<usize>) {
        use_cases.mirror_tags(self);
    }
}

impl Request for EraseLabels {
    type Output = ();

    fn spec(&self) -> JobSpec {
        changes_labels(&self.dataset)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        Ok(())
    }

    fn run(&self, use_cases: &UseCases, _: &TaskContext) -> Result<(), PipelineError> {
        use_cases.labels.reset(&self.dataset)
    }
}

impl Request for TrainRequest {
    type Output = ();

    fn spec(&self) -> JobSpec {
        let kind = match self.network().task {
            NetworkTask::Detection => "train",
            NetworkTask::Flow => "train_flow",
        };
        changes_a_model(kind, "training", &self.model)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<(), PipelineError> {
        tracing::debug!(seed = self.seed, dataset = %self.dataset, model = %self.model, "training");
        let control = SharedControl { parameters: use_cases.jobs.live_parameters(), jobs: &use_cases.jobs };
        let trained = use_cases.trainer.train(self, &control, context);
        control.show_followed_timepoint(None);
        trained
    }
}

fn changes_a_model(kind: &'static str, noun: &'static str, model: &ModelName) -> JobSpec {
    JobSpec {
        noun,
        exclusive: Some(MODELS.into()),
        activity: Activity::showing(ProcessState::Run),
        ..JobSpec::new(kind, model.as_str())
    }
}

fn changes_labels(dataset: &DatasetName) -> JobSpec {
    let activity = Activity { updating_labels: true, ..Activity::showing(ProcessState::Wait) };
    JobSpec { activity, ..JobSpec::new("update", dataset.as_str()) }
}

/// Training parameters that clients set meanwhile, and where other programs see which timepoint is followed.
struct SharedControl<'a> {
    parameters: LiveParameters,
    jobs: &'a Jobs,
}

impl TrainingControl for SharedControl<'_> {
    fn overrides(&self) -> TrainingOverrides {
        let changes = self.parameters.changes();
        TrainingOverrides { learning_rate: changes.learning_rate, crops_per_timepoint: changes.crop_count }
    }

    fn show_followed_timepoint(&self, timepoint: Option<usize>) {
        if let Err(error) = self.jobs.elephant().set_live_timepoint(timepoint.map(|t| t as u64)) {
            tracing::warn!(%error, "the timepoint that is followed is not recorded");
        }
    }
}

/// Evaluates `$body` with the request in `$task`.
macro_rules! with_request {
    ($task:expr, $request:ident => $body:expr) => {
        match $task {
            Task::Generate($request) => $body,
            Task::Predict($request) => $body,
            Task::Reset($request) => $body,
            Task::Update($request) => $body,
            Task::EraseLabels($request) => $body,
            Task::Train($request) => $body,
            Task::PredictFlow($request) => $body,
            Task::UpdateFlow($request) => $body,
            Task::EraseFlowLabels($request) => $body,
            Task::Track($request) => $body,
            Task::Fit($request) => $body,
            Task::Steer($request) => $body,
        }
    };
}

impl Task {
    /// As [`Request::spec`].
    pub fn spec(&self) -> JobSpec {
        with_request!(self, request => Request::spec(request))
    }

    /// As [`Request::validate`].
    ///
    /// # Errors
    /// As [`Request::validate`].
    pub fn validate(&self) -> Result<(), PipelineError> {
        with_request!(self, request => Request::validate(request))
    }

    /// As [`Request::run`], whichever request it is.
    ///
    /// # Errors
    /// As [`Request::run`]; also when a dataset is to be made and there is no movie that gives the shape asked for.
    pub fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<TaskOutput, PipelineError> {
        match self {
            Self::Generate(request) => match request.run(use_cases, context)? {
                Generated::Ready(_) => Ok(TaskOutput::Ready(true)),
                Generated::NeedsMovie(reason) => Err(reason),
            },
            Self::Predict(request) => request.run(use_cases, context).map(TaskOutput::Spots),
            Self::Reset(request) => request.run(use_cases, context).map(|()| TaskOutput::Done {}),
            Self::Update(request) => request.run(use_cases, context).map(TaskOutput::Timepoints),
            Self::EraseLabels(request) => request.run(use_cases, context).map(|()| TaskOutput::Done {}),
            Self::Train(request) => request.run(use_cases, context).map(|()| TaskOutput::Done {}),
            Self::PredictFlow(request) => request.run(use_cases, context).map(TaskOutput::Flow),
            Self::UpdateFlow(request) => request.run(use_cases, context).map(TaskOutput::Timepoints),
            Self::EraseFlowLabels(request) => request.run(use_cases, context).map(|()| TaskOutput::Done {}),
            Self::Track(request) => request.run(use_cases, context).map(TaskOutput::Tracked),
            Self::Fit(request) => request.run(use_cases, context).map(TaskOutput::Fitted),
            Self::Steer(request) => request.run(use_cases, context).map(|()| TaskOutput::Done {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Task, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_may_leave_the_process_and_come_back() {
        for text in [
            r#"{"generate": {"dataset": "fly"}}"#,
            r#"{"predict": {"dataset": "fly", "timepoint": 3, "voxel_size": [2, 0.5, 0.5], "patch": [16, 128, 128]}}"#,
            r#"{"reset": {"model": "a/b.pth", "kind": "3d", "source": "versatile"}}"#,
            r#"{"reset": {"model": "m.pth", "kind": "2d", "source": {"uploaded": ".tmpAb12"}}}"#,
            r#"{"reset": {"model": "m.pth", "kind": "3d", "source": {"random": {"members": 2, "seed": 7}}}}"#,
            r#"{"update": {"dataset": "fly", "voxel_size": [1, 1, 1], "spots": [{"t": 0, "center_um": [0, 1, 2],
                "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "tag": "fn"}]}}"#,
            r#"{"erase_labels": {"dataset": "fly"}}"#,
            r#"{"train": {"dataset": "fly", "mode": {"live": {}}, "crops": {"voxel_size": [2, 1, 1]}, "seed": 1}}"#,
            r#"{"train": {"dataset": "fly", "mode": "live", "crops": {"voxel_size": [2, 1, 1]}, "seed": 1}}"#,
            r#"{"train": {"dataset": "fly", "mode": {"live": {"after": 3}}, "crops": {"voxel_size": [2, 1, 1]}}}"#,
            r#"{"reset": {"model": "flow.pth", "task": "flow", "kind": "3d", "source": "versatile"}}"#,
            r#"{"predict_flow": {"dataset": "fly", "timepoint": 3, "voxel_size": [2, 0.5, 0.5], "spots": [{"id": -7,
                "center_um": [0, 1, 2], "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}]}}"#,
            r#"{"update_flow": {"dataset": "fly", "voxel_size": [1, 1, 1], "links": [{"t": 0, "center_um": [0, 1, 2],
                "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "displacement_um": [0, 0, 1]}]}}"#,
            r#"{"erase_flow_labels": {"dataset": "fly"}}"#,
            r#"{"train": {"dataset": "fly", "model": "flow.pth", "crops": {"voxel_size": [2, 1, 1]}, "mode": {"links":
                {"labels": {"dataset": "fly", "voxel_size": [2, 1, 1], "links": [{"t": 0, "center_um": [0, 1, 2],
                "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "displacement_um": [0, 0, 1]}]}}}}}"#,
        ] {
            let task = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            task.validate().unwrap();
            let sent = serde_json::to_string(&task).unwrap();
            assert_eq!(parse(&sent).as_ref(), Ok(&task), "{sent}");
            assert!(KINDS.contains(&task.spec().kind));
        }
    }

    #[test]
    fn unknown_fields_and_wrong_values_are_refused() {
        for (text, reason) in [
            (
                r#"{"predict": {"dataset": "fly", "timepoint": 0, "voxel_size": [1, 1, 1], "x": 1}}"#,
                "unknown field `x`",
            ),
            (
                r#"{"predict": {"dataset": "../fly", "timepoint": 0, "voxel_size": [1, 1, 1]}}"#,
                "would leave its folder",
            ),
            (r#"{"predict": {"dataset": "fly", "timepoint": 0, "voxel_size": [0, 1, 1]}}"#, "three positive numbers"),
            (r#"{"cook": {"dataset": "fly"}}"#, "unknown variant `cook`"),
            (
                r#"{"reset": {"model": "m.pth", "kind": "3d", "source": {"uploaded": "../../etc/passwd"}}}"#,
                "not the name",
            ),
            (r#"{"generate": {"dataset": "fly", "divisor": 0}}"#, "the divisor 0"),
            (
                r#"{"predict_flow": {"dataset": "fly", "timepoint": 0, "voxel_size": [1, 1, 1], "spots": []}}"#,
                "timepoint 0 has no frame before it",
            ),
            (
                r#"{"update_flow": {"dataset": "fly", "voxel_size": [1, 1, 1], "max_displacement": 0, "links": []}}"#,
                "max_displacement must be 0.001 to 10000 voxels",
            ),
            (
                r#"{"predict": {"dataset": "fly", "timepoint": 0, "voxel_size": [1, 1, 1], "threshold": 2}}"#,
                "p_thresh must be 0 to 1",
            ),
            (
                r#"{"reset": {"model": "m.pth", "kind": "3d", "source": {"random": {"members": 65}}}}"#,
                "nmodels must be 1 to 64",
            ),
            (
                r#"{"reset": {"model": "m.pth", "kind": "2d", "source": {"random": {"prior":
                    {"dataset": "fly", "crops": {"voxel_size": [2, 1, 1]}}}}}}"#,
                "a 2-D network cannot learn from crops for a 3-D one",
            ),
            (
                r#"{"train": {"dataset": "fly", "mode": "spots", "crops": {"voxel_size": [2, 1, 1]}}}"#,
                "the mode \"spots\" is unknown or has fields",
            ),
            (
                r#"{"train": {"dataset": "fly", "mode": {"live": {"afer": 3}}, "crops": {"voxel_size": [2, 1, 1]}}}"#,
                "unknown field `afer`",
            ),
            (
                r#"{"train": {"dataset": "fly", "crops": {"voxel_size": [2, 1, 1]}, "mode": {"spots": {"labels":
                    {"dataset": "worm", "voxel_size": [2, 1, 1], "spots": [{"t": 0, "center_um": [0, 1, 2],
                    "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "tag": "fn"}]}}}}}"#,
                "the labels are for the dataset worm, but the training is on fly",
            ),
        ] {
            let refused = parse(text).and_then(|task| task.validate().map_err(|error| error.to_string())).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn jobs_that_change_a_model_exclude_each_other() {
        let train = parse(r#"{"train": {"dataset": "fly", "mode": {"live": {}}, "crops": {"voxel_size": [2, 1, 1]}}}"#);
        let reset = parse(r#"{"reset": {"model": "m.pth", "kind": "3d", "source": "versatile"}}"#);
        let [train, reset] = [train, reset].map(|task| task.unwrap().spec().exclusive);
        assert!(train.is_some() && train == reset);
    }
}
