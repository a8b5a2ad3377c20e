//! The request for a prediction of displacements, and its answer.

use elephant_jobs::{Activity, JobSpec, OnLeave, ProcessState};
use elephant_types::{DatasetName, KeepAxials, ModelName, NetworkKind, Spot, TaskContext, VoxelSize};
use serde::{Deserialize, Serialize};

use super::{answer_flow, labels::check_max_displacement};
use crate::{PREDICTIONS, PipelineError, Request, UseCases, defaults, frames::CropBox};

/// A cell in the later frame whose place in the earlier one is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpot {
    /// The caller's number of the cell.
    pub id: i64,
    /// Centre (z, y, x) in micrometres; the centre of voxel 0 is at 0.
    pub center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres; the ellipsoid's semi-axes are the square roots of its eigenvalues.
    pub covariance_um2: [[f64; 3]; 3],
}

/// Where a cell was in the earlier frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// The caller's number of the cell.
    pub id: i64,
    /// Its centre in the earlier frame, (z, y, x) in micrometres; z is 0 in 2-D.
    pub center_um: [f64; 3],
    /// Squared length of the displacement in square micrometres.
    pub squared_um2: f64,
}

/// Prediction of the places of one frame's cells in the frame before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictFlowRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The flow model; a missing one is replaced by the pretrained one.
    #[serde(default = "ModelName::flow")]
    pub model: ModelName,
    /// The timepoint of the cells, at least 1.
    pub timepoint: usize,
    /// The cells.
    pub spots: Vec<FlowSpot>,
    /// Edges of the stored voxels, before any rescaling.
    pub voxel_size: VoxelSize,
    /// Pooling along z, which also scales displacements along z.
    #[serde(default = "defaults::keep_axials")]
    pub keep_axials: KeepAxials,
    /// Whether the dataset is 3-D.
    #[serde(default = "defaults::is_3d")]
    pub is_3d: bool,
    /// The displacement in the plane, in stored voxels, that the network's output of 1 stands for.
    #[serde(default = "defaults::max_displacement")]
    pub max_displacement: f64,
    /// Whether the field of the whole pair is to be in the dataset afterwards, even where a crop would do.
    #[serde(default)]
    pub output_prediction: bool,
    /// Tile size (z, y, x) in voxels of the rescaled image; `None` computes it in one piece.
    #[serde(default)]
    pub patch: Option<[usize; 3]>,
    /// How large a part of the pair to look at, in stored voxels, and where, if all cells are there; `None` is all of it.
    #[serde(default)]
    pub crop: Option<CropBox>,
    /// Size (z, y, x) to which whole frames are rescaled first.
    #[serde(default)]
    pub input_size: Option<[usize; 3]>,
    /// Tiles per forward pass, at least 1.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
}

impl PredictFlowRequest {
    /// Checks everything that does not depend on the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field, by the client's name.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let check =
            |is_valid: bool, rule: &str| if is_valid { Ok(()) } else { Err(PipelineError::Invalid(rule.into())) };
        check(self.timepoint > 0, "timepoint 0 has no frame before it; flow needs timepoint 1 or later")?;
        check_max_displacement(self.max_displacement)?;
        check(self.patch.is_none_or(|patch| !patch.contains(&0)), "patch must have edges of at least 1 voxel")?;
        check(self.crop.is_none_or(|crop| !crop.size.contains(&0)), "crop_box must have edges of at least 1 voxel")?;
        check(self.batch_size >= 1, "batch_size must be at least 1")
    }

    /// The cells as detections.
    pub(crate) fn detections(&self) -> Vec<Spot> {
        let detection = |&FlowSpot { center_um, covariance_um2, .. }: &FlowSpot| Spot {
            t: self.timepoint,
            center_um,
            covariance_um2,
            quality: 0.0,
        };
        self.spots.iter().map(detection).collect()
    }

    /// The earlier frame, which is the number of the pair.
    pub(super) fn pair(&self) -> usize {
        self.timepoint.saturating_sub(1)
    }

    /// Kind of the network.
    pub(super) fn kind(&self) -> NetworkKind {
        if self.is_3d { NetworkKind::Volumetric } else { NetworkKind::Planar }
    }
}

impl Request for PredictFlowRequest {
    type Output = Vec<FlowAnswer>;

    fn spec(&self) -> JobSpec {
        JobSpec {
            queue: Some(PREDICTIONS),
            on_leave: OnLeave::Cancel,
            activity: Activity::showing(ProcessState::Wait),
            ..JobSpec::new("predict_flow", self.dataset.as_str())
        }
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Vec<FlowAnswer>, PipelineError> {
        answer_flow(use_cases, self, context)
    }

    fn mirror(&self, use_cases: &UseCases, _: &Vec<FlowAnswer>) {
        // Tracks that answered have noted the cells before.
        if !use_cases.steering.is_on(&self.dataset).unwrap_or(false) {
            use_cases.mirror_candidates(self);
        }
    }
}
