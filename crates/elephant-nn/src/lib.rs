//! The detection network, its tiling, and the thread that owns the device. The only crate that links libtorch.
//!
//! A [`Model`] is a checkpoint that is known to fit; [`DeviceHandle::segment`] turns an image into class probabilities
//! with it. Tensors never leave the device's thread: what goes in and comes out are plain arrays.
//!
//! Not here: reading images, normalising them, and finding cells in the probabilities.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod architecture;
mod cuda;
mod device;
mod error;
mod model;
mod norm;
mod ops;
mod random;
mod segment;
mod status;
mod threads;
mod tiling;
mod train;
mod unet;

pub use device::{DeviceChoice, DeviceHandle, DeviceInfo, DeviceOptions, Precision, Training};
pub use error::NnError;
pub use model::Model;
