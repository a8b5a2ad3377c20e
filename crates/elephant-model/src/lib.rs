//! The interface between the use cases and the networks: requests, results and the traits that a network implements.
//!
//! A use case sees a [`SegmentationModel`], a [`FlowModel`] and a [`TrainableModel`]; `elephant-nn` implements them with libtorch, and
//! [`fake::FakeNetwork`] (feature `fake`) without it, for tests.
//!
//! Predictions name a model by its file. A model that was read is kept until its file changes, and while a training
//! [publishes](TrainableModel::publish) newer parameters, those are used instead of the file's. Everything else (creating,
//! checking and training a network) takes and returns parameters in memory, as a
//! [`Checkpoint`](elephant_checkpoint::Checkpoint).
//!
//! Not here: tiling, devices, where frames are stored, how cells are found in probabilities, and which files a model has.

mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod flow;
mod image;
mod network;
mod segmentation;
mod training;

pub use error::ModelError;
pub use flow::{FlowModel, FlowOptions};
pub use image::{CollectedPlanes, ImageSource, PlaneSink};
pub use network::NetworkCatalogue;
pub use segmentation::{ProbabilityOutput, SegmentationModel, SegmentationOptions};
pub use training::{LossValues, ModelInTraining, Objective, Targets, TrainableModel, TrainingBatch, TrainingOptions};
