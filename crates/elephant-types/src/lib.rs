//! The vocabulary of the project: validated names, voxel sizes, spots and their lineage, error codes, cancellation and
//! progress, and portable random numbers.
//!
//! Plain data with its rules. No input or output, no threads, no heavy dependency: everything above may use this crate.
//!
//! Conventions: arrays are C order with axes (t, c, z, y, x); vectors and matrices are (z, y, x). The x, y, z order of the
//! ELEPHANT client exists only in the data-transfer objects of `elephant-api`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod annotation;
mod error_code;
mod lineage;
mod name;
mod network;
mod random;
mod spot;
mod task;
mod tracks;
mod voxel_size;

pub use annotation::{ApprovedLink, SpotTag, TaggedSpot, UnknownTag};
pub use error_code::{Coded, ErrorCode};
pub use lineage::{Lineage, LineageError, Link, SpotId};
pub use name::{DatasetName, FileName, InvalidName, ModelName};
pub use network::{KeepAxials, NetworkKind, NetworkTask, NetworkType, Numerics};
pub use random::SplitMix64;
pub use spot::Spot;
pub use task::{CancelToken, Cancelled, Progress, TaskContext, TaskEvent, TrainingStep};
pub use tracks::{Track, TrackId, TrackRow, Tracks};
pub use voxel_size::{InvalidVoxelSize, VoxelSize};
