//! `elephant-server track`: the cells of a whole movie, linked into lineages.

use std::process::ExitCode;

use anyhow::{Context, Result};
use elephant_pipeline::{Detect, DetectionOptions, FlowOptions, Motion, Task, TaskOutput, TrackRequest, TrackSummary};
use elephant_track::TrackOptions;

use crate::{
    config::{DetectArg, TrackArgs},
    job,
};

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
