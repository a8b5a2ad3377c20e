//! Scores of a project against another one that has the truth.

use elephant_project::{ProjectId, SpotKey, View};
use elephant_score::{Annotated, Mistake, MistakeKind, Report, ScoreOptions, score_spots};
use elephant_types::TaskContext;

use crate::{PipelineError, Workspace};

/// What to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityRequest {
    /// The project to score.
    pub project: ProjectId,
    /// The project of the same dataset with the truth.
    pub truth: ProjectId,
    /// How spots are matched and divisions compared.
    pub options: ScoreOptions,
}

/// Scores of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// All scores; its own list of mistakes is empty.
    pub report: Report,
    /// The single mistakes, sorted by frame.
    pub mistakes: Vec<ProjectMistake>,
}

/// One mistake, with the numbers of spots in their projects; see [`Mistake`].
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectMistake {
    /// The frame, from 0.
    pub frame: usize,
    /// The place (z, y, x) in micrometres.
    pub place_um: [f64; 3],
    /// What is wrong.
    pub kind: MistakeKind,
    /// The spots of the project.
    pub result: Vec<Option<SpotKey>>,
    /// The spots of the truth.
    pub truth: Vec<Option<SpotKey>>,
}

/// Compares the cells and links of two projects. Spots that are tagged as no cells are left out, and so are links that were
/// rejected.
///
/// # Errors
/// When there is no such project, a spot of the truth has no volume, and when cancelled.
pub fn quality(
    workspace: &Workspace,
    request: &QualityRequest,
    context: &TaskContext,
) -> Result<Quality, PipelineError> {
    let cells = |id: &ProjectId| -> Result<View, PipelineError> {
        let view = workspace.projects().get(id)?.view_all()?;
        Ok(view.filtered(|spot| spot.detection.is_cell()))
    };
    let (result, truth) = (cells(&request.project)?, cells(&request.truth)?);
    if truth.spots.is_empty() {
        return Err(PipelineError::Invalid(format!("the project {} has no cells to compare with", request.truth)));
    }
    let lineage_of = |view: &View| view.lineage().map_err(elephant_track::TrackError::from);
    let (found, true_ones) = (result.detections(), truth.detections());
    let (found_lineage, true_lineage) = (lineage_of(&result)?, lineage_of(&truth)?);
    let mut report = score_spots(
        &Annotated { spots: &true_ones, lineage: &true_lineage },
        &Annotated { spots: &found, lineage: &found_lineage },
        &request.options,
        context,
    )?;
    let keys = |view: &View, spots: Vec<Option<u32>>| -> Vec<Option<SpotKey>> {
        spots.into_iter().map(|spot| Some(view.spots.get(spot? as usize)?.key)).collect()
    };
    let named = |mistake: Mistake| {
        let Mistake { frame, place_um, kind, result: of_result, reference } = mistake;
        ProjectMistake { frame, place_um, kind, result: keys(&result, of_result), truth: keys(&truth, reference) }
    };
    let mistakes = std::mem::take(&mut report.mistakes).into_iter().map(named).collect();
    Ok(Quality { report, mistakes })
}
