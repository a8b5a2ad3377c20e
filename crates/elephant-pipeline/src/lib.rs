//! The use cases: generate a dataset, receive a movie, keep models, predict spots, draw labels, train.
//!
//! Data goes one way, from the movie to the spots. What the use cases need from outside (the network, the download) is
//! stated as small traits in this crate and joined to it in the server's `wiring`. Nothing here knows of HTTP.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod check;
mod datasets;
mod error;
mod frames;
mod generate;
mod labels;
mod models;
mod movies;
mod plan;
mod ports;
mod predict;
mod record;
mod rescaling;
mod scalars;
mod scenes;
mod score;
mod train;
mod upload;
mod values;
mod workspace;

pub use check::{READY, check_dataset};
pub use datasets::{GenerateRequest, Generated, check, generate};
pub use elephant_hdf5::Reach;
pub use error::{PipelineError, UndrawableSpots};
pub use generate::{GenerateOptions, generate_dataset};
pub use labels::{Labels, UpdateLabels};
pub use models::{ModelContent, ModelInfo, ModelSource, Models, PretrainedNetwork, PretrainedNetworks};
pub use ports::{ModelDownload, ModelInTraining, PortError, SegmentationModel, TrainableModel};
pub use predict::{CropBox, PredictRequest, Predictor};
pub use score::{SceneScore, score_empty_frames, score_scene};
pub use train::{
    CropOptions, Lessons, LiveTrainings, MAX_CROPS, MAX_LEARNING_RATE, Pretraining, PriorTraining, TrainRequest,
    Trainer, TrainingControl, pretrain,
};
pub use upload::Uploads;
pub use values::Summary;
pub use workspace::Workspace;
