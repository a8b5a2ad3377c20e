//! Events of the jobs, for any number of listeners.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::JobProgress;

/// Events a slow listener may fall behind before it loses the oldest.
const CAPACITY: usize = 1024;

/// Stages that every job has. Its other stages depend on its kind; see [`elephant_types::TaskEvent`].
pub mod stage {
    /// It began.
    pub const STARTED: &str = "started";
    /// It ended as asked.
    pub const COMPLETED: &str = "completed";
    /// It was stopped on request.
    pub const CANCELLED: &str = "cancelled";
    /// It ended with the `error` of the payload.
    pub const FAILED: &str = "failed";
}

/// Something that happened to a job.
///
/// In JSON: `job`, `kind`, `subject`, `event` (the stage), then the fields of the progress and of the payload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The job's number.
    pub job: i64,
    /// What the job does.
    pub kind: &'static str,
    /// The dataset or model it works on.
    pub subject: String,
    /// What happened.
    #[serde(rename = "event")]
    pub stage: Cow<'static, str>,
    /// How far the job is, if the event says so.
    #[serde(flatten)]
    pub progress: Option<JobProgress>,
    /// Fields that depend on the stage.
    #[serde(flatten)]
    pub payload: Map<String, Value>,
}

/// A bounded broadcast: publishing never waits and never fails, listeners that are too slow lose the oldest events.
#[derive(Clone, Debug)]
pub(crate) struct Bus(broadcast::Sender<Event>);

impl Bus {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }

    pub(crate) fn publish(&self, event: Event) {
        // An error means that there are no listeners.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
