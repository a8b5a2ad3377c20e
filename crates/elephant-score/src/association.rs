//! How well tracks, and lineages, of the result correspond to those of the reference: CHOTA, HOTA, IDF1, MOTA, MT, ML.
//!
//! Sources: Kaiser et al., "CHOTA: A Higher Order Accuracy Metric for Cell Tracking", 2024; Luiten et al., "HOTA", IJCV
//! 2020; Ristani et al., ECCV 2016 (IDF1); Bernardin and Stiefelhagen, EURASIP 2008 (MOTA). A cell's track continues over
//! a gap here: a track that is the only child of another is one track with it.

use serde::{Deserialize, Serialize};

use crate::{
    assignment::{Candidate, assign_cheapest},
    graph::{Comparison, Graph, NONE, grouped, some},
};

/// Scores of the association of cells with tracks and lineages; `None` where they are 0/0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssociationScores {
    /// The square root of `det_a` · `ass_a`.
    pub chota: Option<f64>,
    /// Matched cells, as a fraction of matched, missed and spurious ones.
    pub det_a: Option<f64>,
    /// Mean, over all matched cells, of how well the lineages through both correspond (ancestors and descendants).
    pub ass_a: Option<f64>,
    /// As `chota`, with tracks instead of lineages.
    pub hota: Option<f64>,
    /// F1 of cells under the best assignment of tracks to tracks.
    pub idf1: Option<f64>,
    /// Precision of it.
    pub idp: Option<f64>,
    /// Recall of it.
    pub idr: Option<f64>,
    /// 1 − (missed + spurious + identity switches + missing splits) / reference.
    pub mota: Option<f64>,
    /// How often the track at a track of the reference changes.
    pub identity_switches: usize,
    /// Fraction of the reference's tracks of which one track of the result has at least 80 %.
    pub mostly_tracked: Option<f64>,
    /// Fraction of the reference's tracks of which no track of the result has 20 %.
    pub mostly_lost: Option<f64>,
    /// Cells of the result per frame that stand for none or for several.
    pub false_alarms_per_frame: Option<f64>,
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Tracks joined where one is the only child of another.
struct Forest {
    /// For each track of the graph's table the joined one.
    of_tracks: Vec<u32>,
    parents: Vec<u32>,
    /// Where each joined track stands in `order`, in which every track is followed by its descendants.
    position: Vec<u32>,
    /// The end of its descendants in `order`.
    end: Vec<u32>,
    order: Vec<u32>,
}

impl Forest {
    fn new(graph: &Graph) -> Self {
        let daughters = graph.daughters();
        let mut of_tracks = vec![NONE; graph.table.len()];
        let mut parents = Vec::new();
        // A parent ends before its child begins.
        let mut by_begin: Vec<u32> = (0..graph.table.len() as u32).collect();
        by_begin.sort_by_key(|&track| graph.table[track as usize].begin);
        for track in by_begin {
            let parent = some(graph.table[track as usize].parent);
            of_tracks[track as usize] = match parent {
                Some(parent) if daughters.of(parent).len() == 1 => of_tracks[parent],
                _ => {
                    parents.push(parent.map_or(NONE, |parent| of_tracks[parent]));
                    parents.len() as u32 - 1
                }
            };
        }
        let count = parents.len();
        let (starts, children) = grouped(&parents, count);
        let (mut position, mut end, mut order) = (vec![0; count], vec![0; count], Vec::with_capacity(count));
        let mut stack: Vec<(u32, bool)> =
            (0..count as u32).rev().filter(|&track| parents[track as usize] == NONE).map(|root| (root, true)).collect();
        while let Some((track, entering)) = stack.pop() {
            if entering {
                position[track as usize] = order.len() as u32;
                order.push(track);
                stack.push((track, false));
                let range = starts[track as usize] as usize..starts[track as usize + 1] as usize;
                stack.extend(children[range].iter().rev().map(|&child| (child, true)));
            } else {
                end[track as usize] = order.len() as u32;
            }
        }
        Self { of_tracks, parents, position, end, order }
    }

    fn len(&self) -> usize {
        self.parents.len()
    }

    /// The track, its ancestors and its descendants.
    fn lineage(&self, track: usize) -> impl Iterator<Item = usize> {
        let ancestors = std::iter::successors(some(self.parents[track]), |&track| some(self.parents[track]));
        let descendants = &self.order[self.position[track] as usize..self.end[track] as usize];
        descendants.iter().map(|&track| track as usize).chain(ancestors)
    }
}

/// Frames in common of each track of the reference with each of the result; sparse.
struct Overlap {
    /// For each track of the reference, (track of the result, frames), sorted.
    rows: Vec<Vec<(u32, u32)>>,
    /// Frames of each track of the reference, and of those how many without match.
    reference_totals: Vec<u32>,
    /// Matched pairs and spurious cells of each track of the result.
    result_totals: Vec<u32>,
    matched: usize,
    missed: usize,
    spurious: usize,
}

