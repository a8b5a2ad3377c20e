//! The request for a training.

use std::fmt;

use elephant_image::Augmentation;
use elephant_model::Objective;
use elephant_types::{DatasetName, FileName, KeepAxials, ModelName, NetworkKind, NetworkType, VoxelSize};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{PipelineError, UpdateFlowLabels, UpdateLabels, defaults};

/// Crops for one step at most; a step's memory grows with them.
const MAX_BATCH_SIZE: usize = 256;
/// Crops of a timepoint in one epoch at most.
pub const MAX_CROPS: u32 = 1_000_000;
/// Adam moves every parameter by about this in a step; a network's have a hundredth of it.
pub const MAX_LEARNING_RATE: f64 = 1.0;

/// Which labels a training learns from, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainingMode {
    /// Those that are drawn first, from these spots; then the labels of their timepoints, for a number of epochs.
    Spots {
        /// The labels to draw.
        labels: UpdateLabels,
        /// How often each timepoint's crops are gone through.
        #[serde(default = "defaults::epochs")]
        epochs: u32,
    },
    /// Flow labels, for a flow network: those that are drawn first, from these links; then the labels of their pairs of
    /// frames, for a number of epochs.
    Links {
        /// The labels to draw. Displacements along z are scaled as the crops' pooling asks for.
        labels: UpdateFlowLabels,
        /// Weights of displacements along x, y and z in the loss; only their ratios matter. The original ignores them.
        #[serde(default = "defaults::axis_weights")]
        axis_weights: [f64; 3],
        /// How often each pair's crops are gone through.
        #[serde(default = "defaults::epochs")]
        epochs: u32,
    },
    /// Those of the timepoints that were updated since the last epoch, until the training is stopped.
    Live {
        /// The number of updates ([`LiveTrainings::update_count`](super::LiveTrainings::update_count)) when the training
        /// was asked for: later ones count, even if they come before it has begun. `None` counts from its beginning.
        #[serde(default)]
        after: Option<u64>,
    },
}

/// Reads a mode: an object, or the name of a mode whose fields can all be left out.
fn training_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrainingMode, D::Error> {
    struct ModeVisitor;

    impl<'de> Visitor<'de> for ModeVisitor {
        type Value = TrainingMode;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("\"live\", {\"live\": …}, {\"spots\": …} or {\"links\": …}")
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<TrainingMode, E> {
            if name == "live" {
                return Ok(TrainingMode::Live { after: None });
            }
            Err(E::custom(format!(
                "the mode {name:?} is unknown or has fields that are missing; give {}",
                &self as &dyn de::Expected
            )))
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<TrainingMode, A::Error> {
            TrainingMode::deserialize(MapAccessDeserializer::new(fields))
        }
    }

    deserializer.deserialize_any(ModeVisitor)
}

/// One training of a detection or flow network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRequest {
    /// The dataset of the images and labels.
    pub dataset: DatasetName,
    /// The model that is trained; the pretrained one is taken where it does not exist.
    #[serde(default = "ModelName::detection")]
    pub model: ModelName,
    /// The labels to learn from, and for how long. In JSON, `"live"` is short for `{"live": {}}`.
    #[serde(deserialize_with = "training_mode")]
    pub mode: TrainingMode,
    /// Options of the crops.
    pub crops: CropOptions,
    /// Class weights and the weight of "false" tags; not used with links.
    #[serde(default)]
    pub objective: Objective,
    /// Learning rate of Adam.
    #[serde(default = "defaults::learning_rate")]
    pub learning_rate: f64,
    /// Crops in one step.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
    /// Crops of each timepoint in one epoch.
    #[serde(default = "defaults::crop_count")]
    pub crops_per_timepoint: u32,
    /// Scalars are logged every so many steps.
    #[serde(default = "defaults::log_interval")]
    pub log_interval: u64,
    /// Folder for them, below the workspace's `logs`.
    #[serde(default = "FileName::detection_log")]
    pub log_folder: FileName,
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
}

/// Options of training crops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropOptions {
    /// Whether the network is 3-D.
    #[serde(default = "defaults::is_3d")]
    pub is_3d: bool,
    /// Pooling along z.
    #[serde(default = "defaults::keep_axials")]
    pub keep_axials: KeepAxials,
    /// Edges of the stored voxels; only the ratios matter.
    pub voxel_size: VoxelSize,
    /// The size (z, y, x) in voxels that frames are seen at; `None` for the stored one.
    #[serde(default)]
    pub input_size: Option<[usize; 3]>,
    /// Size (z, y, x) of a crop in voxels of that; clipped to the frame.
    #[serde(default = "defaults::crop_size")]
    pub crop_size: [usize; 3],
    /// How much crops are scaled: 0.2 for edges from 0.8 to 1.2 of the crop's, less along axes with long voxels.
    #[serde(default)]
    pub scale_factor: f64,
    /// Largest rotation in the plane of y and x, in degrees either way.
    #[serde(default)]
    pub rotation_degrees: f64,
    /// Smallest factor on the contrast, 0 to 1; 0 leaves it as it is.
    #[serde(default)]
    pub contrast: f64,
}

