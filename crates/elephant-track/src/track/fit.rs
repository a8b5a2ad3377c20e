//! Learning the costs from movies of known truth.
//!
//! First a logistic regression for each kind of variable, as if they were independent. Then all weights together: where the optimum
//! of an example, made harder by a reward for mistakes, is not the truth, its features become more expensive and those of the
//! truth cheaper (a structured support vector machine, by subgradients with step lengths for each weight and averaging;
//! Tsochantaridis et al., JMLR 2005; Duchi et al., JMLR 2011).

use elephant_types::{SplitMix64, TaskContext};
use rayon::prelude::*;

use super::{
    examples::{Example, Keep, Prepared, dot, linked, prepare},
    features::Kind,
    options::TrackOptions,
    scores,
    weights::{Weights, feature_count},
};
use crate::{Solution, TrackError, Variable, solve};

/// Options of [`fit`].
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// The weights to begin with. If there are none: a logistic regression on the examples if all are complete, otherwise the
    /// weights that ship with the program. With weights to begin with, a few examples are enough.
    pub start: Option<Weights>,
    /// How many times each example is visited, 1 to 1000.
    pub rounds: usize,
    /// First step length of each weight.
    pub step: f64,
    /// How strongly the weights are drawn back to those at the start.
    pub hold: f64,
    /// Examples whose corrections are summed before the weights change, at least 1.
    pub batch: usize,
    /// Seed of the order of the examples.
    pub seed: u64,
    /// What was learnt from, in a sentence, for [`Weights::origin`].
    pub origin: String,
    /// Options of tracking: largest gap, candidates, solver.
    pub track: TrackOptions,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            start: None,
            rounds: 12,
            step: 0.15,
            hold: 1e-3,
            batch: 6,
            seed: 0,
            origin: String::new(),
            track: TrackOptions::default(),
        }
    }
}

/// Candidates that cost more than this are no temptation.
const PLAUSIBLE: f64 = 9.0;
/// The share of wrong divisions that the logistic regression sees is one of this number.
const SAMPLED: u64 = 12;

/// Learns weights. The result does not depend on the number of threads. Reports one step for each batch.
///
/// # Errors
/// [`TrackError::InvalidExamples`] if there are no links to learn from, [`TrackError::InvalidOption`], the errors of
/// [`track`](crate::track()), and [`TrackError::Cancelled`].
pub fn fit(examples: &[Example], options: &FitOptions, context: &TaskContext) -> Result<Weights, TrackError> {
    options.track.validate()?;
    let limits = [
        ("rounds", options.rounds as f64, 1.0, 1000.0, "1 to 1000"),
        ("batch", options.batch as f64, 1.0, 1e6, "1 to 1000000"),
        ("step", options.step, 1e-6, 10.0, "0.000001 to 10"),
        ("hold", options.hold, 0.0, 1.0, "0 to 1"),
    ];
    for (name, value, least, most, range) in limits {
        if !(value >= least && value <= most) {
            return Err(TrackError::InvalidOption { name, value, range });
        }
    }
    if examples.iter().all(|example| linked(&example.truth) == 0) {
        return Err(TrackError::InvalidExamples {
            reason: "they have no links; give at least one with links".to_owned(),
        });
    }
    let start = match &options.start {
        Some(weights) => {
            weights.validate()?;
            weights.clone()
        }
        // A regression would take what is not known for wrong.
        None if examples.iter().any(|example| !example.complete) => Weights::builtin().clone(),
        None => regress(examples, options, context)?,
    };
    let mut weights = descend(examples, &start, options, context)?;
    weights.origin.clone_from(&options.origin);
    Ok(weights)
}

/// Independent logistic regressions.
fn regress(examples: &[Example], options: &FitOptions, context: &TaskContext) -> Result<Weights, TrackError> {
    let keep = Keep::Sample { every: SAMPLED };
    let mut weights = Weights::zero();
    // Twice: with motion from the nearest neighbours, then with that from the first weights.
    for round in 0..2 {
        context.check()?;
        let known = (round > 0).then(|| weights.clone());
        let prepared: Vec<Prepared> = examples
            .par_iter()
            .map(|example| prepare(example, known.as_ref(), keep, &options.track, context))
            .collect::<Result<_, _>>()?;
        let fitted: Vec<Vec<f64>> = Kind::ALL.par_iter().map(|&kind| logistic(&prepared, kind)).collect();
        for (kind, fitted) in Kind::ALL.into_iter().zip(fitted) {
            weights.of_mut(kind).copy_from_slice(&fitted);
        }
    }
    Ok(weights)
}

