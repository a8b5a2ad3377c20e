//! Spots in the frames that links skip.

use elephant_types::{Lineage, Link, Spot, SpotId};

use crate::TrackError;

/// A lineage without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledGaps {
    /// The given spots, and after them the interpolated ones.
    pub spots: Vec<Spot>,
    /// The lineage over all of them; its links lead from one timepoint to the next.
    pub lineage: Lineage,
    /// How many of the spots were given.
    pub given: usize,
}

/// Interpolates a spot for each timepoint that a link skips: centre and covariance linearly, the quality 0.
/// Daughters that are first seen later are interpolated from the mother on.
///
/// # Errors
/// [`TrackError::Lineage`] if there would be more spots than a lineage can have, [`TrackError::UnequalLengths`] if the lineage is of
/// other spots.
pub fn fill_gaps(spots: &[Spot], lineage: &Lineage) -> Result<FilledGaps, TrackError> {
    if lineage.len() != spots.len() {
        return Err(TrackError::UnequalLengths {
            what: "spots of the lineage",
            length: lineage.len(),
            spots: spots.len(),
        });
    }
    let skipped = |link: &Link| u64::from(lineage.timepoint(link.target) - lineage.timepoint(link.source)) - 1;
    let total = spots.len() as u64 + lineage.links().map(|link| skipped(&link)).sum::<u64>();
    if total > u64::from(Lineage::MOST_SPOTS) {
        return Err(elephant_types::LineageError::TooManySpots { most: Lineage::MOST_SPOTS }.into());
    }
    let mut all = spots.to_vec();
    let mut links = Vec::new();
    for link in lineage.links() {
        let (from, to) = (&spots[link.source.index()], &spots[link.target.index()]);
        let (begin, end) = (lineage.timepoint(link.source), lineage.timepoint(link.target));
        let mut last = link.source;
        for time in begin + 1..end {
            let part = f64::from(time - begin) / f64::from(end - begin);
            let mix = |a: f64, b: f64| a * (1.0 - part) + b * part;
            all.push(Spot {
                t: time as usize,
                center_um: std::array::from_fn(|axis| mix(from.center_um[axis], to.center_um[axis])),
                covariance_um2: std::array::from_fn(|row| {
                    std::array::from_fn(|column| mix(from.covariance_um2[row][column], to.covariance_um2[row][column]))
                }),
                quality: 0.0,
            });
            let next = SpotId(all.len() as u32 - 1);
            links.push(Link { source: last, target: next });
            last = next;
        }
        links.push(Link { source: last, target: link.target });
    }
    let timepoints = all.iter().map(|spot| spot.t as u32).collect();
    Ok(FilledGaps { lineage: Lineage::new(timepoints, links)?, spots: all, given: spots.len() })
}
