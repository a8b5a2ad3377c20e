//! Keeps the store up to date while jobs run: writes their ends, the process state, loss curves and leases. What cannot be
//! written while the store is unavailable is written later.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Activity, ElephantState, JobRecord, JobStore, JobsError, Lease, LossPoint, Owner,
    lease::HEARTBEAT,
    record::unix_now,
    running::{Recorded, RunningJobs},
};

/// How often the store is checked.
const TICK: Duration = Duration::from_millis(500);
/// How often growing loss curves are written.
const CURVE_INTERVAL: Duration = Duration::from_secs(5);
/// Ends that are kept while the store is away. Only jobs that were recorded can end, so there are hardly ever as many.
const MAX_ENDS: usize = 10_000;

/// Writes to the store what the running jobs do.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) elephant: Arc<dyn ElephantState>,
    owner: Owner,
    pub(crate) running: RunningJobs,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// Held while records of running and ended jobs are written, so that an older one never overwrites a newer one. What
    /// it guards: whether the jobs of an earlier process have been dealt with.
    writer: Mutex<Recovered>,
}

#[derive(Debug)]
struct Recovered(bool);

#[derive(Debug)]
struct Pending {
    ends: VecDeque<End>,
    activity_is_stale: bool,
    /// The store failed; only the recorder's thread tries it until it works again.
    outage: bool,
    /// As the store counted when the running jobs were written to it last.
    connections: u64,
    curves_written: Instant,
    heartbeat: Instant,
    closed: bool,
}

/// How a job ended, not yet in the store.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) record: JobRecord,
    pub(crate) losses: Option<Vec<LossPoint>>,
}

impl End {
    /// Says what will be missing in the store.
    fn give_up(self) {
        let JobRecord { id, kind, subject, status, .. } = self.record;
        tracing::error!(job = id, kind, subject, status = status.as_str(), "the end of this job is not recorded");
    }
}

