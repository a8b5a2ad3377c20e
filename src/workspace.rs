//! The workspace that the command line names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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

/// Opens the workspace for reading, also while a server uses it.
pub fn open_beside_server(folder: &Path, data_roots: &[PathBuf]) -> Result<Workspace> {
    let has_datasets = elephant_fs::metadata(&folder.join("datasets"))?.is_some_and(|found| found.is_dir());
    ensure!(has_datasets, "{} is no workspace: it has no folder datasets", folder.display());
    Workspace::open_beside_server(folder, data_roots)
        .with_context(|| format!("cannot use the workspace {}", folder.display()))
}
