//! Solvers for a [`Problem`].
//!
//! [`exact`] gives the whole problem to `HiGHS`. [`dual`] finds a lower bound and reduced costs, from which [`rounding`]
//! makes a first solution, which [`regions`] improves by exact solutions of small parts until it meets the bound.

mod dual;
mod exact;
mod fixing;
mod graph;
mod ilp;
mod regions;
mod rounding;

use std::time::{Duration, Instant};

use elephant_types::{CancelToken, TaskContext};
use serde::{Deserialize, Serialize};

use self::graph::{Choice, Graph, Origin};
use crate::{Problem, TrackError};

/// How to solve a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `Exact` for small problems, otherwise `PrimalDual`.
    #[default]
    Auto,
    /// One integer linear program for the whole problem, solved by `HiGHS`.
    Exact,
    /// Our own dual ascent and rounding, with integer programs for the parts that these leave undecided.
    PrimalDual,
}

/// Options of [`solve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SolveOptions {
    /// How to solve the problem.
    pub method: Method,
    /// The longest time to spend, in seconds. Results depend on it only if more than a third of it is needed.
    pub time_limit_s: f64,
    /// The difference between objective and bound, relative to the objective, at which a solution counts as optimal.
    pub relative_gap: f64,
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self { method: Method::Auto, time_limit_s: 600.0, relative_gap: 1e-4 }
    }
}

impl SolveOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`TrackError::InvalidOption`] names the first option outside its range.
    pub fn validate(&self) -> Result<(), TrackError> {
        let options = [
            ("time_limit_s", self.time_limit_s, 0.0..=1e7, "from 0 to 10000000"),
            ("relative_gap", self.relative_gap, 0.0..=1.0, "from 0 to 1"),
        ];
        for (name, value, allowed, range) in options {
            if !allowed.contains(&value) {
                return Err(TrackError::InvalidOption { name, value, range });
            }
        }
        Ok(())
    }
}

/// How good a [`Solution`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// No consistent solution is better by more than the gap that was asked for.
    Optimal,
    /// The best one found. The time was over, the task was cancelled, or the bound could not be raised further.
    Feasible,
}

/// A consistent choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Which nodes are chosen.
    pub nodes: Vec<bool>,
    /// Which links are chosen.
    pub links: Vec<bool>,
    /// Which divisions are chosen.
    pub divisions: Vec<bool>,
    /// Sum of the costs of what is chosen, with appearances and disappearances.
    pub objective: f64,
    /// No consistent choice has a smaller objective than this.
    pub bound: f64,
    /// How good it is.
    pub status: Status,
}

impl Solution {
    /// The difference between objective and bound, relative to the objective.
    pub fn gap(&self) -> f64 {
        relative_gap(self.objective, self.bound)
    }
}

fn relative_gap(objective: f64, bound: f64) -> f64 {
    (objective - bound).max(0.0) / objective.abs().max(1e-9)
}

/// When to stop.
struct Stop<'a> {
    deadline: Instant,
    cancel: &'a CancelToken,
    relative_gap: f64,
}

impl Stop<'_> {
    fn is_due(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.deadline
    }

    /// The same with an earlier deadline: after this part of the time that is left.
    fn after(&self, part: f64) -> Self {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        Self { deadline: now + left.mul_f64(part), ..*self }
    }

    /// Whether a solution with this objective is as good as was asked for.
    fn is_reached(&self, objective: f64, bound: f64) -> bool {
        let exact = 2.0 * ilp::ABSOLUTE_GAP + ROUNDING * objective.abs();
        objective - bound <= exact || relative_gap(objective, bound) <= self.relative_gap
    }
}

/// Relative differences that are due to rounding.
const ROUNDING: f64 = 1e-9;

/// A choice in a graph, and a bound of its cost.
struct Outcome {
    choice: Choice,
    bound: f64,
}

/// The number of links and divisions up to which the whole problem is given to `HiGHS`.
const SMALL: usize = 20_000;

/// The cheapest consistent choice. The result does not depend on the number of threads.
///
/// If the task is cancelled or the time limit reached, the best solution so far is returned, with the bound so far.
///
/// # Errors
/// [`TrackError::InvalidProblem`] and [`TrackError::InvalidOption`] name what is out of range. [`TrackError::Infeasible`] if
/// no choice agrees with what is fixed, [`TrackError::Stopped`] if none was found in time, [`TrackError::Highs`] if the library
/// fails.
pub fn solve(problem: &Problem, options: &SolveOptions, context: &TaskContext) -> Result<Solution, TrackError> {
    problem.validate()?;
    options.validate()?;
    let stop = Stop {
        deadline: Instant::now() + Duration::from_secs_f64(options.time_limit_s),
        cancel: context.cancel_token(),
        relative_gap: options.relative_gap,
    };
    let (graph, origin) = Graph::of_problem(problem)?;
    let is_exact = match options.method {
        Method::Auto => graph.arcs.len() <= SMALL,
        Method::Exact => true,
        Method::PrimalDual => false,
    };
    let effort = if is_exact { regions::Effort::Start } else { regions::Effort::Full };
    let mut outcome = regions::solve(&graph, effort, &stop, context)?;
    let mut objective = outcome.choice.cost(&graph);
    let mut allowed = outcome.choice.is_allowed(&graph);
    // What is fixed may be so contradictory that only the program can tell.
    if (is_exact || !allowed) && !stop.is_due() {
        let shape = graph.clone();
        outcome = exact::solve(graph, outcome, &stop)?;
        objective = outcome.choice.cost(&shape);
        allowed = outcome.choice.is_allowed(&shape);
    }
    if !allowed {
        return Err(TrackError::Stopped);
    }
    let optimal = stop.is_reached(objective, outcome.bound);
    let status = if optimal { Status::Optimal } else { Status::Feasible };
    Ok(solution(problem, &origin, &outcome, objective, status))
}

fn solution(problem: &Problem, origin: &Origin, outcome: &Outcome, objective: f64, status: Status) -> Solution {
    let mut solution = Solution {
        nodes: vec![false; problem.nodes.len()],
        links: vec![false; problem.links.len()],
        divisions: vec![false; problem.divisions.len()],
        objective,
        bound: outcome.bound.min(objective),
        status,
    };
    for (&node, &on) in origin.nodes.iter().zip(&outcome.choice.on) {
        solution.nodes[node as usize] = on;
    }
    for arc in outcome.choice.arcs() {
        let arc = origin.arcs[arc as usize] as usize;
        match arc.checked_sub(problem.links.len()) {
            None => solution.links[arc] = true,
            Some(division) => solution.divisions[division] = true,
        }
    }
    solution
}
