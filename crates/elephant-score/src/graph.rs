//! What both kinds of input become: cells in frames, their parents, and their tracks.

use std::collections::HashMap;

/// "None" among indices.
pub(crate) const NONE: u32 = u32::MAX;

/// An index that may be [`NONE`].
pub(crate) fn some(index: u32) -> Option<usize> {
    (index != NONE).then_some(index as usize)
}

/// A track as the table of the Cell Tracking Challenge has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackInfo {
    pub begin: u32,
    pub end: u32,
    /// Index of the track that it comes from, or [`NONE`].
    pub parent: u32,
}

/// The cells of a movie, numbered by frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// Where each frame's cells begin; one entry more than frames.
    pub frame_starts: Vec<u32>,
    pub frames: Vec<u32>,
    /// Centres (z, y, x) in micrometres.
    pub places: Vec<[f64; 3]>,
    /// The number by which the caller knows a cell, or [`NONE`] for interpolated cells.
    pub ids: Vec<u32>,
    /// The cell at an earlier frame that each comes from, or [`NONE`].
    pub parents: Vec<u32>,
    pub tracks: Vec<u32>,
    pub table: Vec<TrackInfo>,
    child_starts: Vec<u32>,
    children: Vec<u32>,
    track_starts: Vec<u32>,
    track_cells: Vec<u32>,
}

/// A cell before it is numbered. Its parent is an index into the same list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub frame: u32,
    pub place: [f64; 3],
    pub id: u32,
    pub parent: u32,
}

/// Groups the numbers 0, 1, … by a key below `groups`: where each group begins, and the numbers. Skips [`NONE`].
pub(crate) fn grouped(keys: &[u32], groups: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; groups + 1];
    for key in keys.iter().filter_map(|&key| some(key)) {
        starts[key + 1] += 1;
    }
    for group in 0..groups {
        starts[group + 1] += starts[group];
    }
    let mut next = starts.clone();
    let mut members = vec![0; starts[groups] as usize];
    for (member, key) in keys.iter().enumerate().filter_map(|(member, &key)| Some((member, some(key)?))) {
        members[next[key] as usize] = member as u32;
        next[key] += 1;
    }
    (starts, members)
}

impl Graph {
    /// The graph of cells in any order. Tracks end at divisions, and at links that skip frames: the cell after the gap
    /// begins a track whose parent is the track before it.
    pub fn of_cells(cells: &[Cell], frames: usize) -> Self {
        let keys: Vec<u32> = cells.iter().map(|cell| cell.frame).collect();
        let (frame_starts, order) = grouped(&keys, frames);
        let mut number = vec![NONE; cells.len()];
        for (new, &old) in order.iter().enumerate() {
            number[old as usize] = new as u32;
        }
        let cells: Vec<Cell> = order.iter().map(|&old| cells[old as usize]).collect();
        let parents: Vec<u32> =
            cells.iter().map(|cell| some(cell.parent).map_or(NONE, |parent| number[parent])).collect();
        let mut children = vec![0_u32; cells.len()];
        for parent in parents.iter().filter_map(|&parent| some(parent)) {
            children[parent] += 1;
        }
        let mut tracks: Vec<u32> = Vec::with_capacity(cells.len());
        let mut table: Vec<TrackInfo> = Vec::new();
        for (cell, parent) in cells.iter().zip(&parents) {
            let parent = some(*parent);
            let continued = parent.filter(|&parent| children[parent] == 1 && cells[parent].frame + 1 == cell.frame);
            if let Some(parent) = continued {
                tracks.push(tracks[parent]);
                table[tracks[parent] as usize].end = cell.frame;
            } else {
                tracks.push(table.len() as u32);
                let parent = parent.map_or(NONE, |parent| tracks[parent]);
                table.push(TrackInfo { begin: cell.frame, end: cell.frame, parent });
            }
        }
        Self::new(frame_starts, &cells, parents, tracks, table)
    }

    /// The graph of cells that are sorted by frame, with their parents and tracks.
    pub fn new(
        frame_starts: Vec<u32>,
        cells: &[Cell],
        parents: Vec<u32>,
        tracks: Vec<u32>,
        table: Vec<TrackInfo>,
    ) -> Self {
        let (child_starts, children) = grouped(&parents, cells.len());
        let (track_starts, track_cells) = grouped(&tracks, table.len());
        Self {
            frame_starts,
            frames: cells.iter().map(|cell| cell.frame).collect(),
            places: cells.iter().map(|cell| cell.place).collect(),
            ids: cells.iter().map(|cell| cell.id).collect(),
            parents,
            tracks,
            table,
            child_starts,
            children,
            track_starts,
            track_cells,
        }
    }

