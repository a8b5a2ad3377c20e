//! Progress for whoever listens.

use serde::Serialize;
use tokio::sync::broadcast;

use crate::{JobKind, JobProgress, loss::Values};

/// Events a slow listener may fall behind before it loses the oldest.
const CAPACITY: usize = 1024;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The job's number.
    pub job: i64,
    /// What the job does.
    pub kind: JobKind,
    /// The dataset or model it works on.
    pub subject: String,
    /// What happened.
    #[serde(flatten)]
    pub event: EventKind,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// It began.
    Started,
    /// Steps are finished; of long jobs, one event for each percent.
    Progress(JobProgress),
    /// An optimiser made a step.
    TrainingStep {
        /// How far the training is.
        #[serde(flatten)]
        progress: JobProgress,
        /// The value that was minimised; null where it is not finite.
        loss: Option<f64>,
        /// What it is made of.
        parts: Values,
    },
    /// From now on a prediction uses a newer version of the model that the job trains.
    ModelUpdated,
    /// It ended as asked.
    Completed,
    /// It was stopped on request.
    Cancelled,
    /// It ended with an error.
    Failed {
        /// Why.
        error: String,
    },
}

/// A bounded broadcast: publishing never waits and never fails, listeners that are too slow lose the oldest events.
#[derive(Clone, Debug)]
pub(crate) struct Bus(broadcast::Sender<Event>);

impl Bus {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }

    pub(crate) fn publish(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
