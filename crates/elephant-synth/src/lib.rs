//! Synthetic embryos with known lineage, for demonstrations and tests.
//!
//! [`Embryo::grow`] moves and divides nuclei, [`Embryo::render`] makes the image a light-sheet microscope would take of
//! them, and [`write_movie`] writes a BigDataViewer movie together with its ground truth. The same seed gives the same
//! voxels on every machine and any number of threads: random numbers come from counters, and mathematical functions from
//! software instead of the machine's own library.
//!
//! A stand-in for real data where none can be shipped, not a model of development.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod embryo;
mod error;
mod grid;
mod growth;
mod movie;
mod nucleus;
mod options;
mod render;
mod rng;
mod scene;
mod vector;

pub use embryo::Embryo;
pub use error::SynthError;
pub use movie::write_movie;
pub use nucleus::Nucleus;
pub use options::{EmbryoOptions, Preset};
pub use render::Frame;
pub use scene::{Content, MovedNucleus, Scene, SceneOptions, ScenePair, SceneSet};
