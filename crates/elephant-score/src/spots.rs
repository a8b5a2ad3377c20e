//! Scores of spots: centres matched within a radius.

use elephant_types::{Lineage, Spot, TaskContext};
use rayon::prelude::*;

use crate::{
    Report, ScoreError,
    assignment::{Candidate, assign_most},
    error::Input,
    graph::{Cell, Comparison, Graph, Matches, NONE},
    options::{Gaps, MatchRadius, ScoreOptions},
};

/// The most frames of a movie.
pub const MOST_FRAMES: usize = 1 << 20;
/// The most cells of a movie of label images, and the most that are interpolated.
pub const MOST_CELLS: usize = 1 << 24;
/// The most candidate pairs of a frame.
const MOST_PAIRS: usize = 1 << 24;

/// Spots and their lineage, whose [`SpotId`](elephant_types::SpotId) are indices of the list.
#[derive(Clone, Copy, Debug)]
pub struct Annotated<'a> {
    /// The spots of all frames in any order.
    pub spots: &'a [Spot],
    /// Their lineage.
    pub lineage: &'a Lineage,
}

/// Scores spots against the spots of a ground truth.
///
/// In each frame, as many spots as possible are matched one to one, and of these assignments, one with the smallest sum of
/// distances is taken. Spots can match if the distance of their centres is at most [`ScoreOptions::radius`]. Frames are
/// from 0 to the last one that either has.
///
/// # Errors
/// [`ScoreError`] if spots and lineage do not belong together, a spot has a centre that is not finite or (in the ground
/// truth, with a relative radius) a covariance that is not positive, there are too many, and when `context` is cancelled.
pub fn score_spots(
    reference: &Annotated<'_>,
    result: &Annotated<'_>,
    options: &ScoreOptions,
    context: &TaskContext,
) -> Result<Report, ScoreError> {
    options.validate()?;
    let frames = check(reference, Input::Reference)?.max(check(result, Input::Result)?);
    let squared_radii = squared_radii(reference, options.radius)?;
    let reference_graph = graph_of(reference, Input::Reference, frames, options.gaps, false)?;
    let result_graph = graph_of(result, Input::Result, frames, options.gaps, options.drop_unlinked)?;
    let radii = radii_of_cells(&reference_graph, &squared_radii);
    context.check()?;
    let matched: Result<Vec<Vec<u32>>, ScoreError> = (0..frames)
        .into_par_iter()
        .map(|frame| {
            context.check()?;
            match_frame(&reference_graph, &result_graph, &radii, frame)
        })
        .collect();
    let of_reference: Vec<u32> = matched?.into_iter().flatten().collect();
    let matches = Matches::new(of_reference, result_graph.len());
    let comparison = Comparison { reference: reference_graph, result: result_graph, matches };
    let report = Report::new(&comparison, None, options);
    context.report(frames as u64, frames as u64);
    Ok(report)
}

/// Checks the spots and returns the number of frames.
fn check(annotated: &Annotated<'_>, input: Input) -> Result<usize, ScoreError> {
    let (spots, lineage) = (annotated.spots, annotated.lineage);
    if spots.len() != lineage.len() {
        return Err(ScoreError::DifferentLengths { input, spots: spots.len(), nodes: lineage.len() });
    }
    for (spot, id) in spots.iter().zip(lineage.spots()) {
        let timepoint = lineage.timepoint(id);
        let problem = if spot.t != timepoint as usize {
            format!("is at timepoint {}, but in the lineage at {timepoint}; pass the lineage of these spots", spot.t)
        } else if !spot.center_um.iter().all(|value| value.is_finite()) {
            format!("has the centre {:?} (z, y, x), which must be finite numbers", spot.center_um)
        } else {
            continue;
        };
        return Err(ScoreError::InvalidSpot { input, spot: id.index(), problem });
    }
    let frames = spots.iter().map(|spot| spot.t + 1).max().unwrap_or(0);
    if frames > MOST_FRAMES {
        let remedy = "number its timepoints from 0";
        return Err(ScoreError::TooMany { input, what: "frames", most: MOST_FRAMES, remedy });
    }
    Ok(frames)
}

