//! What every long operation gets: a cancellation flag and a listener for its progress.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The operation stopped because its [`CancelToken`] was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// A flag shared between an operation and those who may stop it. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the operation to stop; it does so at its next check.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the operation was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Returns early from an operation that was asked to stop.
    ///
    /// # Errors
    /// [`Cancelled`] once [`cancel`](Self::cancel) was called.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// How far an operation is: `done` of `total` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps finished.
    pub done: u64,
    /// Steps in all; at least `done`.
    pub total: u64,
}

/// One step of an optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingStep {
    /// Steps finished in this operation, this one included.
    pub done: u64,
    /// Steps in all; `None` for a training that runs until it is stopped.
    pub total: Option<u64>,
    /// The value that was minimised.
    pub loss: f64,
    /// What it is made of, by the names of the original's TensorBoard tags (docs/method.md, "Training data and loop").
    pub parts: Vec<(&'static str, f64)>,
}

/// What an operation reports while it runs: what happened, the number of steps, and further values.
///
/// Stages are open: each family of use cases has its own, with a constructor for each. Events can leave the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// What happened, in snake case.
    pub stage: Cow<'static, str>,
    /// Steps finished; `None` where the event does not count steps.
    pub done: Option<u64>,
    /// Steps in all; `None` where there is no end, or none is known.
    pub total: Option<u64>,
    /// Further values, by name.
    pub payload: Map<String, Value>,
}

impl TaskEvent {
    /// Stage of [`progress`](Self::progress).
    pub const PROGRESS: &'static str = "progress";
    /// Stage of a [`TrainingStep`], with `loss` and its `parts` by name; null where they are not finite.
    pub const TRAINING_STEP: &'static str = "training_step";
    /// Stage of [`model_updated`](Self::model_updated).
    pub const MODEL_UPDATED: &'static str = "model_updated";
    /// Stage of [`note`](Self::note), with its `text`.
    pub const NOTE: &'static str = "note";

    fn new(stage: &'static str) -> Self {
        Self { stage: stage.into(), done: None, total: None, payload: Map::new() }
    }

    /// So many steps are finished.
    pub fn progress(Progress { done, total }: Progress) -> Self {
        Self { done: Some(done), total: Some(total), ..Self::new(Self::PROGRESS) }
    }

    /// From now on a prediction uses a newer version of the model that the operation trains.
    pub fn model_updated() -> Self {
        Self::new(Self::MODEL_UPDATED)
    }

    /// A sentence for the caller: where a model came from, what was done instead.
    pub fn note(text: impl Into<String>) -> Self {
        let payload = Map::from_iter([("text".to_owned(), Value::String(text.into()))]);
        Self { payload, ..Self::new(Self::NOTE) }
    }
}

impl From<TrainingStep> for TaskEvent {
    /// JSON has no NaN and no infinity: such numbers become null.
    fn from(step: TrainingStep) -> Self {
        let parts = step.parts.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        let payload =
            Map::from_iter([("loss".to_owned(), Value::from(step.loss)), ("parts".to_owned(), Value::Object(parts))]);
        Self { done: Some(step.done), total: step.total, payload, ..Self::new(Self::TRAINING_STEP) }
    }
}

/// Cancellation and progress of one operation. Clones belong to the same operation.
#[derive(Clone)]
pub struct TaskContext {
    cancel: CancelToken,
    report: Arc<dyn Fn(TaskEvent) + Send + Sync>,
}

impl TaskContext {
    /// An operation that `cancel` stops and that calls `report` with its progress. `report` must return quickly.
    pub fn new(cancel: CancelToken, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        let progress_only = move |event: TaskEvent| {
            if let (TaskEvent::PROGRESS, Some(done), Some(total)) = (&*event.stage, event.done, event.total) {
                report(Progress { done, total });
            }
        };
        Self::watched(cancel, progress_only)
    }

    /// An operation that `cancel` stops and that calls `report` with all its events. `report` must return quickly.
    pub fn watched(cancel: CancelToken, report: impl Fn(TaskEvent) + Send + Sync + 'static) -> Self {
        Self { cancel, report: Arc::new(report) }
    }

    /// An operation whose events are dropped and that is never cancelled.
    pub fn detached() -> Self {
        Self::new(CancelToken::default(), |_| {})
    }

    /// The operation's cancellation flag.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// See [`CancelToken::check`].
    ///
    /// # Errors
    /// [`Cancelled`] once the operation was asked to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.cancel.check()
    }

    /// Reports that `done` of `total` steps are finished.
    pub fn report(&self, done: u64, total: u64) {
        self.tell(TaskEvent::progress(Progress { done, total }));
    }

    /// Reports an event.
    pub fn tell(&self, event: impl Into<TaskEvent>) {
        (self.report)(event.into());
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TaskContext").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}
