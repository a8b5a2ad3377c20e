//! Steering of the ELEPHANT client: its linking asks for each cell's place in the frame before, and tracking of the whole movie
//! answers instead of the flow network (docs/tracking.md, "From Mastodon").
//!
//! The client links a cell to the spot nearest to the answer. So a cell gets the exact place of its parent, both daughters of a division
//! get the same one, and a cell without a parent in the frame before is left out, which leaves it without a link.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use elephant_jobs::JobSpec;
use elephant_project::{SpotKey, View};
use elephant_track::{Detections, TrackOptions};
use elephant_types::{DatasetName, ModelName, TaskContext, VoxelSize};
use serde::{Deserialize, Serialize};

use super::{brightness::intensities, tracking_of, weights};
use crate::{
    FlowAnswer, FlowSpot, PipelineError, PredictFlowRequest, Request, UseCases, Workspace, frames::open_dataset,
};

/// Tracked movies that are remembered.
const MOST_REMEMBERED: usize = 4;

/// Whether tracking of the whole movie answers the ELEPHANT client's linking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// How cells are linked; `null` lets the flow network answer.
    #[serde(default)]
    pub tracking: Option<TrackOptions>,
    /// The costs of the linking: a file that `fit` wrote, read now. `None` takes those of `tracking`.
    #[serde(default)]
    pub weights: Option<ModelName>,
}

impl SteerRequest {
    pub(crate) fn validate(&self) -> Result<(), PipelineError> {
        let Some(options) = &self.tracking else {
            return match &self.weights {
                None => Ok(()),
                Some(_) => Err(PipelineError::Invalid("weights need tracking, which is null".to_owned())),
            };
        };
        weights::check(self.weights.as_ref(), options)?;
        Ok(options.validate()?)
    }
}

/// Answers the ELEPHANT client's linking where that is asked for. Uses the project that follows its session.
pub struct Steering {
    workspace: Workspace,
    solved: Mutex<Vec<(DatasetName, Arc<Solved>)>>,
}

/// The tracks of a movie.
struct Solved {
    /// What they were made from: entry of the project's log, options, voxel size.
    made_from: (u64, TrackOptions, VoxelSize),
    /// For each spot with a parent in the frame before: the parent's centre (z, y, x) in micrometres.
    parents: HashMap<SpotKey, [f64; 3]>,
    /// Intensities of spots by number and centre, to measure only what is new.
    measured: HashMap<SpotKey, ([f64; 3], f64)>,
}

impl Steering {
    /// For the datasets of a workspace.
    pub fn new(workspace: &Workspace) -> Self {
        Self { workspace: workspace.clone(), solved: Mutex::default() }
    }

    /// Says whether, and how, tracking answers from now on. It is remembered when the server ends.
    ///
    /// # Errors
    /// When there is no such dataset.
    pub fn set(&self, request: &SteerRequest) -> Result<(), PipelineError> {
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        let options = request.tracking.as_ref();
        let steering =
            options.map(|options| self.workspace.with_weights(options, request.weights.as_ref())).transpose()?;
        self.workspace.records().update(&request.dataset, dataset.folder(), |record| record.steering = steering);
        Ok(())
    }

    /// Whether tracking answers.
    ///
    /// # Errors
    /// When the dataset's name leads out of the workspace.
    pub fn is_on(&self, dataset: &DatasetName) -> Result<bool, PipelineError> {
        Ok(self.options(dataset)?.is_some())
    }

    fn options(&self, dataset: &DatasetName) -> Result<Option<TrackOptions>, PipelineError> {
        Ok(self.workspace.records().load(dataset, &self.workspace.dataset(dataset)?).steering)
    }

    /// Where the cells of a request were in the frame before; `None` where the flow network is to answer. Cells without a
    /// parent there are left out. The first answer after a change of the project tracks the whole movie.
    ///
    /// # Errors
    /// When the dataset cannot be read, corrections contradict each other, or the task is cancelled.
    pub fn answer(
        &self,
        request: &PredictFlowRequest,
        context: &TaskContext,
    ) -> Result<Option<Vec<FlowAnswer>>, PipelineError> {
        let name = &request.dataset;
        let Some(options) = self.options(name)? else { return Ok(None) };
        let mirror = self.workspace.mirror();
        let keys = mirror.candidates(name, request.timepoint, &request.detections());
        let frames = open_dataset(&self.workspace, name)?.dataset().timepoint_count();
        // The session may have been with a longer movie.
        let view = mirror.project(name)?.view(0, (frames as u32).saturating_sub(1))?;
        let solved = self.solved(name, &view, (view.seq, options, request.voxel_size), context)?;
        let answer = |(spot, key): (&FlowSpot, &Option<SpotKey>)| {
            let center_um = *solved.parents.get(&(*key)?)?;
            let squared_um2 = (0..3).map(|d| (center_um[d] - spot.center_um[d]).powi(2)).sum();
            Some(FlowAnswer { id: spot.id, center_um, squared_um2 })
        };
        Ok(Some(request.spots.iter().zip(&keys).filter_map(answer).collect()))
    }

    /// The tracks of a project, which are computed once.
    fn solved(
        &self,
        name: &DatasetName,
        view: &View,
        made_from: (u64, TrackOptions, VoxelSize),
        context: &TaskContext,
    ) -> Result<Arc<Solved>, PipelineError> {
        let remembered = || self.solved.lock().unwrap_or_else(PoisonError::into_inner);
        let old = remembered().iter().find(|(dataset, _)| dataset == name).map(|(_, solved)| solved.clone());
        if let Some(solved) = old.as_ref().filter(|solved| solved.made_from == made_from) {
            return Ok(solved.clone());
        }
        let solved = Arc::new(self.solve(name, view, made_from, old.as_deref(), context)?);
        // What a cancelled search found is not kept.
        context.check()?;
        let mut remembered = remembered();
        remembered.retain(|(dataset, _)| dataset != name);
        remembered.insert(0, (name.clone(), solved.clone()));
        remembered.truncate(MOST_REMEMBERED);
        Ok(solved)
    }

    fn solve(
        &self,
        name: &DatasetName,
        view: &View,
        made_from: (u64, TrackOptions, VoxelSize),
        old: Option<&Solved>,
        context: &TaskContext,
    ) -> Result<Solved, PipelineError> {
        let dataset = open_dataset(&self.workspace, name)?;
        let spots = view.detections();
        let known = |index: usize| {
            let (center_um, intensity) = old?.measured.get(&view.spots[index].key)?;
            (*center_um == spots[index].center_um).then_some(*intensity)
        };
        let intensities = intensities(&dataset, &spots, made_from.2, known, context.cancel_token(), |_| {})?;
        let detections = Detections { intensities: Some(&intensities), ..Detections::default() };
        let tracking = tracking_of(view, &spots, detections, &made_from.1, context)?;
        let parents = tracking.lineage.links().filter_map(|link| {
            let (source, target) = (&spots[link.source.index()], &spots[link.target.index()]);
            // The client looks for parents in the frame before only.
            (source.t + 1 == target.t).then(|| (view.key(link.target), source.center_um))
        });
        let measured =
            view.spots.iter().zip(&intensities).map(|(spot, &light)| (spot.key, (spot.spot.center_um, light)));
        Ok(Solved { parents: parents.collect(), measured: measured.collect(), made_from })
    }
}

impl Request for SteerRequest {
    type Output = ();

    fn spec(&self) -> JobSpec {
        JobSpec::new("steer", self.dataset.as_str())
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, _: &TaskContext) -> Result<(), PipelineError> {
        use_cases.steering.set(self)
    }
}
