//! Pure voxel code: preparing a frame for the network, and turning its answer into cells.
//!
//! Before the network: [`normalize`] or [`IntensityRange`], [`Resampling`]. After it: [`find_spots`] thresholds the
//! probability of "cell centre", finds connected [`Region`]s and describes each by an ellipsoid. The other way round,
//! [`Ellipsoid`] tells which voxels belong to a spot, and [`LabelFrame`] draws what a person says about spots, [`FlowLabelFrame`] what
//! they say about their displacements, and [`FieldMeans`] reads displacements of spots from a field;
//! [`Augmentation`] cuts out and varies what the network is trained with.
//!
//! Everything here works on arrays in memory, (z, y, x) in C order; a 2-D image has z = 1. No files, no network model, no
//! state. Results do not depend on the number of threads. [`Run`] is the one form in which sets of voxels are passed on:
//! regions, rasters, their overlap and drawn labels are made of runs.

#![cfg_attr(test, allow(clippy::disallowed_methods))]
#![allow(clippy::needless_pass_by_value, reason = "array views are handles, passed by value as slices are")]

mod crop;
mod eigen;
mod ellipsoid;
mod error;
mod filters;
mod flow;
mod labels;
mod moments;
mod original;
mod prepare;
mod regions;
mod resize;
mod shape;
mod shells;
mod spots;

pub use crop::{Augmentation, Crop};
pub use ellipsoid::{Ellipsoid, Raster};
pub use error::ImageError;
pub use filters::gaussian_blur;
pub use flow::{FieldMeans, FieldMeansBuilder, FlowLabelFrame};
pub use labels::{BACKGROUND, LabelFrame, MAX_LABEL, UndrawableReason, UndrawableSpot, label_color};
pub use moments::Moments;
pub use prepare::{IntensityRange, normalize};
pub use regions::{Connectivity, Overlap, Region, RegionFinder, Run, find_regions};
pub use resize::{Resampling, resampled_pitch, resize_trilinear};
pub use shells::Shells;
pub use spots::{Dims, SpotFinder, SpotOptions, find_spots};
