//! What the ELEPHANT client does with the spots of a new prediction (docs/projects.md, "New predictions").

use elephant_types::Spot;
use serde::{Deserialize, Serialize};

use crate::{DetectionTag, ProjectSpot, SpotKey, TrackingTag, near::Grid};

/// Distance in micrometres below which a predicted spot is taken to be an existing one: the client's default.
pub const SUPPRESSION_UM: f64 = 3.0;

/// An axis-parallel box, (z, y, x) in micrometres.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxUm {
    /// Its lower corner, which belongs to it.
    pub min_um: [f64; 3],
    /// Its upper corner, which does not.
    pub max_um: [f64; 3],
}

impl BoxUm {
    /// Whether a point (z, y, x) is in it.
    pub fn contains(&self, point: [f64; 3]) -> bool {
        (0..3).all(|d| (self.min_um[d]..self.max_um[d]).contains(&point[d]))
    }
}

/// What a prediction does to the spots of its frame.
#[derive(Clone, Debug, PartialEq)]
pub enum PredictionChange {
    /// An existing spot has another tag.
    Tag {
        /// The spot.
        key: SpotKey,
        /// Its new tag.
        tag: DetectionTag,
    },
    /// An existing spot goes.
    Remove(SpotKey),
    /// The predicted spot with this index is a new one, without tags.
    Add(usize),
}

/// The changes that a prediction of a frame makes, by the rules of the ELEPHANT client:
///
/// 1. Tags inside the box (or of the whole frame) turn to what they are if nothing is found: `tp` to `fn`, `fp` to `tn`, `fb`
///    to `tb`. Spots that are unlabeled, and that nobody has approved for tracking, go.
/// 2. Each predicted spot, in its order, is compared with the nearest spot of the frame that is nearer than
///    `suppression_um`, spots that came from the same prediction included. That one's tag turns to what it is if something
///    is found: `fn` to `tp`, `tn` to `fp`, `tb` to `fb`. Without such a spot it becomes a new one, unlabeled.
///
/// `existing` are the spots of the frame, in the order of their numbers. A spot that would go and come back with the same
/// centre, covariance and quality stays, with its number. The result has one change for a spot at most.
pub fn merge_prediction(
    existing: &[ProjectSpot],
    predicted: &[Spot],
    inside: Option<&BoxUm>,
    suppression_um: f64,
) -> Vec<PredictionChange> {
    use DetectionTag::{FalseBorder, FalseNegative, FalsePositive, TrueBorder, TrueNegative, TruePositive, Unlabeled};
    let is_inside = |spot: &ProjectSpot| inside.is_none_or(|inside| inside.contains(spot.spot.center_um));
    let goes =
        |spot: &ProjectSpot| is_inside(spot) && spot.detection == Unlabeled && spot.tracking != TrackingTag::Approved;
    // A distance that is no number suppresses nothing.
    let reach = if suppression_um > 0.0 { suppression_um } else { 0.0 };
    let mut grid = Grid::new(if reach > 0.0 && reach.is_finite() { reach } else { SUPPRESSION_UM });
    // For each point of the grid the existing spot and its tag; none for a new one.
    let mut points: Vec<Option<usize>> = Vec::new();
    let mut tags: Vec<DetectionTag> = existing.iter().map(|spot| spot.detection).collect();
    let mut gone: Vec<usize> = Vec::new();
    for (index, spot) in existing.iter().enumerate() {
        if goes(spot) {
            gone.push(index);
            continue;
        }
        if is_inside(spot) {
            tags[index] = match spot.detection {
                TruePositive => FalseNegative,
                FalsePositive => TrueNegative,
                FalseBorder => TrueBorder,
                other => other,
            };
        }
        grid.push(spot.spot.center_um);
        points.push(Some(index));
    }
    let mut added: Vec<usize> = Vec::new();
    for (index, spot) in predicted.iter().enumerate() {
        let nearest = if reach > 0.0 { grid.nearest(spot.center_um, reach.min(f64::MAX)) } else { None };
        match nearest.map(|point| points[point]) {
            Some(Some(existing)) => {
                tags[existing] = match tags[existing] {
                    FalseNegative => TruePositive,
                    TrueNegative => FalsePositive,
                    TrueBorder => FalseBorder,
                    other => other,
                };
            }
            // One of the same prediction.
            Some(None) => {}
            None => {
                grid.push(spot.center_um);
                points.push(None);
                added.push(index);
            }
        }
    }
    keep_the_same(existing, predicted, &mut gone, &mut added);
    let changed = existing.iter().zip(tags).filter(|(spot, tag)| spot.detection != *tag);
    let tagged = changed.map(|(spot, tag)| PredictionChange::Tag { key: spot.key, tag });
    let removed = gone.into_iter().map(|index| PredictionChange::Remove(existing[index].key));
    tagged.chain(removed).chain(added.into_iter().map(PredictionChange::Add)).collect()
}

/// Takes the spots out of both lists that are in both.
fn keep_the_same(existing: &[ProjectSpot], predicted: &[Spot], gone: &mut Vec<usize>, added: &mut Vec<usize>) {
    let key = |spot: &Spot| spot.center_um.map(f64::to_bits);
    let mut by_place: std::collections::HashMap<[u64; 3], usize> =
        gone.iter().map(|index| (key(&existing[*index].spot), *index)).collect();
    let mut kept = Vec::new();
    added.retain(|index| {
        let spot = &predicted[*index];
        let Some(&same) = by_place.get(&key(spot)) else { return true };
        let other = &existing[same].spot;
        let is_same = other.covariance_um2 == spot.covariance_um2 && other.quality == spot.quality;
        if is_same {
            by_place.remove(&key(spot));
            kept.push(same);
        }
        !is_same
    });
    kept.sort_unstable();
    gone.retain(|index| kept.binary_search(index).is_err());
}

#[cfg(test)]
mod tests;
