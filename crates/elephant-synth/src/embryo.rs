//! Nuclei that move, push each other aside and divide.

use elephant_types::{CancelToken, Cancelled};

use crate::{
    EmbryoOptions, Nucleus, SynthError,
    grid::Grid,
    nucleus::{Chromatin, Grain, Surface},
    rng::Rng,
    vector::{Rotation, Vector, add, axis, norm, rotation_from, scale, sub, turned, unit},
};

/// The distance of two nuclei that do not push each other, over the sum of their radii.
const ROOM: f64 = 1.08;

/// A synthetic embryo over time.
#[derive(Clone, Debug)]
pub struct Embryo {
    options: EmbryoOptions,
    frames: Vec<Vec<Nucleus>>,
    tracks: Vec<Track>,
}

/// A nucleus from its first to its last timepoint, between divisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// From 1, without gaps.
    pub id: u16,
    /// First timepoint.
    pub start: usize,
    /// Last timepoint, inclusive.
    pub end: usize,
    /// The track of the mother.
    pub parent: Option<u16>,
}

/// A nucleus while the embryo grows.
struct Cell {
    track: u16,
    /// The number of this nucleus, or its mother, at the timepoint before.
    parent: Option<usize>,
    center: Vector,
    velocity: Vector,
    rotation: Rotation,
    /// Semi-axes relative to the radius; their product is 1.
    proportions: Vector,
    /// Radius relative to that of its age.
    size: f64,
    brightness: f64,
    chromatin: Chromatin,
    /// Timepoints since the last division.
    age: usize,
    /// The age at which it divides.
    divides_at: usize,
}

impl Embryo {
    /// Grows an embryo through all timepoints.
    ///
    /// # Errors
    /// [`SynthError::InvalidOption`], and [`SynthError::Cancelled`] soon after `cancel` was.
    pub fn grow(options: EmbryoOptions, cancel: &CancelToken) -> Result<Self, SynthError> {
        options.validate()?;
        let mut growth = Growth::begin(&options, cancel)?;
        let mut frames: Vec<Vec<Nucleus>> = Vec::with_capacity(options.timepoints);
        for t in 0..options.timepoints {
            if t > 0 {
                growth.step(t, cancel)?;
            }
            frames.push(growth.observe(t));
        }
        let tracks = growth.tracks;
        Ok(Self { options, frames, tracks })
    }

    /// What the embryo was grown from.
    pub fn options(&self) -> &EmbryoOptions {
        &self.options
    }

    /// The nuclei at timepoint `t`; none outside the movie.
    pub fn nuclei(&self, t: usize) -> &[Nucleus] {
        self.frames.get(t).map_or(&[], Vec::as_slice)
    }

    /// All tracks, in the order of their numbers.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }
}

struct Growth<'a> {
    options: &'a EmbryoOptions,
    rng: Rng,
    middle: Vector,
    cells: Vec<Cell>,
    tracks: Vec<Track>,
    observed: usize,
}

impl<'a> Growth<'a> {
    fn begin(options: &'a EmbryoOptions, cancel: &CancelToken) -> Result<Self, Cancelled> {
        let edges = options.voxel_size.zyx();
        let middle = std::array::from_fn(|axis| (options.shape[axis] - 1) as f64 / 2.0 * edges[axis]);
        let rng = Rng::stream(options.seed, &[0]);
        let mut growth = Self { options, rng, middle, cells: Vec::new(), tracks: Vec::new(), observed: 0 };
        for _ in 0..options.nuclei {
            cancel.check()?;
            let center = growth.free_place();
            let mut cell = growth.new_cell(center, 0, None, None);
            // Nuclei are at any point of their cycle when the movie starts.
            cell.age = (growth.rng.unit() * cell.divides_at as f64) as usize;
            growth.cells.push(cell);
        }
        growth.relax(cancel)?;
        Ok(growth)
    }

    /// Of a few random places the one farthest from all nuclei.
    fn free_place(&mut self) -> Vector {
        let tissue = self.options.tissue_um();
        let mut best = (f64::NEG_INFINITY, self.middle);
        for _ in 0..24 {
            let point = self.rng.in_ball();
            let place = std::array::from_fn(|axis| self.middle[axis] + point[axis] * tissue[axis]);
            let room = self.cells.iter().map(|cell| norm(sub(cell.center, place))).fold(f64::INFINITY, f64::min);
            if room > best.0 {
                best = (room, place);
            }
        }
        best.1
    }

