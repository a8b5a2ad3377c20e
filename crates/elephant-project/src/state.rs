//! The current state of a project in memory: spots by number and by frame, and links.
//!
//! [`State::apply`] is the only way to change it, and checks that each change begins at what is there: the same function
//! serves new operations, undo, and the log when it is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use elephant_types::Spot;

use crate::{Change, LinkRecord, LinkState, ProjectLink, ProjectSpot, SpotKey, SpotRecord, history::History};

/// The largest number of spots that a project may have.
pub(crate) const MOST_SPOTS: usize = 1 << 24;
/// The largest timepoint.
pub(crate) const LAST_TIMEPOINT: u32 = 1_000_000;
/// So many links that were rejected may end at spots of a project.
const MOST_REJECTED: usize = 1 << 22;

pub(crate) const NONE: u32 = u32::MAX;

/// Which entry changed something last, and who wrote that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub seq: u64,
    pub author: u32,
}

/// A link without its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinkData {
    pub state: LinkState,
    pub score: Option<f32>,
    pub author: u32,
    pub stamp: Stamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub record: SpotRecord,
    pub stamp: Stamp,
    /// The link from the parent. Without one it has no meaning.
    pub link: LinkData,
    /// Its index, or [`NONE`].
    pub parent: u32,
    first_child: u32,
    next_sibling: u32,
    /// Its place in the list of its frame.
    place: u32,
}

/// Why a change cannot be applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    UnknownSpot(SpotKey),
    UnknownLink(SpotKey, SpotKey),
    SpotExists(SpotKey),
    SpotHasLinks(SpotKey),
    LinkExists(SpotKey, SpotKey),
    NotForward(SpotKey, SpotKey),
    SecondParent {
        target: SpotKey,
        parent: SpotKey,
        state: LinkState,
    },
    /// The old value is another one.
    Differs(SpotKey),
    Full,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownSpot(key) => write!(formatter, "spot {key} has been deleted"),
            Self::UnknownLink(source, target) => {
                write!(formatter, "the link from {source} to {target} has been deleted")
            }
            Self::SpotExists(key) => write!(formatter, "spot {key} is there already"),
            Self::SpotHasLinks(key) => write!(formatter, "spot {key} has been linked"),
            Self::LinkExists(source, target) => {
                write!(formatter, "the link from {source} to {target} is there already")
            }
            Self::NotForward(source, target) => {
                write!(formatter, "a link from {source} to {target} does not go forward in time")
            }
            Self::SecondParent { target, parent, .. } => write!(formatter, "spot {target} has the parent {parent}"),
            Self::Differs(key) => write!(formatter, "spot {key} or its link has been changed"),
            Self::Full => write!(formatter, "the project is full"),
        }
    }
}

/// The state after the entry `seq` of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The last entry.
    pub seq: u64,
    /// Its checksum.
    pub checksum: u32,
    /// The number of the next spot.
    pub next_key: u64,
    /// Authors in the order in which they appeared.
    pub authors: Vec<String>,
    pub history: History,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32>,
    frames: BTreeMap<u32, Vec<u32>>,
    /// By source and target.
    rejected: BTreeMap<(SpotKey, SpotKey), LinkData>,
    /// By target and source.
    rejected_by_target: BTreeSet<(SpotKey, SpotKey)>,
    links: usize,
}

impl State {
    pub fn new() -> Self {
        Self { next_key: 1, ..Self::default() }
    }

    /// An empty state with room for spots.
    pub fn with_capacity(spots: usize) -> Self {
        Self { slots: Vec::with_capacity(spots), by_key: HashMap::with_capacity(spots), ..Self::new() }
    }

    /// The index of an author, who is added if new.
    pub fn author(&mut self, name: &str) -> u32 {
        let known = self.authors.iter().position(|author| author == name);
        known.unwrap_or_else(|| {
            self.authors.push(name.to_owned());
            self.authors.len() - 1
        }) as u32
    }

    pub fn spot_count(&self) -> usize {
        self.by_key.len()
    }

    /// Links that are part of the lineage.
    pub fn link_count(&self) -> usize {
        self.links
    }

    /// The number of spots of each frame that has some.
    pub fn frame_counts(&self) -> impl Iterator<Item = (u32, usize)> {
        self.frames.iter().map(|(t, slots)| (*t, slots.len()))
    }

