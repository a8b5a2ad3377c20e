//! Improves a choice by exact solutions of small parts.
//!
//! The difference between a choice and the lower bound is a sum over nodes and conflicts. A region grows around a node with a
//! large term, along arcs with small reduced costs, and is solved by an integer program while everything outside stays.
//! Arcs whose reduced cost exceeds what can be gained in the region are left out, which makes the programs small. Regions
//! without common nodes or conflicts are solved in parallel. They grow until the bound is met.

use std::{cmp::Reverse, collections::BinaryHeap};

use elephant_types::TaskContext;
use rayon::prelude::*;

use super::{
    Outcome, Stop,
    dual::Dual,
    graph::{Arc, Choice, Graph, GraphNode, NONE},
    ilp::{self, Limits},
    rounding,
};
use crate::TrackError;

/// How long to try.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Find a first choice only.
    Start,
    /// Improve it until it is good enough.
    Full,
}

/// Most nodes of a region, from round to round.
const SIZES: [[usize; 2]; 4] = [[60, 250], [250, 1000], [1000, 4000], [4000, 4000]];

/// Double sweeps of the dual ascent, in each round.
const SWEEPS: [usize; 4] = [200, 400, 800, 1600];

/// The relative rise of the bound in ten double sweeps below which a round of the dual ascent ends.
const TOLERANCES: [f64; 4] = [1e-5, 1e-6, 1e-7, 1e-8];

/// The part of the gap that a round of regions has to close for another one to be worthwhile.
const WORTHWHILE: f64 = 0.02;

/// The most nodes of the search tree of a region's program.
const TREE: i32 = 50;

/// The part of the time that is left that a round of the dual ascent may take.
const ASCENT: f64 = 0.35;

/// Changes of costs below this are rounding errors.
const EPSILON: f64 = 1e-7;

/// A choice in a graph and a bound of its cost. Reports progress as the sizes tried.
///
/// # Errors
/// [`TrackError::Highs`] if an integer program fails.
pub fn solve(graph: &Graph, effort: Effort, stop: &Stop<'_>, context: &TaskContext) -> Result<Outcome, TrackError> {
    let mut dual = Dual::new(graph);
    let mut bound = f64::NEG_INFINITY;
    let mut choice: Option<Choice> = None;
    let mut solved = Solved { nodes: vec![false; graph.nodes.len()], components: 0 };
    let total = 3 * SWEEPS.len() as u64;
    for (round, (&sweeps, &tolerance)) in SWEEPS.iter().zip(&TOLERANCES).enumerate() {
        dual.ascend(if effort == Effort::Start { 20 } else { sweeps }, tolerance, &stop.after(ASCENT));
        let mut done = 3 * round as u64 + 1;
        context.report(done, total);
        let reduced = dual.reduced_costs();
        let start = choice.take().unwrap_or_else(|| rounding::round(graph, &reduced));
        let mut search = Search::new(graph, &dual, reduced, start, solved);
        bound = search.bound.max(bound);
        search.bound = bound;
        if effort == Effort::Full {
            for size in SIZES[round] {
                if search.is_good_enough(stop) {
                    break;
                }
                search.improve(size, stop)?;
                done += 1;
                context.report(done, total);
            }
        }
        let good_enough = search.is_good_enough(stop);
        bound = search.bound;
        (choice, solved) = (Some(search.choice), search.solved);
        if good_enough || effort == Effort::Start {
            break;
        }
    }
    context.report(total, total);
    let choice = choice.unwrap_or_else(|| Choice::empty(graph));
    Ok(Outcome { choice, bound })
}

struct Search<'a> {
    graph: &'a Graph,
    dual: &'a Dual<'a>,
    reduced: Vec<f64>,
    choice: Choice,
    cost: f64,
    bound: f64,
    /// The region of each node while regions are made.
    owner: Vec<u32>,
    solved: Solved,
}

/// Connected components in which the choice is proven to be optimal.
struct Solved {
    nodes: Vec<bool>,
    components: usize,
}

/// Nodes, in order, that are solved together.
struct Region {
    nodes: Vec<u32>,
    /// Nodes near enough to the first for other regions around them to be much the same.
    core: Vec<u32>,
}

