//! From spots to lineages: the cells of a dataset's frames are found, linked, and put into a project, and the costs of the linking
//! are learnt from projects (docs/tracking.md).

mod brightness;
mod export;
mod fit;
mod import;
mod mistakes;
mod quality;
mod request;
mod steering;
mod summary;
mod weights;

use std::{collections::HashSet, sync::Arc};

use elephant_project::{
    Author, LinkState, NewLink, NewSpot, Operation, Project, ProjectError, ProjectId, ProjectKind, SUPPRESSION_UM, View,
};
use elephant_track::{Constraints, Detections, TrackOptions, Tracking};
use elephant_types::{Progress, Spot, TaskContext, TaskEvent, VoxelSize};

use self::brightness::{frames, intensities};
pub use self::{
    export::{ExportFormat, ExportRequest, Exported, export_project},
    fit::{FitRequest, FitSummary},
    import::{ImportRequest, Imported, import_project},
    quality::{ProjectMistake, Quality, QualityRequest, quality},
    request::{Detect, DetectionOptions, FlowOptions, Motion, TrackRequest},
    steering::{SteerRequest, Steering},
    summary::TrackSummary,
};
use crate::{
    FlowPredictor, FlowSpot, PipelineError, Predictor, Workspace,
    datasets::voxel_size,
    frames::{HeldDataset, check_timepoint, open_dataset},
};

/// Finds and links the cells of whole movies.
pub struct Tracker {
    workspace: Workspace,
    predictor: Arc<Predictor>,
    flow: Arc<FlowPredictor>,
}

impl Tracker {
    /// Tracks datasets of `workspace` into their projects.
    pub fn new(workspace: &Workspace, predictor: Arc<Predictor>, flow: Arc<FlowPredictor>) -> Self {
        Self { workspace: workspace.clone(), predictor, flow }
    }

    /// Finds the cells of all frames, and links them. Each frame's cells are in the project as soon as they are found; links that
    /// nobody has judged are replaced in one step at the end. Progress is in frames: once to find their cells, once to
    /// measure them, once to link them.
    ///
    /// # Errors
    /// When the dataset, a timepoint or the voxel size is not there, a prediction fails, corrections contradict each other, or
    /// the task is cancelled. Cells found before are kept, and so are links if there were none before.
    pub fn track(&self, request: &TrackRequest, context: &TaskContext) -> Result<TrackSummary, PipelineError> {
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        let [first, last] = timepoints(request, &dataset)?;
        let tracking_options = self.workspace.with_weights(&request.tracking, request.weights.as_ref())?;
        let id = request.project_id();
        let voxel_size = known_voxel_size(&self.workspace, &id, request.voxel_size)?;
        let project = self.workspace.projects().get_or_create(&id, ProjectKind::Normal)?;
        if project.kind() == ProjectKind::Mirror {
            return Err(ProjectError::ReadOnly(id.to_string()).into());
        }
        project.set_voxel_size(voxel_size)?;
        let is_3d = dataset.dataset().is_3d();
        let steps = Steps { context, frames: (last - first + 1) as u64 };

        self.detect(request, [first, last], voxel_size, is_3d, &project, steps)?;
        let view = project.view(first as u32, last as u32)?;
        let spots = view.detections();
        let intensities = intensities(
            &dataset,
            &spots,
            voxel_size,
            |_| None,
            context.cancel_token(),
            |frames| steps.measured(frames),
        )?;
        let displacements = match &request.motion {
            Motion::Neighbors => None,
            Motion::Flow(options) => Some(self.displacements(request, options, voxel_size, is_3d, &spots, steps)?),
        };
        let detections = Detections {
            intensities: Some(&intensities),
            displacements: displacements.as_deref(),
            ..Detections::default()
        };
        let tracking = tracking_of(&view, &spots, detections, &tracking_options, &steps.linking())?;
        // Links that an early end has left unfinished are better than none, but not than those that are there.
        let had_links = view.links.iter().any(|link| link.state == LinkState::Unlabeled);
        if had_links {
            context.check()?;
        }
        link(&project, [first, last], &view, &tracking)?;
        context.check()?;
        Ok(TrackSummary::new(steps.frames, &tracking))
    }

    /// Puts the cells of the frames into the project.
    fn detect(
        &self,
        request: &TrackRequest,
        [first, last]: [usize; 2],
        voxel_size: VoxelSize,
        is_3d: bool,
        project: &Project,
        steps: Steps<'_>,
    ) -> Result<(), PipelineError> {
        let known: HashSet<u32> = project.info()?.frames.into_iter().map(|(t, _)| t).collect();
        for t in first..=last {
            steps.context.check()?;
            let is_wanted = match request.detect {
                Detect::Missing => !known.contains(&(t as u32)),
                Detect::All => true,
                Detect::None => false,
            };
            if is_wanted {
                let one = request.detection.request(&request.dataset, t, voxel_size, is_3d);
                let spots = self.predictor.predict(&one, &steps.quiet())?;
                let operation = Operation::Predict {
                    t: t as u32,
                    inside: None,
                    spots: spots.iter().map(NewSpot::of).collect(),
                    suppression_um: SUPPRESSION_UM,
                };
                project.append(&author(), None, &[operation])?;
            }
            steps.found(t - first + 1);
        }
        Ok(())
    }