    fn new_cell(&mut self, center: Vector, t: usize, mother: Option<u16>, parent: Option<usize>) -> Cell {
        // `divide` sees to it that track numbers fit.
        let track = self.tracks.len() as u16 + 1;
        self.tracks.push(Track { id: track, start: t, end: t, parent: mother });
        let rng = &mut self.rng;
        let long = rng.uniform(1.05, 1.3);
        let middle = rng.uniform(0.95, 1.05);
        let (first, second) = (rng.normal_vector(), rng.normal_vector());
        Cell {
            track,
            parent,
            center,
            velocity: [0.0; 3],
            rotation: rotation_from(first, second),
            proportions: [1.0 / (long * middle), middle, long],
            size: rng.uniform(0.92, 1.08),
            brightness: rng.uniform(0.7, 1.3),
            chromatin: chromatin(rng),
            age: 0,
            divides_at: cycle(rng, self.options.cycle),
        }
    }

    /// From timepoint `t - 1` to `t`.
    fn step(&mut self, t: usize, cancel: &CancelToken) -> Result<(), Cancelled> {
        for cell in std::mem::take(&mut self.cells) {
            self.advance(cell, t);
        }
        self.relax(cancel)
    }

    fn advance(&mut self, mut cell: Cell, t: usize) {
        let is_due = cell.age + 1 >= cell.divides_at;
        // Crowded tissue waits; and CTC masks hold 16-bit numbers.
        let has_room = (self.cells.len() as f64) < self.options.capacity() && self.tracks.len() + 2 < 1 << 16;
        if is_due && has_room {
            return self.divide(&cell, t);
        }
        cell.age += usize::from(!is_due);
        let push = scale(self.rng.normal_vector(), 0.45 * self.options.step_um);
        cell.velocity = add(scale(cell.velocity, 0.6), push);
        cell.center = add(cell.center, add(cell.velocity, self.flow(cell.center)));
        let turn = scale(self.rng.normal_vector(), 0.07);
        cell.rotation = turned(&cell.rotation, turn);
        self.cells.push(cell);
    }

    /// The tissue turns slowly about the z axis.
    fn flow(&self, place: Vector) -> Vector {
        let tissue = self.options.tissue_um();
        let rate = 0.6 * self.options.step_um / tissue[1].max(tissue[2]).max(self.options.radius_um);
        let from_middle = sub(place, self.middle);
        [0.0, rate * from_middle[2], -rate * from_middle[1]]
    }

    /// Two daughters, each a plate across the line between them.
    fn divide(&mut self, mother: &Cell, t: usize) {
        let direction = division_axis(mother);
        let distance = 0.8 * self.radius(mother);
        for side in [-1.0, 1.0] {
            let center = add(mother.center, scale(direction, side * distance));
            let mut daughter = self.new_cell(center, t, Some(mother.track), mother.parent);
            let across = self.rng.normal_vector();
            daughter.rotation = rotation_from(direction, across);
            daughter.size = mother.size;
            daughter.brightness = mother.brightness * self.rng.uniform(0.95, 1.05);
            daughter.velocity = scale(direction, side * 0.4 * self.options.step_um);
            self.cells.push(daughter);
        }
    }

    /// The radius of a ball of the same volume. Daughters have half the volume that their mother had.
    fn radius(&self, cell: &Cell) -> f64 {
        let progress = (cell.age as f64 / cell.divides_at as f64).min(1.0);
        self.options.radius_um * cell.size * (0.885 + 0.23 * progress)
    }

    /// Pushes nuclei apart until they hardly overlap, and back into the tissue.
    fn relax(&mut self, cancel: &CancelToken) -> Result<(), Cancelled> {
        let radii: Vec<f64> = self.cells.iter().map(|cell| self.radius(cell)).collect();
        let reach = 2.0 * ROOM * radii.iter().copied().fold(0.0, f64::max);
        for _ in 0..100 {
            cancel.check()?;
            let centers: Vec<Vector> = self.cells.iter().map(|cell| cell.center).collect();
            let grid = Grid::new(&centers, reach);
            let (shifts, worst) = pushes(&centers, &radii, |center, near| grid.find(center, near));
            for (cell, shift) in self.cells.iter_mut().zip(shifts) {
                cell.center = add(cell.center, shift);
            }
            self.confine();
            if worst < 0.02 {
                break;
            }
        }
        Ok(())
    }

    /// Puts nuclei outside the tissue onto its surface.
    fn confine(&mut self) {
        let tissue = self.options.tissue_um();
        for cell in &mut self.cells {
            let from_middle = sub(cell.center, self.middle);
            // A direction without extent, as z of a plane, holds nothing but the middle.
            let relative = std::array::from_fn(|i| if tissue[i] > 0.0 { from_middle[i] / tissue[i] } else { 0.0 });
            let shrink = 1.0 / norm(relative).max(1.0);
            cell.center = std::array::from_fn(|i| self.middle[i] + relative[i] * shrink * tissue[i]);
        }
    }

