//! What the original publishes of the events of jobs (contract section 2.2).

use elephant_jobs::{Event, stage};
use elephant_types::TaskEvent;

use crate::outbox::{Message, Queue};

/// The message for `event`, if the original has one.
pub(crate) fn message(event: &Event) -> Option<Message> {
    let message = |queue, body: String| Some(Message { queue, body });
    match (&*event.stage, event.kind) {
        (TaskEvent::MODEL_UPDATED, _) => message(Queue::Update, "Model updated".into()),
        (stage::COMPLETED, "predict") => message(Queue::Prediction, "Prediction updated".into()),
        (TaskEvent::PROGRESS, "generate") => {
            let progress = event.progress?;
            let total = progress.total?;
            // The client reads both as Java's int.
            message(Queue::Dataset, format!(r#"{{"t_max":{total},"t_current":{}}}"#, progress.step))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use elephant_jobs::JobProgress;

    use super::*;

    #[test]
    fn events_become_the_originals_messages() {
        let progress = Some(JobProgress { step: 1, total: Some(5), seconds_left: None });
        for (kind, stage, expected) in [
            ("generate", TaskEvent::PROGRESS, Some((Queue::Dataset, r#"{"t_max":5,"t_current":1}"#))),
            ("train", TaskEvent::MODEL_UPDATED, Some((Queue::Update, "Model updated"))),
            ("predict", stage::COMPLETED, Some((Queue::Prediction, "Prediction updated"))),
            ("predict", TaskEvent::PROGRESS, None),
            ("predict", stage::CANCELLED, None),
            ("train", stage::COMPLETED, None),
        ] {
            let progress = progress.filter(|_| stage == TaskEvent::PROGRESS);
            let payload = serde_json::Map::new();
            let event = Event { job: 1, kind, subject: "fly".into(), stage: stage.into(), progress, payload };
            let expected = expected.map(|(queue, body)| Message { queue, body: body.into() });
            assert_eq!(message(&event), expected);
        }
    }
}
