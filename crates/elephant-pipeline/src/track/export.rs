//! Writing the tracks of a project for other programs (docs/exports.md).

use std::path::Path;

use elephant_export::TrackedMovie;
use elephant_image::Dims;
use elephant_project::{DetectionTag, LinkState, ProjectId, ProjectSpot, TrackingTag, View};
use elephant_track::fill_gaps;
use elephant_types::{Lineage, TaskContext, VoxelSize};

use super::known_voxel_size;
use crate::{PipelineError, Workspace, frames::open_dataset};

/// Format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder of the Cell Tracking Challenge: label images and a track table.
    Ctc,
    /// A folder in the Graph Exchange File Format.
    Geff,
    /// An XML file of TrackMate.
    TrackMate,
    /// A table of tracks for napari.
    Napari,
    /// A table of spots for Mastodon's CSV importer.
    Mastodon,
}

/// Which tracks to write.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportRequest {
    /// The project.
    pub project: ProjectId,
    /// The format.
    pub format: ExportFormat,
    /// Whether detections that belong to no track, and that nobody has judged, are written too.
    pub with_unlinked: bool,
    /// Edges of a voxel (z, y, x) in micrometres. `None` takes those that the project or the movie's `.xml` file has.
    pub voxel_size: Option<VoxelSize>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The number of spots, with those that fill gaps.
    pub spots: usize,
    /// How many of them fill gaps.
    pub interpolated: usize,
    /// The number of tracks.
    pub tracks: usize,
}

/// Writes the tracks of a project to `path`, which appears complete or not at all. Gaps are filled with interpolated spots, as
/// most formats know none.
///
/// # Errors
/// When there is no such project, its dataset or voxel size is not there, nothing is to be written, or the file cannot be written.
pub fn export_project(
    workspace: &Workspace,
    request: &ExportRequest,
    path: &Path,
    context: &TaskContext,
) -> Result<Exported, PipelineError> {
    let name = &request.project.dataset;
    let dataset = open_dataset(workspace, name)?;
    let [z, y, x] = dataset.shape();
    let view = workspace.projects().get(&request.project)?.view(0, u32::MAX)?;
    let view = exported(view, request.with_unlinked)?;
    if view.spots.is_empty() {
        return Err(PipelineError::NotFound(format!(
            "the project {} has no tracks; track its cells first, or write all cells",
            request.project
        )));
    }
    let voxel_size = known_voxel_size(workspace, &request.project, request.voxel_size)?;
    let filled = fill_gaps(&view.detections(), &view.lineage().map_err(elephant_track::TrackError::from)?)?;
    let link_scores = link_scores(&view, &filled.lineage);
    let movie = TrackedMovie {
        name: name.as_str(),
        spots: &filled.spots,
        lineage: &filled.lineage,
        voxel_size,
        shape: [dataset.dataset().timepoint_count(), z, y, x],
        dims: if dataset.dataset().is_3d() { Dims::ThreeD } else { Dims::TwoD },
        names: None,
        tags: None,
        link_scores: Some(&link_scores),
    };
    match request.format {
        ExportFormat::Ctc => elephant_export::write_ctc(&movie, path, context).map(drop)?,
        ExportFormat::Geff => elephant_export::write_geff(&movie, path, context)?,
        ExportFormat::TrackMate => elephant_export::write_trackmate(&movie, path, context)?,
        ExportFormat::Napari => elephant_export::write_napari(&movie, path, context)?,
        ExportFormat::Mastodon => elephant_export::write_mastodon(&movie, path, context)?,
    }
    Ok(Exported {
        spots: filled.spots.len(),
        interpolated: filled.spots.len() - filled.given,
        tracks: filled.lineage.tracks().len(),
    })
}

/// The cells: what is tagged as none is left out, and so is, unless `with_unlinked`, what has no link and no approval.
fn exported(view: View, with_unlinked: bool) -> Result<View, PipelineError> {
    let lineage = view.lineage().map_err(elephant_track::TrackError::from)?;
    let is_linked: std::collections::HashSet<_> =
        lineage.links().flat_map(|link| [view.key(link.source), view.key(link.target)]).collect();
    let is_judged =
        |spot: &ProjectSpot| spot.detection != DetectionTag::Unlabeled || spot.tracking == TrackingTag::Approved;
    Ok(view.filtered(|spot| {
        spot.detection.is_cell() && (with_unlinked || is_judged(spot) || is_linked.contains(&spot.key))
    }))
}

/// For each spot the score of the link that ends there; NaN for none. Interpolated spots have that of the link they fill.
fn link_scores(view: &View, lineage: &Lineage) -> Vec<f64> {
    let ids = view.ids();
    let mut scores = vec![f64::NAN; lineage.len()];
    for link in view.links.iter().filter(|link| link.state != LinkState::Rejected) {
        let (Some(source), Some(target), Some(score)) = (ids.get(&link.source), ids.get(&link.target), link.score)
        else {
            continue;
        };
        let mut at = *target;
        while at != *source {
            scores[at.index()] = f64::from(score);
            let Some(parent) = lineage.parent(at) else { break };
            at = parent;
        }
    }
    scores
}
