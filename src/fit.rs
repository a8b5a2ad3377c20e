//! `elephant-server fit`: the costs of tracking, learnt from known lineages.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use elephant_pipeline::{FitRequest, FitSummary, Task, TaskOutput};

use crate::{config::EngineArgs, job};

const FIT_EXAMPLES: &str = "Examples:
  elephant-server fit embryo.json --complete fly/truth      a project whose links are all true
  elephant-server fit embryo.json --approved fly/tracking   only the links that somebody has approved
  elephant-server fit embryo.json --synthetic 4             synthetic embryos
  elephant-server track fly --weights embryo.json           then track with what was learnt";

/// Arguments of `elephant-server fit`.
#[derive(Debug, Args)]
#[command(after_long_help = FIT_EXAMPLES)]
pub struct FitArgs {
    /// File to write in the workspace's folder of models
    #[arg(value_name = "WEIGHTS.json")]
    pub weights: String,

    /// Project whose links are all true and complete, such as imported ground truth; may be repeated
    #[arg(long, value_name = "DATASET/PROJECT")]
    pub complete: Vec<String>,

    /// Project in which the approved links are true and the rest is not known; may be repeated
    #[arg(long, value_name = "DATASET/PROJECT")]
    pub approved: Vec<String>,

    /// Number of synthetic movies to learn from as well
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub synthetic: u64,

    /// How many times each movie is visited
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub rounds: usize,

    /// Begin without the weights that ship with the program; needs many complete movies
    #[arg(long)]
    pub from_scratch: bool,

    /// Seed of the synthetic movies and of the order of the examples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Learns weights, writes them and prints a summary.
pub fn run(args: &FitArgs) -> Result<ExitCode> {
    let projects = |names: &[String]| names.iter().map(|name| Ok(name.parse()?)).collect::<Result<_>>();
    let task = Task::Fit(FitRequest {
        weights: args.weights.parse()?,
        complete: projects(&args.complete)?,
        approved: projects(&args.approved)?,
        synthetic: args.synthetic,
        rounds: args.rounds,
        from_scratch: args.from_scratch,
        seed: args.seed,
    });
    task.validate()?;
    let body = format!("'{}'", serde_json::to_string(&task)?);
    job::run_task(task, &args.engine, &body, |output| match output {
        TaskOutput::Fitted(summary) if !args.json => Ok(described(args, summary)),
        TaskOutput::Fitted(summary) => Ok(serde_json::to_string(summary)?),
        other => Ok(serde_json::to_string(other)?),
    })
}

/// The summary for a person.
fn described(args: &FitArgs, summary: &FitSummary) -> String {
    let FitSummary { weights, examples, spots, links } = summary;
    format!(
        "learnt from {examples} examples with {spots} spots and {links} true links\n\
         To track with the result:\n    \
         elephant-server track DATASET --weights {weights} --workspace {}",
        args.engine.workspace.display()
    )
}
