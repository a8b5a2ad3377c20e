//! The networks, their tiling, and the thread that owns the device. The only crate that links libtorch.
//!
//! A network is data (`spec`): its blocks, channels and parameters, which prediction and training walk in the same way.
//! [`Networks`] implements the traits of `elephant-model`. A [`Model`] is a checkpoint that is known to fit;
//! [`DeviceHandle::segment`] turns an image into class probabilities with it. Tensors never leave the device's thread: what
//! goes in and comes out are plain arrays.
//!
//! Not here: reading images, normalising them, and finding cells in the probabilities.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod blending;
mod block;
mod convolution;
mod cuda;
mod device;
mod error;
mod model;
mod network;
mod networks;
mod norm;
mod ops;
mod random;
mod segment;
mod spec;
mod status;
mod threads;
mod tiles;
mod tiling;
mod train;
mod walk;

pub use device::{DeviceChoice, DeviceHandle, DeviceInfo, DeviceOptions, Precision, Training};
pub use error::NnError;
pub use model::Model;
pub use networks::Networks;
