//! Candidates for links and divisions near where cells are expected.

use elephant_types::{CancelToken, Cancelled};
use rayon::prelude::*;

use super::{
    detections::Scene,
    features::{Rivals, View, norm},
    options::TrackOptions,
};
use crate::kdtree::KdTree;

/// A pair of spots that may be the same cell.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub source: u32,
    pub target: u32,
    /// Distance of the target from the expected place of the source, µm.
    pub distance: f64,
    pub rivals: Rivals,
}

/// A mother and two daughters.
#[derive(Clone, Copy, Debug)]
pub struct Triple {
    pub mother: u32,
    pub daughters: [u32; 2],
    /// Distance from each daughter to the nearest spot in the frame after hers.
    pub next: [Option<f64>; 2],
    pub rivals: [Rivals; 2],
}

/// Distance, in typical radii, within which spots are looked at at all. Daughters are up to two radii away from the mother.
const REACH: f64 = 2.3;

/// Where candidates are looked for. They are made frame by frame, since all triples of a long movie need too much memory.
pub struct Finder<'a> {
    pub view: View<'a>,
    options: &'a TrackOptions,
    /// For each spot the distances from its expected places in the previous and next frame to the nearest spots there; `None`
    /// before the first and after the last frame.
    pub near: Vec<[Option<f64>; 2]>,
}

impl<'a> Finder<'a> {
    pub fn new(view: View<'a>, options: &'a TrackOptions) -> Self {
        Self { view, options, near: near(view) }
    }

    /// Candidates whose source is in the frame with this index, ordered by their spots.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn frame(&self, frame: usize, cancel: &CancelToken) -> Result<(Vec<Pair>, Vec<Triple>), Cancelled> {
        let gaps = 1..=self.options.max_gap.max(1);
        let by_gap = gaps.map(|gap| pairs_of(self.view, self.options, frame, gap, cancel));
        let by_gap: Vec<Vec<Pair>> = by_gap.collect::<Result<_, _>>()?;
        let triples = if self.options.divisions {
            triples_of(self.view.scene, frame, &by_gap, &self.near, cancel)?
        } else {
            Vec::new()
        };
        Ok((by_gap.concat(), triples))
    }
}

fn near(view: View<'_>) -> Vec<[Option<f64>; 2]> {
    let View { scene, motion } = view;
    let trees: Vec<KdTree<'_>> = scene.frames.par_iter().map(|frame| KdTree::new(&frame.positions)).collect();
    let tree_at = |time: Option<u32>| time.and_then(|time| scene.frame_at(time)).map(|frame| &trees[frame]);
    let (first, last) = (scene.frames.first().map(|f| f.time), scene.frames.last().map(|f| f.time));
    let one = |spot: u32| {
        let (place, time) = (scene.position(spot), scene.time(spot));
        let look = |time: Option<u32>, way: [f64; 3], sign: f64| {
            let expected = std::array::from_fn(|axis| place[axis] + sign * way[axis]);
            let hits = tree_at(time).map(|tree| tree.nearest(expected, 1, 10.0 * scene.radius));
            hits.map_or(10.0 * scene.radius, |hits| hits.first().map_or(10.0 * scene.radius, |hit| hit.0.sqrt()))
        };
        let before = (Some(time) != first).then(|| look(time.checked_sub(1), motion.arrival[spot as usize], -1.0));
        let after = (Some(time) != last).then(|| look(time.checked_add(1), motion.forward[spot as usize], 1.0));
        [before, after]
    };
    (0..scene.len() as u32).into_par_iter().map(one).collect()
}

