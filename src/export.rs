//! `elephant-server export`: the tracks of a project for other programs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use elephant_pipeline::{ExportFormat, ExportRequest, export_project};
use elephant_types::{CancelToken, VoxelSize};

use crate::{
    config::voxel_size,
    terminal::{self, with_bar},
    workspace,
};

/// Arguments of `elephant-server export`.
#[derive(Debug, Args)]
#[command(after_long_help = EXPORT_EXAMPLE)]
pub struct ExportArgs {
    /// Name of the dataset in the workspace
    pub dataset: String,

    /// File or folder to write, which must not exist
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// Format to write
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,

    /// Project of the dataset
    #[arg(long, default_value = "tracking", value_name = "NAME")]
    pub project: String,

    /// Write also detections that belong to no track
    #[arg(long)]
    pub all: bool,

    /// Edges of a voxel along z, y and x in micrometres, for example 2,0.5,0.5 [default: from the movie's .xml file]
    #[arg(long, value_name = "Z,Y,X", value_parser = voxel_size)]
    pub voxel_size: Option<VoxelSize>,

    /// Folder for datasets, models and logs
    #[arg(long, env = "ELEPHANT_WORKSPACE", default_value = "workspace", value_name = "DIR")]
    pub workspace: PathBuf,

    /// Folder outside the workspace into which links in its `datasets` may point, as for `serve`
    #[arg(long = "data-root", env = "ELEPHANT_DATA_ROOTS", value_delimiter = ':', value_name = "DIR")]
    pub data_roots: Vec<PathBuf>,
}

const EXPORT_EXAMPLE: &str = "Example: track the demo and look at it in napari
  elephant-server track elephant-demo --workspace workspace
  elephant-server export elephant-demo tracks.csv --format napari --workspace workspace";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FormatArg {
    /// Cell Tracking Challenge: a folder with label images and a track table
    #[default]
    Ctc,
    /// Graph Exchange File Format: a folder
    Geff,
    /// TrackMate's XML
    Trackmate,
    /// Table of tracks for napari
    Napari,
    /// Table of spots for Mastodon's CSV importer
    Mastodon,
}

/// Writes the tracks of a project.
pub fn run(args: &ExportArgs) -> Result<()> {
    if args.output.symlink_metadata().is_ok() {
        bail!("{} exists already; choose another name, or remove it first", args.output.display());
    }
    let request = ExportRequest {
        project: format!("{}/{}", args.dataset, args.project).parse()?,
        format: match args.format {
            FormatArg::Ctc => ExportFormat::Ctc,
            FormatArg::Geff => ExportFormat::Geff,
            FormatArg::Trackmate => ExportFormat::TrackMate,
            FormatArg::Napari => ExportFormat::Napari,
            FormatArg::Mastodon => ExportFormat::Mastodon,
        },
        with_unlinked: args.all,
        voxel_size: args.voxel_size,
    };
    let workspace = workspace::open_beside_server(&args.workspace, &args.data_roots)?;
    let written = with_bar("exporting", CancelToken::default(), |context| {
        export_project(&workspace, &request, &args.output, context)
    })?;
    terminal::print(&format!(
        "{}: {} tracks, {} cells ({} of them interpolated)",
        args.output.display(),
        written.tracks,
        written.spots,
        written.interpolated
    ))?;
    Ok(())
}
