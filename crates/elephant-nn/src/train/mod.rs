//! Training of networks: the forward and the backward pass, the loss, and the optimiser.
//!
//! A [`Trainer`] lives on the device's thread and makes one step for each batch it gets. The caller cuts the crops and
//! decides when to stop and when to save.

mod adam;
mod flow_loss;
#[cfg(test)]
mod golden;
mod layer;
mod loss;
mod norm;
#[cfg(test)]
mod oracle;
mod pool;
mod tape;
mod trainer;

pub(crate) use trainer::{Hardware, Trainer, step_bytes};
