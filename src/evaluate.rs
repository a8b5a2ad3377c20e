//! `elephant-server evaluate`: scores of a tracking result against ground truth.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Result;
use clap::Args;
use elephant_export::{ImportedMovie, TrackFormat, read_tracked};
use elephant_score::{
    Annotated, MatchRadius, Mistake, MistakeKind, Rates, Report, ScoreOptions, score_folders, score_spots,
};
use elephant_types::{CancelToken, TaskContext, VoxelSize};

use crate::{
    config::voxel_size,
    terminal::{print, with_bar},
};

const EVALUATE_EXAMPLES: &str = "Examples:
  elephant-server evaluate 01_RES 01_GT
  elephant-server evaluate 01_RES 01_GT --voxel-size 2,0.5,0.5 --errors 50
  elephant-server evaluate 01_RES 01_GT --json > scores.json
  elephant-server evaluate tracks.geff 01_GT --voxel-size 2,0.5,0.5";

/// Arguments of `elephant-server evaluate`.
#[derive(Debug, Args)]
#[command(after_long_help = EVALUATE_EXAMPLES)]
pub struct EvaluateArgs {
    /// Tracked cells to score: a folder of the Cell Tracking Challenge, a GEFF folder, or a table of spots (.csv)
    #[arg(value_name = "RESULT")]
    pub result: PathBuf,

    /// Ground truth to score them against, in any of these formats
    #[arg(value_name = "GROUND_TRUTH")]
    pub ground_truth: PathBuf,

    /// Edge lengths of a voxel in micrometres, for the places of mistakes, which are in voxels without it, and to compare
    /// masks with spots [default: that of the GEFF]
    #[arg(long, value_name = "Z,Y,X", value_parser = voxel_size)]
    pub voxel_size: Option<VoxelSize>,

    /// Largest distance in micrometres between the centres of a spot and of its match [default: the true cell's radius]
    #[arg(long, value_name = "UM")]
    pub radius: Option<f64>,

    /// By how many frames a division may be early or late before it is listed as a mistake
    #[arg(long, default_value_t = 1, value_name = "FRAMES")]
    pub tolerance: u32,

    /// Compute SEG from the ground truth's tracking images if there is no folder SEG; only if they have whole outlines
    #[arg(long)]
    pub seg_from_tracks: bool,

    /// How many mistakes to list; 10 without this option, and all with --json
    #[arg(long, value_name = "N")]
    pub errors: Option<usize>,

