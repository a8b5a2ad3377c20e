//! A lower bound by dual block-coordinate ascent.
//!
//! The problem is split into one factor for each node (how it is entered, how it is left, or not chosen) and one for each
//! conflict (at most one member). An arc's cost is shared among the factors of its source and targets, a node's cost among
//! its factor and its conflicts. The sum of the factors' minima is a lower bound for every such sharing. A sweep over the
//! frames moves cost from each node to the nodes ahead, such that no minimum of the sum is lost; sweeps forward and backward
//! alternate. (The decomposition is that of Haller et al., "A Primal-Dual Solver for Large-Scale Tracking-by-Assignment",
//! AISTATS 2020; the update is a min-marginal averaging of our own.)
//!
//! Nodes of one frame are handled in parallel. They change different shares, so the result is the same on any number of
//! threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::{
    Stop,
    graph::{Choice, Graph, NONE},
};

/// A number that threads may change, each its own.
struct Share(AtomicU64);

impl Share {
    fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

/// Nodes that a thread handles at a time, at least.
const GRAIN: usize = 128;

pub struct Dual<'a> {
    graph: &'a Graph,
    /// The share of each arc's cost at its source.
    outs: Vec<Share>,
    /// The share of each slot at its target; slot `2 a + k` is target `k` of arc `a`.
    ins: Vec<Share>,
    /// The share of each node's cost in its own factor.
    nodes: Vec<f64>,
    /// The share of each member's cost in a conflict, in the order of the graph's lists.
    members: Vec<f64>,
    /// The conflicts of each frame, by their first members.
    frame_conflicts: Vec<Vec<u32>>,
}

impl<'a> Dual<'a> {
    pub fn new(graph: &'a Graph) -> Self {
        let mut ins = Vec::with_capacity(2 * graph.arcs.len());
        for arc in &graph.arcs {
            let share = arc.cost / 2.0 / arc.targets().len() as f64;
            ins.extend([Share::new(share), Share::new(if arc.targets[1] == NONE { 0.0 } else { share })]);
        }
        let mut frame_conflicts = vec![Vec::new(); graph.frames.len()];
        for conflict in 0..graph.conflicts.keys() {
            let first = graph.conflicts.of(conflict)[0] as usize;
            let frame = graph.frames.partition_point(|range| range.end <= first);
            frame_conflicts[frame].push(conflict as u32);
        }
        Self {
            graph,
            outs: graph.arcs.iter().map(|arc| Share::new(arc.cost / 2.0)).collect(),
            ins,
            nodes: graph.nodes.iter().map(|node| node.cost).collect(),
            members: vec![0.0; graph.conflicts.total()],
            frame_conflicts,
        }
    }

    /// Sweeps until the bound rises by less than `tolerance`, relative to itself, or `most` double sweeps are done.
    pub fn ascend(&mut self, most: usize, tolerance: f64, stop: &Stop<'_>) {
        let mut before = self.bound();
        for sweep in 1..=most {
            if !self.sweep(true, stop) || !self.sweep(false, stop) {
                return;
            }
            if sweep % 10 == 0 {
                let bound = self.bound();
                if bound - before <= tolerance * bound.abs() {
                    return;
                }
                before = bound;
            }
        }
    }

    /// Moves costs forward or backward through all frames. False if it was stopped.
    fn sweep(&mut self, forward: bool, stop: &Stop<'_>) -> bool {
        let frames = self.graph.frames.len();
        for step in 0..frames {
            if stop.is_due() {
                return false;
            }
            let frame = if forward { step } else { frames - 1 - step };
            self.settle_conflicts(frame);
            let nodes = self.graph.frames[frame].clone().into_par_iter().with_min_len(GRAIN);
            let this = &*self;
            if forward {
                nodes.for_each(|node| this.push_out(node));
            } else {
                nodes.for_each(|node| this.push_in(node));
            }
        }
        true
    }

    fn out_share(&self, arc: usize) -> f64 {
        self.outs[arc].get()
    }

    fn in_share(&self, slot: usize) -> f64 {
        self.ins[slot].get()
    }

    /// The cheapest way into a node.
    fn in_min(&self, node: usize) -> f64 {
        let slots = self.graph.ins.of(node).iter();
        slots.fold(self.graph.nodes[node].appearance, |least, &slot| least.min(self.in_share(slot as usize)))
    }

    /// The cheapest way out of a node.
    fn out_min(&self, node: usize) -> f64 {
        self.graph.outs(node).fold(self.graph.nodes[node].disappearance, |least, arc| least.min(self.out_share(arc)))
    }

    /// Moves the costs of the outgoing arcs to their targets, except for an equal part.
    fn push_out(&self, node: usize) {
        let graph = self.graph;
        let arcs = graph.outs(node);
        if arcs.is_empty() {
            return;
        }
        let begin = self.nodes[node] + self.in_min(node);
        let without = graph.nodes[node].off.min(begin + graph.nodes[node].disappearance);
        let level = level(arcs.clone().map(|arc| begin + self.out_share(arc)), without) - begin;
        for arc in arcs {
            let moved = self.out_share(arc) - level;
            self.outs[arc].set(level);
            let targets = graph.arcs[arc].targets().len();
            for slot in &self.ins[2 * arc..2 * arc + targets] {
                slot.set(slot.get() + moved / targets as f64);
            }
        }
    }

