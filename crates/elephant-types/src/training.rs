//! What a network is trained with, and for.

use ndarray::Array4;

use crate::{KeepAxials, Numerics};

/// What a detection network is trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// The labels of a person's corrections (contract section 6.9).
    Labels {
        /// Weights of background, border and centre.
        class_weights: [f64; 3],
        /// Weight of a voxel with a "false" tag (labels 4 to 6), relative to one with a "true" tag.
        false_weight: f64,
    },
    /// The image itself: centre and foreground are to be as bright as the image. What a network learns before it has
    /// labels.
    Intensities,
}

/// How a network is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingOptions {
    /// What is minimised.
    pub objective: Objective,
    /// Which rules to compute by.
    pub numerics: Numerics,
}

/// Crops for one step of an optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingBatch {
    /// Intensities scaled to 0..=1, (n, z, y, x).
    pub images: Array4<f32>,
    /// Values of the label store, (n, z, y, x); 0 where nothing is known. Not read by [`Objective::Intensities`].
    pub labels: Array4<u8>,
    /// Pooling along z, as it suits the anisotropy of the voxels.
    pub keep_axials: KeepAxials,
    /// Whether a crop without a centre adds a Dice loss that grows with the probability of a centre in it. In the original
    /// the last Dice loss stands in, from which nothing is learnt.
    pub punishes_false_positives: bool,
}

/// Values of a loss: the sum that is minimised, and its parts by the names of the original's TensorBoard tags.
#[derive(Clone, Debug, PartialEq)]
pub struct LossValues {
    /// What is minimised.
    pub total: f64,
    /// What it is made of.
    pub parts: Vec<(&'static str, f64)>,
}
