//! Files and folders that are replaced atomically: readers find the old content or the new one, never a part.
//!
//! Every change in a workspace goes through this crate: [`write_atomic`] for one file, [`publish_file`] for a finished
//! temporary file, [`StagingDir`] for several folders that are published together. [`Root`] resolves names from
//! requests, and [`FolderLock`] excludes other users of a folder. The crate does not know what the files contain.
//!
//! Temporary names start with a dot. Names of datasets, models and files must not, so the two never collide.

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
pub use publish::{publish_file, publish_new_file};
pub use root::Root;
pub use space::{free_bytes, require_free_bytes};
pub use staging::{StagingDir, staging_folder};
pub use sweep::{UPLOAD_PREFIX, remove_abandoned, remove_abandoned_behind_links};
pub use version::{FileVersion, metadata, open_file};
