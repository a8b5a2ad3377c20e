//! The log, on standard error and, where there is a broker, in its queue `log`.

use std::io::IsTerminal;

use elephant_amqp::Publisher;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// What a server logs unless `RUST_LOG` says otherwise. The client of the broker repeats each failed attempt, which is told
/// once elsewhere.
pub const DEFAULT_FILTER: &str = "info,lapin=off";

/// Begins to log. `RUST_LOG` chooses what standard error gets, or else `default_filter`; `broker` gets this program's own records from `info` up.
pub fn init(format: LogFormat, default_filter: &str, broker: Option<&Publisher>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let format_layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format_layer = match format {
        LogFormat::Text => format_layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => format_layer.json().boxed(),
    };
    let broker_layer = broker.map(Publisher::log_layer);
    tracing_subscriber::registry().with(format_layer.with_filter(filter)).with(broker_layer).init();
}