    /// Print the whole report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares a result with its ground truth and prints the scores.
pub fn run(args: &EvaluateArgs) -> Result<()> {
    let report = with_bar("comparing", CancelToken::default(), |context| evaluate(args, context))?;
    let text = if args.json {
        let mut report = report;
        if let Some(most) = args.errors {
            report.mistakes.truncate(most);
        }
        serde_json::to_string_pretty(&report)?
    } else {
        table(&report, args)
    };
    Ok(print(text.trim_end())?)
}

fn evaluate(args: &EvaluateArgs, context: &TaskContext) -> Result<Report> {
    let options = ScoreOptions {
        radius: args.radius.map_or(MatchRadius::Relative(1.0), MatchRadius::Micrometres),
        division_tolerance: args.tolerance,
        ..ScoreOptions::default()
    };
    let formats = [TrackFormat::of(&args.result)?, TrackFormat::of(&args.ground_truth)?];
    if formats == [TrackFormat::Ctc; 2] && args.radius.is_none() {
        let voxel_size = args.voxel_size.map_or_else(|| VoxelSize::new([1.0; 3]), Ok)?;
        let (truth, result) = (&args.ground_truth, &args.result);
        return Ok(score_folders(truth, result, voxel_size, args.seg_from_tracks, &options, context)?);
    }
    // Files that say how large voxels are come first, for those that do not.
    let mut paths = [(&args.result, formats[0]), (&args.ground_truth, formats[1])];
    paths.sort_by_key(|(_, format)| *format == TrackFormat::Ctc);
    let mut voxel_size = args.voxel_size;
    let mut movies: Vec<(&PathBuf, ImportedMovie)> = Vec::new();
    for (path, _) in paths {
        let movie = read_tracked(path, voxel_size, context)?;
        voxel_size = voxel_size.or(movie.voxel_size);
        movies.push((path, movie));
    }
    movies.sort_by_key(|(path, _)| *path != &args.result);
    let [result, truth] =
        [&movies[0].1, &movies[1].1].map(|movie| Annotated { spots: &movie.spots, lineage: &movie.lineage });
    Ok(score_spots(&truth, &result, &options, context)?)
}

fn number(score: Option<f64>) -> String {
    score.map_or_else(|| "–".to_owned(), |score| format!("{score:.4}"))
}

/// The report for a person.
fn table(report: &Report, args: &EvaluateArgs) -> String {
    let mut text = String::new();
    let mut line = |content: String| {
        let _ = writeln!(text, "{content}");
    };
    let challenge = &report.challenge;
    line(format!(
        "{} frames, {} true cells, {} found",
        report.frames, report.operations.reference_cells, report.operations.result_cells
    ));
    if report.interpolated > 0 {
        line(format!("{} of them interpolated where links skip frames", report.interpolated));
    }
    line(String::new());
    for (name, score, meaning) in [
        ("DET", challenge.det, "cells"),
        ("SEG", challenge.seg, "outlines"),
        ("TRA", challenge.tra, "cells and links"),
        ("LNK", challenge.lnk, "links"),
        ("CHOTA", report.association.chota, "cells, and the lineages through them"),
        ("HOTA", report.association.hota, "cells, and the tracks through them"),
        ("IDF1", report.association.idf1, "cells on the right track"),
        ("CT", report.biology.ct, "complete tracks"),
        ("TF", Some(report.biology.tf), "longest right part of a track"),
        ("CCA", report.biology.cca, "lengths of cell cycles"),
    ] {
        line(format!("{name:<6} {:>7}  {meaning}", number(score)));
    }
    let bc: Vec<String> = report.biology.bc.iter().map(|&score| number(score)).collect();
    line(format!("BC     {}  divisions within 0, 1, 2, 3 frames", bc.join(" ")));
    line(String::new());
    line(format!(
        "{:<22} {:>8} {:>8} {:>8} {:>9} {:>7} {:>7}",
        "", "right", "spurious", "missed", "precision", "recall", "F1"
    ));
    let mut row = |name: &str, rates: &Rates| {
        line(format!(
            "{name:<22} {:>8} {:>8} {:>8} {:>9} {:>7} {:>7}",
            rates.true_positives,
            rates.false_positives,
            rates.false_negatives,
            number(rates.precision),
            number(rates.recall),
            number(rates.f1)
        ));
    };
    row("cells", &report.cells);
    row("links", &report.links);
    for score in &report.divisions {
        row(&format!("divisions, ±{} frames", score.tolerance), &score.rates);
    }
    line(String::new());
    if report.mistakes.is_empty() {
        line("no mistakes".to_owned());
        return text;
    }
    let kinds = MistakeKind::ALL.iter().filter_map(|&kind| {
        let count = report.mistakes.iter().filter(|mistake| mistake.kind == kind).count();
        (count > 0).then(|| format!("{} {count}", kind.label()))
    });
    line(format!("{} mistakes: {}", report.mistakes.len(), kinds.collect::<Vec<_>>().join(", ")));
    let shown = args.errors.unwrap_or(10).min(report.mistakes.len());
    if shown > 0 {
        line(format!(
            "{:>6}  {:<26}  {:<18}  cells in the result | in the ground truth",
            "frame", "z, y, x in µm", "what"
        ));
    }
    for mistake in &report.mistakes[..shown] {
        line(mistake_line(mistake));
    }
    if shown < report.mistakes.len() {
        line(format!("… and {} more; --errors {} shows all", report.mistakes.len() - shown, report.mistakes.len()));
    }
    text
}

fn mistake_line(mistake: &Mistake) -> String {
    let [z, y, x] = mistake.place_um.map(|value| format!("{value:.1}"));
    let place = format!("{z}, {y}, {x}");
    let cells = |ids: &[Option<u32>]| {
        let ids: Vec<String> = ids.iter().map(|id| id.map_or_else(|| "–".to_owned(), |id| id.to_string())).collect();
        if ids.is_empty() { "–".to_owned() } else { ids.join(" ") }
    };
    let (result, truth) = (cells(&mistake.result), cells(&mistake.reference));
    format!("{:>6}  {place:<26}  {:<18}  {result} | {truth}", mistake.frame, mistake.kind.label())
}
