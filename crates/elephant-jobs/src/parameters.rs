//! Training parameters that may change while a training runs (docs/protocol.md, "POST /params").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Training parameters that a client may change while training runs (`/params`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingParameters {
    /// Learning rate, when one was set.
    pub learning_rate: Option<f64>,
    /// Crops per timepoint and epoch, when set.
    pub crop_count: Option<u32>,
}

/// What was set through `/params` since a moment: the beginning of the training that holds this.
///
/// A new training starts from its request's values, whatever an earlier session has set (docs/method.md,
/// "Defects of the original", number 15), and takes changes that come while it runs. Get one from
/// [`Jobs::live_parameters`](crate::Jobs::live_parameters) when the training begins, and look at
/// [`changes`](Self::changes) before each step; that costs some nanoseconds.
#[derive(Clone, Debug)]
pub struct LiveParameters {
    latest: Latest,
    since: u64,
}

impl LiveParameters {
    /// The values set since this was made; `None` for those that still are the request's.
    pub fn changes(&self) -> TrainingParameters {
        let latest = self.latest.values();
        TrainingParameters {
            learning_rate: latest.learning_rate.filter(|(revision, _)| *revision > self.since).map(|(_, rate)| rate),
            crop_count: latest.crop_count.filter(|(revision, _)| *revision > self.since).map(|(_, count)| count),
        }
    }
}

/// The values last set in this process, each with the number of the change that set it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest(Arc<Mutex<Numbered>>);

#[derive(Debug, Default)]
struct Numbered {
    revision: u64,
    learning_rate: Option<(u64, f64)>,
    crop_count: Option<(u64, u32)>,
}

impl Latest {
    fn values(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, parameters: TrainingParameters) {
        let mut values = self.values();
        values.revision += 1;
        let revision = values.revision;
        values.learning_rate = parameters.learning_rate.map(|rate| (revision, rate)).or(values.learning_rate);
        values.crop_count = parameters.crop_count.map(|count| (revision, count)).or(values.crop_count);
    }

    pub(crate) fn since_now(&self) -> LiveParameters {
        LiveParameters { latest: self.clone(), since: self.values().revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_changes_count() {
        let latest = Latest::default();
        latest.set(TrainingParameters { learning_rate: Some(1e-2), crop_count: Some(3) });
        let training = latest.since_now();
        assert_eq!(training.changes(), TrainingParameters::default(), "an old session's values do not apply");
        latest.set(TrainingParameters { learning_rate: Some(1e-4), crop_count: None });
        let changed = TrainingParameters { learning_rate: Some(1e-4), crop_count: None };
        assert_eq!(training.changes(), changed, "each value by itself");
        assert_eq!(latest.since_now().changes(), TrainingParameters::default());
    }
}
