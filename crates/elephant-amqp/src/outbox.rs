//! Buffer of messages for the broker.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Number of messages kept while the broker is unavailable or slow: those of some minutes of a busy server.
const CAPACITY: usize = 10_000;

/// The original's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// The client shows the text for three seconds.
    Update,
    /// No client reads it.
    Prediction,
    /// The client shows a progress dialog.
    Dataset,
    /// The client writes it to its log.
    Log,
}

impl Queue {
    pub(crate) const ALL: [Self; 4] = [Self::Update, Self::Prediction, Self::Dataset, Self::Log];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Prediction => "prediction",
            Self::Dataset => "dataset",
            Self::Log => "log",
        }
    }

    /// Largest number of unread messages in the queue; while there are as many, no more are sent.
    pub(crate) fn capacity(self) -> u32 {
        match self {
            Self::Prediction => 100,
            Self::Update | Self::Dataset => 1000,
            Self::Log => 10_000,
        }
    }

    /// Time in milliseconds after which the broker drops an unread message. Messages about progress soon become
    /// useless.
    pub(crate) fn expiration_ms(self) -> &'static str {
        match self {
            Self::Update | Self::Prediction | Self::Dataset => "60000",
            Self::Log => "600000",
        }
    }
}

/// A message for one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) queue: Queue,
    pub(crate) body: String,
}

/// A bounded buffer; when it is full, the oldest message is dropped. Clones share state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    closed: bool,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does not wait and does not log, because it is called while a record is logged.
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = self.waiting();
        if waiting.messages.len() == CAPACITY {
            waiting.messages.pop_front();
        }
        waiting.messages.push_back(message);
        drop(waiting);
        self.0.changed.notify_one();
    }

    /// Waits for a message and returns up to `count` of them; none when the outbox is closed and empty.
    pub(crate) async fn take(&self, count: usize) -> Vec<Message> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut waiting = self.waiting();
                let count = count.min(waiting.messages.len());
                if count > 0 || waiting.closed {
                    return waiting.messages.drain(..count).collect();
                }
            }
            changed.await;
        }
    }

    /// Puts messages that could not be sent back to the front, as many as fit.
    pub(crate) fn put_back(&self, messages: Vec<Message>) {
        let mut waiting = self.waiting();
        for message in messages.into_iter().rev() {
            if waiting.messages.len() < CAPACITY {
                waiting.messages.push_front(message);
            }
        }
    }

    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.0.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize) -> Message {
        Message { queue: Queue::Log, body: number.to_string() }
    }

    #[tokio::test]
    async fn the_oldest_messages_are_dropped() {
        let outbox = Outbox::default();
        (0..CAPACITY + 5).for_each(|number| outbox.push(message(number)));
        let first = outbox.take(2).await;
        assert_eq!(first, [message(5), message(6)]);
        outbox.push(message(CAPACITY + 5));
        outbox.put_back(first);
        let rest = outbox.take(usize::MAX).await;
        assert_eq!((rest.len(), &rest[0]), (CAPACITY, &message(6)), "there was room for one");
        outbox.push(message(1));
        outbox.close();
        assert_eq!(outbox.take(9).await, [message(1)]);
        assert_eq!(outbox.take(9).await, []);
    }
}
