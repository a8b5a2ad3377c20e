//! The log, as messages for the client's server log.

use std::fmt::{self, Write};

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{Layer, filter::Targets, layer::Context, registry::LookupSpan};

use crate::outbox::{Message, Outbox, Queue};

/// Longest message in bytes; longer ones are truncated.
const MAX_BYTES: usize = 16 << 10;

/// Sends records of this program's own crates, from `info` up, to the queue `log`.
#[derive(Debug)]
pub struct LogLayer(Outbox);

impl LogLayer {
    pub(crate) fn filtered<S>(outbox: Outbox) -> impl Layer<S> + Send + Sync
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Records about the broker itself cannot be sent to it.
        let own = Targets::new().with_target("elephant", Level::INFO).with_target("elephant_amqp", LevelFilter::OFF);
        Self(outbox).with_filter(own)
    }
}

/// The body of a message (docs/protocol.md, "RabbitMQ messages").
#[derive(Serialize)]
struct Record {
    level: &'static str,
    message: String,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            _ => "DEBUG",
        };
        let mut text = Text::default();
        event.record(&mut text);
        // Two texts can always be written as JSON.
        if let Ok(body) = serde_json::to_string(&Record { level, message: text.finish() }) {
            self.0.push(Message { queue: Queue::Log, body });
        }
    }
}

/// A record's message, followed by its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        let text_start = text.trim_start().len();
        text.drain(..text.len() - text_start);
        if text.len() > MAX_BYTES {
            text.truncate(text.floor_char_boundary(MAX_BYTES));
            text.push('…');
        }
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[tokio::test]
    async fn records_become_the_originals_messages() {
        let outbox = Outbox::default();
        let subscriber = tracing_subscriber::registry().with(LogLayer::filtered(outbox.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "elephant_api::x", "START POST /seg/predict");
            tracing::warn!(target: "elephant_server", job = 3, error = "a \"b\"\nc", "interrupted");
            tracing::error!(target: "elephant_jobs", "{}", "é".repeat(MAX_BYTES));
            tracing::debug!(target: "elephant_jobs", "too fine");
            tracing::error!(target: "lapin::channel", "not ours");
            tracing::error!(target: "elephant_amqp::link", "about the broker");
        });
        let bodies: Vec<String> = outbox.take(9).await.into_iter().map(|message| message.body).collect();
        assert_eq!(bodies.len(), 3);
        assert_eq!(bodies[0], r#"{"level":"INFO","message":"START POST /seg/predict"}"#);
        assert_eq!(bodies[1], r#"{"level":"WARNING","message":"interrupted job=3 error=a \"b\"\nc"}"#);
        assert!(bodies[2].starts_with(r#"{"level":"ERROR","message":"é"#) && bodies[2].len() < MAX_BYTES + 50);
    }
}
