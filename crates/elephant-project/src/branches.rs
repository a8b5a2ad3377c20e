//! The lineage of a view as branches, for drawing a tree.

use elephant_types::{Lineage, LineageError};
use serde::Serialize;

use crate::{DetectionTag, SpotKey, TrackingTag, View};

/// A cell between its birth and its division or end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Branch {
    /// Its number in this view, from 1.
    pub id: u32,
    /// The branch of the mother cell.
    pub parent: Option<u32>,
    /// Its first frame.
    pub t0: u32,
    /// Its last frame.
    pub t1: u32,
    /// Its first spot.
    pub first: SpotKey,
    /// Its last spot.
    pub last: SpotKey,
    /// The number of its spots.
    pub spots: usize,
    /// Where to draw it across: leaves are at 0, 1, 2, …, and a branch is in the middle of its daughters.
    pub order: f64,
    /// How many of its spots have each detection tag, in the order unlabeled, tp, fp, tn, fn, tb, fb.
    pub tags: [u32; 7],
    /// How many of its spots are approved.
    pub approved: u32,
}

/// The branches of a view, in the order of their numbers; daughters come after their mothers.
///
/// # Errors
/// As [`View::lineage`].
pub fn branches(view: &View) -> Result<Vec<Branch>, LineageError> {
    let lineage = view.lineage()?;
    Ok(of_lineage(view, &lineage))
}

fn of_lineage(view: &View, lineage: &Lineage) -> Vec<Branch> {
    let tracks = lineage.tracks();
    let mut branches: Vec<Branch> = Vec::with_capacity(tracks.len());
    for track in tracks.iter() {
        let (first, last) = (track.spots[0], track.spots[track.spots.len() - 1]);
        let mut tags = [0; DetectionTag::ALL.len()];
        let mut approved = 0;
        for spot in track.spots {
            let spot = &view.spots[spot.index()];
            tags[spot.detection as usize] += 1;
            approved += u32::from(spot.tracking == TrackingTag::Approved);
        }
        branches.push(Branch {
            id: track.id.get(),
            parent: track.parent.map(elephant_types::TrackId::get),
            t0: lineage.timepoint(first),
            t1: lineage.timepoint(last),
            first: view.key(first),
            last: view.key(last),
            spots: track.spots.len(),
            order: 0.0,
            tags,
            approved,
        });
    }
    place(&mut branches);
    branches
}

/// Places leaves one beside the other, depth first, without recursion: trees may be deep.
fn place(branches: &mut [Branch]) {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); branches.len()];
    for (index, branch) in branches.iter().enumerate() {
        if let Some(parent) = branch.parent {
            children[parent as usize - 1].push(index);
        }
    }
    let mut leaves = 0.0;
    for root in (0..branches.len()).filter(|index| branches[*index].parent.is_none()).collect::<Vec<_>>() {
        let mut stack = vec![(root, false)];
        while let Some((index, are_children_placed)) = stack.pop() {
            if children[index].is_empty() {
                branches[index].order = leaves;
                leaves += 1.0;
            } else if are_children_placed {
                let sum: f64 = children[index].iter().map(|child| branches[*child].order).sum();
                branches[index].order = sum / children[index].len() as f64;
            } else {
                stack.push((index, true));
                stack.extend(children[index].iter().rev().map(|child| (*child, false)));
            }
        }
    }
}
