//! Detection, linking and tracking accuracy: what it takes to turn the result's graph into the reference's.
//!
//! Matula et al., "Cell Tracking Accuracy Measurement Based on Comparison of Acyclic Oriented Graphs", PLOS ONE 2015, with
//! the weights of the Cell Tracking Challenge.

use serde::{Deserialize, Serialize};

use crate::graph::Comparison;

const SPLIT: f64 = 5.0;
const FALSE_NEGATIVE: f64 = 10.0;
const FALSE_POSITIVE: f64 = 1.0;
const EDGE_DELETED: f64 = 1.0;
const EDGE_ADDED: f64 = 1.5;
const EDGE_CHANGED: f64 = 1.0;

/// Operations that turn the result's graph into the reference's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphOperations {
    /// Cells of the reference.
    pub reference_cells: usize,
    /// Links of the reference.
    pub reference_links: usize,
    /// Cells of the result.
    pub result_cells: usize,
    /// Links of the result.
    pub result_links: usize,
    /// TP: cells of the reference that have one of the result.
    pub matched: usize,
    /// FN: cells of the reference without one of the result.
    pub missed: usize,
    /// FP: cells of the result without one of the reference.
    pub spurious: usize,
    /// VS: cells of the result that stand for several of the reference.
    pub merged: usize,
    /// NS: how often they have to be split.
    pub splits: usize,
    /// ED: links of the result between matched cells that the reference does not have.
    pub links_deleted: usize,
    /// EA: links of the reference that the result does not have.
    pub links_added: usize,
    /// EC: links that are within a track in one and from parent to daughter track in the other.
    pub links_changed: usize,
    /// Links that both have, those that change included.
    pub links_matched: usize,
}

impl GraphOperations {
    pub(crate) fn count(comparison: &Comparison) -> Self {
        let Comparison { reference, result, matches } = comparison;
        let matched = matches.of_reference.iter().filter(|&&cell| cell != crate::graph::NONE).count();
        let merged = matches.counts.iter().filter(|&&count| count > 1).count();
        let single = matches.counts.iter().filter(|&&count| count == 1).count();
        let mut operations = Self {
            reference_cells: reference.len(),
            reference_links: reference.links(),
            result_cells: result.len(),
            result_links: result.links(),
            matched,
            missed: reference.len() - matched,
            spurious: result.len() - merged - single,
            merged,
            splits: matched - single - merged,
            ..Self::default()
        };
        for target in 0..result.len() {
            let Some(source) = result.parent(target) else { continue };
            let (Some(from), Some(to)) = (matches.reference_of(source), matches.reference_of(target)) else { continue };
            if reference.parent(to) == Some(from) {
                operations.links_matched += 1;
                operations.links_changed += usize::from(reference.joins_tracks(to) != result.joins_tracks(target));
            } else {
                operations.links_deleted += 1;
            }
        }
        operations.links_added = operations.reference_links - operations.links_matched;
        operations
    }

    fn detection_cost(&self) -> f64 {
        SPLIT * self.splits as f64 + FALSE_NEGATIVE * self.missed as f64 + FALSE_POSITIVE * self.spurious as f64
    }

    fn linking_cost(&self) -> f64 {
        EDGE_DELETED * self.links_deleted as f64
            + EDGE_ADDED * self.links_added as f64
            + EDGE_CHANGED * self.links_changed as f64
    }

    /// AOGM: the weighted number of operations.
    pub fn cost(&self) -> f64 {
        self.detection_cost() + self.linking_cost()
    }

    /// AOGM of an empty result.
    pub fn cost_of_nothing(&self) -> f64 {
        FALSE_NEGATIVE * self.reference_cells as f64 + EDGE_ADDED * self.reference_links as f64
    }

    /// DET; `None` without cells in the reference.
    pub fn det(&self) -> Option<f64> {
        normalised(self.detection_cost(), FALSE_NEGATIVE * self.reference_cells as f64)
    }

    /// LNK; `None` without links in the reference.
    pub fn lnk(&self) -> Option<f64> {
        normalised(self.linking_cost(), EDGE_ADDED * self.reference_links as f64)
    }

    /// TRA; `None` without cells in the reference.
    pub fn tra(&self) -> Option<f64> {
        normalised(self.cost(), self.cost_of_nothing())
    }
}

fn normalised(cost: f64, worst: f64) -> Option<f64> {
    (worst > 0.0).then(|| 1.0 - cost.min(worst) / worst)
}