fn determinant(m: &[[f64; 3]; 3]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

/// For each spot of the reference the square of the radius in which it is found.
fn squared_radii(reference: &Annotated<'_>, radius: MatchRadius) -> Result<Vec<f64>, ScoreError> {
    let factor = match radius {
        MatchRadius::Micrometres(radius) => return Ok(vec![radius * radius; reference.spots.len()]),
        MatchRadius::Relative(factor) => factor,
    };
    let of_spot = |(spot, one): (usize, &Spot)| {
        // The product of the eigenvalues is that of the squared semi-axes.
        let squared = determinant(&one.covariance_um2).cbrt();
        if squared.is_finite() && squared > 0.0 {
            return Ok(factor * factor * squared);
        }
        let problem = "has no volume: its covariance must be positive; or give the radius in micrometres".to_owned();
        Err(ScoreError::InvalidSpot { input: Input::Reference, spot, problem })
    };
    reference.spots.iter().enumerate().map(of_spot).collect()
}

fn graph_of(
    annotated: &Annotated<'_>,
    input: Input,
    frames: usize,
    gaps: Gaps,
    drop_unlinked: bool,
) -> Result<Graph, ScoreError> {
    let lineage = annotated.lineage;
    let is_used =
        |&spot: &_| !drop_unlinked || lineage.parent(spot).is_some() || lineage.children(spot).next().is_some();
    let mut number = vec![NONE; lineage.len()];
    for (new, spot) in (0..).zip(lineage.spots().filter(is_used)) {
        number[spot.index()] = new;
    }
    let cell_of = |spot: elephant_types::SpotId| Cell {
        frame: lineage.timepoint(spot),
        place: annotated.spots[spot.index()].center_um,
        id: spot.0,
        parent: lineage.parent(spot).map_or(NONE, |parent| number[parent.index()]),
    };
    let mut cells: Vec<Cell> = lineage.spots().filter(is_used).map(cell_of).collect();
    if gaps == Gaps::Interpolate {
        interpolate(&mut cells, input)?;
    }
    Ok(Graph::of_cells(&cells, frames))
}

/// Adds cells in the frames that links skip, on the straight line between the ends.
fn interpolate(cells: &mut Vec<Cell>, input: Input) -> Result<(), ScoreError> {
    let skipped = |cell: &Cell| {
        let source = crate::graph::some(cell.parent).and_then(|parent| cells.get(parent));
        source.map_or(0, |source| (cell.frame - source.frame - 1) as usize)
    };
    let added: usize = cells.iter().map(skipped).sum();
    if added > MOST_CELLS {
        let remedy = "keep the gaps instead of interpolating";
        return Err(ScoreError::TooMany { input, what: "frames that links skip", most: MOST_CELLS, remedy });
    }
    cells.reserve_exact(added);
    for index in 0..cells.len() {
        let target = cells[index];
        let Some(&source) = crate::graph::some(target.parent).and_then(|parent| cells.get(parent)) else { continue };
        let steps = target.frame - source.frame;
        let mut parent = target.parent;
        for step in 1..steps {
            let share = f64::from(step) / f64::from(steps);
            let place = std::array::from_fn(|axis| source.place[axis] * (1.0 - share) + target.place[axis] * share);
            cells.push(Cell { frame: source.frame + step, place, id: NONE, parent });
            parent = cells.len() as u32 - 1;
        }
        cells[index].parent = parent;
    }
    Ok(())
}

/// The squared radius of each cell; interpolated cells have that of the cell before.
fn radii_of_cells(graph: &Graph, squared_radii: &[f64]) -> Vec<f64> {
    let mut radii: Vec<f64> = Vec::with_capacity(graph.len());
    for cell in 0..graph.len() {
        let own = crate::graph::some(graph.ids[cell]).map(|spot| squared_radii[spot]);
        radii.push(own.or_else(|| Some(radii[graph.parent(cell)?])).unwrap_or(0.0));
    }
    radii
}

/// For each cell of the reference in a frame its cell of the result, or [`NONE`].
fn match_frame(reference: &Graph, result: &Graph, radii: &[f64], frame: usize) -> Result<Vec<u32>, ScoreError> {
    let (rows, columns) = (reference.in_frame(frame), result.in_frame(frame));
    // Sorted along the longest axis, so that only a window has to be looked at.
    let extent = |axis: usize| {
        let values = || columns.clone().map(|cell| result.places[cell][axis]);
        values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min)
    };
    let axis = (0..3).max_by(|&a, &b| extent(a).total_cmp(&extent(b))).unwrap_or(0);
    let mut sorted: Vec<(f64, u32)> =
        columns.clone().map(|cell| (result.places[cell][axis], (cell - columns.start) as u32)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut candidates = Vec::new();
    for (row, cell) in (0_u32..).zip(rows.clone()) {
        let (place, squared) = (reference.places[cell], radii[cell]);
        let radius = squared.sqrt() * (1.0 + 1e-12);
        let first = sorted.partition_point(|one| one.0 < place[axis] - radius);
        for &(at, column) in &sorted[first..] {
            if at > place[axis] + radius {
                break;
            }
            let other = result.places[columns.start + column as usize];
            let distance: f64 = (0..3).map(|axis| (place[axis] - other[axis]).powi(2)).sum();
            if distance <= squared {
                candidates.push(Candidate { row, column, cost: distance.sqrt() });
            }
        }
        if candidates.len() > MOST_PAIRS {
            let (input, what) = (Input::Reference, "pairs of near spots in a frame");
            return Err(ScoreError::TooMany { input, what, most: MOST_PAIRS, remedy: "choose a smaller radius" });
        }
    }
    let assigned = assign_most(rows.len(), columns.len(), &candidates);
    Ok(assigned.into_iter().map(|column| column.map_or(NONE, |column| columns.start as u32 + column)).collect())
}
