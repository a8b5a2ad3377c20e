//! Projects from files of other programs (docs/exports.md, "Import").

use std::path::Path;

use elephant_export::{ImportedMovie, TrackFormat, read_tracked};
use elephant_project::{Author, LinkState, NewLink, NewSpot, Operation, Project, ProjectId, SpotKey, TrackingTag};
use elephant_types::{TaskContext, VoxelSize};

use super::known_voxel_size;
use crate::{PipelineError, Workspace, frames::open_dataset};

/// Which project to make.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportRequest {
    /// The project, which must not exist.
    pub project: ProjectId,
    /// Edges of a voxel (z, y, x) in micrometres. `None` takes those that the file or the movie's `.xml` file has.
    pub voxel_size: Option<VoxelSize>,
    /// Whether all spots and links are approved: later tracking keeps them, and costs can be fitted to them.
    pub is_approved: bool,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The format of the file.
    pub format: TrackFormat,
    /// The number of spots.
    pub spots: usize,
    /// The number of links.
    pub links: usize,
    /// The number of tracks.
    pub tracks: usize,
}

/// Spots or links of one entry of the log.
const BATCH: usize = 100_000;

/// Makes a project of the tracks in a file or folder: label images of the Cell Tracking Challenge, a GEFF, or a table of spots.
/// The project appears complete or not at all.
///
/// # Errors
/// When the dataset is not there, there is such a project, the file cannot be read or is not of this dataset's movie, or the
/// voxel size is not known.
pub fn import_project(
    workspace: &Workspace,
    request: &ImportRequest,
    path: &Path,
    context: &TaskContext,
) -> Result<Imported, PipelineError> {
    let id = &request.project;
    let dataset = open_dataset(workspace, &id.dataset)?;
    let format = TrackFormat::of(path)?;
    let voxel_size = match format {
        TrackFormat::Ctc => Some(known_voxel_size(workspace, id, request.voxel_size)?),
        TrackFormat::Geff | TrackFormat::SpotTable => request.voxel_size,
    };
    let movie = read_tracked(path, voxel_size, context)?;
    let [z, y, x] = dataset.shape();
    let refused = |reason: String| {
        PipelineError::Invalid(format!("{} is not of the movie of {}: {reason}", path.display(), id.dataset))
    };
    let frames = dataset.dataset().timepoint_count();
    if let Some([_, found @ ..]) = movie.shape.filter(|[_, found @ ..]| *found != [z, y, x]) {
        return Err(refused(format!("it has {found:?} voxels (z, y, x), the movie has {:?}", [z, y, x])));
    }
    if let Some(spot) = movie.spots.iter().find(|spot| spot.t >= frames) {
        return Err(refused(format!("it has a cell at timepoint {}, the movie has {frames} timepoints", spot.t)));
    }
    let known = movie.voxel_size.or(request.voxel_size);
    workspace.projects().create_filled(id, |project| fill(project, &movie, known, request.is_approved, context))?;
    Ok(Imported {
        format,
        spots: movie.spots.len(),
        links: movie.lineage.links().count(),
        tracks: movie.lineage.tracks().len(),
    })
}

fn fill(
    project: &Project,
    movie: &ImportedMovie,
    voxel_size: Option<VoxelSize>,
    is_approved: bool,
    context: &TaskContext,
) -> Result<(), PipelineError> {
    let author: Author = "elephant-server import".parse().unwrap_or_else(|_| unreachable!("a valid name"));
    if let Some(size) = voxel_size {
        project.set_voxel_size(size)?;
    }
    let tracking = if is_approved { TrackingTag::Approved } else { TrackingTag::Unlabeled };
    let mut keys: Vec<SpotKey> = Vec::with_capacity(movie.spots.len());
    for spots in movie.spots.chunks(BATCH) {
        context.check()?;
        let spots = spots.iter().map(|spot| NewSpot { tracking, ..NewSpot::of(spot) }).collect();
        keys.extend(project.append(&author, None, &[Operation::Add { spots }])?.added);
    }
    let state = if is_approved { LinkState::Approved } else { LinkState::Unlabeled };
    let links: Vec<NewLink> = movie
        .lineage
        .links()
        .map(|link| NewLink {
            source: keys[link.source.index()],
            target: keys[link.target.index()],
            state,
            score: None,
        })
        .collect();
    for links in links.chunks(BATCH) {
        context.check()?;
        project.append(&author, None, &[Operation::Link { links: links.to_vec(), replace: false }])?;
    }
    Ok(())
}
