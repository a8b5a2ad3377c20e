//! The loss over the steps of a training, for TensorBoard (docs/method.md, "Training data and loop").

use std::path::Path;

use elephant_checkpoint::{EventWriter, last_step};
use elephant_fs::FsError;
use elephant_model::LossValues;

/// Scalars of one training. What cannot be logged is not: a full disk must not end a training because of it.
pub(crate) struct ScalarLog {
    writer: Option<EventWriter>,
    /// The number of the first step: one more than the last of earlier trainings in the same folder.
    offset: i64,
    interval: u64,
    /// The last step, if it is not in the file.
    waiting: Option<(i64, LossValues)>,
}

impl ScalarLog {
    /// A log of every `interval`-th step in `folder`, which is made when it is missing; 0 is taken for 1.
    pub(crate) fn open(folder: &Path, interval: u64) -> Self {
        let opened = || -> Result<(EventWriter, i64), FsError> {
            let last = last_step(folder)?;
            Ok((EventWriter::create(folder)?, last.map_or(0, |last| last.saturating_add(1))))
        };
        let (writer, offset) = match opened() {
            Ok((writer, offset)) => (Some(writer), offset),
            Err(error) => {
                tracing::warn!(%error, "the training's scalars are not logged");
                (None, 0)
            }
        };
        Self { writer, offset, interval: interval.max(1), waiting: None }
    }

    /// Notes the values of the training's step `done`, counted from 1.
    pub(crate) fn step(&mut self, done: u64, loss: &LossValues) {
        let step = self.offset.saturating_add_unsigned(done - 1);
        self.waiting = Some((step, loss.clone()));
        if (done - 1).is_multiple_of(self.interval) {
            self.flush();
        }
    }

    /// Writes the last step, if it was not written.
    pub(crate) fn flush(&mut self) {
        let (Some(writer), Some((step, loss))) = (&mut self.writer, self.waiting.take()) else { return };
        let mut write = || {
            writer.scalar("train_loss", step, loss.total)?;
            loss.parts.iter().try_for_each(|(tag, value)| writer.scalar(tag, step, *value))
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the training's scalars are not logged any more");
            self.writer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_on_where_the_last_training_ended() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("detection_log");
        let loss = LossValues { total: 0.5, parts: vec![("nll_loss", 0.25)] };
        let mut log = ScalarLog::open(&logs, 4);
        (1..=6).for_each(|done| log.step(done, &loss));
        assert_eq!(last_step(&logs).unwrap(), Some(4));
        log.flush();
        assert_eq!(last_step(&logs).unwrap(), Some(5));
        let mut log = ScalarLog::open(&logs, 0);
        log.step(1, &loss);
        assert_eq!(last_step(&logs).unwrap(), Some(6));
        // A folder that cannot be one.
        ScalarLog::open(&folder.path().join("detection_log/x").join("\0"), 1).step(1, &loss);
    }
}
