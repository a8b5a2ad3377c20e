//! Events of jobs as the original's messages (docs/protocol.md, "RabbitMQ messages").

use elephant_jobs::{Event, EventKind, JobKind};

use crate::outbox::{Message, Queue};

/// The message for `event`, if there is one in the original.
pub(crate) fn message(event: &Event) -> Option<Message> {
    let message = |queue, body: String| Some(Message { queue, body });
    match (&event.event, event.kind) {
        (EventKind::ModelUpdated, _) => message(Queue::Update, "Model updated".into()),
        (EventKind::Completed, JobKind::Predict) => message(Queue::Prediction, "Prediction updated".into()),
        (EventKind::Progress(progress), JobKind::Generate) => {
            let total = progress.total?;
            // The client reads both numbers as Java integers.
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
        let progress = EventKind::Progress(JobProgress { step: 1, total: Some(5), seconds_left: None });
        for (kind, event, expected) in [
            (JobKind::Generate, progress.clone(), Some((Queue::Dataset, r#"{"t_max":5,"t_current":1}"#))),
            (JobKind::Train, EventKind::ModelUpdated, Some((Queue::Update, "Model updated"))),
            (JobKind::Predict, EventKind::Completed, Some((Queue::Prediction, "Prediction updated"))),
            (JobKind::Predict, progress, None),
            (JobKind::Predict, EventKind::Cancelled, None),
            (JobKind::Train, EventKind::Completed, None),
        ] {
            let event = Event { job: 1, kind, subject: "fly".into(), event };
            let expected = expected.map(|(queue, body)| Message { queue, body: body.into() });
            assert_eq!(message(&event), expected);
        }
    }
}