    fn index(&self, key: SpotKey) -> Option<u32> {
        self.by_key.get(&key.0).copied()
    }

    fn known(&self, key: SpotKey) -> Result<u32, Refusal> {
        self.index(key).ok_or(Refusal::UnknownSpot(key))
    }

    pub fn slot(&self, key: SpotKey) -> Option<&Slot> {
        self.index(key).map(|index| &self.slots[index as usize])
    }

    pub fn parent(&self, slot: &Slot) -> Option<SpotKey> {
        self.slots.get(slot.parent as usize).map(|parent| parent.record.key)
    }

    /// The children of a spot, rejected ones left out, in no particular order.
    pub fn children(&self, key: SpotKey) -> Vec<SpotKey> {
        let first = self.slot(key).map_or(NONE, |slot| slot.first_child);
        let children =
            std::iter::successors(self.slots.get(first as usize), |slot| self.slots.get(slot.next_sibling as usize));
        children.map(|slot| slot.record.key).collect()
    }

    /// The link between two spots, rejected or not.
    pub fn link(&self, source: SpotKey, target: SpotKey) -> Option<LinkData> {
        let slot = self.slot(target)?;
        if self.parent(slot) == Some(source) {
            return Some(slot.link);
        }
        self.rejected.get(&(source, target)).copied()
    }

    /// Rejected links from or to a spot.
    pub fn rejected_of(&self, key: SpotKey) -> Vec<(SpotKey, SpotKey)> {
        let all = (key, SpotKey(0))..=(key, SpotKey::MAX);
        let from = self.rejected.range(all.clone()).map(|(ends, _)| *ends);
        from.chain(self.rejected_by_target.range(all).map(|(target, source)| (*source, *target))).collect()
    }

    pub fn rejected(&self) -> impl Iterator<Item = ProjectLink> {
        self.rejected.iter().map(|((source, target), data)| ProjectLink {
            source: *source,
            target: *target,
            state: data.state,
            score: data.score,
        })
    }

    pub fn rejected_records(&self) -> impl ExactSizeIterator<Item = (LinkRecord, Stamp)> {
        self.rejected.iter().map(|((source, target), data)| (record_of(*source, *target, *data), data.stamp))
    }

    /// The numbers of the spots of frame `t`, in ascending order.
    pub fn keys_at(&self, t: u32) -> Vec<SpotKey> {
        let slots = self.frames.get(&t).map_or(&[][..], Vec::as_slice);
        let mut keys: Vec<SpotKey> = slots.iter().map(|slot| self.slots[*slot as usize].record.key).collect();
        keys.sort_unstable();
        keys
    }

    /// The spots of the frames `first` to `last`, ordered by frame and number.
    pub fn slots_between(&self, first: u32, last: u32) -> Vec<&Slot> {
        let mut found = Vec::new();
        if first > last {
            return found;
        }
        for slots in self.frames.range(first..=last).map(|(_, slots)| slots) {
            let begin = found.len();
            found.extend(slots.iter().map(|slot| &self.slots[*slot as usize]));
            found[begin..].sort_unstable_by_key(|slot| slot.record.key);
        }
        found
    }

    /// Who changed the subject of a change last; `None` where there is no such spot or link.
    pub fn stamp(&self, change: &Change) -> Option<Stamp> {
        match change.subject() {
            (key, None) => self.slot(key).map(|slot| slot.stamp),
            (source, Some(target)) => self.link(source, target).map(|link| link.stamp),
        }
    }

    /// Sets that; nothing where there is no such spot or link.
    pub fn set_stamp(&mut self, change: &Change, stamp: Stamp) {
        match change.subject() {
            (key, None) => {
                if let Some(index) = self.index(key) {
                    self.slots[index as usize].stamp = stamp;
                }
            }
            (source, Some(target)) => {
                if let Ok(link) = self.link_mut(source, target) {
                    link.stamp = stamp;
                }
            }
        }
    }

