//! Saving the model in training while its steps go on: predictions use it at once, its file is written now and then.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_model::{ModelError, TrainableModel};
use elephant_types::{ErrorCode, TaskContext, TaskEvent};
use tracing::Span;

use crate::{PipelineError, published::Published};

/// How long a snapshot may be in memory only. Both files of a 3-D network have 70 MB.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// A model in training as it is at one moment.
pub(super) struct Snapshot {
    /// Its parameters, and where they come from.
    pub(super) checkpoint: Checkpoint,
    /// The optimiser's state for them.
    pub(super) state: OptimizerState,
}

/// The files of a model and of its optimiser's state.
#[derive(Clone, Debug)]
pub(super) struct ModelFiles {
    pub(super) model: PathBuf,
    optimizer: PathBuf,
    /// The model's file as it was found.
    found: Option<FileVersion>,
}

impl ModelFiles {
    pub(super) fn of(model: PathBuf) -> Self {
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        let optimizer = model.with_file_name(format!(".{name}.adam"));
        let found = FileVersion::of(&model).ok();
        Self { model, optimizer, found }
    }

    /// The optimiser's state for these parameters; `None` when there is none for them or its file is damaged.
    pub(super) fn optimizer_state(&self, checkpoint: &Checkpoint) -> Option<OptimizerState> {
        if matches!(elephant_fs::metadata(&self.optimizer), Ok(None)) {
            return None;
        }
        OptimizerState::read(checkpoint, &self.optimizer).unwrap_or_else(|error| {
            tracing::warn!(%error, "the optimiser begins anew");
            None
        })
    }
}

/// A thread that lets predictions use each snapshot and writes the newest one every half minute and at the end.
pub(super) struct Saver<'scope> {
    inbox: Sender,
    thread: ScopedJoinHandle<'scope, Result<(), PipelineError>>,
}

impl<'scope> Saver<'scope> {
    /// The training must have begun with `files`.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        files: &'scope ModelFiles,
        network: &'scope dyn TrainableModel,
        published: &'scope Published,
        context: &'scope TaskContext,
    ) -> Self {
        let inbox = Arc::new(Inbox::default());
        let receiver = inbox.clone();
        let span = Span::current();
        let thread = scope.spawn(move || {
            let _entered = span.enter();
            let keeper = Keeper { files, network, published, context, version: files.found, saved_at: Instant::now() };
            let kept = keeper.run(&receiver);
            // The file is the model from now on, also where it could not be written.
            published.withdrawing(&files.model, || network.withdraw(&files.model));
            kept
        });
        Self { inbox: Sender(inbox), thread }
    }

    /// Whether keeping has failed, so that the training is to stop; [`finish`](Self::finish) returns the reason.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Keeps the snapshot instead of those before.
    pub(super) fn offer(&self, snapshot: Snapshot) {
        self.inbox.0.put(snapshot);
    }

    /// Waits until the snapshot that was offered last is written.
    pub(super) fn finish(self) -> Result<(), PipelineError> {
        drop(self.inbox);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Holds the newest snapshot until the saver's thread takes it.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct InboxState {
    newest: Option<Snapshot>,
    is_closed: bool,
}

