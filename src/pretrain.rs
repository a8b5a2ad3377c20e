//! `elephant-server pretrain` and `score`: training and evaluating the built-in networks.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::Result;
use elephant_pipeline::{
    FlowScore, Pretraining, SceneScore, pretrain as train, score_empty_frames, score_flow, score_scene,
};
use elephant_synth::{SceneOptions, SceneSet};
use elephant_types::{CancelToken, NetworkKind, NetworkTask, NetworkType, TaskContext, TaskEvent};
use serde_json::Value;

use crate::{
    config::{PretrainArgs, ScoreArgs},
    terminal::with_bar,
    wiring::{networks, start_threads},
};

/// Number of steps between two lines of the log.
const LOG_STEPS: u64 = 100;

/// Trains a network on synthetic scenes and writes it to a file.
pub fn pretrain(args: &PretrainArgs) -> Result<()> {
    start_threads(&args.compute)?;
    let networks = networks(&args.compute)?;
    let network = NetworkType { task: args.network.into(), kind: args.dims.into() };
    let request = Pretraining { network, steps: args.steps, seed: args.seed, folder: args.state.clone() };
    let log = Mutex::new(Log { begun: Instant::now(), steps: 0, losses: Vec::new() });
    let context = TaskContext::watched(CancelToken::default(), move |event| {
        log.lock().unwrap_or_else(PoisonError::into_inner).add(&event);
    });
    train(&request, &networks, &context)?.to_half().write(&args.output)?;
    println!("{}: trained in {} steps", args.output.display(), args.steps);
    Ok(())
}

/// Progress of a training, on standard error.
struct Log {
    begun: Instant,
    /// Steps since `begun`.
    steps: u64,
    /// Losses since the last line.
    losses: Vec<f64>,
}

impl Log {
    /// Takes note of a step of the training; other events say nothing.
    fn add(&mut self, event: &TaskEvent) {
        let loss = event.payload.get("loss").and_then(Value::as_f64);
        let (Some(done), Some(loss)) = (event.done, loss) else { return };
        self.steps += 1;
        self.losses.push(loss);
        if !done.is_multiple_of(LOG_STEPS) {
            return;
        }
        let mean = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        self.losses.clear();
        let (minutes, total) = (self.begun.elapsed().as_secs_f64() / 60.0, event.total.unwrap_or(done));
        let left = minutes / self.steps as f64 * (total - done) as f64;
        eprintln!("step {done} of {total}: mean loss {mean:.4}; {minutes:.1} min, about {left:.0} left");
    }
}

/// A row of a table: its name and a filter of scenes.
type Row = (&'static str, fn(&SceneOptions) -> bool);

const TABLES: [(&str, &[Row]); 5] = [
    (
        "anisotropy",
        &[
            ("1 to 2", |o| o.anisotropy < 2.0),
            ("2 to 4", |o| (2.0..4.0).contains(&o.anisotropy)),
            ("4 to 8", |o| o.anisotropy >= 4.0),
        ],
    ),
    (
        "radius in pixels",
        &[
            ("3 to 5", |o| o.radius < 5.0),
            ("5 to 8", |o| (5.0..8.0).contains(&o.radius)),
            ("8 to 14", |o| (8.0..14.0).contains(&o.radius)),
            ("14 to 25", |o| o.radius >= 14.0),
        ],
    ),
    (
        "share of the volume in nuclei",
        &[
            ("below 0.05", |o| o.fill < 0.05),
            ("0.05 to 0.2", |o| (0.05..0.2).contains(&o.fill)),
            ("above 0.2", |o| o.fill >= 0.2),
        ],
    ),
    (
        "noise relative to the light of a nucleus",
        &[
            ("below 0.08", |o| o.noise_to_signal < 0.08),
            ("0.08 to 0.2", |o| (0.08..0.2).contains(&o.noise_to_signal)),
            ("above 0.2", |o| o.noise_to_signal >= 0.2),
        ],
    ),
    (
        "background relative to a nucleus",
        &[("below 0.2", |o| o.background < 0.2), ("above 0.2", |o| o.background >= 0.2)],
    ),
];

/// Prints how well a flow network tells where cells were, in movies of another generator than that of the training.
fn score_flow_network(args: &ScoreArgs) -> Result<()> {
    let networks = networks(&args.compute)?;
    println!(
        "| frames between | pairs | cells | mean displacement (µm) | mean error (µm) | nearest is the parent | with flow |\n\
         |---|---|---|---|---|---|---|"
    );
    for interval in [1, 3, 5] {
        let mut sum = FlowScore::default();
        for seed in 0..args.movies {
            sum = sum.plus(score_flow(
                &networks,
                &args.model,
                args.dims.into(),
                seed,
                interval,
                &TaskContext::detached(),
            )?);
        }
        let mean = |total: f64| total / sum.cells.max(1) as f64;
        println!(
            "| {interval} | {} | {} | {:.3} | {:.3} | {:.4} | {:.4} |",
            sum.pairs,
            sum.cells,
            mean(sum.displacement_um),
            mean(sum.error_um),
            mean(sum.nearest as f64),
            mean(sum.nearest_with_flow as f64)
        );
    }
    Ok(())
}

/// Prints how well a model finds the nuclei of scenes that no network was trained on.
pub fn score(args: &ScoreArgs) -> Result<()> {
    start_threads(&args.compute)?;
    if NetworkTask::from(args.network) == NetworkTask::Flow {
        return score_flow_network(args);
    }
    let network = networks(&args.compute)?;
    let kind: NetworkKind = args.dims.into();
    let scores = with_bar("scoring", CancelToken::default(), |context| -> Result<_> {
        let mut scores = Vec::new();
        for (set, count) in [(SceneSet::Scored, args.scenes), (SceneSet::HeldOut, args.scenes.div_ceil(4))] {
            for seed in 0..count {
                let options = SceneOptions::draw(set, kind == NetworkKind::Planar, seed);
                let score = score_scene(&network, &args.model, &options, &TaskContext::detached())?;
                scores.push((set, options, score));
                context.report(scores.len() as u64, args.scenes + args.scenes.div_ceil(4));
            }
        }
        Ok(scores)
    })?;
    let print = |name: &str, is_included: &dyn Fn(SceneSet, &SceneOptions) -> bool| {
        let chosen = scores.iter().filter(|(set, options, _)| is_included(*set, options));
        let (count, sum): (u64, _) =
            chosen.fold((0, SceneScore::default()), |(n, sum), (_, _, score)| (n + 1, sum.plus(*score)));
        if count == 0 {
            return;
        }
        let precision = sum.hits as f64 / (sum.found.max(1)) as f64;
        let recall = sum.hits as f64 / (sum.nuclei.max(1)) as f64;
        let f1 = sum.f1();
        println!("| {name} | {count} | {} | {f1:.3} | {precision:.3} | {recall:.3} |", sum.nuclei);
    };
    println!("| | images | nuclei | F1 | precision | recall |\n|---|---|---|---|---|---|");
    print("the whole range", &|set, _| set == SceneSet::Scored);
    print("bands left out of training", &|set, _| set == SceneSet::HeldOut);
    for (table, rows) in TABLES {
        for (row, is_in) in rows {
            print(&format!("{table} {row}"), &|set, options| set == SceneSet::Scored && is_in(options));
        }
    }
    let found = score_empty_frames(&network, &args.model, kind, &TaskContext::detached())?;
    println!("\nspots in 9 frames of zeros and of pure noise: {found}");
    Ok(())
}
