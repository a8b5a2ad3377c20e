//! The use cases: generate a dataset, receive a movie, keep models, predict spots and their displacements, draw labels,
//! train.
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
mod flow;
mod frames;
mod generate;
mod labels;
mod masks;
mod mirror;
mod models;
mod movies;
mod plan;
mod plane_parts;
mod ports;
mod predict;
mod published;
mod record;
mod rescaling;
mod scalars;
mod scenes;
mod score;
mod score_flow;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod track;
mod train;
mod upload;
mod values;
mod workspace;

pub use check::{READY, check_dataset};
pub use datasets::{GenerateRequest, Generated, check, generate, voxel_size};
pub use elephant_export::MaskSpot;
pub use elephant_hdf5::Reach;
pub use error::{PipelineError, UndrawableSpots};
pub use flow::{
    EraseFlowLabels, FlowAnswer, FlowLabels, FlowPredictor, FlowSpot, PredictFlowRequest, UpdateFlowLabels, answer_flow,
};
pub use frames::{CropBox, DatasetInfo};
pub use generate::{GenerateOptions, generate_dataset};
pub use labels::{Labels, UpdateLabels};
pub use masks::MasksRequest;
pub use models::{ModelContent, ModelInfo, ModelSource, Models, PretrainedNetwork, PretrainedNetworks};
pub use ports::ModelDownload;
pub use predict::{PredictRequest, Predictor};
pub use score::{SceneScore, score_empty_frames, score_scene};
pub use score_flow::{FlowScore, score_flow};
pub use task::{EraseLabels, KINDS, PREDICTIONS, Request, ResetRequest, Task, TaskOutput, UseCases};
pub use track::{
    Detect, DetectionOptions, ExportFormat, ExportRequest, Exported, FitRequest, FitSummary, FlowOptions,
    ImportRequest, Imported, Motion, ProjectMistake, Quality, QualityRequest, SteerRequest, Steering, TrackRequest,
    TrackSummary, Tracker, export_project, import_project, quality,
};
pub use train::{
    CropOptions, LiveTrainings, MAX_CROPS, MAX_LEARNING_RATE, Pretraining, PriorTraining, TrainRequest, Trainer,
    TrainingControl, TrainingMode, TrainingOverrides, pretrain,
};
pub use upload::{SpooledFile, Uploads};
pub use values::Summary;
pub use workspace::Workspace;
