//! Copies of some frames of a project, for algorithms and for callers.

use std::collections::HashMap;

use elephant_types::{Lineage, LineageError, Link, Spot, SpotId};

use crate::{DetectionTag, LinkState, ProjectLink, ProjectSpot, SpotKey, TrackingTag, state::State};

/// What people have said that a tracker has to keep to. Spots are numbered as in the [`View`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Links that must be there.
    pub approved_links: Vec<Link>,
    /// Links that must not be there.
    pub rejected_links: Vec<Link>,
    /// Spots that are cells: tagged `tp` or `fn`, approved for tracking, or at an end of an approved link.
    pub required: Vec<SpotId>,
    /// Spots that are none: tagged `fp`, `tn`, `tb` or `fb`.
    pub excluded: Vec<SpotId>,
}

/// The spots of the frames `first` to `last` and the links between them, as they were after the entry `seq`.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The last entry of the log that it shows.
    pub seq: u64,
    /// The spots, ordered by timepoint and number. A [`SpotId`] is an index into them.
    pub spots: Vec<ProjectSpot>,
    /// Links whose spots are both there, ordered by target and source, rejected ones last.
    pub links: Vec<ProjectLink>,
    /// The names of authors, by their numbers.
    pub authors: Vec<String>,
}

impl View {
    pub(crate) fn new(state: &State, first: u32, last: u32) -> Self {
        let slots = state.slots_between(first, last);
        let mut links = Vec::new();
        let is_inside = |key| state.slot(key).is_some_and(|slot| (first..=last).contains(&slot.record.t));
        for slot in &slots {
            if let Some(source) = state.parent(slot).filter(|parent| is_inside(*parent)) {
                let (state, score) = (slot.link.state, slot.link.score);
                links.push(ProjectLink { source, target: slot.record.key, state, score });
            }
        }
        links.extend(state.rejected().filter(|link| is_inside(link.source) && is_inside(link.target)));
        let spots = slots.into_iter().map(super::state::Slot::project_spot).collect();
        Self { seq: state.seq, spots, links, authors: state.authors.clone() }
    }

    /// The same without the spots that `is_kept` refuses and without their links.
    #[must_use]
    pub fn filtered(mut self, is_kept: impl Fn(&ProjectSpot) -> bool) -> Self {
        self.spots.retain(is_kept);
        let keys: std::collections::HashSet<SpotKey> = self.spots.iter().map(|spot| spot.key).collect();
        self.links.retain(|link| keys.contains(&link.source) && keys.contains(&link.target));
        self
    }

    /// The spots as detections, in the same order.
    pub fn detections(&self) -> Vec<Spot> {
        self.spots.iter().map(|spot| spot.spot.clone()).collect()
    }

    /// The number in the project of a spot of this view.
    ///
    /// # Panics
    /// For a spot of another view.
    pub fn key(&self, id: SpotId) -> SpotKey {
        self.spots[id.index()].key
    }

    /// The spots of this view by their numbers in the project.
    pub fn ids(&self) -> HashMap<SpotKey, SpotId> {
        self.spots.iter().zip(0..).map(|(spot, index)| (spot.key, SpotId(index))).collect()
    }

    fn linked(&self, is_wanted: impl Fn(&ProjectLink) -> bool) -> Vec<Link> {
        let ids = self.ids();
        let wanted = self.links.iter().filter(|link| is_wanted(link));
        wanted
            .filter_map(|link| Some(Link { source: *ids.get(&link.source)?, target: *ids.get(&link.target)? }))
            .collect()
    }

    /// The lineage of all links that were not rejected.
    ///
    /// # Errors
    /// Never for a view of a project; a view that was put together by hand may have wrong links.
    pub fn lineage(&self) -> Result<Lineage, LineageError> {
        let timepoints = self.spots.iter().map(|spot| spot.spot.t as u32).collect();
        Lineage::new(timepoints, self.linked(|link| link.state != LinkState::Rejected))
    }

    /// What people have said about spots and links.
    pub fn constraints(&self) -> Constraints {
        let approved_links = self.linked(|link| link.state == LinkState::Approved);
        let rejected_links = self.linked(|link| link.state == LinkState::Rejected);
        let mut is_linked = vec![false; self.spots.len()];
        for id in approved_links.iter().flat_map(|link| [link.source, link.target]) {
            is_linked[id.index()] = true;
        }
        let all = || self.spots.iter().zip(is_linked.iter().copied()).zip((0..).map(SpotId));
        let is_required = |spot: &ProjectSpot, is_linked: bool| {
            let is_tagged = spot.detection.is_cell() && spot.detection != DetectionTag::Unlabeled;
            is_tagged || (spot.detection.is_cell() && (spot.tracking == TrackingTag::Approved || is_linked))
        };
        Constraints {
            required: all().filter(|((spot, linked), _)| is_required(spot, *linked)).map(|(_, id)| id).collect(),
            excluded: all().filter(|((spot, _), _)| !spot.detection.is_cell()).map(|(_, id)| id).collect(),
            approved_links,
            rejected_links,
        }
    }
}
