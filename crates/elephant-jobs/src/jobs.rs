//! Beginning, cancelling and looking at jobs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use elephant_types::TaskContext;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::{
    Activity, ElephantState, Event, Job, JobFilter, JobProgress, JobRecord, JobSpec, JobStatus, JobStore, JobsError,
    LiveParameters, LossPoint, Owner, ProcessState, TrainingParameters,
    bus::Bus,
    monitor::Monitor,
    parameters::Latest,
    record::unix_now,
    recorder::Recorder,
    running::{Recorded, Reservation},
    stage,
};

/// The jobs of this process. Clones share state.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recorder: Arc<Recorder>,
    thread: Mutex<Option<JoinHandle<()>>>,
    bus: Bus,
    parameters: Latest,
}

/// The present state of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobDetails {
    /// Its record.
    #[serde(flatten)]
    pub record: JobRecord,
    /// How far it is; `None` before its first step and after its end.
    pub progress: Option<JobProgress>,
    /// A training's loss over its steps: all of them, or, of a long training, evenly spaced ones and the newest.
    pub losses: Vec<LossPoint>,
}

impl Jobs {
    /// Opens the records in `store` as `owner`: the process state is idle, and the jobs that an earlier process of the same
    /// role left running, or whose lease has run out, are marked as interrupted and logged. If the store is unavailable, this
    /// happens when it becomes available; until then no job can begin.
    ///
    /// # Errors
    /// When the store answers and cannot be used, or the thread for the records cannot be started.
    pub fn open(store: impl JobStore + ElephantState, owner: Owner) -> Result<Self, JobsError> {
        let recorder = Arc::new(Recorder::new(store, owner));
        match recorder.recover() {
            Err(error @ JobsError::RedisUnreachable { .. }) => {
                tracing::warn!(%error, "no job can begin until the state can be reached");
            }
            result => result?,
        }
        let thread = std::thread::Builder::new().name("job-records".into()).spawn({
            let recorder = recorder.clone();
            move || recorder.run()
        });
        let thread = Mutex::new(Some(thread.map_err(JobsError::Thread)?));
        Ok(Self(Arc::new(Inner { recorder, thread, bus: Bus::new(), parameters: Latest::default() })))
    }

    /// The records themselves.
    pub fn store(&self) -> &dyn JobStore {
        &*self.0.recorder.store
    }

    /// Whether the state can be written and everything that happened is recorded. Writes a few bytes.
    ///
    /// # Errors
    /// What the store says, or [`JobsError::NotRecorded`] soon after it failed.
    pub fn check(&self) -> Result<(), JobsError> {
        self.0.recorder.check()
    }

    /// The state that clients of the original ELEPHANT server see.
    pub fn elephant(&self) -> &dyn ElephantState {
        &*self.0.recorder.elephant
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.bus.subscribe()
    }

    /// Begins a job without its queue; see [`JobRunner`](crate::JobRunner). A job that is refused leaves no trace.
    ///
    /// # Errors
    /// [`JobsError::Busy`] when a running job excludes this one, or when the job cannot be recorded.
    pub fn begin(&self, spec: &JobSpec) -> Result<Job, JobsError> {
        let recorder = &self.0.recorder;
        let Reservation { ticket, cancel, cancelled } = recorder.running.reserve(spec)?;
        let record = self.record(spec).inspect_err(|_| recorder.running.remove(ticket))?;
        let started = Event {
            job: record.id,
            kind: spec.kind,
            subject: record.subject.clone(),
            stage: stage::STARTED.into(),
            progress: None,
            payload: serde_json::Map::new(),
        };
        let monitor = Arc::new(Monitor::new(self.0.bus.clone(), started));
        recorder.running.record(ticket, Recorded { record: record.clone(), monitor: monitor.clone() });
        monitor.begun();
        recorder.write_activity();
        let context = TaskContext::watched(cancel, {
            let monitor = monitor.clone();
            move |event| monitor.observe(event)
        });
        Ok(Job::new(recorder.clone(), ticket, record, monitor, context, cancelled))
    }

