//! Progress bars on the terminal.

use std::{io::IsTerminal, time::Duration};

use anyhow::Result;
use elephant_types::{CancelToken, TaskContext};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Runs `work` with a progress bar, if standard error is a terminal.
pub fn with_bar<T>(what: &'static str, work: impl FnOnce(&TaskContext) -> Result<T>) -> Result<T> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(what);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let shown = bar.clone();
    let context = TaskContext::new(CancelToken::default(), move |progress| {
        shown.set_length(progress.total);
        shown.set_position(progress.done);
    });
    let result = work(&context);
    bar.finish_and_clear();
    result
}
