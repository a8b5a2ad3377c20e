//! Exact solutions by integer linear programming with `HiGHS`.
//!
//! Columns: one for each arc, appearance, disappearance and node, all binary. Rows: the ways into a node, and the ways out
//! of it, sum to the node; the members of a conflict sum to at most 1.

#![allow(unsafe_code)] // HiGHS asks through a C callback whether to stop.

use std::{
    ffi::{c_char, c_int, c_void},
    sync::Mutex,
    time::{Duration, Instant},
};

use elephant_types::CancelToken;
use highs::{ColProblem, HighsModelStatus, HighsSolutionStatus, Sense};
use highs_sys::{HighsCallbackDataIn, HighsCallbackDataOut};

use super::graph::{Arc, Choice, Graph};
use crate::TrackError;

/// The difference between objective and bound that always counts as optimal.
pub const ABSOLUTE_GAP: f64 = 1e-6;

/// When to stop.
pub struct Limits<'a> {
    pub deadline: Instant,
    pub cancel: &'a CancelToken,
    /// Difference between objective and bound, relative to the objective, that counts as optimal.
    pub relative_gap: f64,
    /// The most nodes of the search tree. Unlike a time, this is the same on every machine.
    pub nodes: Option<i32>,
    /// Receives the value of each column (in the order of the arcs) whenever a better solution is found.
    pub incumbent: Option<&'a Mutex<Option<Vec<f64>>>>,
}

/// What an integer program found.
pub struct Found {
    /// The best solution, `None` if there was no time to find any.
    pub choice: Option<Choice>,
    /// No solution costs less.
    pub bound: f64,
    /// Whether the search ended by itself.
    pub complete: bool,
}

/// Solves the problem of a graph exactly. If `hard`, what is forbidden is impossible, otherwise it costs the penalty.
///
/// # Errors
/// [`TrackError::Infeasible`] if nothing satisfies the constraints, [`TrackError::Highs`] if the library fails.
pub fn solve(graph: &Graph, start: Option<&Choice>, hard: bool, limits: &Limits<'_>) -> Result<Found, TrackError> {
    let (found, objective) = run(graph, start, hard, limits)?;
    // Where HiGHS 1.16 needs its presolve only, it says what the optimum costs and returns the start.
    let is_other = found.choice.as_ref().is_some_and(|choice| (choice.cost(graph) - objective).abs() > ABSOLUTE_GAP);
    if is_other && start.is_some() {
        return Ok(run(graph, None, hard, limits)?.0);
    }
    Ok(found)
}

/// What the library found, and what that costs in its words.
fn run(graph: &Graph, start: Option<&Choice>, hard: bool, limits: &Limits<'_>) -> Result<(Found, f64), TrackError> {
    let left = limits.deadline.saturating_duration_since(Instant::now());
    if graph.nodes.is_empty() {
        return Ok((Found { choice: Some(Choice::empty(graph)), bound: 0.0, complete: true }, 0.0));
    }
    if left < Duration::from_millis(1) || limits.cancel.is_cancelled() {
        return Ok((Found { choice: None, bound: f64::NEG_INFINITY, complete: false }, f64::INFINITY));
    }
    let (program, constant) = columns(graph, hard);
    let failed = |step: &str| TrackError::Highs(step.to_owned());
    let mut model = program.try_optimise(Sense::Minimise).map_err(|_| failed("it refused the model"))?;
    model.make_quiet();
    let settings = (|| {
        model.try_set_option("threads", 1)?; // the same result on every machine
        model.try_set_option("time_limit", left.as_secs_f64())?;
        if let Some(nodes) = limits.nodes {
            model.try_set_option("mip_max_nodes", nodes)?;
        }
        model.try_set_option("mip_abs_gap", ABSOLUTE_GAP)?;
        model.try_set_option("mip_rel_gap", limits.relative_gap)
    })();
    settings.map_err(|_| failed("it refused an option"))?;
    if let Some(start) = start.filter(|start| !hard || start.is_allowed(graph)) {
        // A start that is refused is only slower.
        let _ = model.try_set_solution(Some(&values(graph, start)), None, None, None);
    }
    let watch = Watch { cancel: limits.cancel, incumbent: limits.incumbent };
    // SAFETY: the pointer is to a live model; `watch` outlives `try_solve`, the only call during which `observe` runs.
    unsafe {
        let pointer = model.as_mut_ptr();
        let data = (&raw const watch).cast_mut().cast::<c_void>();
        highs_sys::Highs_setCallback(pointer, Some(observe), data);
        highs_sys::Highs_startCallback(pointer, highs_sys::kHighsCallbackMipInterrupt);
        highs_sys::Highs_startCallback(pointer, highs_sys::kHighsCallbackSimplexInterrupt);
        if watch.incumbent.is_some() {
            highs_sys::Highs_startCallback(pointer, highs_sys::kHighsCallbackMipImprovingSolution);
        }
    }
    let solved = model.try_solve().map_err(|_| failed("the search ended with an error"))?;
    let status = solved.status();
    if matches!(status, HighsModelStatus::Infeasible | HighsModelStatus::UnboundedOrInfeasible) {
        return Err(TrackError::Infeasible { node: None });
    }
    let has_solution = solved.primal_solution_status() == HighsSolutionStatus::Feasible;
    let choice = has_solution.then(|| choice_of(graph, solved.get_solution().columns()));
    let bound = solved.double_info_value(c"mip_dual_bound").unwrap_or(f64::NEG_INFINITY) + constant;
    let objective = solved.objective_value() + constant;
    Ok((Found { choice, bound, complete: status == HighsModelStatus::Optimal }, objective))
}

