//! Files of the Cell Tracking Challenge (CTC, <https://celltrackingchallenge.net/datasets>): one label image for each
//! timepoint, and a table of tracks.
//!
//! [`CtcFolder`] reads a result or ground truth frame by frame; [`read_labels`] reads one image. [`PlaneEncoder`] and
//! [`LabelStack`] write images, [`write_tracks`] the table, and [`ZipStream`] an archive of them to any writer.
//!
//! Labels are voxels here: how cells become voxels, and voxels cells, is `elephant-export`. No scores.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod error;
mod folder;
mod read;
mod table;
mod write;
mod zip;

pub use error::CtcError;
pub use folder::CtcFolder;
pub use read::{MOST_VOXELS, labels_shape, read_labels};
pub use table::{read_tracks, write_tracks};
pub use write::{LabelStack, PlaneEncoder, mask_name};
pub use zip::ZipStream;
