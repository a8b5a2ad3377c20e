//! The problem as the solvers see it: nodes in the order of their frames, links and divisions as arcs of one kind, and
//! fixed variables removed or turned into costs.

use std::ops::Range;

use super::fixing::Fixings;
use crate::{Problem, TrackError};

/// The second target of an arc that has only one.
pub const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub struct GraphNode {
    /// Cost of choosing the node; infinite where that is impossible.
    pub cost: f64,
    /// Cost of beginning here; [`Graph::penalty`] where that is forbidden.
    pub appearance: f64,
    /// Cost of ending here; [`Graph::penalty`] where that is forbidden.
    pub disappearance: f64,
    /// Cost of not choosing the node: 0, or [`Graph::penalty`] where it must be chosen; infinite where the caller relies on it.
    pub off: f64,
}

/// A link (one target) or a division (two).
#[derive(Clone, Copy, Debug)]
pub struct Arc {
    pub source: u32,
    pub targets: [u32; 2],
    pub cost: f64,
}

impl Arc {
    pub fn targets(&self) -> &[u32] {
        &self.targets[..=usize::from(self.targets[1] != NONE)]
    }
}

/// Lists of numbers, one list for each of a range of keys.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    start: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// The lists of `keys` keys; `pairs` are (key, item), in order of the items.
    pub fn new(keys: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut start = vec![0_u32; keys + 1];
        for (key, _) in pairs.clone() {
            start[key as usize + 1] += 1;
        }
        for key in 0..keys {
            start[key + 1] += start[key];
        }
        let mut next = start.clone();
        let mut items = vec![0; start[keys] as usize];
        for (key, item) in pairs {
            items[next[key as usize] as usize] = item;
            next[key as usize] += 1;
        }
        Self { start, items }
    }

    pub fn of(&self, key: usize) -> &[u32] {
        &self.items[self.range(key)]
    }

    /// The item at a place among all items.
    pub fn item(&self, place: usize) -> u32 {
        self.items[place]
    }

    /// Where the items of `key` are among all items.
    pub fn range(&self, key: usize) -> Range<usize> {
        self.start[key] as usize..self.start[key + 1] as usize
    }

    pub fn keys(&self) -> usize {
        self.start.len().saturating_sub(1)
    }

    pub fn total(&self) -> usize {
        self.items.len()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: Vec<GraphNode>,
    /// Ordered by source, so those of one source are contiguous.
    pub arcs: Vec<Arc>,
    /// The nodes of each frame that has any.
    pub frames: Vec<Range<usize>>,
    /// Arcs that leave a node.
    out_start: Vec<u32>,
    /// Slots that enter a node. The slot of target `k` of arc `a` is `2 a + k`.
    pub ins: Lists,
    /// The members of each conflict.
    pub conflicts: Lists,
    /// The conflicts of each node.
    pub node_conflicts: Lists,
    /// Cost of doing what is forbidden: larger than anything that can be gained nearby.
    pub penalty: f64,
}

/// Where the parts of a [`Graph`] come from.
pub struct Origin {
    /// The problem's node of each node.
    pub nodes: Vec<u32>,
    /// The problem's link of each arc, or the number of links plus that of the division.
    pub arcs: Vec<u32>,
}

impl Graph {
    /// Only candidates that can be part of an optimum are kept.
    ///
    /// # Errors
    /// [`TrackError::Infeasible`] if the fixed variables contradict each other at one node.
    pub fn of_problem(problem: &Problem) -> Result<(Self, Origin), TrackError> {
        let fixings = Fixings::propagate(problem)?;
        let largest = problem.nodes.iter().flat_map(|node| [node.cost, node.appearance, node.disappearance]);
        let largest = largest.chain(problem.links.iter().map(|link| link.cost));
        let largest = largest.chain(problem.divisions.iter().map(|division| division.cost));
        let penalty = 1000.0 * (1.0 + largest.fold(0.0, |most: f64, cost| most.max(cost.abs())));

        let mut order: Vec<u32> =
            (0..problem.nodes.len() as u32).filter(|&node| fixings.node(node) != Some(false)).collect();
        order.sort_by_key(|&node| problem.nodes[node as usize].frame);
        let mut place = vec![NONE; problem.nodes.len()];
        for (index, &node) in (0..).zip(&order) {
            place[node as usize] = index;
        }
        let nodes: Vec<GraphNode> = order
            .iter()
            .map(|&index| {
                let node = &problem.nodes[index as usize];
                GraphNode {
                    cost: node.cost,
                    appearance: if fixings.may_appear(index) { node.appearance } else { penalty },
                    disappearance: if fixings.may_disappear(index) { node.disappearance } else { penalty },
                    off: if fixings.node(index) == Some(true) { penalty } else { 0.0 },
                }
            })
            .collect();

        let links = problem.links.iter().map(|link| (link.source, [link.target, NONE], link.cost));
        let divisions = problem.divisions.iter().map(|division| (division.source, division.targets, division.cost));
        let mut arcs: Vec<(Arc, u32)> = (0_u32..)
            .zip(links.chain(divisions))
            .filter(|(origin, _)| fixings.arc(*origin) != Some(false))
            .map(|(origin, (source, targets, cost))| {
                let targets = targets.map(|target| if target == NONE { NONE } else { place[target as usize] });
                (Arc { source: place[source as usize], targets, cost }, origin)
            })
            .filter(|(arc, _)| {
                let apart = nodes[arc.source as usize].disappearance
                    + arc.targets().iter().map(|&target| nodes[target as usize].appearance).sum::<f64>();
                arc.cost < apart
            })
            .collect();
        arcs.sort_by_key(|(arc, origin)| (arc.source, *origin));

        let kept = |members: &Vec<u32>| -> Vec<u32> {
            let mut kept: Vec<u32> =
                members.iter().map(|&node| place[node as usize]).filter(|&node| node != NONE).collect();
            kept.sort_unstable();
            kept
        };
        let mut conflicts: Vec<Vec<u32>> =
            problem.conflicts.iter().map(kept).filter(|members| members.len() > 1).collect();
        conflicts.sort();
        conflicts.dedup();
        let frame_of: Vec<u32> = order.iter().map(|&node| problem.nodes[node as usize].frame).collect();
        let (arcs, arc_origin) = arcs.into_iter().unzip();
        let graph = Self::new(nodes, arcs, &conflicts, &frame_of, penalty);
        Ok((graph, Origin { nodes: order, arcs: arc_origin }))
    }