fn pairs_of(
    view: View<'_>,
    options: &TrackOptions,
    frame: usize,
    gap: u32,
    cancel: &CancelToken,
) -> Result<Vec<Pair>, Cancelled> {
    let View { scene, motion } = view;
    let here = &scene.frames[frame];
    let Some(there) = here.time.checked_add(gap).and_then(|time| scene.frame_at(time)) else { return Ok(Vec::new()) };
    let there = &scene.frames[there];
    let tree = KdTree::new(&there.positions);
    let reach = (options.gate * motion.scale * f64::from(gap).sqrt()).max(REACH * scene.radius);
    let mut pairs = Vec::new();
    for &source in &here.spots {
        cancel.check()?;
        let way = motion.forward[source as usize];
        let place = scene.position(source);
        let expected = std::array::from_fn(|axis| place[axis] + f64::from(gap) * way[axis]);
        for (_, target) in tree.nearest(expected, options.candidates, 1.3 * reach) {
            let target = there.spots[target as usize];
            let distance = norm(motion.offset(scene, source, target));
            if distance <= reach {
                pairs.push(Pair { source, target, distance, rivals: Rivals::default() });
            }
        }
    }
    rank(
        &mut pairs,
        |pair| pair.source,
        |rivals, rank, other| {
            (rivals.rank_at_source, rivals.other_target) = (rank, other);
        },
    );
    rank(
        &mut pairs,
        |pair| pair.target,
        |rivals, rank, other| {
            (rivals.rank_at_target, rivals.other_source) = (rank, other);
        },
    );
    pairs.sort_by_key(|pair| (pair.source, pair.target));
    Ok(pairs)
}

/// Compares each pair with the others that share a spot.
fn rank(pairs: &mut [Pair], spot: impl Fn(&Pair) -> u32, set: impl Fn(&mut Rivals, u32, f64)) {
    pairs.sort_by(|a, b| {
        spot(a)
            .cmp(&spot(b))
            .then(a.distance.total_cmp(&b.distance))
            .then((a.source, a.target).cmp(&(b.source, b.target)))
    });
    for group in pairs.chunk_by_mut(|a, b| spot(a) == spot(b)) {
        let (first, second) = (group[0].distance, group.get(1).map_or(f64::INFINITY, |pair| pair.distance));
        for (index, pair) in (0..).zip(group) {
            set(&mut pair.rivals, index, if index == 0 { second } else { first });
        }
    }
}

/// Divisions with both daughters in the next frame, both in the one after it (the mother was missed), or one in each (a daughter
/// was missed).
fn triples_of(
    scene: &Scene<'_>,
    frame: usize,
    by_gap: &[Vec<Pair>],
    near: &[[Option<f64>; 2]],
    cancel: &CancelToken,
) -> Result<Vec<Triple>, Cancelled> {
    let reach = REACH * scene.radius;
    let of = |gap: usize, mother: u32| -> &[Pair] {
        let Some(pairs) = by_gap.get(gap - 1) else { return &[] };
        let begin = pairs.partition_point(|pair| pair.source < mother);
        let count = pairs[begin..].partition_point(|pair| pair.source == mother);
        &pairs[begin..begin + count]
    };
    let mut triples = Vec::new();
    for &mother in &scene.frames[frame].spots {
        cancel.check()?;
        let (next, later) = (of(1, mother), of(2, mother));
        let mut add = |a: &Pair, b: &Pair| {
            let apart = norm([0, 1, 2].map(|axis| scene.position(a.target)[axis] - scene.position(b.target)[axis]));
            if a.distance <= reach && b.distance <= reach && apart <= 3.6 * scene.radius && apart >= 0.4 * scene.radius
            {
                triples.push(Triple {
                    mother,
                    daughters: [a.target, b.target],
                    next: [near[a.target as usize][1], near[b.target as usize][1]],
                    rivals: [a.rivals, b.rivals],
                });
            }
        };
        for pairs in [next, later] {
            for (index, a) in pairs.iter().enumerate() {
                for b in &pairs[index + 1..] {
                    add(a, b);
                }
            }
        }
        for a in next {
            for b in later {
                add(a, b);
            }
        }
    }
    Ok(triples)
}