/// The columns of a program: arcs, then for each node appearance, disappearance and the node itself. Second, the cost of
/// choosing nothing.
fn columns(graph: &Graph, hard: bool) -> (ColProblem, f64) {
    let mut program = ColProblem::new();
    let count = graph.nodes.len();
    let ins: Vec<_> = (0..count).map(|_| program.add_row(0.0..=0.0)).collect();
    let outs: Vec<_> = (0..count).map(|_| program.add_row(0.0..=0.0)).collect();
    let conflicts: Vec<_> = (0..graph.conflicts.keys()).map(|_| program.add_row(..=1.0)).collect();
    for Arc { source, targets, cost } in &graph.arcs {
        let two = [(outs[*source as usize], 1.0), (ins[targets[0] as usize], 1.0)];
        match targets[1] {
            super::graph::NONE => program.add_integer_column(*cost, 0.0..=1.0, two),
            second => {
                let three = [two[0], two[1], (ins[second as usize], 1.0)];
                program.add_integer_column(*cost, 0.0..=1.0, three);
            }
        }
    }
    let mut constant = 0.0;
    for (index, node) in graph.nodes.iter().enumerate() {
        let most = |cost: f64| if hard && cost >= graph.penalty { 0.0 } else { 1.0 };
        let must = node.off == f64::INFINITY || (hard && node.off >= graph.penalty);
        let (least, greatest) = (f64::from(u8::from(must)), f64::from(u8::from(node.cost < f64::INFINITY)));
        let (cost, off) = (if greatest == 0.0 { 0.0 } else { node.cost }, if must { 0.0 } else { node.off });
        program.add_integer_column(node.appearance, 0.0..=most(node.appearance), [(ins[index], 1.0)]);
        program.add_integer_column(node.disappearance, 0.0..=most(node.disappearance), [(outs[index], 1.0)]);
        let own = [(ins[index], -1.0), (outs[index], -1.0)].into_iter();
        let shared = graph.node_conflicts.of(index).iter().map(|&conflict| (conflicts[conflict as usize], 1.0));
        program.add_integer_column(cost - off, least..=greatest, own.chain(shared).collect::<Vec<_>>());
        constant += off;
    }
    (program, constant)
}

fn values(graph: &Graph, choice: &Choice) -> Vec<f64> {
    let mut values = vec![0.0; graph.arcs.len() + 3 * graph.nodes.len()];
    for arc in choice.arcs() {
        values[arc as usize] = 1.0;
    }
    for (index, rest) in values[graph.arcs.len()..].chunks_exact_mut(3).enumerate() {
        if choice.on[index] {
            let begins = choice.entered[index] == super::graph::NONE;
            let ends = choice.left[index] == super::graph::NONE;
            rest.copy_from_slice(&[f64::from(u8::from(begins)), f64::from(u8::from(ends)), 1.0]);
        }
    }
    values
}

/// The choice that the values of the columns mean.
pub fn choice_of(graph: &Graph, values: &[f64]) -> Choice {
    let mut choice = Choice::empty(graph);
    for (arc, _) in (0..).zip(&values[..graph.arcs.len()]).filter(|(_, value)| **value > 0.5) {
        choice.take(graph, arc);
    }
    for (index, rest) in values[graph.arcs.len()..].chunks_exact(3).enumerate() {
        choice.on[index] |= rest[2] > 0.5;
    }
    choice
}

struct Watch<'a> {
    cancel: &'a CancelToken,
    incumbent: Option<&'a Mutex<Option<Vec<f64>>>>,
}

/// Called by `HiGHS` now and then, and with each better solution.
unsafe extern "C" fn observe(
    kind: c_int,
    _message: *const c_char,
    output: *const HighsCallbackDataOut,
    input: *mut HighsCallbackDataIn,
    data: *mut c_void,
) {
    // SAFETY: `data` is the `Watch` of the running call; HiGHS passes valid or null structures, whose solution has
    // `mip_solution_size` values.
    unsafe {
        let watch = &*data.cast::<Watch<'_>>();
        if let (Some(incumbent), Some(output)) = (watch.incumbent, output.as_ref())
            && kind == highs_sys::kHighsCallbackMipImprovingSolution
            && !output.mip_solution.is_null()
        {
            let size = usize::try_from(output.mip_solution_size).unwrap_or(0);
            let found = std::slice::from_raw_parts(output.mip_solution, size).to_vec();
            if let Ok(mut place) = incumbent.lock() {
                *place = Some(found);
            }
        }
        if let Some(input) = input.as_mut() {
            input.user_interrupt = c_int::from(watch.cancel.is_cancelled());
        }
    }
}