    /// The number of cells.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The number of frames.
    pub fn frame_count(&self) -> usize {
        self.frame_starts.len() - 1
    }

    /// The cells of a frame.
    pub fn in_frame(&self, frame: usize) -> std::ops::Range<usize> {
        self.frame_starts[frame] as usize..self.frame_starts[frame + 1] as usize
    }

    /// The cell that a cell comes from.
    pub fn parent(&self, cell: usize) -> Option<usize> {
        some(self.parents[cell])
    }

    /// The cells that come from a cell.
    pub fn children(&self, cell: usize) -> &[u32] {
        &self.children[self.child_starts[cell] as usize..self.child_starts[cell + 1] as usize]
    }

    /// The cells of a track in the order of their frames.
    pub fn track_cells(&self, track: usize) -> &[u32] {
        &self.track_cells[self.track_starts[track] as usize..self.track_starts[track + 1] as usize]
    }

    /// The cell of a track in a frame.
    pub fn cell_at(&self, track: usize, frame: u32) -> Option<usize> {
        let cells = self.track_cells(track);
        let index = cells.binary_search_by_key(&frame, |&cell| self.frames[cell as usize]).ok()?;
        Some(cells[index] as usize)
    }

    /// Whether the link to a cell from its parent joins two tracks.
    pub fn joins_tracks(&self, cell: usize) -> bool {
        self.parent(cell).is_some_and(|parent| self.tracks[parent] != self.tracks[cell])
    }

    /// The number of links.
    pub fn links(&self) -> usize {
        self.children.len()
    }

    /// The tracks that come from each track.
    pub fn daughters(&self) -> Daughters {
        let parents: Vec<u32> = self.table.iter().map(|track| track.parent).collect();
        let (starts, tracks) = grouped(&parents, self.table.len());
        Daughters { starts, tracks }
    }
}

/// The tracks that come from each track.
pub(crate) struct Daughters {
    starts: Vec<u32>,
    tracks: Vec<u32>,
}

impl Daughters {
    /// The tracks that come from a track, in the order of the table.
    pub fn of(&self, track: usize) -> &[u32] {
        &self.tracks[self.starts[track] as usize..self.starts[track + 1] as usize]
    }
}

/// Which cells of the result stand for which of the reference. A cell of the reference has at most one; a cell of the
/// result may stand for several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    /// For each cell of the reference a cell of the result, or [`NONE`].
    pub of_reference: Vec<u32>,
    /// For each cell of the result a cell of the reference, if it stands for exactly one, or [`NONE`].
    pub of_result: Vec<u32>,
    /// How many cells of the reference each cell of the result stands for.
    pub counts: Vec<u32>,
}

impl Matches {
    /// The matches by the cells of the result for those of the reference.
    pub fn new(of_reference: Vec<u32>, results: usize) -> Self {
        let mut counts = vec![0; results];
        let mut of_result = vec![NONE; results];
        for (reference, result) in
            of_reference.iter().enumerate().filter_map(|(cell, &other)| Some((cell, some(other)?)))
        {
            counts[result] += 1;
            of_result[result] = if counts[result] == 1 { reference as u32 } else { NONE };
        }
        Self { of_reference, of_result, counts }
    }

    /// The cell of the reference that a cell of the result stands for, if it is exactly one.
    pub fn reference_of(&self, result: usize) -> Option<usize> {
        some(self.of_result[result])
    }

    /// The cell of the result that stands for a cell of the reference, and for it alone.
    pub fn only_result_of(&self, reference: usize) -> Option<usize> {
        some(self.of_reference[reference]).filter(|&result| self.counts[result] == 1)
    }
}

impl Matches {
    /// Whether the link to this cell of the result is one of the reference.
    pub fn has_link_of(&self, reference: &Graph, result: &Graph, target: usize) -> bool {
        let ends =
            result.parent(target).and_then(|source| Some((self.reference_of(source)?, self.reference_of(target)?)));
        ends.is_some_and(|(from, to)| reference.parent(to) == Some(from))
    }
}

/// A result and its reference.
pub(crate) struct Comparison {
    pub reference: Graph,
    pub result: Graph,
    pub matches: Matches,
}

/// Numbers of the labels in a list.
pub(crate) fn index_of(labels: impl IntoIterator<Item = u32>) -> HashMap<u32, u32> {
    labels.into_iter().zip(0..).collect()
}
