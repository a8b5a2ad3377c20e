//! A training's loss over its steps, in bounded memory.

use std::collections::BTreeMap;

use elephant_types::TaskEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Points kept of one training; of a longer one every 2nd, 4th, 8th… step is kept.
const MAX_POINTS: usize = 2000;

/// Named numbers; null where they are not finite, as JSON has no NaN.
pub type Values = BTreeMap<String, Option<f64>>;

/// The loss at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Steps finished, this one included.
    pub step: u64,
    /// The value that was minimised; null where it is not finite.
    pub loss: Option<f64>,
    /// What it is made of.
    pub parts: Values,
}

impl LossPoint {
    /// The loss that a step of a training tells.
    pub(crate) fn from_event(event: &TaskEvent) -> Option<Self> {
        if event.stage != TaskEvent::TRAINING_STEP {
            return None;
        }
        let parts = event.payload.get("parts").and_then(Value::as_object).into_iter().flatten();
        let parts = parts.map(|(name, value)| (name.clone(), value.as_f64())).collect();
        Some(Self { step: event.done?, loss: event.payload.get("loss").and_then(Value::as_f64), parts })
    }
}

/// The points of one training: evenly spaced ones, and the newest.
#[derive(Debug)]
pub(crate) struct LossCurve {
    spaced: Vec<LossPoint>,
    newest: Option<LossPoint>,
    seen: u64,
    stride: u64,
}

impl Default for LossCurve {
    fn default() -> Self {
        Self { spaced: Vec::new(), newest: None, seen: 0, stride: 1 }
    }
}

impl LossCurve {
    pub(crate) fn push(&mut self, point: LossPoint) {
        if self.seen.is_multiple_of(self.stride) {
            if self.spaced.len() == MAX_POINTS {
                let mut index = 0..;
                self.spaced.retain(|_| index.next().is_some_and(|index| index % 2 == 0));
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.spaced.push(point.clone());
            }
        }
        self.newest = Some(point);
        self.seen += 1;
    }

    pub(crate) fn points(&self) -> Vec<LossPoint> {
        let newest = self.newest.iter().filter(|newest| self.spaced.last() != Some(newest));
        self.spaced.iter().chain(newest).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::TrainingStep;

    use super::*;

    #[test]
    fn a_long_curve_is_thinned_evenly_and_keeps_its_ends() {
        let mut curve = LossCurve::default();
        for done in 1..=100_000 {
            let step = TrainingStep { done, total: None, loss: f64::NAN, parts: vec![("nll", done as f64)] };
            curve.push(LossPoint::from_event(&step.into()).unwrap());
        }
        let steps: Vec<u64> = curve.points().iter().map(|point| point.step).collect();
        assert!((MAX_POINTS / 2..=MAX_POINTS + 1).contains(&steps.len()), "{}", steps.len());
        assert_eq!((steps[0], steps[steps.len() - 1]), (1, 100_000));
        let gaps: Vec<u64> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[..gaps.len() - 1].iter().all(|gap| *gap == gaps[0]));
        let text = serde_json::to_string(&curve.points()[1]).unwrap();
        assert_eq!(text, format!(r#"{{"step":{0},"loss":null,"parts":{{"nll":{0}.0}}}}"#, steps[1]));
        assert_eq!(serde_json::from_str::<LossPoint>(&text).unwrap(), curve.points()[1]);
    }
}
