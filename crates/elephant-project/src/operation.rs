//! Operations: what callers ask for.

use elephant_types::Spot;
use serde::{Deserialize, Serialize};

use crate::{
    BoxUm, Change, Covariance, DetectionTag, LinkState, PredictionChange, ProjectError, SUPPRESSION_UM, SpotKey,
    SpotRecord, TrackingTag,
    edit::Edit,
    merge_prediction,
    state::{LAST_TIMEPOINT, Slot},
};

/// Places further away are no micrometres.
const FARTHEST_UM: f64 = 1e9;

/// A spot to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSpot {
    /// A number of the client's choice ([`SpotKey::is_of_clients`]); `None` gets the next one of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SpotKey>,
    /// Timepoint, from 0.
    pub t: u32,
    /// Centre (z, y, x) in micrometres.
    pub center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres.
    pub covariance_um2: Covariance,
    /// How sure a program is that it is a cell, 0 to 1.
    #[serde(default)]
    pub quality: f64,
    /// What a person says about the detection.
    #[serde(default)]
    pub detection: DetectionTag,
    /// Whether a person has approved it.
    #[serde(default)]
    pub tracking: TrackingTag,
    /// Bits for programs.
    #[serde(default)]
    pub flags: u16,
    /// The spot to link it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpotKey>,
}

impl NewSpot {
    /// A spot without tags, numbered by the project.
    pub fn of(spot: &Spot) -> Self {
        Self {
            key: None,
            t: u32::try_from(spot.t).unwrap_or(u32::MAX),
            center_um: spot.center_um,
            covariance_um2: Covariance::of(spot.covariance_um2),
            quality: spot.quality,
            detection: DetectionTag::Unlabeled,
            tracking: TrackingTag::Unlabeled,
            flags: 0,
            parent: None,
        }
    }
}

/// A link to add.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// The earlier spot.
    pub source: SpotKey,
    /// The later spot.
    pub target: SpotKey,
    /// What is known of it.
    #[serde(default)]
    pub state: LinkState,
    /// How probable it is, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// Two spots that are linked, or may be: source and target.
pub type Ends = (SpotKey, SpotKey);

/// What to change. In JSON an object with one key: `{"tag": {"spots": [12], "detection": "tp"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Adds spots.
    Add {
        /// The spots.
        spots: Vec<NewSpot>,
    },
    /// Gives a spot another centre.
    Move {
        /// The spot.
        spot: SpotKey,
        /// Its new centre (z, y, x) in micrometres.
        center_um: [f64; 3],
    },
    /// Gives a spot another size and shape.
    Resize {
        /// The spot.
        spot: SpotKey,
        /// Its new covariance (z, y, x) in square micrometres.
        covariance_um2: Covariance,
    },
    /// Gives spots other tags; a tag that is not given stays.
    Tag {
        /// The spots.
        spots: Vec<SpotKey>,
        /// What a person says about the detection.
        #[serde(default)]
        detection: Option<DetectionTag>,
        /// Whether a person has approved them.
        #[serde(default)]
        tracking: Option<TrackingTag>,
    },
    /// Deletes spots and their links.
    Delete {
        /// The spots.
        spots: Vec<SpotKey>,
    },
    /// Links spots. A link that exists gets the state and score.
    Link {
        /// The links.
        links: Vec<NewLink>,
        /// Whether another parent of a target is unlinked first. Without it such a link is refused.
        #[serde(default)]
        replace: bool,
    },
    /// Removes links, and what was said about them.
    Unlink {
        /// Source and target of each.
        links: Vec<Ends>,
    },
    /// Approves links and spots, rejects links, or takes that back. A link that is rejected need not exist.
    Approve {
        /// The spots; they cannot be rejected.
        #[serde(default)]
        spots: Vec<SpotKey>,
        /// Source and target of each link.
        #[serde(default)]
        links: Vec<Ends>,
        /// What is said of them.
        #[serde(default = "approved")]
        state: LinkState,
    },
    /// Takes in the prediction of a frame by the rules of the ELEPHANT client ([`merge_prediction`]).
    Predict {
        /// The timepoint; that of the spots is not looked at.
        t: u32,
        /// The part of the frame that was predicted; `None` for all of it.
        #[serde(default)]
        inside: Option<BoxUm>,
        /// The predicted spots.
        spots: Vec<NewSpot>,
        /// Distance in micrometres below which they are existing ones.
        #[serde(default = "suppression_um")]
        suppression_um: f64,
    },
    /// Replaces the links that nobody has judged and whose two spots are in the frames `first` to `last`. A new link is left
    /// out where a link that stays leads to its target, or where it was rejected.
    Relink {
        /// The first frame.
        first: u32,
        /// The last frame.
        last: u32,
        /// The new links.
        links: Vec<NewLink>,
    },
}

