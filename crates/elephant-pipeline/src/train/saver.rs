//! Writing a model in training, beside the steps.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_types::{ErrorCode, TaskContext, TaskEvent};

use crate::{PipelineError, PortError};

/// A model in training as it is at one moment.
pub(super) struct Snapshot {
    /// Its parameters, and where they come from.
    pub(super) checkpoint: Checkpoint,
    /// What the optimiser remembers of them.
    pub(super) state: OptimizerState,
}

/// Where a model and its optimiser's memory are.
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

    /// What the optimiser remembers of these parameters; nothing where it never saw them or its file is damaged.
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

/// A thread that writes snapshots. One may wait; more are not taken, as the next one holds all that they do.
pub(super) struct Saver<'scope> {
    snapshots: SyncSender<Snapshot>,
    thread: ScopedJoinHandle<'scope, Result<(), PipelineError>>,
}

impl<'scope> Saver<'scope> {
    /// The training must have begun with `files`.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        files: &'scope ModelFiles,
        context: &'scope TaskContext,
    ) -> Self {
        let (snapshots, received) = sync_channel(1);
        Self { snapshots, thread: scope.spawn(move || save_all(&received, files, context)) }
    }

    /// Whether writing has failed, so that there is no use in going on; [`finish`](Self::finish) tells why.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Writes the snapshot soon, unless another one is waiting; whether it does.
    pub(super) fn offer(&self, snapshot: Snapshot) -> bool {
        self.snapshots.try_send(snapshot).is_ok()
    }

    /// Writes the last snapshot, and waits until all are written.
    pub(super) fn finish(self, last: Option<Snapshot>) -> Result<(), PipelineError> {
        if let Some(last) = last {
            // An error means that the thread has failed, and says so below.
            let _ = self.snapshots.send(last);
        }
        drop(self.snapshots);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn save_all(snapshots: &Receiver<Snapshot>, files: &ModelFiles, context: &TaskContext) -> Result<(), PipelineError> {
    let mut version = files.found;
    for Snapshot { checkpoint, state } in snapshots {
        let found = FileVersion::of(&files.model).ok();
        if found.is_some() && found != version {
            return Err(keep_aside(&checkpoint, &files.model));
        }
        checkpoint.write(&files.model)?;
        version = FileVersion::of(&files.model).ok();
        context.tell(TaskEvent::ModelUpdated);
        // Of another model's memory no use is made: a kill in between costs nothing but it.
        if let Err(error) = state.write(checkpoint.fingerprint(), &files.optimizer) {
            tracing::warn!(%error, "what the optimiser remembers is not saved; the next training begins without it");
        }
    }
    Ok(())
}

/// Somebody else's model is not overwritten; what was learnt is not lost either.
fn keep_aside(checkpoint: &Checkpoint, model: &Path) -> PipelineError {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let aside = format!("trained-{name}");
    match checkpoint.write(&model.with_file_name(&aside)) {
        Ok(()) => PortError::new(
            ErrorCode::Conflict,
            format!("somebody replaced the model {name} during its training; what was learnt is kept as {aside}"),
        )
        .into(),
        Err(error) => error.into(),
    }
}
