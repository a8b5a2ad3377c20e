//! Scores of what a biologist counts: complete tracks, track fractions, divisions, cell cycles.
//!
//! Ulman et al., "An objective comparison of cell-tracking algorithms", Nature Methods 2017.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::{Comparison, Graph, NONE, some};

/// The tolerances, in frames, for which divisions are scored: 0 to one less than this.
pub const TOLERANCES: usize = 4;

/// Biological scores of the Cell Tracking Challenge; `None` where the ground truth has nothing to score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BiologicalScores {
    /// CT: tracks that agree from begin to end, as an F1.
    pub ct: Option<f64>,
    /// TF: the longest part of a track of the reference that one track of the result follows, averaged over the tracks
    /// that are found at all.
    pub tf: f64,
    /// BC(i): F1 of divisions that agree within i frames, for i = 0, 1, 2, 3.
    pub bc: [Option<f64>; TOLERANCES],
    /// CCA: agreement of the distributions of cell cycle lengths.
    pub cca: Option<f64>,
    /// BIO(i): the mean of those of CT, TF, BC(i) and CCA that there are.
    pub bio: [Option<f64>; TOLERANCES],
}

impl BiologicalScores {
    pub(crate) fn compute(comparison: &Comparison) -> Self {
        let assigned = assigned_tracks(comparison);
        let (ct, tf) = (complete_tracks(comparison, &assigned), track_fractions(comparison, &assigned));
        let bc = std::array::from_fn(|tolerance| branching_correctness(comparison, tolerance as u32));
        let cca = cell_cycle_accuracy(&comparison.reference, &comparison.result);
        let bio = bc.map(|bc| {
            let known: Vec<f64> = [ct, Some(tf), bc, cca].into_iter().flatten().collect();
            (!comparison.reference.table.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        });
        Self { ct, tf, bc, cca, bio }
    }
}

/// For each cell of the reference the track of the result that has this cell, and only this one, there.
fn assigned_tracks(comparison: &Comparison) -> Vec<Option<u32>> {
    let Comparison { reference, result, matches } = comparison;
    (0..reference.len()).map(|cell| Some(result.tracks[matches.only_result_of(cell)?])).collect()
}

fn complete_tracks(comparison: &Comparison, assigned: &[Option<u32>]) -> Option<f64> {
    let Comparison { reference, result, .. } = comparison;
    let is_complete = |&track: &usize| {
        let cells = reference.track_cells(track);
        let Some(other) = cells.first().and_then(|&cell| assigned[cell as usize]) else { return false };
        let (own, other_row) = (reference.table[track], result.table[other as usize]);
        own.begin == other_row.begin
            && own.end == other_row.end
            && cells.iter().all(|&cell| assigned[cell as usize] == Some(other))
    };
    let complete = (0..reference.table.len()).filter(is_complete).count();
    let tracks = reference.table.len() + result.table.len();
    (tracks > 0).then(|| (2 * complete) as f64 / tracks as f64)
}

/// As the software of the challenge does it: once a track of the result follows a whole track of the reference, it does
/// not count for others that come after it in the order of labels. (The publication does not say so.)
fn track_fractions(comparison: &Comparison, assigned: &[Option<u32>]) -> f64 {
    let Comparison { reference, result, .. } = comparison;
    let mut by_result: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); result.table.len()];
    for (track, row) in reference.table.iter().enumerate() {
        let length = f64::from(row.end - row.begin + 1);
        let (mut run, mut last) = (0_u32, (NONE, NONE));
        for &cell in reference.track_cells(track) {
            let Some(other) = assigned[cell as usize] else { continue };
            let frame = reference.frames[cell as usize];
            // A frame without match ends a run.
            run = if last.0 == other && last.1 + 1 == frame { run + 1 } else { 1 };
            last = (other, frame);
            let longest = by_result[other as usize].entry(track).or_insert(0.0);
            *longest = longest.max(f64::from(run) / length);
        }
    }
    let mut best = vec![0.0_f64; reference.table.len()];
    for fractions in &by_result {
        for (&track, &fraction) in fractions {
            if best[track] == 1.0 {
                continue;
            }
            best[track] = best[track].max(fraction);
            if fraction == 1.0 {
                break;
            }
        }
    }
    let found: Vec<f64> = best.into_iter().filter(|&fraction| fraction > 0.0).collect();
    if found.is_empty() { 0.0 } else { found.iter().sum::<f64>() / found.len() as f64 }
}