/// The training's end of an [`Inbox`]; closes it when dropped.
struct Sender(Arc<Inbox>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

/// The next task of the saver's thread.
enum Next {
    Keep(Snapshot),
    /// The time that was given has come.
    Due,
    /// Nothing more comes.
    Closed,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, snapshot: Snapshot) {
        self.state().newest = Some(snapshot);
        self.changed.notify_all();
    }

    /// Waits for a snapshot, until `due` if that is given.
    fn next(&self, due: Option<Instant>) -> Next {
        let mut state = self.state();
        loop {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            // First, so that snapshots that follow each other closely do not put off writing.
            if left == Some(Duration::ZERO) {
                return Next::Due;
            }
            if let Some(snapshot) = state.newest.take() {
                return Next::Keep(snapshot);
            }
            if state.is_closed {
                return Next::Closed;
            }
            state = match left {
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

struct Keeper<'a> {
    files: &'a ModelFiles,
    network: &'a dyn TrainableModel,
    published: &'a Published,
    context: &'a TaskContext,
    /// The model's file as it was found or written.
    version: Option<FileVersion>,
    saved_at: Instant,
}

impl Keeper<'_> {
    fn run(mut self, inbox: &Inbox) -> Result<(), PipelineError> {
        let mut unsaved = None;
        loop {
            let due = unsaved.as_ref().map(|_| self.saved_at + SAVE_INTERVAL);
            match inbox.next(due) {
                Next::Keep(snapshot) => {
                    if let Some(version) = self.require_own_file(&snapshot.checkpoint)? {
                        let (path, parameters) = (&self.files.model, &snapshot.checkpoint);
                        let published =
                            self.published.changing(path, || self.network.publish(path, version, parameters));
                        unsaved = Some(snapshot);
                        if let Err(error) = published {
                            self.write(unsaved)?;
                            return Err(error.into());
                        }
                    } else {
                        unsaved = None;
                        self.write(Some(snapshot))?;
                    }
                    self.context.tell(TaskEvent::model_updated());
                }
                Next::Due => self.write(unsaved.take())?,
                Next::Closed => return self.write(unsaved),
            }
        }
    }

    /// Checks that the model's file is still the one that was found or written, and returns its version; `None` when it is
    /// gone. A file that another program put there is not overwritten; the trained model is then written beside it.
    fn require_own_file(&self, checkpoint: &Checkpoint) -> Result<Option<FileVersion>, PipelineError> {
        let found = FileVersion::of(&self.files.model).ok();
        if found.is_some() && found != self.version {
            return Err(keep_aside(checkpoint, &self.files.model));
        }
        Ok(found)
    }

    fn write(&mut self, snapshot: Option<Snapshot>) -> Result<(), PipelineError> {
        let Some(Snapshot { checkpoint, state }) = snapshot else { return Ok(()) };
        self.require_own_file(&checkpoint)?;
        checkpoint.write(&self.files.model)?;
        self.version = FileVersion::of(&self.files.model).ok();
        self.saved_at = Instant::now();
        // State of another model is ignored when it is read, so a kill in between loses nothing but the state.
        if let Err(error) = state.write(checkpoint.fingerprint(), &self.files.optimizer) {
            tracing::warn!(%error, "the optimiser's state is not saved; the next training begins without it");
        }
        Ok(())
    }
}

/// Writes the trained model beside a model file that another program replaced, and returns the error that says so.
fn keep_aside(checkpoint: &Checkpoint, model: &Path) -> PipelineError {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let aside = free_name(model);
    let aside_name = aside.file_name().unwrap_or_default().to_string_lossy();
    match checkpoint.write(&aside) {
        Ok(()) => ModelError::new(
            ErrorCode::Conflict,
            format!("the model {name} was replaced during its training; the trained model is kept as {aside_name}"),
        )
        .into(),
        Err(error) => error.into(),
    }
}

/// `trained-NAME.pth` beside the model, or `trained-NAME-2.pth` and so on where there is such a file.
fn free_name(model: &Path) -> PathBuf {
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let extension = model.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    let mut aside = model.with_file_name(format!("trained-{stem}{extension}"));
    let mut number = 1;
    // A link whose target is missing counts as a file.
    while aside.symlink_metadata().is_ok() {
        number += 1;
        aside = model.with_file_name(format!("trained-{stem}-{number}{extension}"));
    }
    aside
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn snapshot(step: u64) -> Snapshot {
        let state = OptimizerState { step, first_moments: Vec::new(), second_moments: Vec::new() };
        Snapshot { checkpoint: Checkpoint::default(), state }
    }

    #[test]
    fn the_newest_snapshot_is_kept_and_written_when_it_is_due() {
        let inbox = Arc::new(Inbox::default());
        let sender = Sender(inbox.clone());
        inbox.put(snapshot(1));
        inbox.put(snapshot(2));
        let now = Instant::now();
        assert!(matches!(inbox.next(Some(now)), Next::Due), "also while another one waits");
        assert!(matches!(inbox.next(Some(now + SAVE_INTERVAL)), Next::Keep(Snapshot { state, .. }) if state.step == 2));
        assert!(matches!(inbox.next(Some(now + Duration::from_millis(1))), Next::Due), "nothing comes until then");
        inbox.put(snapshot(3));
        drop(sender);
        assert!(matches!(inbox.next(None), Next::Keep(Snapshot { state, .. }) if state.step == 3));
        assert!(matches!(inbox.next(None), Next::Closed));
    }

    #[test]
    fn models_that_are_there_keep_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("cells.v2.pth");
        for expected in ["trained-cells.v2.pth", "trained-cells.v2-2.pth", "trained-cells.v2-3.pth"] {
            let free = free_name(&model);
            assert_eq!(free, folder.path().join(expected));
            fs::write(free, "a model").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", folder.path().join("trained-b")).unwrap();
        assert_eq!(free_name(&folder.path().join("b")), folder.path().join("trained-b-2"));
    }
}