/// Weights of one kind, such that minus the cost is the logarithm of the odds.
fn logistic(prepared: &[Prepared], kind: Kind) -> Vec<f64> {
    let count = feature_count(kind);
    let rows: Vec<(&[f32], bool, f64)> = prepared
        .iter()
        .flat_map(|example| {
            example.rows[kind as usize].iter().map(|row| {
                let features = &example.features[kind as usize][row.begin..row.begin + count];
                let share = if kind == Kind::Division && !row.truth { SAMPLED as f64 } else { 1.0 };
                (features, row.truth, share)
            })
        })
        .collect();
    let mut weights = vec![0.0; count];
    let mut squares = vec![1e-6; count];
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let mut random = SplitMix64::new(1);
    for _ in 0..6 {
        shuffle(&mut order, &mut random);
        for &index in &order {
            let (features, truth, share) = rows[index as usize];
            let probability = 1.0 / (1.0 + dot(&weights, features).exp());
            let slope = (probability - f64::from(u8::from(truth))) * share;
            for ((weight, square), &feature) in weights.iter_mut().zip(&mut squares).zip(features) {
                if feature != 0.0 {
                    // The cost is minus the log odds, therefore the sign.
                    let gradient = -slope * f64::from(feature) + 1e-6 * *weight;
                    *square += gradient * gradient;
                    *weight -= 0.3 * gradient / square.sqrt();
                }
            }
        }
    }
    weights
}