/// Tracks that end with a division.
fn dividing(graph: &Graph) -> Vec<usize> {
    let daughters = graph.daughters();
    (0..graph.table.len()).filter(|&track| daughters.of(track).len() > 1).collect()
}

fn branching_correctness(comparison: &Comparison, tolerance: u32) -> Option<f64> {
    let Comparison { reference, result, .. } = comparison;
    let (truth, found) = (dividing(reference), dividing(result));
    if truth.is_empty() {
        return None;
    }
    let (daughters, found_daughters) = (reference.daughters(), result.daughters());
    let mut by_end: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &track in &truth {
        by_end.entry(reference.table[track].end).or_default().push(track);
    }
    let mut matches = 0_usize;
    for &track in &found {
        let end = result.table[track].end;
        for &mother in
            by_end.range(end.saturating_sub(tolerance)..=end.saturating_add(tolerance)).flat_map(|(_, list)| list)
        {
            let same = divisions_agree(
                comparison,
                (mother, daughters.of(mother)),
                (track, found_daughters.of(track)),
                tolerance,
            );
            matches += usize::from(same);
        }
    }
    let (precision, recall) = (matches as f64 / found.len().max(1) as f64, matches as f64 / truth.len() as f64);
    Some(2.0 * (precision * recall) / (precision + recall).max(1e-4))
}

/// Whether a division of the result is one of the reference: both mothers are matched in the last frame of both, and every
/// daughter is where the later of both begins, and is in time.
fn divisions_agree(
    comparison: &Comparison,
    (mother, daughters): (usize, &[u32]),
    (found_mother, found_daughters): (usize, &[u32]),
    tolerance: u32,
) -> bool {
    let Comparison { reference, result, matches } = comparison;
    let same_at = |track: usize, other: usize, frame: u32| {
        let cell = reference.cell_at(track, frame).and_then(|cell| matches.only_result_of(cell));
        cell.is_some_and(|cell| result.tracks[cell] as usize == other)
    };
    let end = reference.table[mother].end.min(result.table[found_mother].end);
    if daughters.len() != found_daughters.len() || !same_at(mother, found_mother, end) {
        return false;
    }
    let mut matched = Vec::new();
    for &daughter in daughters {
        let begin = reference.table[daughter as usize].begin;
        let partner = found_daughters.iter().find(|&&other| {
            let other_begin = result.table[other as usize].begin;
            begin.abs_diff(other_begin) <= tolerance
                && same_at(daughter as usize, other as usize, begin.max(other_begin))
        });
        if let Some(partner) = partner
            && !matched.contains(partner)
        {
            matched.push(*partner);
        }
    }
    matched.len() == daughters.len()
}

/// Lengths, less one frame, of the tracks that begin and end with a division.
fn cycles(graph: &Graph) -> Vec<u32> {
    let daughters = graph.daughters();
    let divides = |track: usize| daughters.of(track).len() > 1;
    let whole =
        (0..graph.table.len()).filter(|&track| divides(track) && some(graph.table[track].parent).is_some_and(divides));
    let mut lengths: Vec<u32> = whole.map(|track| graph.table[track].end - graph.table[track].begin).collect();
    lengths.sort_unstable();
    lengths
}

/// 1 − the Kolmogorov–Smirnov distance of the cell cycle lengths.
fn cell_cycle_accuracy(reference: &Graph, result: &Graph) -> Option<f64> {
    let (truth, found) = (cycles(reference), cycles(result));
    if truth.is_empty() {
        return None;
    }
    if found.is_empty() {
        return Some(0.0);
    }
    let share =
        |lengths: &[u32], length: u32| lengths.partition_point(|&other| other <= length) as f64 / lengths.len() as f64;
    let distances = truth.iter().chain(&found).map(|&length| (share(&truth, length) - share(&found, length)).abs());
    Some(1.0 - distances.fold(0.0, f64::max))
}
