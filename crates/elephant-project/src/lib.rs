//! Projects: what people and programs have said about the cells of a dataset, and who said it.
//!
//! A [`Project`] has spots with tags, and links between them with states and scores. It is a log of operations in one SQLite
//! file; nothing in the log is ever changed. The current state is in memory, made from a snapshot and the end of the log,
//! so that a project of a million spots is open in less than a second. Several processes may write to a project.
//!
//! - [`Operation`]s are what callers ask for; [`Change`]s are what the log has of them: old and new values, field by field.
//!   The last writer of a field wins. [`Project::undo`] appends the inverse of its author's last entry.
//! - [`View`] is a copy of some frames for algorithms, with [`Spot`](elephant_types::Spot)s and a
//!   [`Lineage`](elephant_types::Lineage).
//! - [`merge_prediction`] has the rules of the ELEPHANT client for new predictions.
//! - [`Projects`] are those of all datasets, and [`Mirror`] fills the one that follows a session of the ELEPHANT client.
//!
//! Not here: HTTP, voxels, networks, tracking, and file formats of other programs.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod branches;
mod change;
mod codec;
mod edit;
mod error;
mod history;
mod log;
mod mirror;
mod name;
mod near;
mod operation;
mod packed;
mod project;
mod projects;
mod recover;
mod rules;
mod snapshot;
mod spot;
mod state;
mod transfer;
mod view;

pub use branches::{Branch, branches};
pub use change::{Change, Covariance, LinkRecord, SpotRecord};
pub use error::ProjectError;
pub use log::{Entry, EntryKind};
pub use mirror::{MIRROR, Mirror};
pub use name::{Author, ClientId, InvalidProjectName, ProjectId, ProjectName};
pub use operation::{NewLink, NewSpot, Operation};
pub use packed::{PACKED_BYTES, pack_spots};
pub use project::{Appended, Project, ProjectInfo, ProjectKind};
pub use projects::Projects;
pub use recover::Recovered;
pub use rules::{BoxUm, PredictionChange, SUPPRESSION_UM, merge_prediction};
pub use spot::{DetectionTag, LinkState, ProjectLink, ProjectSpot, SpotKey, TrackingTag};
pub use view::{Constraints, View};