    /// The nuclei as they look at timepoint `t`.
    fn observe(&mut self, t: usize) -> Vec<Nucleus> {
        let mut cells = std::mem::take(&mut self.cells);
        let nuclei = cells.iter_mut().map(|cell| {
            let id = self.observed;
            self.observed += 1;
            self.tracks[usize::from(cell.track) - 1].end = t;
            let nucleus = self.look(cell, id);
            cell.parent = Some(id);
            nucleus
        });
        let nuclei = nuclei.collect();
        self.cells = cells;
        nuclei
    }

    fn look(&self, cell: &Cell, id: usize) -> Nucleus {
        // Before and after a division chromatin is condensed: small, bright and smooth.
        let condensed = match (cell.divides_at - cell.age, cell.age) {
            (1, _) | (_, 0) => 1.0,
            (2, _) | (_, 1) => 0.5,
            _ => 0.0,
        };
        // Before, nuclei are round; after, flat across the direction of the division.
        let target = if cell.age <= 1 { [0.72, 1.17, 1.17] } else { [1.0; 3] };
        let radius = self.radius(cell) * (1.0 - 0.1 * condensed);
        let blend = |i: usize| cell.proportions[i] * (1.0 - condensed) + target[i] * condensed;
        Nucleus {
            id,
            track: cell.track,
            parent: cell.parent,
            center_um: cell.center,
            semi_axes_um: std::array::from_fn(|i| radius * blend(i)),
            rotation: cell.rotation,
            brightness: cell.brightness * (1.0 + 0.6 * condensed),
            contrast: 1.0 - 0.7 * condensed,
            chromatin: cell.chromatin.clone(),
            surface: Surface::default(),
        }
    }
}

/// How far overlapping nuclei push each other, and the largest overlap, as a fraction of the distance that they should
/// have. `find` replaces a list by the indices, in ascending order, of at least all nuclei that may overlap with one at a
/// place: in this order the pushes are added up, so that it decides about rounding.
fn pushes(centers: &[Vector], radii: &[f64], find: impl Fn(Vector, &mut Vec<usize>)) -> (Vec<Vector>, f64) {
    let mut shifts = vec![[0.0; 3]; centers.len()];
    let mut worst = 0.0_f64;
    let mut near = Vec::new();
    for i in 0..centers.len() {
        find(centers[i], &mut near);
        for &j in near.iter().filter(|&&j| j > i) {
            let apart = sub(centers[j], centers[i]);
            let wanted = ROOM * (radii[i] + radii[j]);
            let distance = norm(apart);
            if distance < wanted {
                let shift = scale(unit(apart), 0.4 * (wanted - distance));
                shifts[i] = sub(shifts[i], shift);
                shifts[j] = add(shifts[j], shift);
                worst = worst.max(1.0 - distance / wanted);
            }
        }
    }
    (shifts, worst)
}

/// Nuclei divide along their longest axis, or nearly so.
fn division_axis(mother: &Cell) -> Vector {
    axis(&mother.rotation, 2)
}

/// The age of the next division.
fn cycle(rng: &mut Rng, mean: f64) -> usize {
    (mean * (1.0 + 0.15 * rng.normal())).round().max(4.0) as usize
}

