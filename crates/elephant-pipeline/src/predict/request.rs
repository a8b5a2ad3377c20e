//! The request for a prediction.

use elephant_types::{DatasetName, KeepAxials, ModelName, VoxelSize};
use serde::{Deserialize, Serialize};

use crate::{PipelineError, defaults, frames::CropBox};

/// Prediction of one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The model; a missing one is replaced by the pretrained one.
    #[serde(default = "ModelName::detection")]
    pub model: ModelName,
    /// The timepoint, from 0.
    pub timepoint: usize,
    /// Edges of the stored voxels, before any rescaling.
    pub voxel_size: VoxelSize,
    /// Pooling along z.
    #[serde(default = "defaults::keep_axials")]
    pub keep_axials: KeepAxials,
    /// Whether the dataset is 3-D.
    #[serde(default = "defaults::is_3d")]
    pub is_3d: bool,
    /// Whether a 2-D network looks at each plane of a 3-D dataset.
    #[serde(default)]
    pub use_2d: bool,
    /// Whether tiles are padded.
    #[serde(default)]
    pub is_pad: bool,
    /// Whether each plane's median is moved to that of the frame first (3-D only).
    #[serde(default)]
    pub use_median: bool,
    /// Whether the class probabilities are stored in the dataset.
    #[serde(default)]
    pub output_prediction: bool,
    /// Size of the network's class "centre" as a fraction of the cell, in (0, 1].
    #[serde(default = "defaults::center_ratio")]
    pub center_ratio: f64,
    /// Probability of the class "centre" above which a voxel belongs to a cell.
    #[serde(default = "defaults::threshold")]
    pub threshold: f64,
    /// Smaller cells are dropped (micrometres).
    #[serde(default)]
    pub min_radius_um: f64,
    /// Larger semi-axes are clipped (micrometres).
    #[serde(default = "defaults::max_radius_um")]
    pub max_radius_um: f64,
    /// Tile size (z, y, x) in voxels of the rescaled image; `None` computes it in one piece.
    #[serde(default)]
    pub patch: Option<[usize; 3]>,
    /// Part of the frame to look at, in stored voxels; `None` is all of it.
    #[serde(default)]
    pub crop: Option<CropBox>,
    /// Size (z, y, x) to which the whole frame is rescaled first.
    #[serde(default)]
    pub input_size: Option<[usize; 3]>,
    /// Tiles per forward pass, at least 1.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
}

impl PredictRequest {
    /// Checks everything that does not depend on the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field, by the client's name.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let check =
            |is_valid: bool, rule: &str| if is_valid { Ok(()) } else { Err(PipelineError::Invalid(rule.into())) };
        let (min, max) = (self.min_radius_um, self.max_radius_um);
        check(
            self.center_ratio > 0.0 && self.center_ratio <= 1.0,
            "c_ratio must be above 0 and at most 1, usually 0.4",
        )?;
        check((0.0..=1.0).contains(&self.threshold), "p_thresh must be 0 to 1")?;
        check(min.is_finite() && min >= 0.0, "r_min must be 0 or more")?;
        check(max.is_finite() && max > 0.0 && max >= min, "r_max must be above 0 and not below r_min")?;
        check(self.patch.is_none_or(|patch| !patch.contains(&0)), "patch must have edges of at least 1 voxel")?;
        check(self.batch_size >= 1, "batch_size must be at least 1")
    }
}
