//! Lines about a training in the server's log.

use std::time::{Duration, Instant};

/// Lines come no faster than this; a live training's epochs may take milliseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Makes a line for each epoch, for those who watch the server's log.
pub(super) struct EpochLog {
    /// Epochs in all; unknown in a live training.
    epochs: Option<u32>,
    epoch: u32,
    loss_sum: f64,
    steps: u32,
    crops: usize,
    /// When the last line was made.
    last_line: Option<Instant>,
}

impl EpochLog {
    pub(super) fn new(epochs: Option<u32>) -> Self {
        Self { epochs, epoch: 0, loss_sum: 0.0, steps: 0, crops: 0, last_line: None }
    }

    /// Notes a step with so many crops.
    pub(super) fn step(&mut self, loss: f64, crops: usize) {
        self.loss_sum += loss;
        self.steps += 1;
        self.crops += crops;
    }

    /// Ends the epoch. The line has the mean of its losses; `None` when the last one was made within the last second,
    /// except after the last epoch.
    pub(super) fn end_epoch(&mut self, now: Instant) -> Option<String> {
        self.epoch = self.epoch.saturating_add(1);
        let loss = self.loss_sum / f64::from(self.steps.max(1));
        let crops = self.crops;
        (self.loss_sum, self.steps, self.crops) = (0.0, 0, 0);
        let is_last = self.epochs == Some(self.epoch);
        let is_early = self.last_line.is_some_and(|last_line| now.saturating_duration_since(last_line) < INTERVAL);
        if is_early && !is_last {
            return None;
        }
        self.last_line = Some(now);
        let total = self.epochs.map_or_else(String::new, |epochs| format!(" / {epochs}"));
        let unit = if crops == 1 { "crop" } else { "crops" };
        Some(format!("epoch {}{total}: loss {loss:.4}, {crops} {unit}", self.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_a_line_but_not_more_than_one_a_second() {
        let begun = Instant::now();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut log = EpochLog::new(Some(4));
        log.step(0.5, 8);
        log.step(0.25, 4);
        assert_eq!(log.end_epoch(at(0)).unwrap(), "epoch 1 / 4: loss 0.3750, 12 crops");
        log.step(9.0, 1);
        assert_eq!(log.end_epoch(at(900)), None);
        log.step(0.125, 1);
        assert_eq!(log.end_epoch(at(1000)).unwrap(), "epoch 3 / 4: loss 0.1250, 1 crop");
        log.step(0.0625, 2);
        assert_eq!(
            log.end_epoch(at(1001)).unwrap(),
            "epoch 4 / 4: loss 0.0625, 2 crops",
            "the last epoch always has a line"
        );
        let mut live = EpochLog::new(None);
        live.step(1.0, 5);
        assert_eq!(live.end_epoch(at(0)).unwrap(), "epoch 1: loss 1.0000, 5 crops");
    }
}
