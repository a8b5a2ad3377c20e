//! What came of tracking.

use elephant_track::{Status, Tracking};
use serde::Serialize;

/// What came of tracking a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrackSummary {
    /// The number of frames.
    pub frames: u64,
    /// The number of cells in tracks.
    pub cells: usize,
    /// The number of detections that are not taken for cells; they stay in the project, without links.
    pub left_out: usize,
    /// The number of links.
    pub links: usize,
    /// The number of tracks, from birth or division to death or division.
    pub tracks: usize,
    /// The number of divisions.
    pub divisions: usize,
    /// Whether the links are the best ones by the costs, proven.
    pub is_optimal: bool,
    /// Sum of all costs, and a bound below which no solution is; null for `nearest`.
    pub objective: Option<f64>,
    /// See `objective`.
    pub bound: Option<f64>,
}

impl TrackSummary {
    pub(super) fn new(frames: u64, tracking: &Tracking) -> Self {
        let lineage = &tracking.lineage;
        let cells = tracking.selected.iter().filter(|&&is_selected| is_selected).count();
        let starts = |spot: &elephant_types::SpotId| {
            tracking.selected[spot.index()] && lineage.parent(*spot).is_none_or(|parent| lineage.is_division(parent))
        };
        Self {
            frames,
            cells,
            left_out: tracking.selected.len() - cells,
            links: lineage.links().count(),
            tracks: lineage.spots().filter(starts).count(),
            divisions: lineage.divisions().count(),
            is_optimal: tracking.status == Status::Optimal,
            objective: Some(tracking.objective).filter(|value| value.is_finite()),
            bound: Some(tracking.bound).filter(|value| value.is_finite()),
        }
    }

    /// How good the links are, for people.
    pub fn certainty(&self) -> String {
        match (self.objective, self.bound) {
            _ if self.is_optimal => "These are the best links by the costs.".into(),
            (Some(objective), Some(bound)) if objective != 0.0 => {
                let percent = 100.0 * (objective - bound) / objective.abs();
                format!("The costs are within {percent:.2} % of the best possible ones.")
            }
            _ => "How far these links are from the best ones is not known.".into(),
        }
    }
}