/// What the program of a region found.
#[derive(Default)]
struct Answer {
    better: Option<Improvement>,
    /// Nothing outside touches the region, and its choice is optimal.
    is_solved: bool,
}

/// A region's better choice.
struct Improvement {
    choice: Choice,
    /// Arcs of the region's graph, as arcs of the whole graph.
    arcs: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, dual: &'a Dual<'a>, reduced: Vec<f64>, choice: Choice, solved: Solved) -> Self {
        let cost = choice.cost(graph);
        let owner = vec![NONE; graph.nodes.len()];
        let mut search = Self { graph, dual, reduced, choice, cost, bound: f64::NEG_INFINITY, owner, solved };
        search.bound = search.proven_bound();
        search
    }

    /// The bound of the dual solution, with the true optimum instead of it where that is known.
    fn proven_bound(&self) -> f64 {
        let count = self.graph.nodes.len();
        let nodes = (0..count).filter(|&node| self.solved.nodes[node]);
        let conflicts = (0..self.graph.conflicts.keys())
            .filter(|&conflict| self.solved.nodes[self.graph.conflicts.of(conflict)[0] as usize]);
        self.dual.bound()
            + nodes.map(|node| self.dual.node_slack(&self.choice, node)).sum::<f64>()
            + conflicts.map(|conflict| self.dual.conflict_slack(&self.choice, conflict)).sum::<f64>()
            - self.solved.components as f64 * ilp::ABSOLUTE_GAP
    }

    fn is_good_enough(&self, stop: &Stop<'_>) -> bool {
        stop.is_due() || stop.is_reached(self.cost, self.bound)
    }

    /// Solves regions of up to `size` nodes until none of them gets better.
    fn improve(&mut self, size: usize, stop: &Stop<'_>) -> Result<(), TrackError> {
        let mut tried = vec![false; self.graph.nodes.len()];
        while !self.is_good_enough(stop) {
            let seeds = self.seeds(&tried, stop);
            if seeds.is_empty() {
                return Ok(());
            }
            let regions = self.grow(&seeds, size);
            let answers: Vec<Result<Answer, TrackError>> =
                (0..regions.len()).into_par_iter().map(|index| self.solve_region(&regions, index, stop)).collect();
            for (region, answer) in regions.iter().zip(answers) {
                let answer = answer?;
                if let Some(better) = &answer.better {
                    self.apply(region, better);
                    region.nodes.iter().for_each(|&node| tried[node as usize] = false);
                } else {
                    region.core.iter().for_each(|&node| tried[node as usize] = true);
                }
                if answer.is_solved {
                    region.nodes.iter().for_each(|&node| self.solved.nodes[node as usize] = true);
                    self.solved.components += 1;
                }
            }
            self.owner.fill(NONE);
            let before = self.cost;
            self.cost = self.choice.cost(self.graph);
            self.bound = self.proven_bound().max(self.bound);
            if before - self.cost < WORTHWHILE * (self.cost - self.bound) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Nodes with a share in the gap, the largest first. Shares that are allowed to remain are left out.
    fn seeds(&self, tried: &[bool], stop: &Stop<'_>) -> Vec<u32> {
        let count = self.graph.nodes.len();
        let least = (0.5 * stop.relative_gap * self.cost.abs() / count as f64).max(EPSILON);
        let mut slack: Vec<f64> =
            (0..count).into_par_iter().with_min_len(256).map(|node| self.dual.node_slack(&self.choice, node)).collect();
        for conflict in 0..self.graph.conflicts.keys() {
            let first = self.graph.conflicts.of(conflict)[0];
            slack[first as usize] += self.dual.conflict_slack(&self.choice, conflict);
        }
        let mut seeds: Vec<u32> = (0..count as u32)
            .filter(|&node| slack[node as usize] > least && !tried[node as usize] && !self.solved.nodes[node as usize])
            .collect();
        seeds.sort_by(|&one, &other| slack[other as usize].total_cmp(&slack[one as usize]).then(one.cmp(&other)));
        seeds
    }

    /// Disjoint regions around the seeds.
    fn grow(&mut self, seeds: &[u32], size: usize) -> Vec<Region> {
        let mut regions = Vec::new();
        // Outside regions, but in conflict with one of their nodes.
        let mut reserved = vec![false; self.graph.nodes.len()];
        for &seed in seeds {
            if self.owner[seed as usize] != NONE || reserved[seed as usize] {
                continue;
            }
            let number = regions.len() as u32;
            let region = self.grow_one(seed, size, number, &reserved);
            for &node in &region.nodes {
                self.mates(node).filter(|&mate| self.owner[mate as usize] == NONE).for_each(|mate| {
                    reserved[mate as usize] = true;
                });
            }
            regions.push(region);
        }
        regions
    }

    fn grow_one(&mut self, seed: u32, size: usize, number: u32, reserved: &[bool]) -> Region {
        let mut nodes = Vec::new();
        let mut waiting = BinaryHeap::from([Reverse((0_u64, seed))]);
        while let Some(Reverse((bits, node))) = waiting.pop() {
            if self.owner[node as usize] != NONE || reserved[node as usize] {
                continue;
            }
            self.owner[node as usize] = number;
            nodes.push(node);
            if nodes.len() == size {
                break;
            }
            let distance = f64::from_bits(bits);
            let mut reach = |distance: f64, next: u32| {
                if next != node && self.owner[next as usize] == NONE {
                    // Distances are not negative, so their bits have their order.
                    waiting.push(Reverse((distance.to_bits(), next)));
                }
            };
            let ins = self.graph.ins.of(node as usize).iter().map(|&slot| slot as usize / 2);
            for arc in self.graph.outs(node as usize).chain(ins) {
                let at = &self.graph.arcs[arc];
                let chosen = self.choice.left[at.source as usize] == arc as u32;
                let farther = distance + STEP + if chosen { 0.0 } else { self.reduced[arc] };
                reach(farther, at.source);
                at.targets().iter().for_each(|&target| reach(farther, target));
            }
            self.mates(node).for_each(|mate| reach(distance, mate));
        }
        let core = nodes[..nodes.len().div_ceil(3)].to_vec();
        nodes.sort_unstable();
        Region { nodes, core }
    }

    /// Nodes in conflict with a node, and the node itself.
    fn mates(&self, node: u32) -> impl Iterator<Item = u32> {
        let conflicts = self.graph.node_conflicts.of(node as usize).iter();
        conflicts.flat_map(|&conflict| self.graph.conflicts.of(conflict as usize)).copied()
    }

    fn solve_region(&self, regions: &[Region], index: usize, stop: &Stop<'_>) -> Result<Answer, TrackError> {
        let part = Part { search: self, nodes: &regions[index].nodes, number: index as u32 };
        let (graph, start, arcs) = part.graph();
        if graph.arcs.is_empty() && graph.nodes.len() < 2 {
            return Ok(Answer::default());
        }
        let limits = Limits {
            deadline: stop.deadline,
            cancel: stop.cancel,
            relative_gap: 0.0,
            nodes: Some(TREE),
            incumbent: None,
        };
        let found = ilp::solve(&graph, Some(&start), false, &limits)?;
        let better = found.choice.filter(|choice| choice.cost(&graph) < start.cost(&graph) - EPSILON);
        let is_solved = found.complete && part.is_component();
        Ok(Answer { better: better.map(|choice| Improvement { choice, arcs }), is_solved })
    }

    fn apply(&mut self, region: &Region, better: &Improvement) {
        let is_inside = |arc: u32| {
            let at = &self.graph.arcs[arc as usize];
            let inside = |node: &u32| region.nodes.binary_search(node).is_ok();
            inside(&at.source) && at.targets().iter().all(inside)
        };
        for &node in &region.nodes {
            let node = node as usize;
            for side in [&mut self.choice.entered, &mut self.choice.left] {
                if side[node] != NONE && is_inside(side[node]) {
                    side[node] = NONE;
                }
            }
        }
        for (&node, &on) in region.nodes.iter().zip(&better.choice.on) {
            self.choice.on[node as usize] = on;
        }
        for arc in better.choice.arcs() {
            self.choice.take(self.graph, better.arcs[arc as usize]);
        }
    }
}

/// The distance of a region's growth along an arc without reduced cost.
const STEP: f64 = 1e-3;

struct Part<'a> {
    search: &'a Search<'a>,
    nodes: &'a [u32],
    number: u32,
}

