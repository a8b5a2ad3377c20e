//! Training: objective, batches, loss values.

use std::path::Path;

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_types::{CancelToken, KeepAxials, NetworkTask, Numerics};
use ndarray::{Array4, Array5, Axis};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Objective of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// The labels of a person's corrections (docs/method.md, "Losses"). Needs [`Targets::Classes`].
    Labels {
        /// Weights of background, border and centre.
        class_weights: [f64; 3],
        /// Weight of a voxel with a "false" tag (labels 4 to 6), relative to one with a "true" tag.
        false_weight: f64,
    },
    /// Displacements of cells since the frame before (docs/method.md, "Losses", "Flow"), for a flow network. Needs
    /// [`Targets::Vectors`].
    Vectors {
        /// Displacement along x and y in voxels that a component of 1 stands for; along z it depends on the crop's
        /// [`KeepAxials::flow_norm`].
        max_displacement: f64,
        /// Weights of x, y and z; only their ratios matter. The original's numbers do without.
        axis_weights: [f64; 3],
    },
    /// The image itself: centre and foreground are to be as bright as the image. What a network learns before there are
    /// labels. Needs [`Targets::Inputs`].
    Intensities,
}

impl Default for Objective {
    /// Labels, with the original's weights.
    fn default() -> Self {
        Self::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 }
    }
}

/// Options of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingOptions {
    /// The objective that is minimised.
    pub objective: Objective,
    /// In which order sums are formed.
    pub numerics: Numerics,
}

/// Targets that a network's outputs are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The inputs themselves.
    Inputs,
    /// Values of the label store, (n, z, y, x): 0 where nothing is known, 1 to 3 for background, border and centre with a
    /// "true" tag, 4 to 6 for the same with a "false" tag.
    Classes(Array4<u8>),
    /// Vectors, of which those in voxels of weight 0 are unknown.
    Vectors {
        /// Components x, y and z of the vectors, (n, c, z, y, x), in units of the network's outputs; two in 2-D.
        values: Array5<f32>,
        /// Weight of each voxel, (n, z, y, x).
        weight: Array4<f32>,
    },
}

/// Crops for one step of an optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingBatch {
    /// Intensities scaled to 0..=1, (n, c, z, y, x); a 2-D crop has z = 1.
    pub inputs: Array5<f32>,
    /// Targets of the same n crops.
    pub targets: Targets,
    /// Levels whose pooling leaves z alone, as it suits the anisotropy of the voxels.
    pub keep_axials: KeepAxials,
    /// Whether a crop without a centre adds a Dice loss that grows with the probability of a centre in it. Otherwise, as in
    /// the original server, the Dice loss of the step before is added, which has no gradient.
    pub punishes_false_positives: bool,
}

impl TrainingBatch {
    /// Crops of one channel, (n, z, y, x), with values of the label store for each voxel.
    pub fn labelled(images: Array4<f32>, labels: Array4<u8>, keep_axials: KeepAxials) -> Self {
        let inputs = images.insert_axis(Axis(1));
        Self { inputs, targets: Targets::Classes(labels), keep_axials, punishes_false_positives: false }
    }

    /// The number of crops.
    pub fn crop_count(&self) -> usize {
        self.inputs.len_of(Axis(0))
    }
}

/// Values of a loss: the sum that is minimised, and its parts by the names of the original's TensorBoard tags.
#[derive(Clone, Debug, PartialEq)]
pub struct LossValues {
    /// The sum that is minimised.
    pub total: f64,
    /// Its parts, by name.
    pub parts: Vec<(&'static str, f64)>,
}

/// A network that can be trained.
pub trait TrainableModel: Send + Sync {
    /// Number of devices that split a batch.
    ///
    /// # Errors
    /// When there is no device.
    fn device_count(&self) -> Result<usize, ModelError>;

    /// Memory of this computer, in bytes, that a step of a network for `task` takes while it is its turn, for crops of so many
    /// voxels in all.
    ///
    /// # Errors
    /// When there is no device.
    fn step_bytes(&self, task: NetworkTask, voxels: u64, numerics: Numerics) -> Result<u64, ModelError>;

    /// Puts a model on the device to be trained. `state` is the optimiser's state after the model's last step, if there is one.
    ///
    /// # Errors
    /// When the checkpoint is not such a network, the device fails, or the task is cancelled.
    fn begin(
        &self,
        model: Checkpoint,
        options: TrainingOptions,
        state: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, ModelError>;

    /// From now on, predictions by the model file `path` use these parameters while the file has this version, until they
    /// are [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// When they are not such a network.
    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), ModelError>;

    /// From now on, predictions by the model file `path` use what is in the file.
    fn withdraw(&self, path: &Path);
}

/// A model on the device, until it is dropped. Predictions find their turn between two steps.
pub trait ModelInTraining {
    /// Makes one step of the optimiser and returns the loss before it. Cancelled or failed, it has changed nothing.
    ///
    /// # Errors
    /// When the batch does not fit the network or its objective, the loss is not finite, the device fails, or the task
    /// is cancelled.
    fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, ModelError>;

    /// The parameters and the optimiser's state after the last completed step.
    ///
    /// # Errors
    /// When a parameter is not finite or the device fails.
    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), ModelError>;
}
