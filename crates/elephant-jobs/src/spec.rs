//! What a job is, before it runs.

use std::borrow::Cow;

/// A job to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Name of what it does, used in records, events, metrics and the log.
    pub kind: &'static str,
    /// What it is called in messages, as in "a training is running".
    pub noun: &'static str,
    /// Name of what it works on: a dataset or a model.
    pub subject: String,
    /// Jobs that name the same resource exclude each other: the second one is refused.
    pub exclusive: Option<Cow<'static, str>>,
    /// The queue in which it waits for its turn; `None` begins at once.
    pub queue: Option<QueueSpec>,
    /// What happens when its caller leaves.
    pub on_leave: OnLeave,
    /// What clients of the original ELEPHANT server see while it runs. A job that counts for the process state is stopped
    /// by their abort.
    pub activity: Activity,
}

impl JobSpec {
    /// A job that excludes nothing, waits for nothing, goes on when its caller leaves, and does not show in the process
    /// state. Its noun is its kind.
    pub fn new(kind: &'static str, subject: impl Into<String>) -> Self {
        Self {
            kind,
            noun: kind,
            subject: subject.into(),
            exclusive: None,
            queue: None,
            on_leave: OnLeave::Continue,
            activity: Activity::default(),
        }
    }
}

/// What happens to a job when its caller leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLeave {
    /// It is cancelled: its result is for the caller alone.
    Cancel,
    /// It goes on: its result stays here.
    Continue,
}

/// A queue: some jobs run, some wait in order, more are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name, a plural: "predictions". Queues of the same name are the same queue.
    pub name: &'static str,
    /// Jobs that run at the same time.
    pub at_once: usize,
    /// Jobs that may wait.
    pub waiting: usize,
    /// After how many seconds a refused caller may try again.
    pub retry_after: u32,
}

/// What the running jobs amount to, as clients and other programs of the original ELEPHANT server see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The process state (docs/protocol.md, "Process states").
    pub state: ProcessState,
    /// Whether labels are being drawn.
    pub updating_labels: bool,
    /// Whether flow labels are being drawn.
    pub updating_flow_labels: bool,
}

impl Default for Activity {
    fn default() -> Self {
        Self::showing(ProcessState::Idle)
    }
}

impl Activity {
    /// The process state alone.
    pub fn showing(state: ProcessState) -> Self {
        Self { state, updating_labels: false, updating_flow_labels: false }
    }

    /// Whether the original's abort concerns a job that shows this.
    pub(crate) fn is_abortable(self) -> bool {
        self.state != ProcessState::Idle
    }
}

/// The one global state that the ELEPHANT client knows (docs/protocol.md, "Process states").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessState {
    /// Nothing runs.
    Idle = 0,
    /// A training or a model reset runs.
    Run = 1,
    /// A prediction or a label update runs.
    Wait = 2,
}

impl ProcessState {
    /// The state with this number on the wire.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Idle, Self::Run, Self::Wait].into_iter().find(|state| *state as i64 == number)
    }
}
