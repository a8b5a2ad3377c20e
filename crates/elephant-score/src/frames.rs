//! Scores of single frames.

use serde::{Deserialize, Serialize};

use crate::{graph::Comparison, report::Rates};

/// Scores of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameScore {
    /// The frame, from 0.
    pub frame: usize,
    /// Its cells: matched, spurious, and missed.
    pub cells: Rates,
    /// The links to its cells from those of earlier frames.
    pub links: Rates,
}

/// The scores of all frames.
pub(crate) fn scores(comparison: &Comparison) -> Vec<FrameScore> {
    let Comparison { reference, result, matches } = comparison;
    let of_frame = |frame: usize| {
        let (truth, found) = (reference.in_frame(frame), result.in_frame(frame));
        let matched = truth.clone().filter(|&cell| matches.of_reference[cell] != crate::graph::NONE).count();
        let used = found.clone().filter(|&cell| matches.counts[cell] > 0).count();
        let links_matched = found.clone().filter(|&cell| matches.has_link_of(reference, result, cell)).count();
        let links_found = found.clone().filter(|&cell| result.parent(cell).is_some()).count();
        let links_true = truth.clone().filter(|&cell| reference.parent(cell).is_some()).count();
        FrameScore {
            frame,
            cells: Rates::of_cells(matched, truth.len() - matched, used, found.len() - used),
            links: Rates::new(links_matched, links_found, links_true),
        }
    };
    (0..reference.frame_count()).map(of_frame).collect()
}
