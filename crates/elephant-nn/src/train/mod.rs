//! Training of networks: the forward and the backward pass, the loss, and the optimiser.
//!
//! A [`Trainer`] lives on the device's thread and is told to make one step after the other; whoever tells it brings the
//! crops and decides when to stop and when to save.

mod adam;
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
