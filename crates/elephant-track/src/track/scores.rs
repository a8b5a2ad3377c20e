//! How sure the links of a solution are.

use super::weights::Weights;
use crate::{Problem, Solution};

/// For each chosen link, and for both links of each chosen division: source, target, and how much more the best alternative costs, as
/// far as it can be seen at the two ends. In the order of the problem's links and divisions.
pub fn margins(problem: &Problem, solution: &Solution) -> Vec<(u32, u32, f64)> {
    let count = problem.nodes.len();
    // The cheapest way into and out of each node that is not chosen.
    let mut ways_in: Vec<f64> = problem.nodes.iter().map(|node| node.appearance).collect();
    let mut ways_out: Vec<f64> = problem.nodes.iter().map(|node| node.disappearance).collect();
    let mut offer = |source: u32, targets: &[u32], cost: f64| {
        let out = &mut ways_out[source as usize];
        *out = out.min(cost);
        for &target in targets {
            let way = &mut ways_in[target as usize];
            *way = way.min(cost);
        }
    };
    debug_assert_eq!(count, solution.nodes.len());
    for (link, _) in problem.links.iter().zip(&solution.links).filter(|(_, chosen)| !**chosen) {
        offer(link.source, &[link.target], link.cost);
    }
    for (division, _) in problem.divisions.iter().zip(&solution.divisions).filter(|(_, chosen)| !**chosen) {
        offer(division.source, &[], division.cost);
    }
    let mut found = Vec::new();
    for (link, _) in problem.links.iter().zip(&solution.links).filter(|(_, chosen)| **chosen) {
        let margin = ways_out[link.source as usize] + ways_in[link.target as usize] - link.cost;
        found.push((link.source, link.target, margin));
    }
    for (division, _) in problem.divisions.iter().zip(&solution.divisions).filter(|(_, chosen)| **chosen) {
        let [a, b] = division.targets.map(|target| ways_in[target as usize]);
        let margin = ways_out[division.source as usize] + a + b - division.cost;
        // Both daughters share the doubt.
        found.extend(division.targets.map(|target| (division.source, target, 0.5 * margin)));
    }
    found
}

/// The calibrated probability that a link with this margin is correct.
pub fn score(weights: &Weights, margin: f64) -> f64 {
    1.0 / (1.0 + (-(weights.score[0] * margin + weights.score[1])).exp())
}
