//! Where cells are expected to be in the next and previous frame, and how well that is known.

use rayon::prelude::*;

use super::detections::{Scene, median};
use crate::kdtree::{KdTree, squared_distance};

/// Expected motion, and the noise of the movie as far as it is known.
#[derive(Clone, Debug)]
pub struct Motion {
    /// For each spot the expected way to the next timepoint, µm.
    pub forward: Vec<[f64; 3]>,
    /// For each spot the expected way from the previous timepoint, µm.
    pub arrival: Vec<[f64; 3]>,
    /// Standard deviation along each axis of the way that is not expected, µm.
    pub scale: f64,
    /// Standard deviation of the logarithm of the radius from one timepoint to the next.
    pub size_noise: f64,
    /// The same of the intensity.
    pub light_noise: f64,
    /// Share of links that skip timepoints.
    pub gap_rate: f64,
    /// Share of spots that are taken as spurious.
    pub dropped_rate: f64,
}

/// A link that the motion is learnt from: source, target.
pub type Sample = (u32, u32);

const NEIGHBOURS: usize = 8;

impl Motion {
    /// Before anything is linked: no motion, or the given displacements, and the scale from nearest neighbours.
    pub fn start(scene: &Scene<'_>) -> Self {
        let count = scene.len();
        let mut motion = Self {
            forward: vec![[0.0; 3]; count],
            arrival: vec![[0.0; 3]; count],
            scale: 0.25 * scene.radius,
            size_noise: 0.1,
            light_noise: 0.2,
            gap_rate: 0.05,
            dropped_rate: 0.05,
        };
        if let Some(displacements) = scene.detections.displacements {
            motion.follow(scene, displacements);
        } else {
            for _ in 0..2 {
                let samples = mutual_neighbours(scene, &motion);
                motion.learn(scene, &samples);
            }
        }
        let distances = mutual_neighbours(scene, &motion).iter().map(|&pair| motion.residual(scene, pair)).collect();
        motion.scale = (median(distances).unwrap_or(0.0) / 1.54).max(0.25 * scene.radius);
        motion
    }

    /// The expected way of `source` to the time of `target`, µm.
    pub fn way(&self, scene: &Scene<'_>, source: u32, target: u32) -> [f64; 3] {
        let steps = f64::from(scene.time(target) - scene.time(source));
        let (first, last) = (self.forward[source as usize], self.arrival[target as usize]);
        std::array::from_fn(|axis| 0.5 * steps * (first[axis] + last[axis]))
    }

    /// The place of `target` minus the place expected for `source` at that time, µm.
    pub fn offset(&self, scene: &Scene<'_>, source: u32, target: u32) -> [f64; 3] {
        let way = self.way(scene, source, target);
        let (from, to) = (scene.position(source), scene.position(target));
        std::array::from_fn(|axis| to[axis] - from[axis] - way[axis])
    }

    fn residual(&self, scene: &Scene<'_>, (source, target): Sample) -> f64 {
        let offset = self.offset(scene, source, target);
        squared_distance(offset, [0.0; 3]).sqrt()
    }

    /// Takes the motion and the noise from links from one timepoint to the next.
    pub fn update(&mut self, scene: &Scene<'_>, samples: &[Sample], gap_rate: f64, dropped_rate: f64) {
        if scene.detections.displacements.is_none() {
            self.learn(scene, samples);
        }
        (self.gap_rate, self.dropped_rate) = (gap_rate, dropped_rate);
        let of = |values: &dyn Fn(Sample) -> f64| median(samples.iter().map(|&sample| values(sample)).collect());
        if let Some(middle) = of(&|sample| self.residual(scene, sample)) {
            self.scale = (middle / 1.54).max(0.06 * scene.radius);
        }
        let change = |values: &[f64], (a, b): Sample| (values[a as usize] - values[b as usize]).abs();
        if let Some(middle) = of(&|sample| change(&scene.log_radius, sample)) {
            self.size_noise = (1.48 * middle).clamp(0.02, 0.5);
        }
        if let Some(middle) = of(&|sample| change(&scene.light, sample)) {
            self.light_noise = (1.48 * middle).clamp(0.05, 1.0);
        }
    }

