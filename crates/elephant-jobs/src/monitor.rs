//! What one job reports while it runs: events for the bus, its progress, its loss curve.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use elephant_types::TaskEvent;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Event, LossPoint, Outcome, bus::Bus, loss::LossCurve, stage};

/// How often the progress of a job is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct JobProgress {
    /// Steps finished.
    pub step: u64,
    /// Steps in all; null for a job that runs until it is stopped.
    pub total: Option<u64>,
    /// An estimate from the pace so far; null where there is none.
    pub seconds_left: Option<f64>,
}

/// Turns the reports of a task into events.
#[derive(Debug)]
pub(crate) struct Monitor {
    bus: Bus,
    started: Event,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    pace: Pace,
    last_percent: Option<u64>,
    progress: Option<JobProgress>,
    curve: LossCurve,
    note: Option<String>,
    /// When the progress was logged last.
    logged: Option<Instant>,
    /// The curve has points that are not in the store.
    unsaved: bool,
}

impl Monitor {
    /// A monitor of the job that the event `started` names, for the listeners of `bus`.
    pub(crate) fn new(bus: Bus, started: Event) -> Self {
        let pace = Pace { begun: Instant::now(), first: None };
        let curve = LossCurve::default();
        let seen = Seen { pace, last_percent: None, progress: None, curve, note: None, logged: None, unsaved: false };
        Self { bus, started, seen: Mutex::new(seen) }
    }

    /// Publishes that the job has begun.
    pub(crate) fn begun(&self) {
        self.bus.publish(self.started.clone());
    }

    /// No step of what is done under this lock can leave it half done.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes that the job has ended.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let (stage, payload) = match outcome {
            Outcome::Completed => (stage::COMPLETED, Map::new()),
            Outcome::Cancelled => (stage::CANCELLED, Map::new()),
            Outcome::Failed(error) => (stage::FAILED, Map::from_iter([("error".to_owned(), Value::from(&**error))])),
        };
        self.bus.publish(Event { stage: stage.into(), payload, ..self.started.clone() });
    }

    /// Remembers a report of the task, and publishes it.
    pub(crate) fn observe(&self, event: TaskEvent) {
        if event.stage == TaskEvent::NOTE {
            let note = event.payload.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
            tracing::info!(job = self.started.job, subject = self.started.subject, "{note}");
            self.seen().note = Some(note);
            return;
        }
        let point = LossPoint::from_event(&event);
        let mut seen = self.seen();
        let now = Instant::now();
        let progress = event.done.map(|done| seen.pace.progress(done, event.total, now));
        seen.progress = progress.or(seen.progress);
        if let Some(point) = point {
            seen.curve.push(point);
            seen.unsaved = true;
        }
        let is_published = event.stage != TaskEvent::PROGRESS || self.is_worth_publishing(&mut seen, &event, now);
        drop(seen);
        if is_published {
            let TaskEvent { stage, payload, .. } = event;
            self.bus.publish(Event { stage, progress, payload, ..self.started.clone() });
        }
    }

    /// Whether this progress is published: of long jobs, one step in each percent. It is logged once a second, as users of
    /// the ELEPHANT client read the log.
    fn is_worth_publishing(&self, seen: &mut Seen, event: &TaskEvent, now: Instant) -> bool {
        let (Some(done), Some(total)) = (event.done, event.total) else { return true };
        if done > 0 && log_is_due(&mut seen.logged, now, done >= total) {
            let Event { job, kind, subject, .. } = &self.started;
            tracing::info!(job, kind, subject, "processing {done} / {total}");
        }
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let is_new = seen.last_percent.replace(percent) != Some(percent);
        total <= 100 || is_new
    }

    pub(crate) fn progress(&self) -> Option<JobProgress> {
        self.seen().progress
    }

    /// The last note.
    pub(crate) fn note(&self) -> Option<String> {
        self.seen().note.clone()
    }

    pub(crate) fn losses(&self) -> Vec<LossPoint> {
        self.seen().curve.points()
    }

    /// The loss curve, if it has grown since the last call.
    pub(crate) fn take_unsaved_losses(&self) -> Option<Vec<LossPoint>> {
        let mut seen = self.seen();
        std::mem::take(&mut seen.unsaved).then(|| seen.curve.points())
    }

    /// The last ones taken could not be stored.
    pub(crate) fn losses_are_unsaved(&self) {
        self.seen().unsaved = true;
    }
}

/// Whether something is to be logged that happens often: at most once a second, and when it is the last of its kind.
fn log_is_due(last: &mut Option<Instant>, now: Instant, is_last: bool) -> bool {
    let is_due = is_last || last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// Estimates from the steps after the first one, which waits for its turn and warms up.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    first: Option<(Instant, u64)>,
}

impl Pace {
    fn progress(&mut self, step: u64, total: Option<u64>, now: Instant) -> JobProgress {
        let (since, before) = match self.first {
            Some((instant, first)) if step > first => (instant, first),
            Some(_) => (self.begun, 0),
            None => {
                self.first = Some((now, step));
                (self.begun, 0)
            }
        };
        let steps = (step - before.min(step)) as f64;
        let seconds_left = total.filter(|_| steps > 0.0).map(|total| {
            let seconds = now.duration_since(since).as_secs_f64() / steps * total.saturating_sub(step) as f64;
            (seconds * 10.0).round() / 10.0
        });
        JobProgress { step, total, seconds_left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_logged_once_a_second_and_at_the_end() {
        let (begun, mut last) = (Instant::now(), None);
        let mut due = |millis, is_last| log_is_due(&mut last, begun + Duration::from_millis(millis), is_last);
        assert!(due(0, false));
        assert!(!due(999, false));
        assert!(due(1000, false));
        assert!(!due(1500, false));
        assert!(due(1501, true));
    }

    #[test]
    fn the_time_left_follows_the_pace() {
        let begun = Instant::now();
        let mut pace = Pace { begun, first: None };
        let mut left =
            |seconds, step, total| pace.progress(step, total, begun + Duration::from_secs(seconds)).seconds_left;
        assert_eq!(left(20, 1, Some(11)), Some(200.0));
        assert_eq!(left(21, 2, Some(11)), Some(9.0), "the first step had to wait");
        assert_eq!(left(29, 10, Some(11)), Some(1.0));
        assert_eq!(left(30, 11, Some(11)), Some(0.0));
        assert_eq!(left(31, 12, None), None);
        assert_eq!(left(31, 0, Some(0)), None);
    }
}