fn approved() -> LinkState {
    LinkState::Approved
}

fn suppression_um() -> f64 {
    SUPPRESSION_UM
}

impl Operation {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Move { .. } => "move",
            Self::Resize { .. } => "resize",
            Self::Tag { .. } => "tag",
            Self::Delete { .. } => "delete",
            Self::Link { .. } => "link",
            Self::Unlink { .. } => "unlink",
            Self::Approve { .. } => "approve",
            Self::Predict { .. } => "predict",
            Self::Relink { .. } => "relink",
        }
    }

    /// Applies it.
    pub(crate) fn apply(&self, edit: &mut Edit<'_>) -> Result<(), ProjectError> {
        match self {
            Self::Add { spots } => spots.iter().try_for_each(|spot| add(edit, spot)),
            Self::Move { spot, center_um } => {
                check_center(*center_um)?;
                edit.move_to(*spot, *center_um)
            }
            Self::Resize { spot, covariance_um2 } => {
                check_covariance(*covariance_um2)?;
                edit.resize(*spot, *covariance_um2)
            }
            Self::Tag { spots, detection, tracking } => spots.iter().try_for_each(|key| {
                edit.spot(*key)?;
                detection.map_or(Ok(()), |tag| edit.tag_detection(*key, tag))?;
                tracking.map_or(Ok(()), |tag| edit.tag_tracking(*key, tag))
            }),
            Self::Delete { spots } => spots.iter().try_for_each(|key| edit.delete(*key)),
            Self::Link { links, replace } => links.iter().try_for_each(|link| {
                check_score(link.score)?;
                edit.link(link.source, link.target, link.state, link.score, *replace)
            }),
            Self::Unlink { links } => links.iter().try_for_each(|(source, target)| edit.unlink(*source, *target)),
            Self::Approve { spots, links, state } => {
                let tag = match state {
                    LinkState::Approved => TrackingTag::Approved,
                    LinkState::Unlabeled => TrackingTag::Unlabeled,
                    LinkState::Rejected if spots.is_empty() => TrackingTag::Unlabeled,
                    LinkState::Rejected => {
                        let message = "spots cannot be rejected; delete them, or tag them fp or tn";
                        return Err(ProjectError::Invalid(message.into()));
                    }
                };
                spots.iter().try_for_each(|key| edit.tag_tracking(*key, tag))?;
                links.iter().try_for_each(|(source, target)| edit.mark(*source, *target, *state))
            }
            Self::Predict { t, inside, spots, suppression_um } => {
                predict(edit, *t, inside.as_ref(), spots, *suppression_um)
            }
            Self::Relink { first, last, .. } if first > last => {
                invalid(format!("first and last are the first and the last frame, but {first} is after {last}"))
            }
            Self::Relink { first, last, links } => relink(edit, *first, *last, links),
        }
    }
}

fn invalid<T>(message: String) -> Result<T, ProjectError> {
    Err(ProjectError::Invalid(message))
}

fn check_center(center_um: [f64; 3]) -> Result<(), ProjectError> {
    if center_um.iter().all(|value| value.abs() <= FARTHEST_UM) {
        return Ok(());
    }
    invalid(format!("center_um must be three numbers of at most {FARTHEST_UM:e} (z, y, x), not {center_um:?}"))
}

fn check_covariance(covariance: Covariance) -> Result<(), ProjectError> {
    if covariance.is_valid() {
        return Ok(());
    }
    invalid(format!("covariance_um2 must be symmetric and positive, (z, y, x), not {:?}", covariance.matrix()))
}

fn check_score(score: Option<f32>) -> Result<(), ProjectError> {
    if score.is_none_or(|score| (0.0..=1.0).contains(&score)) {
        return Ok(());
    }
    invalid(format!("score must be 0 to 1, not {}", score.unwrap_or_default()))
}

