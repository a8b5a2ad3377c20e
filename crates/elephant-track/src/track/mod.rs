//! From the spots of a movie to lineages.

mod candidates;
mod constraints;
mod detections;
mod examples;
mod features;
mod fit;
mod gaps;
mod motion;
mod nearest;
mod options;
mod scores;
mod statement;
mod weights;

use elephant_types::{Lineage, Link, SpotId, TaskContext};

use self::{
    candidates::Finder, constraints::Given, detections::Scene, features::View, motion::Motion, statement::state,
};
pub use self::{
    detections::Detections,
    examples::Example,
    fit::{FitOptions, fit},
    gaps::{FilledGaps, fill_gaps},
    options::{Constraints, NearestOptions, TrackMethod, TrackOptions},
    weights::Weights,
};
use crate::{Problem, Solution, SolveOptions, Status, TrackError, solve};

/// The result of [`track`].
#[derive(Clone, Debug, PartialEq)]
pub struct Tracking {
    /// The lineage; its spots have the numbers they have in the detections.
    pub lineage: Lineage,
    /// For each spot whether it is taken as real. Spots that are not have no links.
    pub selected: Vec<bool>,
    /// The links in the order of their targets, each with its probability (0 to 1) of being correct.
    pub link_scores: Vec<(Link, f64)>,
    /// Sum of the costs of the solution; 0 for [`TrackMethod::Nearest`].
    pub objective: f64,
    /// No solution has smaller costs.
    pub bound: f64,
    /// Whether the solution is optimal, or the best found when the time was over or the task was cancelled.
    pub status: Status,
}

impl Tracking {
    /// The difference between objective and bound, relative to the objective.
    pub fn gap(&self) -> f64 {
        (self.objective - self.bound).max(0.0) / self.objective.abs().max(1e-9)
    }
}

/// Links the spots of a movie. The result does not depend on the number of threads.
///
/// Reports one step for each pass. If the task is cancelled, the result of the passes so far is returned with the status
/// [`Status::Feasible`].
///
/// # Errors
/// [`TrackError`] for options outside their ranges, for spots that cannot be used, and for corrections that contradict each other.
pub fn track(
    detections: &Detections<'_>,
    constraints: &Constraints,
    options: &TrackOptions,
    context: &TaskContext,
) -> Result<Tracking, TrackError> {
    options.validate()?;
    let scene = Scene::new(*detections)?;
    let given = Given::new(constraints, &scene)?;
    if options.method == TrackMethod::Nearest {
        return nearest::track(&scene, &given, options);
    }
    let weights = options.weights.as_ref().unwrap_or_else(|| Weights::builtin());
    let mut motion = Motion::start(&scene);
    let mut best = None;
    let passes = options.passes as u64;
    for pass in 1..=passes {
        if context.check().is_err() {
            break;
        }
        let finder = Finder::new(View { scene: &scene, motion: &motion }, options);
        let Ok(problem) = state(&finder, weights, options, &given, context.cancel_token()) else { break };
        let last = pass == passes;
        let relative_gap = if last { options.solver.relative_gap } else { options.solver.relative_gap.max(2e-3) };
        let solver = SolveOptions { relative_gap, ..options.solver.clone() };
        let solution = match solve(&problem, &solver, context) {
            Ok(solution) => solution,
            Err(TrackError::Stopped) => break,
            Err(TrackError::Infeasible { node }) => {
                let place = node.map_or_else(String::new, |node| format!(" at spot {}", detections.number(node)));
                return Err(TrackError::ContradictoryCorrections { reason: format!("nothing satisfies all{place}") });
            }
            Err(error) => return Err(error),
        };
        if !last {
            learn(&scene, &mut motion, &problem, &solution);
        }
        best = Some((problem, solution));
        context.report(pass, passes);
    }
    let Some((problem, solution)) = best else { return unlinked(&scene, &given) };
    let mut tracking = result(&scene, &given, options, weights, &problem, &solution)?;
    if context.check().is_err() {
        tracking.status = Status::Feasible;
    }
    Ok(tracking)
}

/// Only what is given, if there was no time for anything else.
fn unlinked(scene: &Scene<'_>, given: &Given) -> Result<Tracking, TrackError> {
    let links = given.parents.iter().map(|(&target, &source)| link(source, target));
    let lineage = Lineage::new((0..scene.len() as u32).map(|spot| scene.time(spot)).collect(), links)?;
    let mut selected = vec![false; scene.len()];
    for &spot in given.required.iter().chain(given.parents.keys()).chain(given.children.keys()) {
        selected[spot as usize] = true;
    }
    let link_scores = lineage.links().map(|link| (link, 1.0)).collect();
    Ok(Tracking { lineage, selected, link_scores, objective: 0.0, bound: f64::NEG_INFINITY, status: Status::Feasible })
}

fn link(source: u32, target: u32) -> Link {
    Link { source: SpotId(source), target: SpotId(target) }
}

/// Takes the motion from the links of a solution that are no divisions.
pub(crate) fn learn(scene: &Scene<'_>, motion: &mut Motion, problem: &Problem, solution: &Solution) {
    let chosen = problem.links.iter().zip(&solution.links).filter(|(_, chosen)| **chosen);
    let pairs: Vec<(u32, u32)> = chosen.map(|(link, _)| (link.source, link.target)).collect();
    let steps: Vec<(u32, u32)> =
        pairs.iter().copied().filter(|&(source, target)| scene.time(target) - scene.time(source) == 1).collect();
    let gaps = (pairs.len() - steps.len()) as f64 / pairs.len().max(1) as f64;
    let kept = solution.nodes.iter().filter(|chosen| **chosen).count();
    let dropped = 1.0 - kept as f64 / scene.len().max(1) as f64;
    motion.update(scene, &steps, gaps, dropped);
}

fn result(
    scene: &Scene<'_>,
    given: &Given,
    options: &TrackOptions,
    weights: &Weights,
    problem: &Problem,
    solution: &Solution,
) -> Result<Tracking, TrackError> {
    let scored = scores::margins(problem, solution);
    let timepoints: Vec<u32> = (0..scene.len() as u32).map(|spot| scene.time(spot)).collect();
    let lineage = Lineage::new(timepoints.clone(), scored.iter().map(|&(source, target, _)| link(source, target)))?;
    let mut selected = solution.nodes.clone();
    for track in lineage.tracks().iter() {
        let alone = track.parent.is_none() && !track.spots.iter().any(|&spot| lineage.is_division(spot));
        let sure = |spot: &SpotId| {
            given.required.contains(&spot.0)
                || given.parents.contains_key(&spot.0)
                || given.children.contains_key(&spot.0)
        };
        if alone && track.spots.len() < options.min_length && !track.spots.iter().any(sure) {
            track.spots.iter().for_each(|spot| selected[spot.index()] = false);
        }
    }
    let mut link_scores: Vec<(Link, f64)> = scored
        .into_iter()
        .filter(|&(source, target, _)| selected[source as usize] && selected[target as usize])
        .map(|(source, target, margin)| {
            let score = if given.is_approved(source, target) { 1.0 } else { scores::score(weights, margin) };
            (link(source, target), score)
        })
        .collect();
    link_scores.sort_by_key(|(link, _)| link.target);
    let lineage = Lineage::new(timepoints, link_scores.iter().map(|(link, _)| *link))?;
    let Solution { objective, bound, status, .. } = *solution;
    Ok(Tracking { lineage, selected, link_scores, objective, bound, status })
}