/// Bright grains of heterochromatin, and one or two nucleoli without DNA.
pub(crate) fn chromatin(rng: &mut Rng) -> Chromatin {
    let mut grains = Vec::new();
    for _ in 0..7 {
        let (place, width, amount) = (scale(rng.in_ball(), 0.8), rng.uniform(0.16, 0.34), rng.uniform(0.8, 2.0));
        grains.push(Grain { place, width, amount });
    }
    for _ in 0..2 {
        let (place, width, amount) = (scale(rng.in_ball(), 0.5), rng.uniform(0.2, 0.36), rng.uniform(-1.4, -0.8));
        grains.push(Grain { place, width, amount });
    }
    Chromatin { grains }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    fn grown(preset: Preset, seed: u64) -> Embryo {
        Embryo::grow(EmbryoOptions::preset(preset, seed), &CancelToken::default()).unwrap()
    }

    #[test]
    fn the_lineage_is_consistent() {
        for seed in 0..10 {
            let embryo = grown(Preset::Small, seed);
            let mut divisions = 0;
            let mut next = 0;
            for t in 0..embryo.options().timepoints {
                for nucleus in embryo.nuclei(t) {
                    assert_eq!(nucleus.id, next);
                    next += 1;
                    let track = embryo.tracks()[usize::from(nucleus.track) - 1];
                    assert!((track.start..=track.end).contains(&t));
                    let before = nucleus.parent.map(|id| embryo.nuclei(t - 1).iter().find(|n| n.id == id).unwrap());
                    let expected = if t == track.start { track.parent } else { Some(nucleus.track) };
                    assert_eq!(before.map(|n| n.track), expected);
                    divisions += usize::from(t == track.start && t > 0);
                }
            }
            assert!((25..=48).contains(&embryo.nuclei(11).len()), "{}", embryo.nuclei(11).len());
            assert!(divisions >= 8, "seed {seed}: {divisions}");
        }
    }

    #[test]
    fn nuclei_keep_apart_and_inside() {
        for seed in 0..10 {
            let embryo = grown(Preset::Small, seed);
            let extent = embryo.options().extent_um();
            for t in 0..embryo.options().timepoints {
                let nuclei = embryo.nuclei(t);
                for (i, a) in nuclei.iter().enumerate() {
                    let half = a.half_box_um();
                    for axis in 0..3 {
                        assert!(a.center_um[axis] > 0.5 * half[axis]);
                        assert!(a.center_um[axis] + 0.5 * half[axis] < extent[axis]);
                    }
                    for b in &nuclei[i + 1..] {
                        let radius = |n: &Nucleus| n.semi_axes_um.iter().product::<f64>().cbrt();
                        let distance = norm(sub(a.center_um, b.center_um));
                        assert!(distance > 0.9 * (radius(a) + radius(b)), "seed {seed}, t {t}: {distance}");
                    }
                }
            }
        }
    }

    #[test]
    fn steps_are_short_enough_to_link() {
        let embryo = grown(Preset::Small, 3);
        for t in 1..embryo.options().timepoints {
            for nucleus in embryo.nuclei(t) {
                let parent = nucleus.parent.unwrap();
                let before = embryo.nuclei(t - 1).iter().find(|n| n.id == parent).unwrap();
                let way = norm(sub(nucleus.center_um, before.center_um));
                assert!(way < 8.0, "{way}");
            }
        }
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        let good = EmbryoOptions::preset(Preset::Tiny, 0);
        for (name, bad) in [
            ("timepoints", EmbryoOptions { timepoints: 0, ..good.clone() }),
            ("shape", EmbryoOptions { shape: [0, 10, 10], ..good.clone() }),
            ("shape", EmbryoOptions { shape: [4096; 3], ..good.clone() }),
            ("nuclei", EmbryoOptions { nuclei: 0, ..good.clone() }),
            ("nuclei", EmbryoOptions { nuclei: 500, ..good.clone() }),
            ("radius_um", EmbryoOptions { radius_um: f64::NAN, ..good.clone() }),
            ("cycle", EmbryoOptions { cycle: 1.0, ..good.clone() }),
            ("step_um", EmbryoOptions { step_um: -1.0, ..good.clone() }),
        ] {
            let message = Embryo::grow(bad, &CancelToken::default()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_plane_is_an_embryo_too() {
        let options = EmbryoOptions { shape: [1, 96, 96], ..EmbryoOptions::preset(Preset::Tiny, 0) };
        let embryo = Embryo::grow(options, &CancelToken::default()).unwrap();
        assert!(embryo.nuclei(3).iter().all(|nucleus| nucleus.center_um[0] == 0.0));
    }

    #[test]
    fn neighbours_are_pushed_as_if_all_pairs_were_looked_at() {
        let mut rng = Rng::stream(3, &[0]);
        let centers: Vec<Vector> = (0..300).map(|_| scale(rng.in_ball(), 40.0)).collect();
        let radii: Vec<f64> = (0..300).map(|_| rng.uniform(1.0, 9.0)).collect();
        let grid = Grid::new(&centers, 2.0 * ROOM * 9.0);
        let found = pushes(&centers, &radii, |center, near| grid.find(center, near));
        assert!(found.1 > 0.0);
        assert_eq!(found, pushes(&centers, &radii, |_, near| *near = (0..300).collect()), "to the last bit");
    }

    #[test]
    fn a_large_embryo_stops_growing_when_it_is_cancelled() {
        let options =
            EmbryoOptions { shape: [512, 1024, 1024], nuclei: 15_000, ..EmbryoOptions::preset(Preset::Small, 0) };
        let cancel = CancelToken::default();
        cancel.cancel();
        assert!(matches!(Embryo::grow(options, &cancel), Err(SynthError::Cancelled(_))));
    }
}
