//! Chunked arrays on disk: the seven Zarr v2 stores of an ELEPHANT dataset.
//!
//! [`ArrayStore`] reads and writes boxes of one array, or whole chunks, and its attributes; [`StagedBox`] writes a box aside
//! and puts it into the array at once. [`Dataset`] knows which arrays a dataset consists of. [`FrameSource`] is the way to
//! the voxels of its frames. Its readers share a [`FrameCache`] of decoded chunks, which never serves a chunk whose file was
//! replaced.
//!
//! Names, shapes, chunks, data types and metadata are those of the original server (docs/method.md, "Zarr stores"), so
//! that a workspace moves between the two. Chunks are compressed by Blosc through its C library; a chunk's file is old
//! or new, never half, and no length in a file is trusted.
//!
//! Not here: movies, networks, and the meaning of the voxels.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

#[cfg(target_endian = "big")]
compile_error!("chunks are little endian and are read without conversion");

mod array;
mod attributes;
mod blosc;
mod cache;
mod chunk_encoder;
mod data_type;
mod dataset;
mod error;
mod flow;
mod frames;
mod intensities;
mod metadata;
mod staged;
mod tiles;

pub use array::ArrayStore;
pub use attributes::Attributes;
pub use cache::ChunkCache;
pub use chunk_encoder::{ChunkChange, ChunkEncoder};
pub use data_type::{DataType, Element};
pub use dataset::{CHUNK_EDGE, Dataset, DatasetShape, ProbabilityWriter, Store};
pub use error::VolumeError;
pub use flow::{FlowHash, FlowWriter};
pub use frames::{FrameCache, FrameSource};
pub use intensities::{Extent, Medians};
pub use staged::StagedBox;