    /// Applies a change, or leaves everything as it is.
    pub fn apply(&mut self, change: &Change, stamp: Stamp) -> Result<(), Refusal> {
        match change {
            Change::SpotAdded(record) => return self.add_spot(record, stamp),
            Change::SpotRemoved(record) => return self.remove_spot(record),
            Change::Moved { key, from, to } => {
                let slot = self.slot_mut(*key)?;
                replace(&mut slot.record.center_um, from, *to, *key)?;
            }
            Change::Resized { key, from, to } => {
                let slot = self.slot_mut(*key)?;
                replace(&mut slot.record.covariance_um2, from, *to, *key)?;
            }
            Change::DetectionTagged { key, from, to } => {
                let slot = self.slot_mut(*key)?;
                replace(&mut slot.record.detection, from, *to, *key)?;
            }
            Change::TrackingTagged { key, from, to } => {
                let slot = self.slot_mut(*key)?;
                replace(&mut slot.record.tracking, from, *to, *key)?;
            }
            Change::LinkAdded(record) => return self.add_link(record, stamp),
            Change::LinkRemoved(record) => return self.remove_link(record),
            Change::LinkMarked { source, target, from, to } => self.mark_link(*source, *target, *from, *to)?,
            Change::LinkScored { source, target, from, to } => {
                let link = self.link_mut(*source, *target)?;
                replace(&mut link.score, from, *to, *target)?;
            }
        }
        self.set_stamp(change, stamp);
        Ok(())
    }

    fn slot_mut(&mut self, key: SpotKey) -> Result<&mut Slot, Refusal> {
        let index = self.known(key)?;
        Ok(&mut self.slots[index as usize])
    }

    fn link_mut(&mut self, source: SpotKey, target: SpotKey) -> Result<&mut LinkData, Refusal> {
        let index = self.known(target)?;
        if self.parent(&self.slots[index as usize]) == Some(source) {
            return Ok(&mut self.slots[index as usize].link);
        }
        self.rejected.get_mut(&(source, target)).ok_or(Refusal::UnknownLink(source, target))
    }

    fn add_spot(&mut self, record: &SpotRecord, stamp: Stamp) -> Result<(), Refusal> {
        if self.by_key.contains_key(&record.key.0) {
            return Err(Refusal::SpotExists(record.key));
        }
        if self.spot_count() >= MOST_SPOTS || record.t > LAST_TIMEPOINT {
            return Err(Refusal::Full);
        }
        let frame = self.frames.entry(record.t).or_default();
        let link = LinkData { state: LinkState::Unlabeled, score: None, author: 0, stamp: Stamp::default() };
        let slot = Slot {
            record: record.clone(),
            stamp,
            link,
            parent: NONE,
            first_child: NONE,
            next_sibling: NONE,
            place: frame.len() as u32,
        };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            index
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        frame.push(index);
        self.by_key.insert(record.key.0, index);
        if !record.key.is_of_clients() {
            self.next_key = self.next_key.max(record.key.0 + 1);
        }
        Ok(())
    }

    /// Links two spots of a snapshot, by the order in which they were added to an empty state; `None` where that is wrong.
    pub fn restore_link(&mut self, from: u32, to: u32, data: LinkData) -> Option<()> {
        let (source, target) = (self.slots.get(from as usize)?, self.slots.get(to as usize)?);
        if source.record.t >= target.record.t || target.parent != NONE || data.state == LinkState::Rejected {
            return None;
        }
        self.attach(from, to, data);
        Some(())
    }

    fn attach(&mut self, from: u32, to: u32, data: LinkData) {
        let first = std::mem::replace(&mut self.slots[from as usize].first_child, to);
        let slot = &mut self.slots[to as usize];
        (slot.link, slot.parent, slot.next_sibling) = (data, from, first);
        self.links += 1;
    }

    fn remove_spot(&mut self, record: &SpotRecord) -> Result<(), Refusal> {
        let index = self.known(record.key)?;
        let slot = &self.slots[index as usize];
        if slot.record != *record {
            return Err(Refusal::Differs(record.key));
        }
        if slot.parent != NONE || slot.first_child != NONE || !self.rejected_of(record.key).is_empty() {
            return Err(Refusal::SpotHasLinks(record.key));
        }
        let (t, place) = (record.t, slot.place as usize);
        if let Some(frame) = self.frames.get_mut(&t) {
            frame.swap_remove(place);
            if let Some(moved) = frame.get(place) {
                self.slots[*moved as usize].place = place as u32;
            }
            if frame.is_empty() {
                self.frames.remove(&t);
            }
        }
        self.by_key.remove(&record.key.0);
        self.free.push(index);
        Ok(())
    }

