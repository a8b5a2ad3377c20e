//! Movies in BigDataViewer's HDF5/XML format.
//!
//! Reads voxels box by box into the caller's memory, whatever the size of the movie, as unsigned 16 bit: that is what
//! BigDataViewer means although the file says signed. Writes movies of one view setup. Files come from outside: nothing
//! outside the movie's folder is opened unless the caller says so ([`Reach`](elephant_hdf5::Reach)), and the XML cannot
//! expand, nest or list without bounds.
//!
//! How HDF5 is read is left to `elephant-hdf5`. It knows nothing of datasets, stores or timings; see `elephant-volume` and
//! `elephant-pipeline`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod error;
mod movie;
mod scale;
mod volume;
mod voxels;
mod writer;
mod xml;

pub use error::BdvError;
pub use movie::BdvFile;
pub use scale::Scale;
pub use volume::Volume;
pub use writer::BdvWriter;
pub use xml::{SpimData, ViewSetup};
