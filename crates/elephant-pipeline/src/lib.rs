//! The use cases: generate a dataset, receive a movie, keep models, predict spots, draw labels, train.
//!
//! Data goes one way, from the movie to the spots. Networks are used through the traits of `elephant-model`, downloads
//! through [`ModelDownload`]; the server's `wiring` joins them to the use cases. Nothing here knows of HTTP.
//!
//! Each request is plain data ([`Request`]) and one of the [`Task`]s, so that HTTP, the command line and a worker run it
//! through the same entrance.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod check;
mod datasets;
mod defaults;
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
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod train;
mod upload;
mod values;
mod workspace;

pub use check::{READY, check_dataset};
pub use datasets::{GenerateRequest, Generated, check, generate};
pub use elephant_hdf5::Reach;
pub use error::{PipelineError, UndrawableSpots};
pub use frames::CropBox;
pub use generate::{GenerateOptions, generate_dataset};
pub use labels::{Labels, UpdateLabels};
pub use models::{ModelContent, ModelInfo, ModelSource, Models, PretrainedNetwork, PretrainedNetworks};
pub use ports::ModelDownload;
pub use predict::{PredictRequest, Predictor};
pub use score::{SceneScore, score_empty_frames, score_scene};
pub use task::{EraseLabels, KINDS, PREDICTIONS, Request, ResetRequest, Task, TaskOutput, UseCases};
pub use train::{
    CropOptions, LiveTrainings, MAX_CROPS, MAX_LEARNING_RATE, Pretraining, PriorTraining, TrainRequest, Trainer,
    TrainingControl, TrainingMode, TrainingOverrides, pretrain,
};
pub use upload::{SpooledFile, Uploads};
pub use values::Summary;
pub use workspace::Workspace;
