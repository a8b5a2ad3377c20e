//! Tracked movies in the formats of other programs, and from them.
//!
//! A [`TrackedMovie`] borrows spots and their lineage. [`write_ctc`], [`write_geff`], [`write_trackmate`], [`write_napari`]
//! and [`write_mastodon`] write it; [`stream_masks`] writes label images as a zip archive while they are drawn.
//! [`read_ctc`], [`read_geff`], [`read_spot_table`], and [`read_tracked`] for any of them, make an [`ImportedMovie`]. `docs/exports.md` describes the formats.
//!
//! Files appear complete or not at all. Results do not depend on the number of threads. No images of the movie itself, and
//! no knowledge of datasets or projects.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod ctc;
mod error;
mod file;
mod geff;
mod import;
mod masks;
mod movie;
mod spot_table;
mod table;
mod trackmate;

pub use ctc::{CtcSummary, CtcTracks, write_ctc};
pub use error::ExportError;
pub use file::{TrackFormat, read_tracked};
pub use geff::{read_geff, write_geff};
pub use import::read_ctc;
pub use masks::{MaskSpot, Masks, stream_masks};
pub use movie::{ImportedMovie, TrackedMovie};
pub use spot_table::read_spot_table;
pub use table::{write_mastodon, write_napari};
pub use trackmate::write_trackmate;
