//! Files that are old or new, never half.
//!
//! Every change below the workspace goes through this crate: [`write_atomic`] for one file, [`publish_file`] for one that
//! is ready beside its place, [`StagingDir`] for a set of folders published together, [`Root`] for names that come from
//! outside. It knows nothing of what the files hold.
//!
//! Temporary names start with a dot; names of datasets, models and files may not, so the two never meet.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod atomic;
mod error;
mod lock;
mod publish;
mod root;
mod space;
mod staging;
mod sweep;
mod version;

pub use atomic::{copy_atomic, move_unflushed, replace_unflushed, temporary_file, write_atomic};
pub use error::FsError;
pub use lock::FolderLock;
pub use publish::publish_file;
pub use root::Root;
pub use space::{free_bytes, require_free_bytes};
pub use staging::{StagingDir, staging_folder};
pub use sweep::{UPLOAD_PREFIX, remove_abandoned, remove_abandoned_behind_links};
pub use version::{FileVersion, metadata};
