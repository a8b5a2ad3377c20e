//! Tracks: cells between their births and their divisions.

use std::{collections::HashMap, fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{Lineage, LineageError, Link, SpotId};

/// Number of a track, from 1; 0 is the background of label images and "no parent" in track files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrackId(NonZeroU32);

impl TrackId {
    /// The track with this number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The track at this index of the list of all tracks.
    fn from_index(index: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    /// Its number, from 1.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Its index in the list of all tracks.
    pub fn index(self) -> usize {
        self.get() as usize - 1
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A [`Lineage`] cut into tracks: each begins at a spot without parent or at a daughter, and ends at a spot without child or
/// at a division. Tracks are numbered from 1 in the order of their first spots' numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracks {
    /// The spots of all tracks, one track after the other.
    spots: Vec<SpotId>,
    /// Where each track begins in `spots`; one entry more than tracks.
    starts: Vec<u32>,
    parents: Vec<Option<TrackId>>,
    of_spots: Vec<TrackId>,
}

/// One track of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track<'a> {
    /// Its number.
    pub id: TrackId,
    /// Its spots in the order of their timepoints; at least one.
    pub spots: &'a [SpotId],
    /// The track of the mother cell.
    pub parent: Option<TrackId>,
}

impl Tracks {
    pub(crate) fn new(lineage: &Lineage) -> Self {
        let begins = |spot: &SpotId| lineage.parent(*spot).is_none_or(|parent| lineage.is_division(parent));
        let mut tracks = Self {
            spots: Vec::with_capacity(lineage.len()),
            starts: vec![0],
            parents: Vec::new(),
            of_spots: vec![TrackId(NonZeroU32::MIN); lineage.len()],
        };
        for first in lineage.spots().filter(begins) {
            let id = TrackId::from_index(tracks.starts.len() - 1);
            let mut next = Some(first);
            while let Some(spot) = next {
                tracks.spots.push(spot);
                tracks.of_spots[spot.index()] = id;
                next = lineage.children(spot).next().filter(|_| !lineage.is_division(spot));
            }
            tracks.starts.push(tracks.spots.len() as u32);
        }
        // Tracks end only at divisions and without children, so that a first spot's parent is on its mother's track.
        let firsts = tracks.starts.iter().take(tracks.starts.len() - 1).map(|&start| tracks.spots[start as usize]);
        tracks.parents = firsts.map(|first| Some(tracks.of_spot(lineage.parent(first)?))).collect();
        tracks
    }

    /// The number of tracks.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are no tracks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A track; `None` when there are fewer.
    pub fn get(&self, id: TrackId) -> Option<Track<'_>> {
        let index = id.index();
        let &[start, end, ..] = self.starts.get(index..)? else { return None };
        Some(Track { id, spots: &self.spots[start as usize..end as usize], parent: self.parents[index] })
    }

    /// All tracks in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Track<'_>> {
        (0..self.len()).filter_map(|index| self.get(TrackId::from_index(index)))
    }

    /// The track of a spot.
    ///
    /// # Panics
    /// For a spot of another lineage.
    pub fn of_spot(&self, spot: SpotId) -> TrackId {
        self.of_spots[spot.index()]
    }

    /// The tracks as rows of a track file, in the order of their numbers. `lineage` is what they were cut from.
    pub fn rows(&self, lineage: &Lineage) -> impl Iterator<Item = TrackRow> {
        self.iter().map(|track| TrackRow {
            id: track.id,
            begin: lineage.timepoint(track.spots[0]),
            end: lineage.timepoint(track.spots[track.spots.len() - 1]),
            parent: track.parent,
        })
    }
}

/// A row of `man_track.txt`, the track file of the Cell Tracking Challenge. Displayed, it is four numbers: track, first and
/// last timepoint, and parent or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackRow {
    /// The track.
    pub id: TrackId,
    /// Its first timepoint.
    pub begin: u32,
    /// Its last timepoint, inclusive.
    pub end: u32,
    /// The track that it comes from.
    pub parent: Option<TrackId>,
}

impl fmt::Display for TrackRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {} {}", self.id, self.begin, self.end, self.parent.map_or(0, TrackId::get))
    }
}

/// See [`Lineage::from_rows`].
pub(crate) fn lineage_of_rows(rows: &[TrackRow]) -> Result<(Lineage, Vec<TrackId>), LineageError> {
    let mut by_id = HashMap::with_capacity(rows.len());
    let mut spots: u64 = 0;
    for (index, row) in rows.iter().enumerate() {
        let invalid = |reason| LineageError::InvalidRow { row: *row, reason };
        if row.end < row.begin {
            return Err(invalid("the track ends before it begins"));
        }
        if by_id.insert(row.id, index).is_some() {
            return Err(invalid("the track has another row"));
        }
        spots += u64::from(row.end - row.begin) + 1;
        if spots > u64::from(Lineage::MOST_SPOTS) {
            return Err(LineageError::TooManySpots { most: Lineage::MOST_SPOTS });
        }
    }
    // Each track's spots in the order of (timepoint, row).
    let mut order: Vec<(u32, u32)> = Vec::with_capacity(spots as usize);
    for (index, row) in (0..).zip(rows) {
        order.extend((row.begin..=row.end).map(|timepoint| (timepoint, index)));
    }
    order.sort_unstable();
    let mut last: Vec<Option<SpotId>> = vec![None; rows.len()];
    let mut links = Vec::with_capacity(order.len());
    for (target, &(timepoint, index)) in (0..).map(SpotId).zip(&order) {
        let row = &rows[index as usize];
        let mut source = last[index as usize].replace(target);
        if let (Some(parent), None) = (row.parent, source) {
            let invalid = |reason| LineageError::InvalidRow { row: *row, reason };
            let parent = *by_id.get(&parent).ok_or_else(|| invalid("its parent has no row"))?;
            if rows[parent].end >= timepoint {
                return Err(invalid("its parent does not end before it begins"));
            }
            source = last[parent];
        }
        links.extend(source.map(|source| Link { source, target }));
    }
    let tracks = order.iter().map(|&(_, index)| rows[index as usize].id).collect();
    let timepoints = order.into_iter().map(|(timepoint, _)| timepoint).collect();
    Ok((Lineage::new(timepoints, links)?, tracks))
}

#[cfg(test)]
mod tests;
