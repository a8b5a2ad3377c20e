//! The signals that end the program.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGINT (Ctrl-C) or SIGTERM, with the exit status that shells expect after it. A second signal ends
/// the process, whatever it is doing. Must be called in a tokio runtime.
///
/// # Errors
/// When the signals cannot be handled.
pub fn stop_signal() -> io::Result<impl Future<Output = u8>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal sets the flag that the second one checks.
        flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone())?;
        flag::register(signal, stopping.clone())?;
    }
    Ok(async move {
        let signal = tokio::select! {
            _ = interrupt.recv() => SIGINT,
            _ = terminate.recv() => SIGTERM,
        };
        128 + signal as u8
    })
}
