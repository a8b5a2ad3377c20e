//! The workspace that the command line names.

use anyhow::{Context, Result};
use elephant_fs::{FolderLock, FsError};
use elephant_pipeline::Workspace;

use crate::config::EngineArgs;

/// Keeps other processes off the workspace, before anything in it is touched.
pub fn hold(args: &EngineArgs, purpose: &str) -> Result<FolderLock, FsError> {
    FolderLock::try_acquire(&args.workspace, purpose)
}

/// Opens the workspace.
pub fn open(args: &EngineArgs) -> Result<Workspace> {
    Workspace::open(&args.workspace)
        .with_context(|| format!("cannot use the workspace {}", args.workspace.display()))?
        .with_data_roots(&args.data_roots)
        .context("cannot use --data-root")
}
