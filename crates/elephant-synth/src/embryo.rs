//! Nuclei that move, push each other aside and divide.

use std::ops::Range;

use elephant_types::{CancelToken, Cancelled, Lineage, Link, SpotId, Tracks};

use crate::{
    EmbryoOptions, Nucleus, SynthError,
    grid::Grid,
    nucleus::{Chromatin, Surface},
    rng::Rng,
    vector::{Rotation, Vector, add, axis, norm, rotation_from, scale, sub, turned, unit},
};

/// The distance of two nuclei that do not push each other, over the sum of their radii.
const ROOM: f64 = 1.08;

/// A synthetic embryo over time.
#[derive(Clone, Debug)]
pub struct Embryo {
    options: EmbryoOptions,
    /// The nuclei of all timepoints, by their [`SpotId`].
    nuclei: Vec<Nucleus>,
    /// Where the nuclei of each timepoint begin; one entry more than timepoints.
    starts: Vec<u32>,
    lineage: Lineage,
    tracks: Tracks,
}

/// A nucleus while the embryo grows.
struct Cell {
    /// This nucleus, or its mother, at the timepoint before.
    parent: Option<SpotId>,
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
        for t in 0..options.timepoints {
            if t > 0 {
                growth.step(cancel)?;
            }
            growth.observe(t);
        }
        let Growth { nuclei, starts, timepoints, links, .. } = growth;
        let lineage = Lineage::new(timepoints, links)?;
        let tracks = lineage.tracks();
        Ok(Self { options, nuclei, starts, lineage, tracks })
    }

    /// The options that the embryo was grown with.
    pub fn options(&self) -> &EmbryoOptions {
        &self.options
    }

    /// The nuclei at timepoint `t`; none outside the movie.
    pub fn nuclei(&self, t: usize) -> &[Nucleus] {
        &self.nuclei[self.range(t)]
    }

    /// The spots of the lineage at timepoint `t`, in the order of [`nuclei`](Self::nuclei).
    pub fn spots(&self, t: usize) -> impl Iterator<Item = SpotId> {
        self.range(t).map(|index| SpotId(index as u32))
    }

    /// The lineage of all nuclei.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The lineage's tracks; there are less than 2^16.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    fn range(&self, t: usize) -> Range<usize> {
        match self.starts.get(t..) {
            Some(&[start, end, ..]) => start as usize..end as usize,
            _ => 0..0,
        }
    }
}

struct Growth<'a> {
    options: &'a EmbryoOptions,
    rng: Rng,
    middle: Vector,
    cells: Vec<Cell>,
    /// Tracks begun so far.
    tracks: usize,
    nuclei: Vec<Nucleus>,
    starts: Vec<u32>,
    timepoints: Vec<u32>,
    links: Vec<Link>,
}

impl<'a> Growth<'a> {
    fn begin(options: &'a EmbryoOptions, cancel: &CancelToken) -> Result<Self, Cancelled> {
        let edges = options.voxel_size.zyx();
        let middle = std::array::from_fn(|axis| (options.shape[axis] - 1) as f64 / 2.0 * edges[axis]);
        let rng = Rng::stream(options.seed, &[0]);
        let mut growth = Self {
            options,
            rng,
            middle,
            cells: Vec::new(),
            tracks: 0,
            nuclei: Vec::new(),
            starts: vec![0],
            timepoints: Vec::new(),
            links: Vec::new(),
        };
        for _ in 0..options.nuclei {
            cancel.check()?;
            let center = growth.free_position();
            let mut cell = growth.new_cell(center, None);
            // Nuclei are at any point of their cycle when the movie starts.
            cell.age = (growth.rng.unit() * cell.divides_at as f64) as usize;
            growth.cells.push(cell);
        }
        growth.relax(cancel)?;
        Ok(growth)
    }

    /// The one of a few random positions that is farthest from all nuclei.
    fn free_position(&mut self) -> Vector {
        let tissue = self.options.tissue_um();
        let mut best = (f64::NEG_INFINITY, self.middle);
        for _ in 0..24 {
            let point = self.rng.in_ball();
            let position = std::array::from_fn(|axis| self.middle[axis] + point[axis] * tissue[axis]);
            let room = self.cells.iter().map(|cell| norm(sub(cell.center, position))).fold(f64::INFINITY, f64::min);
            if room > best.0 {
                best = (room, position);
            }
        }
        best.1
    }

    fn new_cell(&mut self, center: Vector, parent: Option<SpotId>) -> Cell {
        self.tracks += 1;
        let rng = &mut self.rng;
        let long = rng.uniform(1.05, 1.3);
        let middle = rng.uniform(0.95, 1.05);
        let (first, second) = (rng.normal_vector(), rng.normal_vector());
        Cell {
            parent,
            center,
            velocity: [0.0; 3],
            rotation: rotation_from(first, second),
            proportions: [1.0 / (long * middle), middle, long],
            size: rng.uniform(0.92, 1.08),
            brightness: rng.uniform(0.7, 1.3),
            chromatin: Chromatin::draw(rng),
            age: 0,
            divides_at: cycle(rng, self.options.cycle),
        }
    }