impl Part<'_> {
    /// The region as a graph of its own, the present choice in it, and its arcs as arcs of the whole graph.
    fn graph(&self) -> (Graph, Choice, Vec<u32>) {
        let Search { graph, dual, reduced, choice, .. } = self.search;
        let mut conflicts: Vec<u32> =
            self.nodes.iter().flat_map(|&node| graph.node_conflicts.of(node as usize)).copied().collect();
        conflicts.sort_unstable();
        conflicts.dedup();
        let gain = self.nodes.iter().map(|&node| dual.node_slack(choice, node as usize)).sum::<f64>()
            + conflicts.iter().map(|&conflict| dual.conflict_slack(choice, conflict as usize)).sum::<f64>();

        let mut nodes: Vec<GraphNode> = self.nodes.iter().map(|&node| graph.nodes[node as usize]).collect();
        let mut closed_in = vec![false; nodes.len()];
        let mut closed_out = vec![false; nodes.len()];
        for (local, &node) in self.nodes.iter().enumerate() {
            let (entered, left) = (choice.entered[node as usize], choice.left[node as usize]);
            if entered != NONE && !self.has(entered) {
                closed_in[local] = true;
                nodes[local].appearance = 0.0;
                nodes[local].off = f64::INFINITY;
            }
            if left != NONE && !self.has(left) {
                closed_out[local] = true;
                nodes[local].disappearance = 0.0;
                nodes[local].off = f64::INFINITY;
            }
        }
        let mut inner = Vec::new();
        for &conflict in &conflicts {
            let members = graph.conflicts.of(conflict as usize);
            let local: Vec<u32> = members.iter().filter_map(|&member| self.local(member)).collect();
            let is_taken = members.iter().any(|&member| choice.on[member as usize] && self.local(member).is_none());
            if is_taken {
                for &member in &local {
                    (closed_in[member as usize], closed_out[member as usize]) = (true, true);
                    nodes[member as usize].cost = f64::INFINITY;
                }
            } else if local.len() > 1 {
                inner.push(local);
            }
        }
        let (mut arcs, mut origin) = (Vec::new(), Vec::new());
        for (local, &node) in (0_u32..).zip(self.nodes).filter(|(local, _)| !closed_out[*local as usize]) {
            for arc in graph.outs(node as usize) {
                let at = &graph.arcs[arc];
                let is_chosen = choice.left[node as usize] == arc as u32;
                if !is_chosen && reduced[arc] > gain + EPSILON {
                    continue;
                }
                let targets = at.targets.map(|target| if target == NONE { Some(NONE) } else { self.local(target) });
                let [Some(first), Some(second)] = targets else { continue };
                if closed_in[first as usize] || (second != NONE && closed_in[second as usize]) {
                    continue;
                }
                arcs.push(Arc { source: local, targets: [first, second], cost: at.cost });
                origin.push(arc as u32);
            }
        }
        let part = Graph::new(nodes, arcs, &inner, &vec![0; self.nodes.len()], graph.penalty);
        let mut start = Choice::empty(&part);
        for (arc, &whole) in (0..).zip(&origin) {
            if choice.left[graph.arcs[whole as usize].source as usize] == whole {
                start.take(&part, arc);
            }
        }
        for (local, &node) in self.nodes.iter().enumerate() {
            start.on[local] = choice.on[node as usize];
        }
        (part, start, origin)
    }

    fn local(&self, node: u32) -> Option<u32> {
        if self.search.owner[node as usize] != self.number {
            return None;
        }
        self.nodes.binary_search(&node).ok().map(|local| local as u32)
    }

    /// Whether nothing outside touches the region.
    fn is_component(&self) -> bool {
        let graph = self.search.graph;
        self.nodes.iter().all(|&node| {
            let ins = graph.ins.of(node as usize).iter().map(|&slot| slot / 2);
            ins.chain(graph.outs(node as usize).map(|arc| arc as u32)).all(|arc| self.has(arc))
                && self.search.mates(node).all(|mate| self.search.owner[mate as usize] == self.number)
        })
    }

    /// Whether all ends of an arc are in the region.
    fn has(&self, arc: u32) -> bool {
        let at = &self.search.graph.arcs[arc as usize];
        let inside = |node: &u32| self.search.owner[*node as usize] == self.number;
        inside(&at.source) && at.targets().iter().all(inside)
    }
}
