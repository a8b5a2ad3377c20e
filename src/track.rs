//! `elephant-server track`: the cells of a whole movie, linked into lineages.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use elephant_pipeline::{Detect, DetectionOptions, FlowOptions, Motion, Task, TaskOutput, TrackRequest, TrackSummary};
use elephant_track::{TrackMethod, TrackOptions};
use elephant_types::VoxelSize;

use crate::{
    config::{EngineArgs, voxel_size},
    job,
};

/// Arguments of `elephant-server track`.
#[derive(Debug, Args)]
pub struct TrackArgs {
    /// Name of the dataset in the workspace
    pub dataset: String,

    /// Project that gets the cells and links; made if it is missing
    #[arg(long, default_value = "tracking", value_name = "NAME")]
    pub project: String,

    /// First and last timepoint, for example 0..19 [default: all]
    #[arg(long, value_name = "FIRST..LAST")]
    pub timepoints: Option<String>,

    /// Edges of a voxel along z, y and x in micrometres, for example 2,0.5,0.5 [default: from the movie's .xml file]
    #[arg(long, value_name = "Z,Y,X", value_parser = voxel_size)]
    pub voxel_size: Option<VoxelSize>,

    /// In which frames to look for cells
    #[arg(long, value_enum, default_value_t)]
    detect: DetectArg,

    /// Detection model; a missing one is replaced by the built-in one
    #[arg(long, default_value = "detection.pth", value_name = "MODEL.pth")]
    pub model: String,

    /// Probability above which a voxel belongs to a cell
    #[arg(long, default_value_t = 0.5)]
    pub threshold: f64,

    /// Smaller cells are dropped (micrometres)
    #[arg(long, default_value_t = 1.0, value_name = "UM")]
    pub min_radius: f64,

    /// Larger radii are clipped (micrometres)
    #[arg(long, default_value_t = 50.0, value_name = "UM")]
    pub max_radius: f64,

    /// Predict the motion of cells with this flow model, for example flow.pth, instead of from their neighbours
    #[arg(long, value_name = "MODEL.pth")]
    pub flow: Option<String>,

    /// How to link: one optimum over all frames, or the nearest cell of the frame before as in the ELEPHANT client
    #[arg(long, value_enum)]
    method: Option<MethodArg>,

    /// Costs of the linking: a file in the workspace's folder of models, made by `elephant-server fit`
    #[arg(long, value_name = "WEIGHTS.json")]
    pub weights: Option<String>,

    /// JSON file with further options of the linking (docs/tracking.md)
    #[arg(long, value_name = "FILE.json")]
    pub options: Option<PathBuf>,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DetectArg {
    /// In frames of which the project has no cells
    #[default]
    Missing,
    /// In all frames; tagged and approved cells stay
    All,
    /// In none: link the cells of the project
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodArg {
    /// One optimum over all frames
    Optimal,
    /// The nearest cell of the frame before
    Nearest,
}

impl From<MethodArg> for TrackMethod {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Optimal => Self::Optimal,
            MethodArg::Nearest => Self::Nearest,
        }
    }
}

/// Tracks a dataset and prints a summary.
pub fn run(args: &TrackArgs) -> Result<ExitCode> {
    let task = Task::Track(request(args)?);
    task.validate()?;
    let body = format!("'{}'", serde_json::to_string(&task)?);
    job::run_task(task, &args.engine, &body, |output| match output {
        TaskOutput::Tracked(summary) if args.json => Ok(serde_json::to_string(summary)?),
        TaskOutput::Tracked(summary) => Ok(described(args, summary)),
        other => Ok(serde_json::to_string(other)?),
    })
}

fn request(args: &TrackArgs) -> Result<TrackRequest> {
    let mut tracking: TrackOptions = match &args.options {
        None => TrackOptions::default(),
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            elephant_api_core::parse_as("it", &text)
                .map_err(|error| anyhow::anyhow!("{} has no tracking options: {}", file.display(), error.message()))?
        }
    };
    if let Some(method) = args.method {
        tracking.method = method.into();
    }
    let detection = DetectionOptions {
        model: args.model.parse()?,
        threshold: args.threshold,
        min_radius_um: args.min_radius,
        max_radius_um: args.max_radius,
        ..DetectionOptions::default()
    };
    let motion = match &args.flow {
        None => Motion::Neighbors,
        Some(model) => Motion::Flow(FlowOptions { model: model.parse()?, ..FlowOptions::default() }),
    };
    Ok(TrackRequest {
        dataset: args.dataset.parse()?,
        project: args.project.parse()?,
        timepoints: args.timepoints.as_deref().map(timepoints).transpose()?,
        voxel_size: args.voxel_size,
        detect: match args.detect {
            DetectArg::Missing => Detect::Missing,
            DetectArg::All => Detect::All,
            DetectArg::None => Detect::None,
        },
        detection,
        motion,
        tracking,
        weights: args.weights.as_deref().map(str::parse).transpose()?,
    })
}

/// `3..17`: the first and the last timepoint.
fn timepoints(text: &str) -> Result<[usize; 2]> {
    let bounds = text.split_once("..").and_then(|(first, last)| Some([first.parse().ok()?, last.parse().ok()?]));
    bounds.with_context(|| format!("--timepoints must be FIRST..LAST, for example 0..19, not {text:?}"))
}

/// The summary for a person.
fn described(args: &TrackArgs, summary: &TrackSummary) -> String {
    let TrackSummary { frames, cells, left_out, tracks, divisions, links, .. } = summary;
    let (dataset, project) = (&args.dataset, &args.project);
    let certainty = summary.certainty();
    format!(
        "{frames} frames: {cells} cells in {tracks} tracks, {links} links, {divisions} divisions; {left_out} detections left out\n\
         {certainty}\n\
         They are in the project {project} of {dataset}. To export them:\n    \
         elephant-server export {dataset} OUT --project {project} --format ctc"
    )
}