    fn add_link(&mut self, record: &LinkRecord, stamp: Stamp) -> Result<(), Refusal> {
        let LinkRecord { source, target, state, score, author } = *record;
        let (from, to) = (self.known(source)?, self.known(target)?);
        if self.slots[from as usize].record.t >= self.slots[to as usize].record.t {
            return Err(Refusal::NotForward(source, target));
        }
        if self.link(source, target).is_some() {
            return Err(Refusal::LinkExists(source, target));
        }
        self.insert_link(source, target, LinkData { state, score, author, stamp })
    }

    fn insert_link(&mut self, source: SpotKey, target: SpotKey, data: LinkData) -> Result<(), Refusal> {
        if data.state == LinkState::Rejected {
            if self.rejected.len() >= MOST_REJECTED {
                return Err(Refusal::Full);
            }
            self.rejected.insert((source, target), data);
            self.rejected_by_target.insert((target, source));
            return Ok(());
        }
        let (from, to) = (self.known(source)?, self.known(target)?);
        let slot = &self.slots[to as usize];
        if let Some(parent) = self.parent(slot) {
            return Err(Refusal::SecondParent { target, parent, state: slot.link.state });
        }
        self.attach(from, to, data);
        Ok(())
    }

    fn remove_link(&mut self, record: &LinkRecord) -> Result<(), Refusal> {
        let LinkRecord { source, target, .. } = *record;
        let data = self.link(source, target).ok_or(Refusal::UnknownLink(source, target))?;
        if record_of(source, target, data) != *record {
            return Err(Refusal::Differs(target));
        }
        self.take_link(source, target, data.state)
    }

    fn take_link(&mut self, source: SpotKey, target: SpotKey, state: LinkState) -> Result<(), Refusal> {
        if state == LinkState::Rejected {
            self.rejected.remove(&(source, target));
            self.rejected_by_target.remove(&(target, source));
            return Ok(());
        }
        let (from, to) = (self.known(source)?, self.known(target)?);
        let next = self.slots[to as usize].next_sibling;
        if self.slots[from as usize].first_child == to {
            self.slots[from as usize].first_child = next;
        } else {
            let mut sibling = self.slots[from as usize].first_child;
            while let Some(slot) = self.slots.get_mut(sibling as usize) {
                if slot.next_sibling == to {
                    slot.next_sibling = next;
                    break;
                }
                sibling = slot.next_sibling;
            }
        }
        let slot = &mut self.slots[to as usize];
        (slot.parent, slot.next_sibling) = (NONE, NONE);
        self.links -= 1;
        Ok(())
    }

    fn mark_link(&mut self, source: SpotKey, target: SpotKey, from: LinkState, to: LinkState) -> Result<(), Refusal> {
        let mut data = self.link(source, target).ok_or(Refusal::UnknownLink(source, target))?;
        if data.state != from {
            return Err(Refusal::Differs(target));
        }
        data.state = to;
        let was_rejected = from == LinkState::Rejected;
        if was_rejected == (to == LinkState::Rejected) {
            self.link_mut(source, target)?.state = to;
            return Ok(());
        }
        if was_rejected {
            // Fails where the target has another parent.
            self.insert_link(source, target, data)?;
            return self.take_link(source, target, from);
        }
        self.insert_link(source, target, data)?;
        self.take_link(source, target, from)
    }
}

/// Replaces a value if it is as expected.
fn replace<T: PartialEq>(value: &mut T, expected: &T, new: T, key: SpotKey) -> Result<(), Refusal> {
    if *value != *expected {
        return Err(Refusal::Differs(key));
    }
    *value = new;
    Ok(())
}

pub(crate) fn record_of(source: SpotKey, target: SpotKey, data: LinkData) -> LinkRecord {
    LinkRecord { source, target, state: data.state, score: data.score, author: data.author }
}

impl Slot {
    pub fn project_spot(&self) -> ProjectSpot {
        let record = &self.record;
        ProjectSpot {
            key: record.key,
            spot: self.spot(),
            detection: record.detection,
            tracking: record.tracking,
            flags: record.flags,
            author: record.author,
            changed: self.stamp.seq,
        }
    }

    pub fn spot(&self) -> Spot {
        let record = &self.record;
        Spot {
            t: record.t as usize,
            center_um: record.center_um,
            covariance_um2: record.covariance_um2.matrix(),
            quality: record.quality,
        }
    }
}
