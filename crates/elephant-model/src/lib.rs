//! The seam between the use cases and the networks: what a network is asked, and what it answers.
//!
//! A use case sees a [`SegmentationModel`] and a [`TrainableModel`]; `elephant-nn` implements them with libtorch, and
//! [`fake::FakeNetwork`] (feature `fake`) without it, for tests.
//!
//! Predictions name a model by its file: what they use may be ahead of the file while a training
//! [publishes](TrainableModel::publish) its parameters, and a model that was read is kept until its file changes. Whatever
//! makes, checks or trains parameters has them in memory, as a [`Checkpoint`](elephant_checkpoint::Checkpoint).
//!
//! Not here: tiling, devices, where frames are stored, how cells are found in probabilities, and which files a model has.

mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod image;
mod segmentation;
mod training;

pub use error::ModelError;
pub use image::{CollectedProbabilities, ImageSource, ProbabilitySink};
pub use segmentation::{ProbabilityOutput, SegmentationModel, SegmentationOptions};
pub use training::{LossValues, ModelInTraining, Objective, Targets, TrainableModel, TrainingBatch, TrainingOptions};
