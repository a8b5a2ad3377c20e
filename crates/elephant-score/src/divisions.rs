//! Divisions of the result that are divisions of the reference, to within some frames.

use crate::{
    assignment::{Candidate, assign_most},
    graph::{Comparison, Graph, some},
};

/// The divisions of both, and which are the same.
pub(crate) struct Divisions {
    /// The dividing cells of the reference.
    pub reference: Vec<usize>,
    /// The dividing cells of the result.
    pub result: Vec<usize>,
    /// For each division of the reference the same of the result, as an index into `result`.
    pub matched: Vec<Option<u32>>,
}

fn dividing(graph: &Graph) -> Vec<usize> {
    (0..graph.len()).filter(|&cell| graph.children(cell).len() > 1).collect()
}

impl Divisions {
    /// Matches divisions one to one: as many as possible, and of these assignments one with the least shifts.
    ///
    /// A division of the result at most `tolerance` frames away is the same as one of the reference if, within these
    /// frames, its mother is on the reference's mother track and its daughters' branches are each on another one of the
    /// daughters' tracks. With tolerance 0, these are the mother cell and the daughter cells themselves.
    pub fn match_within(comparison: &Comparison, tolerance: u32) -> Self {
        let (truth, found) = (dividing(&comparison.reference), dividing(&comparison.result));
        let mut candidates = Vec::new();
        for (row, &mother) in (0_u32..).zip(&truth) {
            let frame = comparison.reference.frames[mother];
            let frame_of = |cell: &usize| comparison.result.frames[*cell];
            let first = found.partition_point(|cell| frame_of(cell) < frame.saturating_sub(tolerance));
            let last = found.partition_point(|cell| frame_of(cell) <= frame.saturating_add(tolerance));
            for (column, cell) in (first..).zip(&found[first..last]) {
                if same_division(comparison, mother, *cell, tolerance) {
                    let cost = f64::from(frame.abs_diff(frame_of(cell)));
                    candidates.push(Candidate { row, column: column as u32, cost });
                }
            }
        }
        let matched = assign_most(truth.len(), found.len(), &candidates);
        Self { reference: truth, result: found, matched }
    }

    /// How many are the same.
    pub fn correct(&self) -> usize {
        self.matched.iter().flatten().count()
    }

    /// The divisions of the reference that the result does not have.
    pub fn missed(&self) -> impl Iterator<Item = usize> {
        self.reference.iter().zip(&self.matched).filter(|(_, found)| found.is_none()).map(|(&cell, _)| cell)
    }

    /// The divisions of the result that the reference does not have.
    pub fn spurious(&self) -> Vec<usize> {
        let mut is_same = vec![false; self.result.len()];
        for &column in self.matched.iter().flatten() {
            is_same[column as usize] = true;
        }
        self.result.iter().zip(is_same).filter(|(_, same)| !same).map(|(&cell, _)| cell).collect()
    }
}

fn same_division(comparison: &Comparison, mother: usize, found: usize, tolerance: u32) -> bool {
    let Comparison { reference, result, matches } = comparison;
    let daughters = reference.children(mother);
    let branches = result.children(found);
    // Which daughter, by number, a branch arrives at.
    let mut candidates = Vec::new();
    if tolerance == 0 {
        if matches.reference_of(found) != Some(mother) {
            return false;
        }
        for (row, &branch) in (0_u32..).zip(branches) {
            let cell = matches.of_result[branch as usize];
            let column = daughters.iter().position(|&daughter| daughter == cell);
            candidates.extend(column.map(|column| Candidate { row, column: column as u32, cost: 0.0 }));
        }
    } else {
        let frame = reference.frames[mother];
        let track = reference.tracks[mother];
        let earliest = frame.saturating_sub(tolerance);
        let mut backwards = std::iter::successors(Some(found), |&cell| result.parent(cell))
            .take_while(|&cell| result.frames[cell] >= earliest);
        if !backwards.any(|cell| matches.reference_of(cell).is_some_and(|cell| reference.tracks[cell] == track)) {
            return false;
        }
        let latest = frame.saturating_add(1).saturating_add(tolerance);
        for (row, &branch) in (0_u32..).zip(branches) {
            let forwards = std::iter::successors(Some(branch), |&cell| match result.children(cell as usize) {
                [only] => Some(*only),
                _ => None,
            });
            let within = forwards.take_while(|&cell| result.frames[cell as usize] <= latest);
            let mut columns: Vec<u32> = within
                .filter_map(|cell| some(matches.of_result[cell as usize]))
                .filter_map(|cell| {
                    let track = reference.tracks[cell];
                    daughters.iter().position(|&daughter| reference.tracks[daughter as usize] == track)
                })
                .map(|column| column as u32)
                .collect();
            columns.sort_unstable();
            columns.dedup();
            candidates.extend(columns.into_iter().map(|column| Candidate { row, column, cost: 0.0 }));
        }
    }
    let assigned = assign_most(branches.len(), daughters.len(), &candidates);
    assigned.iter().flatten().count() == daughters.len()
}
