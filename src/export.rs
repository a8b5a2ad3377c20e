//! `elephant-server export`: the tracks of a project for other programs.

use anyhow::{Result, bail};
use elephant_pipeline::{ExportFormat, ExportRequest, export_project};
use elephant_types::CancelToken;

use crate::{
    config::{ExportArgs, FormatArg},
    terminal::{self, with_bar},
    workspace,
};

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
