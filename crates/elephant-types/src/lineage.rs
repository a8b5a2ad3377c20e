//! Lineages: the spots of all timepoints, linked to their successors.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tracks::{TrackId, TrackRow, Tracks, lineage_of_rows};

/// Number of a spot among the spots of all timepoints, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpotId(pub u32);

impl SpotId {
    /// The number as an index into a list of all spots.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SpotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A cell, and the same cell or its daughter at a later timepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// The earlier spot.
    pub source: SpotId,
    /// The later spot.
    pub target: SpotId,
}

/// Links or tracks that are not a lineage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// A link names a spot that does not exist.
    #[error("a link goes from spot {} to spot {}, but there are only {spots} spots", .link.source, .link.target)]
    UnknownSpot {
        /// The link.
        link: Link,
        /// The number of spots.
        spots: usize,
    },
    /// A link does not go forward in time.
    #[error(
        "the link from spot {} (timepoint {}) to spot {} (timepoint {}) must go forward in time",
        .link.source, .timepoints[0], .link.target, .timepoints[1]
    )]
    NotForward {
        /// The link.
        link: Link,
        /// The timepoints of its source and target.
        timepoints: [u32; 2],
    },
    /// Two links end at the same spot.
    #[error("spot {spot} has two parents, {} and {}; a cell comes from one cell", .parents[0], .parents[1])]
    TwoParents {
        /// The spot.
        spot: SpotId,
        /// Its parents.
        parents: [SpotId; 2],
    },
    /// There are more spots than [`SpotId`] can number, or than fit into memory.
    #[error("there are more than {most} spots; split the movie")]
    TooManySpots {
        /// The largest number of spots.
        most: u32,
    },
    /// A row of a track file contradicts itself or another row.
    #[error("the track row \"{row}\" is invalid: {reason}")]
    InvalidRow {
        /// The row.
        row: TrackRow,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A directed forest over the spots of a movie: every spot has at most one parent, at an earlier timepoint, and any number of
/// children. Links may skip timepoints.
///
/// Made for millions of spots: 16 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    timepoints: Vec<u32>,
    /// For each spot a spot, or [`NONE`].
    parents: Vec<u32>,
    first_children: Vec<u32>,
    next_siblings: Vec<u32>,
}

const NONE: u32 = u32::MAX;

fn id(raw: u32) -> Option<SpotId> {
    (raw != NONE).then_some(SpotId(raw))
}

impl Lineage {
    /// The largest number of spots.
    pub const MOST_SPOTS: u32 = 1 << 30;

    /// The lineage of spots with these timepoints, in the order of their numbers, and links in any order.
    ///
    /// # Errors
    /// [`LineageError`] for a link to a spot that does not exist or that is not later, for a spot with two parents, and for
    /// more than 2^30 spots.
    pub fn new(timepoints: Vec<u32>, links: impl IntoIterator<Item = Link>) -> Result<Self, LineageError> {
        let spots = timepoints.len();
        if spots > Self::MOST_SPOTS as usize {
            return Err(LineageError::TooManySpots { most: Self::MOST_SPOTS });
        }
        let mut parents = vec![NONE; spots];
        for link in links {
            let (Some(&from), Some(&to)) = (timepoints.get(link.source.index()), timepoints.get(link.target.index()))
            else {
                return Err(LineageError::UnknownSpot { link, spots });
            };
            if from >= to {
                return Err(LineageError::NotForward { link, timepoints: [from, to] });
            }
            let parent = &mut parents[link.target.index()];
            if let Some(other) = id(*parent) {
                return Err(LineageError::TwoParents { spot: link.target, parents: [other, link.source] });
            }
            *parent = link.source.0;
        }
        let (mut first_children, mut next_siblings) = (vec![NONE; spots], vec![NONE; spots]);
        // From the last spot on, so that siblings come in ascending order.
        for (spot, parent) in parents.iter().enumerate().rev().filter_map(|(spot, &raw)| Some((spot, id(raw)?))) {
            next_siblings[spot] = first_children[parent.index()];
            first_children[parent.index()] = spot as u32;
        }
        Ok(Self { timepoints, parents, first_children, next_siblings })
    }

    /// The number of spots.
    pub fn len(&self) -> usize {
        self.timepoints.len()
    }

    /// Whether there are no spots.
    pub fn is_empty(&self) -> bool {
        self.timepoints.is_empty()
    }

    /// All spots in the order of their numbers.
    pub fn spots(&self) -> impl DoubleEndedIterator<Item = SpotId> + use<> {
        (0..self.len() as u32).map(SpotId)
    }

    /// The timepoint of a spot.
    ///
    /// # Panics
    /// For a spot of another lineage, as all functions that take a spot.
    pub fn timepoint(&self, spot: SpotId) -> u32 {
        self.timepoints[spot.index()]
    }

    /// The same cell, or its mother, at an earlier timepoint.
    pub fn parent(&self, spot: SpotId) -> Option<SpotId> {
        id(self.parents[spot.index()])
    }

    /// The same cell, or its daughters, at later timepoints, in the order of their numbers.
    pub fn children(&self, spot: SpotId) -> impl Iterator<Item = SpotId> {
        std::iter::successors(id(self.first_children[spot.index()]), |child| id(self.next_siblings[child.index()]))
    }

    /// Whether a spot has at least two children.
    pub fn is_division(&self, spot: SpotId) -> bool {
        self.children(spot).nth(1).is_some()
    }

    /// All links in the order of their targets.
    pub fn links(&self) -> impl Iterator<Item = Link> {
        self.spots().filter_map(|target| Some(Link { source: self.parent(target)?, target }))
    }

    /// The spots without a parent.
    pub fn roots(&self) -> impl Iterator<Item = SpotId> {
        self.spots().filter(|&spot| self.parent(spot).is_none())
    }

    /// The spots with at least two children.
    pub fn divisions(&self) -> impl Iterator<Item = SpotId> {
        self.spots().filter(|&spot| self.is_division(spot))
    }

    /// The lineage cut into tracks at roots and divisions.
    pub fn tracks(&self) -> Tracks {
        Tracks::new(self)
    }

    /// The lineage of some rows of a track file, and each spot's track as it is numbered there. A track has a spot at each
    /// of its timepoints; spots are numbered by timepoint and, within it, in the order of the rows.
    ///
    /// A track whose parent has no other child continues it, so that [`tracks`](Self::tracks) sees one track.
    ///
    /// # Errors
    /// [`LineageError::InvalidRow`] for two rows of a track, a row that ends before it begins, and a parent that is missing
    /// or does not end before its child begins; [`LineageError::TooManySpots`].
    pub fn from_rows(rows: &[TrackRow]) -> Result<(Self, Vec<TrackId>), LineageError> {
        lineage_of_rows(rows)
    }
}
