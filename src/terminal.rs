//! Standard output, and progress bars on the terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use elephant_types::{CancelToken, TaskContext};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line on standard output. A reader that has closed it, such as `head`, is no error.
///
/// # Errors
/// When standard output cannot be written, for example to a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A progress bar on standard error, if that is a terminal, until it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar without progress; `what` is shown before it.
    pub fn new(what: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(what);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Shows that `done` of `total` steps are finished.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Runs `work` with a progress bar. `cancel` stops it.
pub fn with_bar<T, E>(
    what: &'static str,
    cancel: CancelToken,
    work: impl FnOnce(&TaskContext) -> Result<T, E>,
) -> Result<T, E> {
    let bar = Bar::new(what);
    let context = TaskContext::new(cancel, move |progress| bar.set(progress.done, progress.total));
    work(&context)
}
