//! `elephant-server import`: a project from the tracks of another program.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use elephant_pipeline::{ImportRequest, import_project};
use elephant_types::{CancelToken, VoxelSize};

use crate::{
    config::voxel_size,
    terminal::{self, with_bar},
    workspace,
};

const IMPORT_EXAMPLES: &str = "Examples: the truth of a movie, and scores of the server's own tracks against it
  elephant-server import fly 01_GT/TRA --project truth --workspace workspace
  elephant-server track fly --workspace workspace
  curl 'http://127.0.0.1:8080/v1/projects/fly%2Ftracking/quality?truth=truth'";

/// Arguments of `elephant-server import`.
#[derive(Debug, Args)]
#[command(after_long_help = IMPORT_EXAMPLES)]
pub struct ImportArgs {
    /// Name of the dataset in the workspace whose movie the tracks are of
    pub dataset: String,

    /// Folder of the Cell Tracking Challenge, GEFF folder, or table of spots (.csv)
    #[arg(value_name = "TRACKS")]
    pub tracks: PathBuf,

    /// Project to make, which must not exist
    #[arg(long, default_value = "imported", value_name = "NAME")]
    pub project: String,

    /// Approve all cells and links: tracking keeps them, and costs can be fitted to them
    #[arg(long)]
    pub approve: bool,

    /// Edges of a voxel along z, y and x in micrometres, for example 2,0.5,0.5 [default: the file's own, else from the
    /// movie's .xml file]
    #[arg(long, value_name = "Z,Y,X", value_parser = voxel_size)]
    pub voxel_size: Option<VoxelSize>,

    /// Folder for datasets, models and logs
    #[arg(long, env = "ELEPHANT_WORKSPACE", default_value = "workspace", value_name = "DIR")]
    pub workspace: PathBuf,

    /// Folder outside the workspace into which links in its `datasets` may point, as for `serve`
    #[arg(long = "data-root", env = "ELEPHANT_DATA_ROOTS", value_delimiter = ':', value_name = "DIR")]
    pub data_roots: Vec<PathBuf>,
}

/// Makes a project of the tracks.
pub fn run(args: &ImportArgs) -> Result<()> {
    let request = ImportRequest {
        project: format!("{}/{}", args.dataset, args.project).parse()?,
        voxel_size: args.voxel_size,
        is_approved: args.approve,
    };
    let workspace = workspace::open_beside_server(&args.workspace, &args.data_roots)?;
    let imported = with_bar("importing", CancelToken::default(), |context| {
        import_project(&workspace, &request, &args.tracks, context)
    })?;
    terminal::print(&format!(
        "{}: {} cells, {} links, {} tracks",
        request.project, imported.spots, imported.links, imported.tracks
    ))?;
    Ok(())
}
