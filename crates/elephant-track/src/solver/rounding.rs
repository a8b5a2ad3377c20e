//! A consistent choice from reduced costs: first the arcs that the dual solution leaves free, then those that help.

use super::graph::{Arc, Choice, Graph, NONE};

/// Arcs with smaller reduced costs are taken in any case, since what makes them worthwhile may come later.
const NEARLY_FREE: f64 = 0.1;

/// Takes arcs in the order of their reduced costs, as far as they are consistent. The result is not very good, but near a good
/// one in most places.
pub fn round(graph: &Graph, reduced: &[f64]) -> Choice {
    let mut order: Vec<u32> = (0..graph.arcs.len() as u32).collect();
    order.sort_unstable_by(|&one, &other| {
        reduced[one as usize].total_cmp(&reduced[other as usize]).then(one.cmp(&other))
    });
    let mut rounding = Rounding { graph, choice: Choice::empty(graph), blocked: vec![false; graph.nodes.len()] };
    for arc in order {
        if rounding.is_possible(arc) && (reduced[arc as usize] < NEARLY_FREE || rounding.change(arc) < 0.0) {
            rounding.choice.take(graph, arc);
            let Arc { source, .. } = graph.arcs[arc as usize];
            rounding.block(source);
            graph.arcs[arc as usize].targets().iter().for_each(|&target| rounding.block(target));
        }
    }
    for node in 0..graph.nodes.len() as u32 {
        let at = &graph.nodes[node as usize];
        let is_free = !rounding.choice.on[node as usize] && !rounding.blocked[node as usize];
        if is_free && at.cost + at.appearance + at.disappearance < at.off {
            rounding.choice.on[node as usize] = true;
            rounding.block(node);
        }
    }
    rounding.choice
}

struct Rounding<'a> {
    graph: &'a Graph,
    choice: Choice,
    /// Nodes in conflict with one that is chosen.
    blocked: Vec<bool>,
}

impl Rounding<'_> {
    fn is_possible(&self, arc: u32) -> bool {
        let arc = &self.graph.arcs[arc as usize];
        let together = arc.targets[1] != NONE && self.are_in_conflict(arc.targets);
        !together
            && self.choice.left[arc.source as usize] == NONE
            && !self.blocked[arc.source as usize]
            && arc
                .targets()
                .iter()
                .all(|&target| self.choice.entered[target as usize] == NONE && !self.blocked[target as usize])
    }

    /// By how much taking an arc changes the cost.
    fn change(&self, arc: u32) -> f64 {
        let arc = &self.graph.arcs[arc as usize];
        let source = &self.graph.nodes[arc.source as usize];
        let mut change = arc.cost
            + if self.choice.on[arc.source as usize] {
                -source.disappearance
            } else {
                source.cost + source.appearance - source.off
            };
        for &target in arc.targets() {
            let node = &self.graph.nodes[target as usize];
            change += if self.choice.on[target as usize] {
                -node.appearance
            } else {
                node.cost + node.disappearance - node.off
            };
        }
        change
    }

    fn block(&mut self, node: u32) {
        for &conflict in self.graph.node_conflicts.of(node as usize) {
            for &member in self.graph.conflicts.of(conflict as usize) {
                self.blocked[member as usize] |= member != node;
            }
        }
    }

    fn are_in_conflict(&self, [one, other]: [u32; 2]) -> bool {
        let conflicts = self.graph.node_conflicts.of(one as usize);
        conflicts.iter().any(|&conflict| self.graph.conflicts.of(conflict as usize).contains(&other))
    }
}