impl TrainRequest {
    /// Checks everything that does not depend on the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field, with the original's text where it has one.
    pub fn validate(&self) -> Result<(), PipelineError> {
        self.crops.validate()?;
        check_crop_count(self.crops_per_timepoint)?;
        check(self.learning_rate > 0.0 && self.learning_rate <= MAX_LEARNING_RATE, || {
            format!("lr should be above 0 and at most {MAX_LEARNING_RATE} but got {}", self.learning_rate)
        })?;
        check((1..=MAX_BATCH_SIZE).contains(&self.batch_size), || {
            format!("batch_size should be 1 to {MAX_BATCH_SIZE} but got {}", self.batch_size)
        })?;
        if let Objective::Labels { class_weights, false_weight } = &self.objective {
            let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
            let is_sound = class_weights.iter().all(is_weight) && class_weights.iter().any(|weight| *weight > 0.0);
            check(is_sound, || "class_weights should be 3 numbers that are 0 or more, and not all 0".into())?;
            check(is_weight(false_weight), || format!("false_weight should be 0 or more but got {false_weight}"))?;
        }
        match &self.mode {
            TrainingMode::Spots { labels, epochs } => {
                check(labels.dataset == self.dataset, || {
                    let (labels, training) = (&labels.dataset, &self.dataset);
                    format!(
                        "the labels are for the dataset {labels}, but the training is on {training}; use one dataset"
                    )
                })?;
                check(!labels.spots.is_empty(), || "nothing to train".into())?;
                check(*epochs > 0, || "n_epochs should be a positive number".into())?;
                labels.validate()
            }
            TrainingMode::Links { labels, axis_weights, epochs } => {
                check(labels.dataset == self.dataset, || {
                    let (labels, training) = (&labels.dataset, &self.dataset);
                    format!(
                        "the labels are for the dataset {labels}, but the training is on {training}; use one dataset"
                    )
                })?;
                check(!labels.links.is_empty(), || "nothing to train".into())?;
                check(*epochs > 0, || "n_epochs should be a positive number".into())?;
                let is_sound = axis_weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
                    && axis_weights.iter().any(|weight| *weight > 0.0);
                check(is_sound, || "dim_weights should be 3 numbers that are 0 or more, and not all 0".into())?;
                labels.validate()
            }
            TrainingMode::Live { .. } => Ok(()),
        }
    }

    /// The network that is trained.
    pub(crate) fn network(&self) -> NetworkType {
        let kind = self.crops.kind();
        match &self.mode {
            TrainingMode::Links { .. } => NetworkType::flow(kind),
            TrainingMode::Spots { .. } | TrainingMode::Live { .. } => NetworkType::detection(kind),
        }
    }

    /// The objective that is minimised.
    pub(super) fn objective(&self) -> Objective {
        let TrainingMode::Links { labels, axis_weights, .. } = &self.mode else { return self.objective.clone() };
        Objective::Vectors { max_displacement: labels.max_displacement, axis_weights: *axis_weights }
    }
}

impl CropOptions {
    /// Checks all options.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), PipelineError> {
        check((0.0..1.0).contains(&self.scale_factor), || {
            format!("aug_scale_factor_base should be 0 or more and below 1 but got {}", self.scale_factor)
        })?;
        check((0.0..=180.0).contains(&self.rotation_degrees), || {
            format!("aug_rotation_angle should be 0 to 180 degrees but got {}", self.rotation_degrees)
        })?;
        // The original's text.
        check((0.0..=1.0).contains(&self.contrast), || {
            format!("Exception: contrast should be in [0, 1] but got {}", self.contrast)
        })?;
        let sizes = [("crop_size", Some(self.crop_size)), ("input_size", self.input_size)];
        for (field, size) in sizes {
            check(size.is_none_or(|size| !size.contains(&0)), || format!("{field}: every number must be 1 or more"))?;
        }
        Ok(())
    }

    /// Kind of the network that learns from such crops.
    pub fn kind(&self) -> NetworkKind {
        if self.is_3d { NetworkKind::Volumetric } else { NetworkKind::Planar }
    }

    /// The voxels of a crop of frames of the stored size (z, y, x), however many that are.
    pub(super) fn voxels(&self, frame: [usize; 3]) -> u64 {
        let rescaled = self.rescaled(frame);
        let edges = (0..3).map(|axis| self.crop_size[axis].min(rescaled[axis]) as u64);
        edges.fold(1, u64::saturating_mul)
    }

    /// The size that frames of the stored size are seen at.
    fn rescaled(&self, frame: [usize; 3]) -> [usize; 3] {
        self.input_size.map_or(frame, |size| if self.is_3d { size } else { [1, size[1], size[2]] })
    }

    /// For frames of the stored size (z, y, x), the size that they are seen at, and how crops are varied.
    pub(super) fn augmentation(&self, frame: [usize; 3]) -> ([usize; 3], Augmentation) {
        let rescaled = self.rescaled(frame);
        let voxel = self.voxel_size.zyx();
        // Sizes of the voxels that are seen.
        let seen: [f64; 3] = std::array::from_fn(|axis| voxel[axis] * frame[axis] as f64 / rescaled[axis] as f64);
        let axes = if self.is_3d { 0..3 } else { 1..3 };
        let shortest = axes.clone().map(|axis| seen[axis]).fold(f64::INFINITY, f64::min);
        let factor = |axis: usize| if axes.contains(&axis) { self.scale_factor * shortest / seen[axis] } else { 0.0 };
        let augmentation = Augmentation {
            crop_size: self.crop_size,
            scale_factors: std::array::from_fn(factor),
            rotation_degrees: self.rotation_degrees,
            contrast: self.contrast,
        };
        (rescaled, augmentation)
    }
}

/// Refuses a number of crops that is 0 or beyond reason.
pub(super) fn check_crop_count(count: u32) -> Result<(), PipelineError> {
    // The original's text.
    check(count > 0, || "n_crops should be a positive number".into())?;
    check(count <= MAX_CROPS, || format!("n_crops should be at most {MAX_CROPS} but got {count}"))
}

fn check(is_valid: bool, rule: impl FnOnce() -> String) -> Result<(), PipelineError> {
    if is_valid { Ok(()) } else { Err(PipelineError::Invalid(rule())) }
}
