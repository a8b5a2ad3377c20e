//! HDF5 files, read safely: files and their links, groups, attributes, texts, arrays of numbers, and volumes box by box.
//!
//! This is the only crate that depends on the HDF5 library. Files come from outside and may be hostile. Links are followed in
//! our own code, and nothing outside the folder of the file is opened unless the caller says so ([`Reach`]). Object headers
//! and heaps are checked before the library goes through them. The library only says where data lie; they are read and
//! decompressed around it, outside its global lock and on all cores, and no size in a file is trusted.
//!
//! Values come out as they are stored. What they mean (voxels, tables of a project) is left to the crates above, such as
//! `elephant-bdv`. Writing is limited to what BigDataViewer movies need ([`Writer`]).

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod array;
mod attributes;
mod chunks;
mod error;
mod extent;
mod file;
mod filters;
mod header;
mod links;
mod numbers;
mod object;
mod paths;
mod scale_offset;
mod szip;
mod text;
mod typed;
mod value;
mod virtual_dataset;
mod virtual_map;
mod volume;
mod writer;

pub use error::Hdf5Error;
pub use extent::content_length;
pub use file::{Hdf5File, is_hdf5};
pub use numbers::{Convert, NumberKind, NumberType, StoredNumbers};
pub use object::{Dataset, Group, Object};
pub use paths::{Reach, WrittenPath};
pub use value::Value;
pub use volume::Volume;
pub use writer::Writer;