    /// For each spot its place in the frame before minus its place, from the flow network; zero in the first frame.
    fn displacements(
        &self,
        request: &TrackRequest,
        options: &FlowOptions,
        voxel_size: VoxelSize,
        is_3d: bool,
        spots: &[Spot],
        steps: Steps<'_>,
    ) -> Result<Vec<[f64; 3]>, PipelineError> {
        let mut displacements = vec![[0.0; 3]; spots.len()];
        for frame in frames(spots) {
            let asked = |index: usize| {
                let Spot { center_um, covariance_um2, .. } = spots[index];
                FlowSpot { id: index as i64, center_um, covariance_um2 }
            };
            let timepoint = spots[frame.start].t;
            if timepoint == 0 {
                continue;
            }
            let one = options.request(request, timepoint, voxel_size, is_3d, frame.map(asked).collect());
            for answer in self.flow.predict(&one, &steps.quiet())? {
                let index = answer.id as usize;
                displacements[index] = std::array::from_fn(|d| answer.center_um[d] - spots[index].center_um[d]);
            }
        }
        Ok(displacements)
    }
}

/// Where a job is: cells are found, measured and linked, frame by frame.
#[derive(Clone, Copy)]
struct Steps<'a> {
    context: &'a TaskContext,
    frames: u64,
}

impl Steps<'_> {
    fn found(self, frames: usize) {
        self.context.report(frames as u64, 3 * self.frames);
    }

    fn measured(self, frames: usize) {
        self.context.report(self.frames + frames as u64, 3 * self.frames);
    }

    /// For a part whose progress in steps of its own says little beside that in frames. Its notes are passed on.
    fn quiet(self) -> TaskContext {
        let context = self.context.clone();
        TaskContext::watched(context.cancel_token().clone(), move |event| {
            if event.stage == TaskEvent::NOTE {
                context.tell(event);
            }
        })
    }

    /// For the linking, whose progress becomes the last third.
    fn linking(self) -> TaskContext {
        let (context, frames) = (self.context.clone(), self.frames);
        TaskContext::new(context.cancel_token().clone(), move |Progress { done, total }| {
            context.report(2 * frames + done * frames / total.max(1), 3 * frames);
        })
    }
}

fn timepoints(request: &TrackRequest, dataset: &HeldDataset) -> Result<[usize; 2], PipelineError> {
    let count = dataset.dataset().timepoint_count();
    let [first, last] = request.timepoints.unwrap_or([0, count.saturating_sub(1)]);
    check_timepoint(dataset.dataset(), &request.dataset, last)?;
    Ok([first, last])
}

/// Who the log of a project says has found and linked the cells.
fn author() -> Author {
    "elephant-server track".parse().unwrap_or_else(|_| unreachable!("a valid name"))
}

/// Tracks the spots of a view, which are those of `detections` too, with what people have said of them.
fn tracking_of<'a>(
    view: &View,
    spots: &'a [Spot],
    detections: Detections<'a>,
    options: &TrackOptions,
    context: &TaskContext,
) -> Result<Tracking, PipelineError> {
    let elephant_project::Constraints { approved_links, rejected_links, required, excluded } = view.constraints();
    let constraints = Constraints { links: approved_links, forbidden: rejected_links, required, excluded };
    let numbers: Vec<u64> = view.spots.iter().map(|spot| spot.key.0).collect();
    let detections = Detections { spots, numbers: Some(&numbers), ..detections };
    Ok(elephant_track::track(&detections, &constraints, options, context)?)
}

/// The size of a dataset's voxels: the one that is given, else the one that the project knows, else that of the movie's `.xml` file.
fn known_voxel_size(
    workspace: &Workspace,
    id: &ProjectId,
    given: Option<VoxelSize>,
) -> Result<VoxelSize, PipelineError> {
    if let Some(given) = given {
        return Ok(given);
    }
    let known = match workspace.projects().get(id) {
        Ok(project) => project.voxel_size()?,
        Err(ProjectError::UnknownProject(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let known = match known {
        None => voxel_size(workspace, &id.dataset)?,
        known => known,
    };
    known.ok_or_else(|| {
        PipelineError::Invalid(format!(
            "the voxel size of {} is not known, as no .xml file of the movie gives it in micrometres; give voxel_size (z, y, x)",
            id.dataset
        ))
    })
}

/// Puts the links into the project.
fn link(project: &Project, [first, last]: [usize; 2], view: &View, tracking: &Tracking) -> Result<(), PipelineError> {
    let links = tracking.link_scores.iter().map(|&(link, score)| NewLink {
        source: view.key(link.source),
        target: view.key(link.target),
        state: LinkState::Unlabeled,
        score: Some(score as f32),
    });
    let mut links: Vec<NewLink> = links.collect();
    loop {
        let operation = Operation::Relink { first: first as u32, last: last as u32, links: links.clone() };
        match project.append(&author(), None, &[operation]) {
            // Somebody has deleted spots meanwhile.
            Err(ProjectError::UnknownSpot(_)) => {
                let there = project.view(first as u32, last as u32)?.ids();
                links.retain(|link| there.contains_key(&link.source) && there.contains_key(&link.target));
            }
            appended => return Ok(appended.map(drop)?),
        }
    }
}