    /// `arcs` are ordered by source, `frame_of` the nodes does not decrease, and `conflicts` have ordered members.
    pub fn new(nodes: Vec<GraphNode>, arcs: Vec<Arc>, conflicts: &[Vec<u32>], frame_of: &[u32], penalty: f64) -> Self {
        let count = nodes.len();
        let mut frames: Vec<Range<usize>> = Vec::new();
        for node in 0..count {
            match frames.last_mut() {
                Some(range) if frame_of[range.start] == frame_of[node] => range.end = node + 1,
                _ => frames.push(node..node + 1),
            }
        }
        let mut out_start = vec![0_u32; count + 1];
        for arc in &arcs {
            out_start[arc.source as usize + 1] += 1;
        }
        for node in 0..count {
            out_start[node + 1] += out_start[node];
        }
        let slots = (0_u32..)
            .zip(&arcs)
            .flat_map(|(arc, at)| (0_u32..).zip(at.targets().iter()).map(move |(k, &target)| (target, 2 * arc + k)));
        let ins = Lists::new(count, slots);
        let members =
            (0_u32..).zip(conflicts).flat_map(|(conflict, members)| members.iter().map(move |&m| (conflict, m)));
        let node_conflicts = Lists::new(count, members.clone().map(|(conflict, member)| (member, conflict)));
        let conflicts = Lists::new(conflicts.len(), members);
        Self { nodes, arcs, frames, out_start, ins, conflicts, node_conflicts, penalty }
    }

    pub fn outs(&self, node: usize) -> Range<usize> {
        self.out_start[node] as usize..self.out_start[node + 1] as usize
    }
}

/// A consistent choice in a graph: for each node the arcs through which it is entered and left.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub on: Vec<bool>,
    /// The arc that enters each node, or [`NONE`].
    pub entered: Vec<u32>,
    /// The arc that leaves each node, or [`NONE`].
    pub left: Vec<u32>,
}

impl Choice {
    pub fn empty(graph: &Graph) -> Self {
        let count = graph.nodes.len();
        Self { on: vec![false; count], entered: vec![NONE; count], left: vec![NONE; count] }
    }

    /// Chooses an arc between nodes that are neither left nor entered yet, and its nodes.
    pub fn take(&mut self, graph: &Graph, arc: u32) {
        let Arc { source, .. } = graph.arcs[arc as usize];
        self.on[source as usize] = true;
        self.left[source as usize] = arc;
        for &target in graph.arcs[arc as usize].targets() {
            self.on[target as usize] = true;
            self.entered[target as usize] = arc;
        }
    }

    pub fn arcs(&self) -> impl Iterator<Item = u32> {
        self.left.iter().copied().filter(|&arc| arc != NONE)
    }

    /// Sum of the costs, with penalties for what is forbidden.
    pub fn cost(&self, graph: &Graph) -> f64 {
        let nodes = graph.nodes.iter().enumerate().map(|(index, node)| {
            if !self.on[index] {
                return node.off;
            }
            let begin = if self.entered[index] == NONE { node.appearance } else { 0.0 };
            let end = if self.left[index] == NONE { node.disappearance } else { 0.0 };
            node.cost + begin + end
        });
        nodes.sum::<f64>() + self.arcs().map(|arc| graph.arcs[arc as usize].cost).sum::<f64>()
    }

    /// Whether nothing forbidden is chosen and nothing required is left out.
    pub fn is_allowed(&self, graph: &Graph) -> bool {
        graph.nodes.iter().enumerate().all(|(index, node)| {
            if !self.on[index] {
                return node.off < graph.penalty;
            }
            (self.entered[index] != NONE || node.appearance < graph.penalty)
                && (self.left[index] != NONE || node.disappearance < graph.penalty)
        })
    }
}