/// Checks a spot and makes a record of it, numbered `key`.
fn record(spot: &NewSpot, key: SpotKey, author: u32) -> Result<SpotRecord, ProjectError> {
    check_center(spot.center_um)?;
    check_covariance(spot.covariance_um2)?;
    if spot.t > LAST_TIMEPOINT {
        return invalid(format!("t must be at most {LAST_TIMEPOINT}, not {}", spot.t));
    }
    if !(0.0..=1.0).contains(&spot.quality) {
        return invalid(format!("quality must be 0 to 1, not {}", spot.quality));
    }
    Ok(SpotRecord {
        key,
        t: spot.t,
        center_um: spot.center_um,
        covariance_um2: spot.covariance_um2,
        quality: spot.quality,
        detection: spot.detection,
        tracking: spot.tracking,
        flags: spot.flags,
        author,
    })
}

fn add(edit: &mut Edit<'_>, spot: &NewSpot) -> Result<(), ProjectError> {
    let key = spot.key.unwrap_or_else(|| edit.new_key());
    if spot.key.is_some() && !key.is_of_clients() {
        let (first, last) = (SpotKey::FIRST_OF_CLIENTS, SpotKey::MAX);
        return invalid(format!("the key of a new spot must be {first} to {last}, not {key}; or leave it out"));
    }
    let record = record(spot, key, edit.stamp.author)?;
    edit.change(Change::SpotAdded(record))?;
    spot.parent.map_or(Ok(()), |parent| edit.link(parent, key, LinkState::Unlabeled, None, false))
}

fn predict(
    edit: &mut Edit<'_>,
    t: u32,
    inside: Option<&BoxUm>,
    spots: &[NewSpot],
    suppression_um: f64,
) -> Result<(), ProjectError> {
    let existing: Vec<_> = edit.state.slots_between(t, t).into_iter().map(Slot::project_spot).collect();
    if !(0.0..=FARTHEST_UM).contains(&suppression_um) {
        return invalid(format!("suppression_um must be 0 or more, not {suppression_um}"));
    }
    let predicted: Vec<Spot> = spots
        .iter()
        .map(|spot| Spot {
            t: t as usize,
            center_um: spot.center_um,
            covariance_um2: spot.covariance_um2.matrix(),
            quality: spot.quality,
        })
        .collect();
    // Before places are compared.
    predicted.iter().try_for_each(|spot| check_center(spot.center_um))?;
    for change in merge_prediction(&existing, &predicted, inside, suppression_um) {
        match change {
            PredictionChange::Tag { key, tag } => edit.tag_detection(key, tag)?,
            PredictionChange::Remove(key) => edit.delete(key)?,
            PredictionChange::Add(index) => add(edit, &NewSpot { t, ..spots[index].clone() })?,
        }
    }
    Ok(())
}

fn relink(edit: &mut Edit<'_>, first: u32, last: u32, links: &[NewLink]) -> Result<(), ProjectError> {
    let mut wanted = std::collections::HashMap::with_capacity(links.len());
    for link in links {
        check_score(link.score)?;
        if let Some(other) = wanted.insert(link.target, *link) {
            return Err(ProjectError::SecondParent { target: link.target, parent: other.source, state: other.state });
        }
        for key in [link.source, link.target] {
            let t = edit.spot(key)?.t;
            if !(first..=last).contains(&t) {
                return invalid(format!("spot {key} is in frame {t}, not in {first} to {last}"));
            }
        }
    }
    let mut going = Vec::new();
    for slot in edit.state.slots_between(first, last) {
        let (Some(parent), LinkState::Unlabeled) = (edit.state.parent(slot), slot.link.state) else { continue };
        // One from a frame before is not replaced.
        if edit.spot(parent)?.t < first {
            continue;
        }
        // A link that comes again keeps its place.
        if wanted.get(&slot.record.key).is_none_or(|link| link.source != parent) {
            going.push((parent, slot.record.key));
        }
    }
    for (source, target) in going {
        edit.unlink(source, target)?;
    }
    for link in links {
        let is_judged = edit.state.link(link.source, link.target).is_some_and(|old| old.state != LinkState::Unlabeled);
        let parent = edit.state.slot(link.target).and_then(|slot| edit.state.parent(slot));
        // Any other parent that is left has been approved, or is in a frame before.
        if !is_judged && parent.is_none_or(|parent| parent == link.source) {
            edit.link(link.source, link.target, link.state, link.score, false)?;
        }
    }
    Ok(())
}
