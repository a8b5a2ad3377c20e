//! The request to track the cells of a dataset.

use elephant_jobs::JobSpec;
use elephant_project::{ProjectId, ProjectName};
use elephant_track::TrackOptions;
use elephant_types::{DatasetName, KeepAxials, ModelName, TaskContext, VoxelSize};
use serde::{Deserialize, Serialize};

use super::{TrackSummary, weights};
use crate::{FlowSpot, PipelineError, PredictFlowRequest, PredictRequest, Request, UseCases, defaults};

/// Detection and linking of the cells of a dataset's frames into a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The project that gets the cells and links; made if it is missing.
    #[serde(default = "tracking")]
    pub project: ProjectName,
    /// First and last timepoint; `None` is the whole movie.
    #[serde(default)]
    pub timepoints: Option<[usize; 2]>,
    /// Edges of a stored voxel (z, y, x) in micrometres. `None` takes those that the project or the movie's `.xml` file has.
    #[serde(default)]
    pub voxel_size: Option<VoxelSize>,
    /// In which frames cells are looked for.
    #[serde(default)]
    pub detect: Detect,
    /// How cells are found.
    #[serde(default)]
    pub detection: DetectionOptions,
    /// How the motion of cells is known before they are linked.
    #[serde(default)]
    pub motion: Motion,
    /// How cells are linked.
    #[serde(default)]
    pub tracking: TrackOptions,
    /// The costs of the linking: a file that `fit` wrote. `None` takes those of `tracking`.
    #[serde(default)]
    pub weights: Option<ModelName>,
}

fn tracking() -> ProjectName {
    "tracking".parse().unwrap_or_else(|_| unreachable!("a valid name"))
}

/// In which frames cells are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detect {
    /// In frames of which the project has no cells.
    #[default]
    Missing,
    /// In all frames. Cells that are tagged or approved stay, as in the ELEPHANT client.
    All,
    /// In none: the cells of the project are linked.
    None,
}

/// How the motion of cells is known before they are linked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Motion {
    /// From the links of neighbouring cells.
    #[default]
    Neighbors,
    /// From a flow network.
    Flow(FlowOptions),
}

/// How a flow network is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowOptions {
    /// The model; a missing one is replaced by the built-in one.
    pub model: ModelName,
    /// Largest displacement in voxels, for which the network was trained.
    pub max_displacement_vox: f64,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { model: ModelName::flow(), max_displacement_vox: 80.0 }
    }
}

impl FlowOptions {
    /// The request for the cells of one frame.
    pub(super) fn request(
        &self,
        request: &TrackRequest,
        timepoint: usize,
        voxel_size: VoxelSize,
        is_3d: bool,
        spots: Vec<FlowSpot>,
    ) -> PredictFlowRequest {
        let [z, _, x] = voxel_size.zyx();
        PredictFlowRequest {
            dataset: request.dataset.clone(),
            model: self.model.clone(),
            timepoint,
            spots,
            voxel_size,
            keep_axials: request.detection.keep_axials.unwrap_or_else(|| KeepAxials::for_anisotropy(z / x)),
            is_3d,
            max_displacement: self.max_displacement_vox,
            output_prediction: true,
            patch: Some(request.detection.patch),
            crop: None,
            input_size: None,
            batch_size: defaults::batch_size(),
        }
    }
}

/// How cells are found; see [`PredictRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionOptions {
    /// The model; a missing one is replaced by the built-in one.
    pub model: ModelName,
    /// Pooling along z; `None` follows from the voxel size.
    pub keep_axials: Option<KeepAxials>,
    /// Whether each plane's median is moved to that of the frame first (3-D only).
    pub use_median: bool,
    /// Size of the network's class "centre" as a fraction of the cell, in (0, 1].
    pub center_ratio: f64,
    /// Probability of the class "centre" above which a voxel belongs to a cell.
    pub threshold: f64,
    /// Smaller cells are dropped (micrometres).
    pub min_radius_um: f64,
    /// Larger semi-axes are clipped (micrometres).
    pub max_radius_um: f64,
    /// Tile size (z, y, x) in voxels.
    pub patch: [usize; 3],
}

impl Default for DetectionOptions {
    /// The client's, but for the largest radius, which it sets to 5 µm.
    fn default() -> Self {
        Self {
            model: ModelName::detection(),
            keep_axials: None,
            use_median: false,
            center_ratio: defaults::center_ratio(),
            threshold: defaults::threshold(),
            min_radius_um: 1.0,
            max_radius_um: 50.0,
            patch: [24, 384, 384],
        }
    }
}

impl DetectionOptions {
    /// The request for one frame.
    pub(super) fn request(
        &self,
        dataset: &DatasetName,
        timepoint: usize,
        voxel_size: VoxelSize,
        is_3d: bool,
    ) -> PredictRequest {
        let [z, _, x] = voxel_size.zyx();
        PredictRequest {
            dataset: dataset.clone(),
            model: self.model.clone(),
            timepoint,
            voxel_size,
            keep_axials: self.keep_axials.unwrap_or_else(|| KeepAxials::for_anisotropy(z / x)),
            is_3d,
            use_2d: false,
            is_pad: false,
            use_median: self.use_median,
            output_prediction: false,
            center_ratio: self.center_ratio,
            threshold: self.threshold,
            min_radius_um: self.min_radius_um,
            max_radius_um: self.max_radius_um,
            patch: Some(self.patch),
            crop: None,
            input_size: None,
            batch_size: defaults::batch_size(),
        }
    }
}

impl TrackRequest {
    pub(super) fn project_id(&self) -> ProjectId {
        ProjectId::new(self.dataset.clone(), self.project.clone())
    }

    /// Checks everything that does not depend on the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), PipelineError> {
        if let Some([first, last]) = self.timepoints.filter(|[first, last]| first > last) {
            return Err(PipelineError::Invalid(format!(
                "timepoints must be the first and the last one, but {first} is after {last}"
            )));
        }
        self.detection.request(&self.dataset, 0, VoxelSize::UNIT, true).validate()?;
        if let Motion::Flow(options) = &self.motion {
            options.request(self, 1, VoxelSize::UNIT, true, Vec::new()).validate()?;
        }
        weights::check(self.weights.as_ref(), &self.tracking)?;
        self.tracking.validate().map_err(|error| PipelineError::Invalid(error.to_string()))
    }
}

impl Request for TrackRequest {
    type Output = TrackSummary;

    fn spec(&self) -> JobSpec {
        let project = format!("tracks of {}/{}", self.dataset, self.project);
        JobSpec { noun: "tracking", exclusive: Some(project.into()), ..JobSpec::new("track", self.dataset.as_str()) }
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<TrackSummary, PipelineError> {
        use_cases.tracker.track(self, context)
    }
}