    /// Moves the costs of the incoming arcs to their sources, except for an equal part.
    fn push_in(&self, node: usize) {
        let graph = self.graph;
        let slots = graph.ins.of(node);
        if slots.is_empty() {
            return;
        }
        let end = self.nodes[node] + self.out_min(node);
        let without = graph.nodes[node].off.min(end + graph.nodes[node].appearance);
        let level = level(slots.iter().map(|&slot| end + self.in_share(slot as usize)), without) - end;
        for &slot in slots {
            let share = &self.ins[slot as usize];
            let moved = share.get() - level;
            share.set(level);
            let source = &self.outs[slot as usize / 2];
            source.set(source.get() + moved);
        }
    }

    /// Moves the costs of conflicting nodes into each conflict and back, as far as more than one of them would be chosen.
    fn settle_conflicts(&mut self, frame: usize) {
        if self.frame_conflicts[frame].is_empty() {
            return;
        }
        let graph = self.graph;
        let range = graph.frames[frame].clone();
        let this = &*self;
        let ends = range.clone().into_par_iter().with_min_len(GRAIN).map(|node| this.in_min(node) + this.out_min(node));
        let ends: Vec<f64> = ends.collect();
        for index in 0..self.frame_conflicts[frame].len() {
            let conflict = self.frame_conflicts[frame][index] as usize;
            let places = graph.conflicts.range(conflict);
            for place in places.clone() {
                let node = graph.conflicts.item(place) as usize;
                let ways = match node.checked_sub(range.start).and_then(|local| ends.get(local)) {
                    Some(&ways) => ways,
                    None => self.in_min(node) + self.out_min(node),
                };
                let gain = self.nodes[node] + ways - graph.nodes[node].off;
                self.members[place] += gain;
                self.nodes[node] -= gain;
            }
            let level = level(self.members[places.clone()].iter().copied(), 0.0);
            for place in places {
                self.nodes[graph.conflicts.item(place) as usize] += self.members[place] - level;
                self.members[place] = level;
            }
        }
    }

    /// The minimum of a node's factor.
    fn node_min(&self, node: usize) -> f64 {
        self.graph.nodes[node].off.min(self.nodes[node] + self.in_min(node) + self.out_min(node))
    }

    fn conflict_min(&self, conflict: usize) -> f64 {
        self.members[self.graph.conflicts.range(conflict)].iter().fold(0.0, |least, &share| least.min(share))
    }

    /// No consistent choice costs less.
    pub fn bound(&self) -> f64 {
        let nodes = (0..self.graph.nodes.len()).into_par_iter().with_min_len(GRAIN);
        let minima: Vec<f64> = nodes.map(|node| self.node_min(node)).collect();
        minima.iter().sum::<f64>()
            + (0..self.graph.conflicts.keys()).map(|conflict| self.conflict_min(conflict)).sum::<f64>()
    }

    /// For each arc, by how much every consistent choice with it is above the bound, at least.
    pub fn reduced_costs(&self) -> Vec<f64> {
        let nodes = (0..self.graph.nodes.len()).into_par_iter().with_min_len(GRAIN);
        let ways: Vec<[f64; 3]> =
            nodes.map(|node| [self.in_min(node), self.out_min(node), self.node_min(node)]).collect();
        let arcs = self.graph.arcs.par_iter().enumerate().with_min_len(GRAIN);
        let reduced = arcs.map(|(index, arc)| {
            let source = arc.source as usize;
            let mut sum = self.nodes[source] + ways[source][0] + self.out_share(index) - ways[source][2];
            for (slot, &target) in (2 * index..).zip(arc.targets()) {
                let target = target as usize;
                sum += self.nodes[target] + self.in_share(slot) + ways[target][1] - ways[target][2];
            }
            sum.max(0.0)
        });
        reduced.collect()
    }

    /// By how much a choice is above the minimum of a node's factor. These and [`Self::conflict_slack`] sum to the
    /// difference between the cost of the choice and the bound.
    pub fn node_slack(&self, choice: &Choice, node: usize) -> f64 {
        let at = &self.graph.nodes[node];
        let cost = if choice.on[node] {
            let begin = match choice.entered[node] {
                NONE => at.appearance,
                arc => {
                    let second = self.graph.arcs[arc as usize].targets[1] == node as u32;
                    self.in_share(2 * arc as usize + usize::from(second))
                }
            };
            let end = match choice.left[node] {
                NONE => at.disappearance,
                arc => self.out_share(arc as usize),
            };
            self.nodes[node] + begin + end
        } else {
            at.off
        };
        (cost - self.node_min(node)).max(0.0)
    }

    /// By how much a choice is above the minimum of a conflict's factor.
    pub fn conflict_slack(&self, choice: &Choice, conflict: usize) -> f64 {
        let places = self.graph.conflicts.range(conflict);
        let chosen = places.filter(|&place| choice.on[self.graph.conflicts.item(place) as usize]);
        let cost: f64 = chosen.map(|place| self.members[place]).sum();
        (cost - self.conflict_min(conflict)).max(0.0)
    }
}

/// The common cost to which all alternatives are brought: as high as possible without raising what is best beyond the second
/// best, counting `without`, the cost of choosing none of them.
fn level(costs: impl Iterator<Item = f64>, without: f64) -> f64 {
    let (mut best, mut second) = (without, f64::INFINITY);
    let mut is_alternative = false;
    for cost in costs {
        if cost < best {
            second = best;
            best = cost;
            is_alternative = true;
        } else if cost < second {
            second = cost;
        }
    }
    if is_alternative { f64::midpoint(best, second) } else { without }
}
