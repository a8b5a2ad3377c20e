//! What one job tells while it runs: events for the bus, its progress, its loss curve.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use elephant_types::{Progress, TaskEvent, TrainingStep};
use serde::Serialize;

use crate::{Event, EventKind, LossPoint, bus::Bus, loss::LossCurve};

/// How often the log tells how far a job is.
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

/// Turns what a task tells into events.
#[derive(Debug)]
pub(crate) struct Monitor {
    bus: Bus,
    template: Event,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    pace: Pace,
    last_percent: Option<u64>,
    progress: Option<JobProgress>,
    curve: LossCurve,
    note: Option<String>,
    /// When the log was told last how far the job is.
    logged: Option<Instant>,
    /// The curve has points that are not in the store.
    unsaved: bool,
}

impl Monitor {
    pub(crate) fn new(bus: Bus, template: Event) -> Self {
        let pace = Pace { begun: Instant::now(), first: None };
        let curve = LossCurve::default();
        let seen = Seen { pace, last_percent: None, progress: None, curve, note: None, logged: None, unsaved: false };
        Self { bus, template, seen: Mutex::new(seen) }
    }

    /// No step of what is done under this lock can leave it half done.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, event: EventKind) {
        self.bus.publish(Event { event, ..self.template.clone() });
    }

    pub(crate) fn observe(&self, event: &TaskEvent) {
        match event {
            TaskEvent::Progress(progress) => self.progressed(*progress),
            TaskEvent::TrainingStep(step) => self.stepped(step),
            TaskEvent::ModelUpdated => self.publish(EventKind::ModelUpdated),
            TaskEvent::Note(note) => {
                tracing::info!(job = self.template.job, subject = self.template.subject, "{note}");
                self.seen().note = Some(note.clone());
            }
        }
    }

    fn progressed(&self, Progress { done, total }: Progress) {
        let mut seen = self.seen();
        let now = Instant::now();
        let progress = seen.pace.progress(done, Some(total), now);
        seen.progress = Some(progress);
        let is_logged = done > 0 && log_is_due(&mut seen.logged, now, done >= total);
        // Whoever watches sees at most a hundred steps of a job, however many it has.
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let is_new = seen.last_percent.replace(percent) != Some(percent);
        drop(seen);
        if is_logged {
            // The client's user follows the log.
            let Event { job, kind, subject, .. } = &self.template;
            tracing::info!(job, kind = kind.as_str(), subject, "processing {done} / {total}");
        }
        if total <= 100 || is_new {
            self.publish(EventKind::Progress(progress));
        }
    }

    fn stepped(&self, step: &TrainingStep) {
        let point = LossPoint::from(step);
        let mut seen = self.seen();
        let progress = seen.pace.progress(step.done, step.total, Instant::now());
        seen.progress = Some(progress);
        seen.curve.push(point.clone());
        seen.unsaved = true;
        drop(seen);
        self.publish(EventKind::TrainingStep { progress, loss: point.loss, parts: point.parts });
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