impl Recorder {
    pub(crate) fn new(store: impl JobStore + ElephantState, owner: Owner) -> Self {
        let store = Arc::new(store);
        let pending = Pending {
            ends: VecDeque::new(),
            activity_is_stale: false,
            outage: false,
            connections: store.connections(),
            curves_written: Instant::now(),
            heartbeat: Instant::now(),
            closed: false,
        };
        Self {
            store: store.clone(),
            elephant: store,
            owner,
            running: RunningJobs::default(),
            pending: Mutex::new(pending),
            wake: Condvar::new(),
            writer: Mutex::new(Recovered(false)),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Recovered> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease of a job that this process runs.
    pub(crate) fn lease(&self) -> Lease {
        Lease::new(&self.owner)
    }

    /// Marks the jobs that a killed process left running, once, before any job of this process is recorded.
    pub(crate) fn recover(&self) -> Result<(), JobsError> {
        let mut recovered = self.writer();
        if recovered.0 {
            return Ok(());
        }
        self.interrupt_abandoned()?;
        self.elephant.set_live_timepoint(None)?;
        self.elephant.set_activity(self.running.activity())?;
        recovered.0 = true;
        Ok(())
    }

    fn interrupt_abandoned(&self) -> Result<(), JobsError> {
        for job in self.store.interrupt_abandoned(&self.owner, unix_now())? {
            tracing::warn!(
                job = job.id,
                kind = job.kind,
                subject = job.subject,
                "interrupted when the server was killed"
            );
        }
        Ok(())
    }

    /// Writes what the running jobs amount to, now or, when the store fails, later.
    pub(crate) fn write_activity(&self) {
        let writer = self.writer();
        self.write_activity_as(&writer, self.running.activity());
    }

    /// Writes what clients shall see until a job begins or ends.
    pub(crate) fn show_activity(&self, activity: Activity) {
        self.write_activity_as(&self.writer(), activity);
    }

    fn write_activity_as(&self, _writer: &MutexGuard<'_, Recovered>, activity: Activity) {
        if self.pending().outage {
            self.pending().activity_is_stale = true;
        } else if let Err(error) = self.elephant.set_activity(activity) {
            self.pending().activity_is_stale = true;
            self.failed(&error);
        }
    }

    /// Records the end of the job at `ticket` and frees its place.
    pub(crate) fn end(&self, ticket: u64, end: End) {
        let writer = self.writer();
        if self.pending().outage {
            self.keep(end);
        } else if let Err(error) = self.write_end(&end) {
            self.keep(end);
            self.failed(&error);
        }
        self.running.remove(ticket);
        self.write_activity_as(&writer, self.running.activity());
    }

    /// As [`end`](Self::end), by the recorder's thread: for callers that must not wait.
    pub(crate) fn end_later(&self, ticket: u64, end: End) {
        self.keep(end);
        self.running.remove(ticket);
        self.pending().activity_is_stale = true;
        self.wake.notify_all();
    }

    fn keep(&self, end: End) {
        let mut pending = self.pending();
        if pending.ends.len() == MAX_ENDS
            && let Some(lost) = pending.ends.pop_front()
        {
            lost.give_up();
        }
        pending.ends.push_back(end);
    }

    fn write_end(&self, end: &End) -> Result<(), JobsError> {
        if let Some(losses) = &end.losses {
            self.store.save_losses(end.record.id, losses)?;
        }
        self.store.save_job(&end.record, None)
    }

    /// Whether the store can be written and lacks nothing.
    pub(crate) fn check(&self) -> Result<(), JobsError> {
        self.store.check_writable()?;
        if self.pending().outage { Err(JobsError::NotRecorded) } else { Ok(()) }
    }

    fn failed(&self, error: &JobsError) {
        let mut pending = self.pending();
        if !std::mem::replace(&mut pending.outage, true) {
            tracing::error!(%error, "the state is not recorded; jobs go on, and it will be when that is possible again");
        }
    }

    /// The recorder's thread, until [`close`](Self::close).
    pub(crate) fn run(&self) {
        loop {
            let mut pending = self.pending();
            let has_work = !pending.outage && (pending.activity_is_stale || !pending.ends.is_empty());
            if !has_work && !pending.closed {
                let waited = self.wake.wait_timeout(pending, TICK);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let closed = pending.closed;
            drop(pending);
            match self.attend() {
                Ok(()) if std::mem::take(&mut self.pending().outage) => tracing::info!("the state is recorded again"),
                Ok(()) => {}
                Err(error) => self.failed(&error),
            }
            if closed {
                self.give_up();
                return;
            }
        }
    }

    /// Logs what is not recorded in the end; the next server marks these jobs as interrupted.
    fn give_up(&self) {
        let ends = std::mem::take(&mut self.pending().ends);
        ends.into_iter().for_each(End::give_up);
        for Recorded { record, .. } in self.running.recorded() {
            let JobRecord { id, kind, subject, .. } = record;
            tracing::error!(job = id, kind, subject, "this job has not ended in time; it is left");
        }
    }

    /// Brings the store up to date.
    fn attend(&self) -> Result<(), JobsError> {
        self.store.check()?;
        self.recover()?;
        let connections = self.store.connections();
        if std::mem::replace(&mut self.pending().connections, connections) != connections {
            self.write_running().inspect_err(|_| self.pending().connections = 0)?;
        }
        self.write_ends()?;
        self.write_curves()?;
        self.send_heartbeat()
    }

    /// Extends the leases of the running jobs, and looks for jobs of others whose leases have run out.
    fn send_heartbeat(&self) -> Result<(), JobsError> {
        if self.pending().heartbeat.elapsed() < HEARTBEAT {
            return Ok(());
        }
        let _writer = self.writer();
        let jobs: Vec<i64> = self.running.recorded().iter().map(|job| job.record.id).collect();
        self.store.renew(&jobs, &self.lease())?;
        self.interrupt_abandoned()?;
        self.pending().heartbeat = Instant::now();
        Ok(())
    }

    /// A store that was restarted may have forgotten the running jobs.
    fn write_running(&self) -> Result<(), JobsError> {
        let _writer = self.writer();
        for job in self.running.recorded() {
            self.store.save_job(&job.record, Some(&self.lease()))?;
        }
        self.pending().activity_is_stale = true;
        Ok(())
    }

    fn write_ends(&self) -> Result<(), JobsError> {
        let _writer = self.writer();
        loop {
            // Taken out while it is written, so that no lock is held meanwhile.
            let Some(end) = self.pending().ends.pop_front() else { break };
            if let Err(error) = self.write_end(&end) {
                self.pending().ends.push_front(end);
                return Err(error);
            }
        }
        if std::mem::take(&mut self.pending().activity_is_stale) {
            let written = self.elephant.set_activity(self.running.activity());
            written.inspect_err(|_| self.pending().activity_is_stale = true)?;
        }
        Ok(())
    }

    fn write_curves(&self) -> Result<(), JobsError> {
        if self.pending().curves_written.elapsed() < CURVE_INTERVAL {
            return Ok(());
        }
        for job in self.running.recorded() {
            if let Some(losses) = job.monitor.take_unsaved_losses() {
                let saved = self.store.save_losses(job.record.id, &losses);
                saved.inspect_err(|_| job.monitor.losses_are_unsaved())?;
            }
        }
        self.pending().curves_written = Instant::now();
        Ok(())
    }

    /// Ends the recorder's thread after one more attempt to write what is pending.
    pub(crate) fn close(&self) {
        self.pending().closed = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Event, JobSpec, JobStatus, RedisStore, bus::Bus, monitor::Monitor, stage};

    /// Collects the log as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_never_recorded_is_named_at_the_end() {
        // No program listens at this address.
        let recorder = Recorder::new(RedisStore::open("redis://127.0.0.1:1", "test").unwrap(), Owner::new("test"));
        let record = |id, kind: &str| JobRecord {
            id,
            kind: kind.into(),
            subject: "fly".into(),
            status: JobStatus::Completed,
            error: None,
            note: None,
            begun_at: None,
            ended_at: None,
        };
        let begin = |id, kind| {
            let ticket = recorder.running.reserve(&JobSpec::new(kind, "fly")).unwrap().ticket;
            let started = Event {
                job: id,
                kind,
                subject: "fly".into(),
                stage: stage::STARTED.into(),
                progress: None,
                payload: serde_json::Map::new(),
            };
            let monitor = Arc::new(Monitor::new(Bus::new(), started));
            recorder.running.record(ticket, Recorded { record: record(id, kind), monitor });
            ticket
        };
        let ended = begin(7, "train");
        begin(8, "predict");
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            recorder.end(ended, End { record: record(7, "train"), losses: None });
            recorder.close();
            recorder.run();
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let names = |job: &str| text.lines().any(|line| line.contains("ERROR") && line.contains(job));
        assert!(names("job=7 kind=\"train\" subject=\"fly\" status=\"completed\""), "{text}");
        assert!(names("job=8 kind=\"predict\" subject=\"fly\""), "{text}");
    }
}