    fn record(&self, spec: &JobSpec) -> Result<JobRecord, JobsError> {
        let recorder = &self.0.recorder;
        recorder.recover()?;
        let record = JobRecord {
            id: recorder.store.new_job_id()?,
            kind: spec.kind.into(),
            subject: spec.subject.clone(),
            status: JobStatus::Running,
            error: None,
            note: None,
            begun_at: Some(unix_now()),
            ended_at: None,
        };
        recorder.store.save_job(&record, Some(&recorder.lease()))?;
        Ok(record)
    }

    /// The records that `filter` lets through, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, JobsError> {
        self.store().jobs(filter)
    }

    /// How many jobs of `kind` have begun and not ended.
    pub fn running(&self, kind: &str) -> usize {
        self.0.recorder.running.count(kind)
    }

    /// A job's record, progress and losses.
    ///
    /// # Errors
    /// [`JobsError::UnknownJob`] for a number that no remembered job has, or when the store cannot be read.
    pub fn details(&self, id: i64) -> Result<JobDetails, JobsError> {
        let running = self.0.recorder.running.recorded().into_iter().find(|job| job.record.id == id);
        if let Some(Recorded { record, monitor }) = running {
            let record = JobRecord { note: monitor.note(), ..record };
            return Ok(JobDetails { record, progress: monitor.progress(), losses: monitor.losses() });
        }
        let record = self.store().job(id)?.ok_or(JobsError::UnknownJob(id))?;
        Ok(JobDetails { record, progress: None, losses: self.store().losses(id)? })
    }

    /// Asks the job `id` to stop; it does so within a second. Its record as it is now.
    ///
    /// # Errors
    /// [`JobsError::UnknownJob`], [`JobsError::AlreadyEnded`], [`JobsError::RunsElsewhere`], or when the store cannot be
    /// read.
    pub fn cancel(&self, id: i64) -> Result<JobRecord, JobsError> {
        if let Some(record) = self.0.recorder.running.cancel_job(id) {
            return Ok(record);
        }
        let record = self.store().job(id)?.ok_or(JobsError::UnknownJob(id))?;
        if record.status == JobStatus::Running {
            return Err(JobsError::RunsElsewhere(id));
        }
        Err(JobsError::AlreadyEnded { id, status: record.status })
    }

    /// Asks a job of this process to stop, if it runs, without looking into the store.
    pub(crate) fn cancel_running(&self, id: i64) {
        self.0.recorder.running.cancel_job(id);
    }

    /// Asks every job to stop that counts for the process state, as the abort of ELEPHANT's client does
    /// (docs/protocol.md, "Process states").
    pub fn abort(&self) {
        self.0.recorder.running.cancel(|spec| spec.activity.is_abortable());
        self.0.recorder.show_activity(Activity::default());
    }

    /// Asks every job to stop, as the server is going down.
    pub fn cancel_all(&self) {
        self.0.recorder.running.cancel(|_| true);
    }

    /// Writes the state that clients see, as the original's `POST /state/process` does. It has no effect on jobs.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn set_process_state(&self, state: ProcessState) -> Result<(), JobsError> {
        self.elephant().set_activity(Activity { state, ..self.0.recorder.running.activity() })
    }

    /// Sets those training parameters that are given: for the next session to see, and for trainings that run now.
    /// Returns all that were set last.
    ///
    /// # Errors
    /// When the store cannot be written; then running trainings keep theirs.
    pub fn set_training_parameters(&self, parameters: TrainingParameters) -> Result<TrainingParameters, JobsError> {
        self.elephant().set_training_parameters(parameters)?;
        self.0.parameters.set(parameters);
        self.elephant().training_parameters()
    }

    /// Changes of training parameters from now on: what a training looks at while it runs.
    pub fn live_parameters(&self) -> LiveParameters {
        self.0.parameters.since_now()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.recorder.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of that thread has been printed.
        drop(thread.map(JoinHandle::join));
    }
}

#[cfg(test)]
mod tests;
