//! The report: all scores of one result.

use serde::{Deserialize, Serialize};

use crate::{
    aogm::GraphOperations,
    association::AssociationScores,
    biology::BiologicalScores,
    divisions::Divisions,
    frames::{self, FrameScore},
    graph::Comparison,
    mistakes::{self, Mistake},
    options::ScoreOptions,
};

/// Counts of right and wrong, and what follows from them; `None` where that is 0/0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// In both.
    pub true_positives: usize,
    /// Only in the result.
    pub false_positives: usize,
    /// Only in the reference.
    pub false_negatives: usize,
    /// Which part of the result is right.
    pub precision: Option<f64>,
    /// Which part of the reference is found.
    pub recall: Option<f64>,
    /// The harmonic mean of both.
    pub f1: Option<f64>,
}

impl Rates {
    /// Rates of so many in both, and in each.
    pub(crate) fn new(both: usize, result: usize, reference: usize) -> Self {
        let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            true_positives: both,
            false_positives: result - both,
            false_negatives: reference - both,
            precision: ratio(both, result),
            recall: ratio(both, reference),
            f1: ratio(2 * both, result + reference),
        }
    }

    /// Rates of cells of the reference that are matched and missed, and of cells of the result that stand for any, of which one may
    /// stand for several, and for none.
    pub(crate) fn of_cells(matched: usize, missed: usize, used: usize, spurious: usize) -> Self {
        let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            true_positives: matched,
            false_positives: spurious,
            false_negatives: missed,
            precision: ratio(used, used + spurious),
            recall: ratio(matched, matched + missed),
            f1: ratio(2 * matched, 2 * matched + missed + spurious),
        }
    }
}

/// Divisions that agree within some frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DivisionScore {
    /// The largest number of frames by which a division may be early or late.
    pub tolerance: u32,
    /// How many agree.
    #[serde(flatten)]
    pub rates: Rates,
}

/// Scores of the Cell Tracking Challenge; `None` where the reference has nothing to score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChallengeScores {
    /// DET: detection accuracy.
    pub det: Option<f64>,
    /// SEG: mean overlap (intersection over union) of the reference's masks with the result's that cover more than half
    /// of them; `None` for spots.
    pub seg: Option<f64>,
    /// TRA: tracking accuracy.
    pub tra: Option<f64>,
    /// LNK: linking accuracy.
    pub lnk: Option<f64>,
    /// The mean of SEG and DET.
    pub op_csb: Option<f64>,
    /// The mean of SEG and TRA.
    pub op_ctb: Option<f64>,
    /// AOGM: the weighted number of operations that correct the result.
    pub aogm: f64,
    /// AOGM of an empty result.
    pub aogm_of_nothing: f64,
}

/// All scores of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The number of frames.
    pub frames: usize,
    /// Cells: matched, spurious, and missed.
    pub cells: Rates,
    /// Links from a cell to the same cell or its daughter in a later frame.
    pub links: Rates,
    /// Divisions, for tolerances of 0, 1 and 2 frames, and the one asked for.
    pub divisions: Vec<DivisionScore>,
    /// Scores of the Cell Tracking Challenge.
    pub challenge: ChallengeScores,
    /// Its biological scores.
    pub biology: BiologicalScores,
    /// Association of tracks and lineages.
    pub association: AssociationScores,
    /// What the scores are made of.
    pub operations: GraphOperations,
    /// Cells of the result that were interpolated where a link skips frames.
    pub interpolated: usize,
    /// Scores of each frame.
    pub by_frame: Vec<FrameScore>,
    /// The single mistakes, sorted by frame.
    pub mistakes: Vec<Mistake>,
}

fn mean(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(0.5 * a? + 0.5 * b?)
}

impl Report {
    pub(crate) fn new(comparison: &Comparison, seg: Option<f64>, options: &ScoreOptions) -> Self {
        let operations = GraphOperations::count(comparison);
        let mut tolerances = vec![0, 1, 2];
        if !tolerances.contains(&options.division_tolerance) {
            tolerances.push(options.division_tolerance);
        }
        let mut mistakes = Vec::new();
        let divisions = tolerances.into_iter().map(|tolerance| {
            let divisions = Divisions::match_within(comparison, tolerance);
            if tolerance == options.division_tolerance {
                mistakes = mistakes::list(comparison, &divisions);
            }
            let rates = Rates::new(divisions.correct(), divisions.result.len(), divisions.reference.len());
            DivisionScore { tolerance, rates }
        });
        let divisions = divisions.collect();
        let (det, tra) = (operations.det(), operations.tra());
        let challenge = ChallengeScores {
            det,
            seg,
            tra,
            lnk: operations.lnk(),
            op_csb: mean(seg, det),
            op_ctb: mean(seg, tra),
            aogm: operations.cost(),
            aogm_of_nothing: operations.cost_of_nothing(),
        };
        Self {
            frames: comparison.reference.frame_count(),
            cells: Rates::of_cells(
                operations.matched,
                operations.missed,
                operations.result_cells - operations.spurious,
                operations.spurious,
            ),
            links: Rates::new(operations.links_matched, operations.result_links, operations.reference_links),
            divisions,
            challenge,
            biology: BiologicalScores::compute(comparison),
            association: AssociationScores::compute(comparison),
            operations,
            interpolated: comparison.result.ids.iter().filter(|&&id| id == crate::graph::NONE).count(),
            by_frame: frames::scores(comparison),
            mistakes,
        }
    }

    /// The score of divisions for a tolerance in frames, if it was computed.
    pub fn division(&self, tolerance: u32) -> Option<&Rates> {
        self.divisions.iter().find(|score| score.tolerance == tolerance).map(|score| &score.rates)
    }
}
