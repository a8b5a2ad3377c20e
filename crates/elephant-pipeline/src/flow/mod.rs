//! Displacements of cells between two frames: labels from links that a person has approved, and prediction (docs/method.md,
//! "Flow network" and "Flow labels").
//!
//! A *pair* is a frame and the one after it, and has the number of the earlier one. A displacement points from a cell in the
//! later frame to its place in the earlier one.

mod answer;
mod cache;
mod field;
mod labels;
mod predict;
mod request;
mod stores;

pub use self::{
    answer::answer_flow,
    labels::{EraseFlowLabels, FlowLabels, UpdateFlowLabels},
    predict::FlowPredictor,
    request::{FlowAnswer, FlowSpot, PredictFlowRequest},
};
