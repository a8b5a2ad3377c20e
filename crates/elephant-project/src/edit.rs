//! An entry in the making: changes are applied one by one, and taken back when one of them is refused.

use crate::{
    Change, Covariance, DetectionTag, LinkRecord, LinkState, ProjectError, SpotKey, SpotRecord, TrackingTag,
    state::{Refusal, Stamp, State, record_of},
};

/// So many changes fit into one entry.
pub(crate) const MOST_CHANGES: usize = 1 << 21;

/// A new entry of an author, being applied to the state.
pub(crate) struct Edit<'a> {
    pub state: &'a mut State,
    pub stamp: Stamp,
    /// The changes and what was known of their subjects before.
    journal: Vec<(Change, Option<Stamp>)>,
    known_authors: usize,
    next_key: u64,
}

impl<'a> Edit<'a> {
    /// An entry by `author` that will be the next one of the log.
    pub fn begin(state: &'a mut State, author: &str) -> Self {
        let (known_authors, next_key) = (state.authors.len(), state.next_key);
        let author = state.author(author);
        let stamp = Stamp { seq: state.seq + 1, author };
        Self { state, stamp, journal: Vec::new(), known_authors, next_key }
    }

    /// Applies a change.
    pub fn change(&mut self, change: Change) -> Result<(), Refusal> {
        if self.journal.len() >= MOST_CHANGES {
            return Err(Refusal::Full);
        }
        let before = self.state.stamp(&change);
        self.state.apply(&change, self.stamp)?;
        self.journal.push((change, before));
        Ok(())
    }

    /// The changes so far.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.journal.iter().map(|(change, _)| change)
    }

    /// Keeps what was done, and returns the changes.
    pub fn keep(self) -> Vec<Change> {
        self.journal.into_iter().map(|(change, _)| change).collect()
    }

    /// Takes everything back.
    pub fn take_back(self) {
        for (change, before) in self.journal.into_iter().rev() {
            let inverse = change.inverse();
            // What was just done can be undone.
            let undone = self.state.apply(&inverse, Stamp::default());
            debug_assert_eq!(undone, Ok(()), "{inverse:?}");
            if let Some(before) = before {
                self.state.set_stamp(&inverse, before);
            }
        }
        self.state.authors.truncate(self.known_authors);
        self.state.next_key = self.next_key;
    }

    /// The content of a spot.
    pub fn spot(&self, key: SpotKey) -> Result<&SpotRecord, ProjectError> {
        Ok(&self.state.slot(key).ok_or(ProjectError::UnknownSpot(key))?.record)
    }

    /// A number for a new spot.
    pub fn new_key(&self) -> SpotKey {
        SpotKey(self.state.next_key)
    }

    /// Gives a spot another centre.
    pub fn move_to(&mut self, key: SpotKey, to: [f64; 3]) -> Result<(), ProjectError> {
        let from = self.spot(key)?.center_um;
        if from == to {
            return Ok(());
        }
        Ok(self.change(Change::Moved { key, from, to })?)
    }

    /// Gives a spot another covariance.
    pub fn resize(&mut self, key: SpotKey, to: Covariance) -> Result<(), ProjectError> {
        let from = self.spot(key)?.covariance_um2;
        if from == to {
            return Ok(());
        }
        Ok(self.change(Change::Resized { key, from, to })?)
    }

    /// Gives a spot another detection tag.
    pub fn tag_detection(&mut self, key: SpotKey, to: DetectionTag) -> Result<(), ProjectError> {
        let from = self.spot(key)?.detection;
        if from == to {
            return Ok(());
        }
        Ok(self.change(Change::DetectionTagged { key, from, to })?)
    }

    /// Gives a spot another tracking tag.
    pub fn tag_tracking(&mut self, key: SpotKey, to: TrackingTag) -> Result<(), ProjectError> {
        let from = self.spot(key)?.tracking;
        if from == to {
            return Ok(());
        }
        Ok(self.change(Change::TrackingTagged { key, from, to })?)
    }

    /// Removes a spot and its links.
    pub fn delete(&mut self, key: SpotKey) -> Result<(), ProjectError> {
        let slot = self.state.slot(key).ok_or(ProjectError::UnknownSpot(key))?;
        let record = slot.record.clone();
        let parent = self.state.parent(slot).map(|parent| (parent, key));
        let children = self.state.children(key).into_iter().map(|child| (key, child));
        let rejected = self.state.rejected_of(key);
        let links: Vec<_> = parent.into_iter().chain(children).chain(rejected).collect();
        for (source, target) in links {
            self.unlink(source, target)?;
        }
        Ok(self.change(Change::SpotRemoved(record))?)
    }

    /// Removes a link, rejected or not.
    pub fn unlink(&mut self, source: SpotKey, target: SpotKey) -> Result<(), ProjectError> {
        let data = self.state.link(source, target).ok_or(ProjectError::UnknownLink { source_spot: source, target })?;
        Ok(self.change(Change::LinkRemoved(record_of(source, target, data)))?)
    }

    /// Gives a link another state; one that is to be rejected need not exist.
    pub fn mark(&mut self, source: SpotKey, target: SpotKey, to: LinkState) -> Result<(), ProjectError> {
        self.spot(source)?;
        self.spot(target)?;
        match self.state.link(source, target) {
            Some(link) if link.state == to => Ok(()),
            Some(link) => Ok(self.change(Change::LinkMarked { source, target, from: link.state, to })?),
            None if to == LinkState::Rejected => {
                let author = self.stamp.author;
                Ok(self.change(Change::LinkAdded(LinkRecord { source, target, state: to, score: None, author }))?)
            }
            None => Err(ProjectError::UnknownLink { source_spot: source, target }),
        }
    }

    /// Links two spots, or changes the link between them. Another parent of the target is unlinked if `replace` says so.
    pub fn link(
        &mut self,
        source: SpotKey,
        target: SpotKey,
        state: LinkState,
        score: Option<f32>,
        replace: bool,
    ) -> Result<(), ProjectError> {
        self.spot(source)?;
        let parent = self.state.slot(target).ok_or(ProjectError::UnknownSpot(target))?;
        let parent = self.state.parent(parent).filter(|parent| *parent != source);
        if let (Some(parent), true, true) = (parent, replace, state != LinkState::Rejected) {
            self.unlink(parent, target)?;
        }
        let Some(link) = self.state.link(source, target) else {
            let author = self.stamp.author;
            return Ok(self.change(Change::LinkAdded(LinkRecord { source, target, state, score, author }))?);
        };
        if link.state != state {
            self.change(Change::LinkMarked { source, target, from: link.state, to: state })?;
        }
        if score.is_some() && link.score != score {
            self.change(Change::LinkScored { source, target, from: link.score, to: score })?;
        }
        Ok(())
    }
}

impl From<Refusal> for ProjectError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownSpot(key) => Self::UnknownSpot(key),
            Refusal::UnknownLink(source_spot, target) => Self::UnknownLink { source_spot, target },
            Refusal::SpotExists(key) => Self::SpotExists(key),
            Refusal::SecondParent { target, parent, state } => Self::SecondParent { target, parent, state },
            Refusal::NotForward(..) => Self::Invalid(refusal.to_string()),
            Refusal::Full => Self::TooLarge(format!(
                "a project may have {} spots up to timepoint {}, and an entry {MOST_CHANGES} changes; split it",
                crate::state::MOST_SPOTS,
                crate::state::LAST_TIMEPOINT
            )),
            Refusal::SpotHasLinks(_) | Refusal::LinkExists(..) | Refusal::Differs(_) => {
                Self::Invalid(refusal.to_string())
            }
        }
    }
}