impl Overlap {
    fn new(comparison: &Comparison, reference: &Forest, result: &Forest) -> Self {
        let mut overlap = Self {
            rows: vec![Vec::new(); reference.len()],
            reference_totals: vec![0; reference.len()],
            result_totals: vec![0; result.len()],
            matched: 0,
            missed: 0,
            spurious: 0,
        };
        for (cell, &track) in comparison.reference.tracks.iter().enumerate() {
            let row = reference.of_tracks[track as usize] as usize;
            overlap.reference_totals[row] += 1;
            if let Some(other) = some(comparison.matches.of_reference[cell]) {
                let column = result.of_tracks[comparison.result.tracks[other] as usize];
                overlap.rows[row].push((column, 1));
                overlap.result_totals[column as usize] += 1;
                overlap.matched += 1;
            } else {
                overlap.missed += 1;
            }
        }
        for (cell, &track) in comparison.result.tracks.iter().enumerate() {
            if comparison.matches.counts[cell] == 0 {
                overlap.result_totals[result.of_tracks[track as usize] as usize] += 1;
                overlap.spurious += 1;
            }
        }
        for row in &mut overlap.rows {
            row.sort_unstable();
            row.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                kept.1 += if same { later.1 } else { 0 };
                same
            });
        }
        overlap
    }

    /// Sum over matched cells of how well their tracks correspond.
    fn track_association(&self) -> f64 {
        let mut sum = 0.0;
        for (row, total) in self.rows.iter().zip(&self.reference_totals) {
            for &(column, frames) in row {
                let union = total + self.result_totals[column as usize] - frames;
                sum += f64::from(frames) * (f64::from(frames) / f64::from(union));
            }
        }
        sum
    }

    /// Sum over matched cells of how well the lineages through them correspond.
    fn lineage_association(&self, reference: &Forest, result: &Forest) -> f64 {
        let result_lineages: Vec<u64> = (0..result.len())
            .map(|track| result.lineage(track).map(|one| u64::from(self.result_totals[one])).sum())
            .collect();
        let mut sum = 0.0;
        let mut in_common = vec![0_u64; result.len()];
        let mut touched = Vec::new();
        for (track, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
            let mut reference_lineage = 0;
            for one in reference.lineage(track) {
                reference_lineage += u64::from(self.reference_totals[one]);
                for &(column, frames) in &self.rows[one] {
                    in_common[column as usize] += u64::from(frames);
                    touched.push(column as usize);
                }
            }
            for &(column, frames) in row {
                let both: u64 = result.lineage(column as usize).map(|one| in_common[one]).sum();
                let union = reference_lineage + result_lineages[column as usize] - both;
                sum += f64::from(frames) * (both as f64 / union as f64);
            }
            for column in touched.drain(..) {
                in_common[column] = 0;
            }
        }
        sum
    }

    /// Cells that agree under the best assignment of tracks to tracks.
    fn identities(&self) -> f64 {
        let candidates: Vec<Candidate> = (0_u32..)
            .zip(&self.rows)
            .flat_map(|(row, list)| {
                list.iter().map(move |&(column, frames)| Candidate { row, column, cost: -f64::from(frames) })
            })
            .collect();
        let columns = assign_cheapest(self.rows.len(), self.result_totals.len(), &candidates);
        let frames = candidates.iter().filter(|one| columns[one.row as usize] == Some(one.column));
        frames.map(|one| -one.cost).sum()
    }
}

impl AssociationScores {
    pub(crate) fn compute(comparison: &Comparison) -> Self {
        let (reference, result) = (Forest::new(&comparison.reference), Forest::new(&comparison.result));
        let overlap = Overlap::new(comparison, &reference, &result);
        let matched = overlap.matched as f64;
        let all = matched + (overlap.missed + overlap.spurious) as f64;
        let association = overlap.lineage_association(&reference, &result);
        let identities = overlap.identities();
        let reference_cells: f64 = overlap.reference_totals.iter().map(|&total| f64::from(total)).sum();
        let result_cells: f64 = overlap.result_totals.iter().map(|&total| f64::from(total)).sum();

        let counts = &comparison.matches.counts;
        let surplus: usize = counts.iter().map(|&count| count.saturating_sub(1) as usize).sum();
        let false_alarms = counts.iter().filter(|&&count| count != 1).count();
        let identity_switches = identity_switches(comparison, &reference, &result);
        let mistakes = overlap.missed + overlap.spurious + identity_switches + surplus;

        let (mut tracked, mut lost) = (0.0, 0.0);
        for (row, &total) in overlap.rows.iter().zip(&overlap.reference_totals) {
            let most = row.iter().map(|&(_, frames)| frames).max().unwrap_or(0);
            let share = f64::from(most) / f64::from(total);
            tracked += f64::from(u8::from(share >= 0.8));
            lost += f64::from(u8::from(share < 0.2));
        }
        let tracks = reference.len() as f64;
        Self {
            chota: ratio(association, all).map(f64::sqrt),
            det_a: ratio(matched, all),
            ass_a: ratio(association, matched),
            hota: ratio(overlap.track_association(), all).map(f64::sqrt),
            idf1: ratio(2.0 * identities, reference_cells + result_cells),
            idp: ratio(identities, result_cells),
            idr: ratio(identities, reference_cells),
            mota: ratio(mistakes as f64, reference_cells).map(|rate| 1.0 - rate),
            identity_switches,
            mostly_tracked: ratio(tracked, tracks),
            mostly_lost: ratio(lost, tracks),
            false_alarms_per_frame: ratio(false_alarms as f64, comparison.reference.frame_count() as f64),
        }
    }
}

/// How often the track at a track of the reference is another one than where it was last matched.
fn identity_switches(comparison: &Comparison, reference: &Forest, result: &Forest) -> usize {
    let mut last = vec![NONE; reference.len()];
    let mut switches = 0;
    for (cell, &track) in comparison.reference.tracks.iter().enumerate() {
        let Some(other) = some(comparison.matches.of_reference[cell]) else { continue };
        let now = result.of_tracks[comparison.result.tracks[other] as usize];
        let before = &mut last[reference.of_tracks[track as usize] as usize];
        switches += usize::from(*before != NONE && *before != now);
        *before = now;
    }
    switches
}
