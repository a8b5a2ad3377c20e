//! The list of single mistakes that a person can step through.

use serde::{Deserialize, Serialize};

use crate::{
    divisions::Divisions,
    graph::{Comparison, Graph, NONE, some},
};

/// What is wrong at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MistakeKind {
    /// A cell of the reference without one in the result.
    MissedCell,
    /// A cell of the result without one in the reference.
    SpuriousCell,
    /// A cell of the result that stands for several of the reference.
    MergedCells,
    /// A link of the reference whose two cells are found but not linked.
    MissedLink,
    /// A link of the result between two cells that are found but not linked in the reference.
    WrongLink,
    /// A division of the reference without one in the result.
    MissedDivision,
    /// A division of the result without one in the reference.
    SpuriousDivision,
}

impl MistakeKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::MissedCell,
        Self::SpuriousCell,
        Self::MergedCells,
        Self::MissedLink,
        Self::WrongLink,
        Self::MissedDivision,
        Self::SpuriousDivision,
    ];

    /// The kind in plain words.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissedCell => "missed cell",
            Self::SpuriousCell => "spurious cell",
            Self::MergedCells => "merged cells",
            Self::MissedLink => "missed link",
            Self::WrongLink => "wrong link",
            Self::MissedDivision => "missed division",
            Self::SpuriousDivision => "spurious division",
        }
    }
}

/// One mistake. A link's frame and place are those of its later cell, a division's those of the mother's last frame.
///
/// Cells are named by the caller's numbers: indices of spots, or labels. They are in the order cell; earlier and later
/// cell; or mother and daughters. `None` stands for a cell that was interpolated, or has no counterpart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The frame, from 0.
    pub frame: usize,
    /// The place (z, y, x) in micrometres.
    pub place_um: [f64; 3],
    /// What is wrong.
    pub kind: MistakeKind,
    /// The cells in the result.
    pub result: Vec<Option<u32>>,
    /// The cells in the reference.
    pub reference: Vec<Option<u32>>,
}

fn name(graph: &Graph, cell: Option<usize>) -> Option<u32> {
    cell.map(|cell| graph.ids[cell]).filter(|&id| id != NONE)
}

fn names(graph: &Graph, cells: impl IntoIterator<Item = Option<usize>>) -> Vec<Option<u32>> {
    cells.into_iter().map(|cell| name(graph, cell)).collect()
}

fn mother_and_daughters(graph: &Graph, mother: usize) -> impl Iterator<Item = usize> {
    std::iter::once(mother).chain(graph.children(mother).iter().map(|&cell| cell as usize))
}

/// All mistakes, sorted by frame, kind, and the number of the cell.
pub(crate) fn list(comparison: &Comparison, divisions: &Divisions) -> Vec<Mistake> {
    let Comparison { reference, result, matches } = comparison;
    let mut mistakes = Vec::new();
    let mut add = |graph: &Graph, cell: usize, kind, found: Vec<Option<u32>>, truth: Vec<Option<u32>>| {
        let (frame, place_um) = (graph.frames[cell] as usize, graph.places[cell]);
        mistakes.push(Mistake { frame, place_um, kind, result: found, reference: truth });
    };
    let mut stood_for: Vec<(u32, u32)> = Vec::new();
    for cell in 0..reference.len() {
        match some(matches.of_reference[cell]) {
            None => add(reference, cell, MistakeKind::MissedCell, Vec::new(), names(reference, [Some(cell)])),
            Some(found) if matches.counts[found] > 1 => stood_for.push((found as u32, cell as u32)),
            Some(_) => {}
        }
        let (Some(to), Some(parent)) = (matches.only_result_of(cell), reference.parent(cell)) else { continue };
        if let Some(from) = matches.only_result_of(parent)
            && result.parent(to) != Some(from)
        {
            let (found, truth) = ([Some(from), Some(to)], [Some(parent), Some(cell)]);
            add(reference, cell, MistakeKind::MissedLink, names(result, found), names(reference, truth));
        }
    }
    stood_for.sort_unstable();
    for group in stood_for.chunk_by(|a, b| a.0 == b.0) {
        let found = group[0].0 as usize;
        let truth = group.iter().map(|&(_, cell)| Some(cell as usize));
        add(result, found, MistakeKind::MergedCells, names(result, [Some(found)]), names(reference, truth));
    }
    for cell in 0..result.len() {
        if matches.counts[cell] == 0 {
            add(result, cell, MistakeKind::SpuriousCell, names(result, [Some(cell)]), Vec::new());
        }
        let (Some(to), Some(parent)) = (matches.reference_of(cell), result.parent(cell)) else { continue };
        if let Some(from) = matches.reference_of(parent)
            && reference.parent(to) != Some(from)
        {
            let (found, truth) = ([Some(parent), Some(cell)], [Some(from), Some(to)]);
            add(result, cell, MistakeKind::WrongLink, names(result, found), names(reference, truth));
        }
    }
    for mother in divisions.missed() {
        let truth: Vec<usize> = mother_and_daughters(reference, mother).collect();
        let found = truth.iter().map(|&cell| matches.only_result_of(cell));
        let found = names(result, found);
        let truth = names(reference, truth.into_iter().map(Some));
        add(reference, mother, MistakeKind::MissedDivision, found, truth);
    }
    for mother in divisions.spurious() {
        let found: Vec<usize> = mother_and_daughters(result, mother).collect();
        let truth = names(reference, found.iter().map(|&cell| matches.reference_of(cell)));
        let found = names(result, found.into_iter().map(Some));
        add(result, mother, MistakeKind::SpuriousDivision, found, truth);
    }
    // Stable, so that mistakes of one frame and kind stay in the order of the cells.
    mistakes.sort_by_key(|mistake| (mistake.frame, mistake.kind));
    mistakes
}
