//! Linking as the ELEPHANT client does it (`NearestNeighborLinkingAction`), frame by frame from the last one back.
//!
//! Differences: the client never displaces the child of the spot with the pool index 0, which is a mistake; gaps are not
//! filled here ([`fill_gaps`](super::fill_gaps) does so).

use elephant_types::{Lineage, Link, SpotId};

use super::{Tracking, constraints::Given, detections::Scene, link, options::TrackOptions};
use crate::{Status, TrackError, kdtree::KdTree};

const ROUNDS: usize = 5;
/// Above this squared displacement, in µm², a second child is accepted.
const LARGE: f64 = 1.0;

/// An edge that a spot has to a child.
#[derive(Clone, Copy)]
struct Edge {
    child: u32,
    /// Squared distance from the child's expected place, and its squared displacement; both 0 for approved edges.
    distance: f64,
    displacement: f64,
    approved: bool,
    removed: bool,
}

pub fn track(scene: &Scene<'_>, given: &Given, options: &TrackOptions) -> Result<Tracking, TrackError> {
    let mut edges: Vec<Vec<Edge>> = vec![Vec::new(); scene.len()];
    let mut parents: Vec<Option<u32>> = vec![None; scene.len()];
    for (&child, &parent) in &given.parents {
        edges[parent as usize].push(Edge { child, distance: 0.0, displacement: 0.0, approved: true, removed: false });
        parents[child as usize] = Some(parent);
    }
    let trees: Vec<KdTree<'_>> = scene.frames.iter().map(|frame| KdTree::new(&frame.positions)).collect();
    for frame in scene.frames.iter().rev() {
        for _ in 0..ROUNDS {
            for &child in frame.spots.iter().filter(|&spot| !given.excluded.contains(spot)) {
                if parents[child as usize].is_none() {
                    adopt(scene, given, options, &trees, child, &mut edges, &mut parents);
                }
            }
        }
    }
    let links: Vec<Link> =
        (0..scene.len() as u32).filter_map(|child| parents[child as usize].map(|parent| link(parent, child))).collect();
    let timepoints = (0..scene.len() as u32).map(|spot| scene.time(spot)).collect();
    let lineage = Lineage::new(timepoints, links.iter().copied())?;
    let selected = (0..scene.len() as u32).map(|spot| !given.excluded.contains(&spot)).collect();
    let threshold = options.nearest.threshold_um.max(1e-9);
    let score = |link: &Link| {
        let edge = edges[link.source.index()].iter().find(|edge| SpotId(edge.child) == link.target && !edge.removed);
        edge.map_or(1.0, |edge| 1.0 - edge.distance.sqrt() / threshold)
    };
    let link_scores = links.iter().map(|link| (*link, score(link))).collect();
    Ok(Tracking { lineage, selected, link_scores, objective: 0.0, bound: 0.0, status: Status::Feasible })
}

/// Looks for a parent of one child.
fn adopt(
    scene: &Scene<'_>,
    given: &Given,
    options: &TrackOptions,
    trees: &[KdTree<'_>],
    child: u32,
    edges: &mut [Vec<Edge>],
    parents: &mut [Option<u32>],
) {
    let options = &options.nearest;
    let displacement = scene.detections.displacements.map(|all| all[child as usize]);
    let own = scene.position(child);
    let place = displacement.map_or(own, |way| std::array::from_fn(|axis| own[axis] + way[axis]));
    for back in 1..=options.depth {
        let time = scene.time(child).checked_sub(back);
        let Some(frame) = time.and_then(|time| scene.frame_at(time)) else { continue };
        for (distance, hit) in trees[frame].nearest(place, options.neighbours, options.threshold_um) {
            let parent = scene.frames[frame].spots[hit as usize];
            // Such hits are skipped, but count.
            if given.excluded.contains(&parent) || given.forbidden.contains(&(parent, child)) {
                continue;
            }
            let moved = displacement.map_or(distance, |way| way.iter().map(|value| value * value).sum());
            let present = &mut edges[parent as usize];
            let second = moved > LARGE
                || present.iter().any(|edge| edge.displacement > LARGE || (distance < LARGE && edge.distance < LARGE));
            let most = if second { options.max_edges } else { 1 };
            if present.iter().filter(|edge| edge.approved).count() >= most {
                continue;
            }
            if present.len() >= most {
                let live = present.iter_mut().filter(|edge| !edge.approved && !edge.removed);
                let Some(longest) = live.max_by(|a, b| a.distance.total_cmp(&b.distance).then(a.child.cmp(&b.child)))
                else {
                    continue;
                };
                if longest.distance < distance {
                    continue;
                }
                longest.removed = true;
                parents[longest.child as usize] = None;
            }
            // The removed edges stay until the end and count as present.
            let edge = Edge { child, distance, displacement: moved, approved: false, removed: false };
            match present.iter_mut().find(|edge| edge.child == child) {
                Some(old) => *old = edge,
                None => present.push(edge),
            }
            parents[child as usize] = Some(parent);
            return;
        }
    }
}