    /// Goes on by one timepoint.
    fn step(&mut self, cancel: &CancelToken) -> Result<(), Cancelled> {
        for cell in std::mem::take(&mut self.cells) {
            self.advance(cell);
        }
        self.relax(cancel)
    }

    fn advance(&mut self, mut cell: Cell) {
        let is_due = cell.age + 1 >= cell.divides_at;
        // Crowded tissue waits; and CTC masks hold 16-bit numbers.
        let has_room = (self.cells.len() as f64) < self.options.capacity() && self.tracks + 2 < 1 << 16;
        if is_due && has_room {
            return self.divide(&cell);
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
    fn flow(&self, position: Vector) -> Vector {
        let tissue = self.options.tissue_um();
        let rate = 0.6 * self.options.step_um / tissue[1].max(tissue[2]).max(self.options.radius_um);
        let from_middle = sub(position, self.middle);
        [0.0, rate * from_middle[2], -rate * from_middle[1]]
    }

    /// Two daughters, each a plate across the line between them.
    fn divide(&mut self, mother: &Cell) {
        let direction = division_axis(mother);
        let distance = 0.8 * self.radius(mother);
        for side in [-1.0, 1.0] {
            let center = add(mother.center, scale(direction, side * distance));
            let mut daughter = self.new_cell(center, mother.parent);
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

    /// Notes the nuclei as they look at timepoint `t`.
    fn observe(&mut self, t: usize) {
        let mut cells = std::mem::take(&mut self.cells);
        for cell in &mut cells {
            let target = SpotId(self.nuclei.len() as u32);
            self.nuclei.push(self.look(cell));
            self.timepoints.push(t as u32);
            self.links.extend(cell.parent.replace(target).map(|source| Link { source, target }));
        }
        self.cells = cells;
        self.starts.push(self.nuclei.len() as u32);
    }

    fn look(&self, cell: &Cell) -> Nucleus {
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
/// have. `find` replaces a list by the indices, in ascending order, of at least all nuclei that may overlap with one at the
/// given position: in this order the pushes are added up, so that it decides about rounding.
fn pushes(centers: &[Vector], radii: &[f64], find: impl Fn(Vector, &mut Vec<usize>)) -> (Vec<Vector>, f64) {
    let mut shifts = vec![[0.0; 3]; centers.len()];
    let mut worst = 0.0_f64;
    let mut near = Vec::new();
    for i in 0..centers.len() {
        find(centers[i], &mut near);
        for &j in near.iter().filter(|&&j| j > i) {
            let apart = sub(centers[j], centers[i]);
            let room = ROOM * (radii[i] + radii[j]);
            let distance = norm(apart);
            if distance < room {
                let shift = scale(unit(apart), 0.4 * (room - distance));
                shifts[i] = sub(shifts[i], shift);
                shifts[j] = add(shifts[j], shift);
                worst = worst.max(1.0 - distance / room);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    fn grown(preset: Preset, seed: u64) -> Embryo {
        Embryo::grow(EmbryoOptions::preset(preset, seed), &CancelToken::default()).unwrap()
    }

    #[test]
    fn the_lineage_goes_from_each_timepoint_to_the_next() {
        for seed in 0..10 {
            let embryo = grown(Preset::Small, seed);
            let lineage = embryo.lineage();
            let mut next = 0;
            for t in 0..embryo.options().timepoints {
                assert_eq!(embryo.spots(t).count(), embryo.nuclei(t).len());
                for spot in embryo.spots(t) {
                    assert_eq!((spot.index(), lineage.timepoint(spot) as usize), (next, t));
                    next += 1;
                    let parent = lineage.parent(spot).map(|parent| lineage.timepoint(parent) as usize);
                    assert_eq!(parent, t.checked_sub(1));
                    let children = lineage.children(spot).count();
                    assert!(if t == 11 { children == 0 } else { (1..=2).contains(&children) });
                }
            }
            assert_eq!(next, lineage.len());
            assert!(embryo.nuclei(12).is_empty());
            assert!((25..=48).contains(&embryo.nuclei(11).len()), "{}", embryo.nuclei(11).len());
            let divisions = lineage.divisions().count();
            assert_eq!(embryo.tracks().len(), embryo.nuclei(0).len() + 2 * divisions);
            assert!(divisions >= 4, "seed {seed}: {divisions}");
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
            for (nucleus, spot) in embryo.nuclei(t).iter().zip(embryo.spots(t)) {
                let before = &embryo.nuclei[embryo.lineage().parent(spot).unwrap().index()];
                let way = norm(sub(nucleus.center_um, before.center_um));
                assert!(way < 8.0, "{way}");
            }
        }
    }

    #[test]
    fn invalid_options_are_refused() {
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