    /// The median way of the nearest linked neighbours, without the spot's own.
    fn learn(&mut self, scene: &Scene<'_>, samples: &[Sample]) {
        let mut by_frame: Vec<Vec<Sample>> = scene.frames.iter().map(|_| Vec::new()).collect();
        for &(source, target) in samples {
            by_frame[scene.places[source as usize].0 as usize].push((source, target));
        }
        let way = |&(a, b): &Sample| {
            let (from, to) = (scene.position(a), scene.position(b));
            [to[0] - from[0], to[1] - from[1], to[2] - from[2]]
        };
        let typical = |owners: &[u32], places: &[[f64; 3]], ways: &[[f64; 3]], queries: &[u32]| -> Vec<[f64; 3]> {
            let tree = KdTree::new(places);
            let one = |&spot: &u32| {
                let hits = tree.nearest(scene.position(spot), NEIGHBOURS + 1, f64::MAX.sqrt());
                let near = || hits.iter().filter(|hit| owners[hit.1 as usize] != spot).take(NEIGHBOURS);
                std::array::from_fn(|axis| {
                    let values: Vec<f64> = near().map(|hit| ways[hit.1 as usize][axis]).collect();
                    centre(values)
                })
            };
            queries.par_iter().map(one).collect()
        };
        for (index, frame) in scene.frames.iter().enumerate() {
            let samples = &by_frame[index];
            let next = scene.frames.get(index + 1).filter(|next| next.time == frame.time + 1);
            let ways: Vec<_> = samples.iter().map(way).collect();
            for at_target in [false, true] {
                let owners: Vec<u32> = samples.iter().map(|&(a, b)| if at_target { b } else { a }).collect();
                let places: Vec<_> = owners.iter().map(|&spot| scene.position(spot)).collect();
                let queries = if at_target { next.map_or(&[][..], |next| &next.spots) } else { &frame.spots };
                let found = typical(&owners, &places, &ways, queries);
                let into = if at_target { &mut self.arrival } else { &mut self.forward };
                for (&spot, way) in queries.iter().zip(found) {
                    into[spot as usize] = way;
                }
            }
        }
    }

    /// Takes the motion from displacements to the previous timepoint.
    fn follow(&mut self, scene: &Scene<'_>, displacements: &[[f64; 3]]) {
        for (arrival, displacement) in self.arrival.iter_mut().zip(displacements) {
            *arrival = displacement.map(|value| -value);
        }
        for pair in scene.frames.windows(2) {
            let places: Vec<[f64; 3]> = (pair[1].spots.iter().zip(&pair[1].positions))
                .map(|(&spot, place)| std::array::from_fn(|axis| place[axis] + displacements[spot as usize][axis]))
                .collect();
            let tree = KdTree::new(&places);
            for (&spot, &place) in pair[0].spots.iter().zip(&pair[0].positions) {
                let hits = tree.nearest(place, 3, f64::MAX.sqrt());
                let way = |axis: usize| {
                    centre(hits.iter().map(|hit| self.arrival[pair[1].spots[hit.1 as usize] as usize][axis]).collect())
                };
                self.forward[spot as usize] = [way(0), way(1), way(2)];
            }
        }
    }
}

/// Mean of the middle one or two values; 0 without values.
fn centre(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 { 0.0 } else { f64::midpoint(values[(count - 1) / 2], values[count / 2]) }
}

/// Pairs of spots in consecutive frames that are each other's nearest, after the expected motion.
fn mutual_neighbours(scene: &Scene<'_>, motion: &Motion) -> Vec<Sample> {
    let pairs = scene.frames.par_windows(2).map(|pair| {
        let [before, after] = pair else { return Vec::new() };
        if after.time != before.time + 1 {
            return Vec::new();
        }
        let moved = |spots: &[u32], ways: &[[f64; 3]], sign: f64| -> Vec<[f64; 3]> {
            let one = |&spot: &u32| {
                let place = scene.position(spot);
                std::array::from_fn(|axis| place[axis] + sign * ways[spot as usize][axis])
            };
            spots.iter().map(one).collect()
        };
        let nearest = |from: &[[f64; 3]], to: &[[f64; 3]]| -> Vec<Option<u32>> {
            let tree = KdTree::new(to);
            from.iter().map(|&place| tree.nearest(place, 1, f64::MAX.sqrt()).first().map(|hit| hit.1)).collect()
        };
        let there = nearest(&moved(&before.spots, &motion.forward, 1.0), &after.positions);
        let back = nearest(&moved(&after.spots, &motion.arrival, -1.0), &before.positions);
        let mutual = (0_u32..).zip(&there).filter_map(|(place, &target)| {
            let target = target? as usize;
            (back[target] == Some(place)).then(|| (before.spots[place as usize], after.spots[target]))
        });
        mutual.collect()
    });
    pairs.collect::<Vec<Vec<Sample>>>().concat()
}
