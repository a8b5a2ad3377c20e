//! `/v1/projects/{project}/quality`: scores of a project against one that has the truth.

use std::collections::BTreeMap;

use axum::{
    Json as Reply,
    extract::{Path, Query, State},
};
use elephant_api_core::{ApiError, blocking, shown};
use elephant_pipeline::{ProjectMistake, QualityRequest, quality as compare};
use elephant_project::{ProjectId, ProjectName, SpotKey};
use elephant_score::{MatchRadius, MistakeKind, Report, ScoreOptions};
use elephant_types::TaskContext;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    V1Api,
    query::{number, project_id, refuse_unknown},
};

/// The largest tolerance of divisions, in frames.
const MOST_TOLERANCE: u64 = 1000;
/// The most mistakes in a reply.
const MOST_MISTAKES: u64 = 1_000_000;

/// What to compare with, and how.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct QualityQuery {
    /// Name of the project of the same dataset that has the truth.
    #[param(value_type = String, example = "truth")]
    truth: Option<String>,
    /// Largest distance in micrometres between the centres of a cell and its match; the true cell's radius if it is not given.
    #[param(value_type = Option<f64>)]
    radius_um: Option<String>,
    /// By how many frames a division may be early or late before it is listed as a mistake; 1 if it is not given.
    #[param(value_type = Option<u32>)]
    tolerance: Option<String>,
    /// How many mistakes to list at the most; 1000 if it is not given.
    #[param(value_type = Option<u64>)]
    mistakes: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

/// A mistake. A link's frame and place are those of its later cell, a division's those of the mother's last frame.
#[derive(Serialize, ToSchema)]
struct MistakeReply {
    frame: usize,
    /// Place (z, y, x) in micrometres.
    place_um: [f64; 3],
    /// `missed_cell`, `spurious_cell`, `merged_cells`, `missed_link`, `wrong_link`, `missed_division` or `spurious_division`.
    #[schema(value_type = String)]
    kind: MistakeKind,
    /// Spots of the project: the cell; earlier and later cell; or mother and daughters. Null for none.
    #[schema(value_type = Vec<Option<u64>>)]
    result: Vec<Option<SpotKey>>,
    /// Spots of the truth.
    #[schema(value_type = Vec<Option<u64>>)]
    truth: Vec<Option<SpotKey>>,
}

impl From<ProjectMistake> for MistakeReply {
    fn from(mistake: ProjectMistake) -> Self {
        let ProjectMistake { frame, place_um, kind, result, truth } = mistake;
        Self { frame, place_um, kind, result, truth }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct QualityReply {
    /// All scores (docs/scores.md), and under `by_frame` those of each frame. The list of mistakes in it is empty.
    #[schema(value_type = Object)]
    scores: Report,
    /// How many mistakes there are.
    mistake_count: usize,
    /// The first ones, sorted by frame.
    mistakes: Vec<MistakeReply>,
}

/// Scores of a project against the truth
///
/// Both projects are of the same dataset; `elephant-server import` makes one of a ground truth. Cells match if their centres are
/// near. Cells that are tagged as false, and rejected links, do not count.
#[utoipa::path(
    get, path = "/v1/projects/{project}/quality", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded"), QualityQuery),
    responses(
        (status = 200, body = QualityReply),
        (status = 400, description = "A wrong parameter, or a truth without cells or with cells without volume"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn quality(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Query(query): Query<QualityQuery>,
) -> Result<Reply<QualityReply>, ApiError> {
    refuse_unknown(&query.unknown, "truth, radius_um, tolerance and mistakes")?;
    let project = project_id(&name)?;
    let truth = query.truth.as_ref().ok_or_else(|| {
        ApiError::bad_request("truth is missing: name the project of this dataset that has the truth")
    })?;
    let truth: ProjectName = truth
        .parse()
        .map_err(|error: elephant_project::InvalidProjectName| ApiError::bad_request(error.to_string()))?;
    let options = ScoreOptions {
        radius: radius(query.radius_um.as_ref())?,
        division_tolerance: number("tolerance", query.tolerance.as_ref(), 1, MOST_TOLERANCE)? as u32,
        ..ScoreOptions::default()
    };
    let most = number("mistakes", query.mistakes.as_ref(), 1000, MOST_MISTAKES)? as usize;
    let request = QualityRequest { truth: ProjectId::new(project.dataset.clone(), truth), project, options };
    let quality =
        blocking(move || compare(&api.use_cases.workspace, &request, &TaskContext::detached()).map_err(ApiError::from));
    let quality = quality.await?;
    Ok(Reply(QualityReply {
        scores: quality.report,
        mistake_count: quality.mistakes.len(),
        mistakes: quality.mistakes.into_iter().take(most).map(MistakeReply::from).collect(),
    }))
}

fn radius(value: Option<&String>) -> Result<MatchRadius, ApiError> {
    let Some(value) = value else { return Ok(MatchRadius::Relative(1.0)) };
    let number = value.parse().ok().filter(|radius: &f64| radius.is_finite() && *radius > 0.0);
    let wrong = || {
        let value = shown(&value.as_str().into());
        ApiError::bad_request(format!("radius_um must be a positive number of micrometres, not {value}"))
    };
    number.map(MatchRadius::Micrometres).ok_or_else(wrong)
}
