//! Movies in BigDataViewer's HDF5/XML format.
//!
//! Reads voxels box by box into the caller's memory, whatever the size of the movie, as unsigned 16 bit: that is what
//! BigDataViewer means although the file says signed. The HDF5 library only says where the voxels lie; they are read and
//! decompressed around it, on all cores. Files are hostile until proven otherwise: nothing outside the movie's folder is
//! opened unless the caller says so ([`Reach`]), no size in a file is trusted.
//!
//! It knows nothing of datasets, stores or timings; see `elephant-volume` and `elephant-pipeline`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod bdv;
mod chunks;
mod element;
mod error;
mod extent;
mod file;
mod filters;
mod header;
mod links;
mod paths;
mod scale;
mod scale_offset;
mod szip;
mod typed;
mod virtual_dataset;
mod virtual_map;
mod volume;
mod writer;
mod xml;

pub use bdv::BdvFile;
pub use error::H5Error;
pub use extent::content_length;
pub use file::is_hdf5;
pub use paths::Reach;
pub use scale::Scale;
pub use volume::Volume;
pub use writer::BdvWriter;
pub use xml::{SpimData, ViewSetup};