fn shuffle(order: &mut [u32], random: &mut SplitMix64) {
    for last in (1..order.len()).rev() {
        order.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
}

type Gradient = [Vec<f64>; 5];

/// All weights together.
fn descend(
    examples: &[Example],
    start: &Weights,
    options: &FitOptions,
    context: &TaskContext,
) -> Result<Weights, TrackError> {
    let keep = Keep::Plausible { weights: start, cost: PLAUSIBLE };
    let prepared: Vec<Prepared> = examples
        .par_iter()
        .map(|example| prepare(example, Some(start), keep, &options.track, context))
        .collect::<Result<_, _>>()?;
    let quiet = TaskContext::new(context.cancel_token().clone(), |_| {});
    let mut weights = start.clone();
    let mut squares: Gradient = Kind::ALL.map(|kind| vec![1.0; feature_count(kind)]);
    let mut average: Gradient = Kind::ALL.map(|kind| vec![0.0; feature_count(kind)]);
    let mut averaged = 0.0;
    let mut order: Vec<u32> = (0..prepared.len() as u32).collect();
    let mut random = SplitMix64::new(options.seed);
    let steps = (options.rounds * order.len().div_ceil(options.batch)) as u64;
    let mut done = 0;
    for round in 0..options.rounds {
        shuffle(&mut order, &mut random);
        let mut mistakes = 0.0;
        for batch in order.chunks(options.batch) {
            context.check()?;
            let found: Result<Vec<(Gradient, f64)>, TrackError> =
                batch.par_iter().map(|&index| gradient(&prepared[index as usize], &weights, options, &quiet)).collect();
            context.check()?;
            let found = found?;
            for kind in Kind::ALL {
                let begin = start.of(kind).to_vec();
                for (index, weight) in weights.of_mut(kind).iter_mut().enumerate() {
                    let sum: f64 = found.iter().map(|(gradient, _)| gradient[kind as usize][index]).sum();
                    let slope = sum / batch.len() as f64 + options.hold * (*weight - begin[index]);
                    squares[kind as usize][index] += slope * slope;
                    *weight -= options.step * slope / squares[kind as usize][index].sqrt();
                    if 3 * round >= options.rounds {
                        average[kind as usize][index] += *weight;
                    }
                }
            }
            averaged += if 3 * round >= options.rounds { 1.0 } else { 0.0 };
            mistakes += found.iter().map(|(_, mistakes)| mistakes).sum::<f64>();
            done += 1;
            context.report(done, steps);
        }
        let text = format!("round {}: {:.2} mistakes for each example", round + 1, mistakes / prepared.len() as f64);
        context.tell(elephant_types::TaskEvent::note(text));
    }
    if averaged > 0.0 {
        for kind in Kind::ALL {
            for (weight, sum) in weights.of_mut(kind).iter_mut().zip(&average[kind as usize]) {
                *weight = sum / averaged;
            }
        }
    }
    let score = calibrate(&prepared, &weights, options, &quiet);
    context.check()?;
    weights.score = score?;
    Ok(weights)
}

/// What a mistake of each kind is worth beside its cost.
fn worth(kind: Kind) -> f64 {
    match kind {
        Kind::Spot => 0.5,
        Kind::Appearance | Kind::Disappearance => 0.0,
        Kind::Link => 1.0,
        Kind::Division => 4.0,
    }
}

fn chosen(solution: &Solution, problem: &crate::Problem) -> (Vec<bool>, Vec<bool>) {
    let mut begins = solution.nodes.clone();
    let mut ends = solution.nodes.clone();
    for (link, _) in problem.links.iter().zip(&solution.links).filter(|(_, chosen)| **chosen) {
        begins[link.target as usize] = false;
        ends[link.source as usize] = false;
    }
    for (division, _) in problem.divisions.iter().zip(&solution.divisions).filter(|(_, chosen)| **chosen) {
        division.targets.iter().for_each(|&target| begins[target as usize] = false);
        ends[division.source as usize] = false;
    }
    (begins, ends)
}

/// The problem with the costs of these weights; with `margin`, true variables cost more and others less.
fn with_costs(prepared: &Prepared, weights: &Weights, margin: f64) -> crate::Problem {
    let mut problem = prepared.problem.clone();
    for kind in Kind::ALL {
        let (weights, count) = (weights.of(kind), feature_count(kind));
        for row in &prepared.rows[kind as usize] {
            let features = &prepared.features[kind as usize][row.begin..row.begin + count];
            let reward = if row.truth { margin } else { -margin } * worth(kind);
            let cost = dot(weights, features) + reward;
            match row.variable {
                Variable::Node(spot) => problem.nodes[spot as usize].cost = cost,
                Variable::Appearance(spot) => problem.nodes[spot as usize].appearance = cost,
                Variable::Disappearance(spot) => problem.nodes[spot as usize].disappearance = cost,
                Variable::Link(link) => problem.links[link as usize].cost = cost,
                Variable::Division(division) => problem.divisions[division as usize].cost = cost,
            }
        }
    }
    problem
}

/// Features of the truth minus those of the optimum that the weights give, and the number of mistakes in it.
fn gradient(
    prepared: &Prepared,
    weights: &Weights,
    options: &FitOptions,
    context: &TaskContext,
) -> Result<(Gradient, f64), TrackError> {
    let problem = with_costs(prepared, weights, 1.0);
    let mut solver = options.track.solver.clone();
    solver.relative_gap = solver.relative_gap.max(1e-4);
    let solution = solve(&problem, &solver, context)?;
    let (begins, ends) = chosen(&solution, &problem);
    let mut mistakes = 0.0;
    let gradient = Kind::ALL.map(|kind| {
        let count = feature_count(kind);
        let mut sum = vec![0.0; count];
        for row in &prepared.rows[kind as usize] {
            let found = match row.variable {
                Variable::Node(spot) => solution.nodes[spot as usize],
                Variable::Appearance(spot) => begins[spot as usize],
                Variable::Disappearance(spot) => ends[spot as usize],
                Variable::Link(link) => solution.links[link as usize],
                Variable::Division(division) => solution.divisions[division as usize],
            };
            if found != row.truth {
                mistakes += worth(kind);
                let sign = if row.truth { 1.0 } else { -1.0 };
                let features = &prepared.features[kind as usize][row.begin..row.begin + count];
                for (sum, feature) in sum.iter_mut().zip(features) {
                    *sum += sign * f64::from(*feature);
                }
            }
        }
        sum
    });
    Ok((gradient, mistakes))
}

/// Slope and offset of the score: a logistic regression of "the link is correct" on its margin, by Newton's method.
fn calibrate(
    prepared: &[Prepared],
    weights: &Weights,
    options: &FitOptions,
    context: &TaskContext,
) -> Result<[f64; 2], TrackError> {
    let observed: Vec<Vec<(f64, bool)>> = prepared
        .par_iter()
        .map(|example| {
            let problem = with_costs(example, weights, 0.0);
            let solution = solve(&problem, &options.track.solver, context)?;
            let mut truth = std::collections::BTreeSet::new();
            for row in example.rows.iter().flatten().filter(|row| row.truth) {
                match row.variable {
                    Variable::Link(link) => {
                        let link = &problem.links[link as usize];
                        truth.insert((link.source, link.target));
                    }
                    Variable::Division(division) => {
                        let division = &problem.divisions[division as usize];
                        truth.extend(division.targets.map(|target| (division.source, target)));
                    }
                    _ => {}
                }
            }
            let margins = scores::margins(&problem, &solution).into_iter();
            Ok(margins.map(|(source, target, margin)| (margin, truth.contains(&(source, target)))).collect())
        })
        .collect::<Result<_, TrackError>>()?;
    let observed = observed.concat();
    let [mut slope, mut offset] = [0.5, 0.0];
    for _ in 0..50 {
        let mut gradient = [-1e-3 * (slope - 0.5), 0.0];
        let mut hessian = [1e-3, 0.0, 1e-3];
        for &(margin, correct) in &observed {
            let margin = margin.clamp(-20.0, 20.0);
            let probability = 1.0 / (1.0 + (-(slope * margin + offset)).exp());
            let error = f64::from(u8::from(correct)) - probability;
            let spread = probability * (1.0 - probability);
            gradient[0] += error * margin;
            gradient[1] += error;
            hessian[0] += spread * margin * margin;
            hessian[1] += spread * margin;
            hessian[2] += spread;
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        if determinant.abs() < 1e-12 {
            break;
        }
        slope += ((hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant).clamp(-1.0, 1.0);
        offset += ((hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant).clamp(-2.0, 2.0);
    }
    Ok([slope, offset])
}
