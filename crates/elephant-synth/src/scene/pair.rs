//! Two images of the same nuclei, between which they move and divide.

use elephant_types::VoxelSize;
use ndarray::Array3;

use super::{SceneOptions, placement, render};
use crate::{
    Nucleus,
    rng::Rng,
    vector::{Vector, add, dot, norm, scale, sub, unit},
};

/// Largest typical displacement, in radii of a nucleus.
const MAX_DISPLACEMENT: f64 = 1.2;
/// Distance of two nuclei that may be daughters of one, over the sum of their radii.
const SISTERS: f64 = 1.35;
/// Distance that two nuclei of the earlier image keep, over the sum of their radii.
const ROOM: f64 = 0.92;
/// How often nuclei of the earlier image are moved apart.
const RELAXATIONS: usize = 6;

/// A nucleus of the later image.
#[derive(Clone, Debug)]
pub struct MovedNucleus {
    /// The nucleus in the later image.
    pub nucleus: Nucleus,
    /// Centre (z, y, x) in µm of it, or of its mother, in the earlier image.
    pub earlier_um: [f64; 3],
}

/// Two images of a scene, some time apart.
#[derive(Clone, Debug)]
pub struct ScenePair {
    /// Camera counts of the earlier image, (z, y, x).
    pub earlier: Array3<u16>,
    /// Camera counts of the later image, (z, y, x).
    pub later: Array3<u16>,
    /// The nuclei of the later image, also those that lie outside it.
    pub nuclei: Vec<MovedNucleus>,
    /// Edges of a voxel; see [`Scene::voxel_size`](super::Scene::voxel_size).
    pub voxel_size: VoxelSize,
}

impl ScenePair {
    /// Places nuclei, moves them, and makes both images. The same options give the same pair on every machine. Nuclei follow a
    /// common motion, waves, and ways of their own; from none to about a radius together. Some are daughters of one nucleus
    /// in the earlier image.
    pub fn render(options: &SceneOptions) -> Self {
        let mut rng = Rng::stream(options.seed, &[3]);
        let nuclei = placement::place(options);
        let motion = Motion::draw(options, &mut rng);
        let (mut earlier, parents) = mothers(&nuclei, options, &mut rng);
        for nucleus in &mut earlier {
            nucleus.center_um = add(nucleus.center_um, motion.at(nucleus.center_um, &mut rng));
            nucleus.brightness *= rng.uniform(0.9, 1.1);
        }
        move_apart(&mut earlier, options);
        let moved = nuclei
            .iter()
            .zip(&parents)
            .map(|(nucleus, &parent)| MovedNucleus { nucleus: nucleus.clone(), earlier_um: earlier[parent].center_um });
        Self {
            earlier: render::image(options, &earlier, nuclei.len(), 1),
            later: render::image(options, &nuclei, nuclei.len(), 0),
            nuclei: moved.collect(),
            voxel_size: options.voxel_size(),
        }
    }
}

/// Displacements from the later to the earlier image.
struct Motion {
    common: Vector,
    /// Direction and height, wave vector, phase.
    waves: [(Vector, Vector, f64); 2],
    /// Standard deviation along each axis of each nucleus's own way.
    own: f64,
    is_planar: bool,
}

impl Motion {
    fn draw(options: &SceneOptions, rng: &mut Rng) -> Self {
        let is_planar = options.is_planar();
        let direction = |length: f64, rng: &mut Rng| scale(unit(flat(rng.normal_vector(), is_planar)), length);
        let height = MAX_DISPLACEMENT * options.radius * rng.unit().powf(1.5);
        let length = height * rng.uniform(0.2, 1.0);
        let common = direction(length, rng);
        let waves = [(); 2].map(|()| {
            let length = rng.uniform(5.0, 20.0) * options.radius;
            let height = direction(0.25 * height, rng);
            (height, direction(std::f64::consts::TAU / length, rng), rng.uniform(0.0, std::f64::consts::TAU))
        });
        Self { common, waves, own: height * rng.uniform(0.03, 0.25), is_planar }
    }

    fn at(&self, position: Vector, rng: &mut Rng) -> Vector {
        let own = scale(flat(rng.normal_vector(), self.is_planar), self.own);
        self.waves.iter().fold(add(self.common, own), |sum, (height, wave, phase)| {
            add(sum, scale(*height, libm::sin(dot(*wave, position) + phase)))
        })
    }
}

fn flat(vector: Vector, is_planar: bool) -> Vector {
    let [z, y, x] = vector;
    [if is_planar { 0.0 } else { z }, y, x]
}

fn radius(nucleus: &Nucleus) -> f64 {
    libm::cbrt(nucleus.semi_axes_um.iter().product())
}

/// The nuclei of the earlier image before they are moved, and for each later one the index of its own.
fn mothers(nuclei: &[Nucleus], options: &SceneOptions, rng: &mut Rng) -> (Vec<Nucleus>, Vec<usize>) {
    let rate = rng.uniform(-0.1, 0.2).max(0.0);
    let mut earlier: Vec<Nucleus> = Vec::with_capacity(nuclei.len());
    let mut parents = vec![usize::MAX; nuclei.len()];
    for (index, nucleus) in nuclei.iter().enumerate() {
        if parents[index] != usize::MAX {
            continue;
        }
        parents[index] = earlier.len();
        let mut mother = nucleus.clone();
        if rng.unit() < rate {
            let distance = |other: &Nucleus| norm(sub(other.center_um, nucleus.center_um));
            let reach = |other: &Nucleus| SISTERS * (radius(other) + radius(nucleus));
            let sister = (index + 1..nuclei.len())
                .filter(|&other| parents[other] == usize::MAX && distance(&nuclei[other]) < reach(&nuclei[other]))
                .min_by(|&a, &b| distance(&nuclei[a]).total_cmp(&distance(&nuclei[b])));
            if let Some(sister) = sister {
                parents[sister] = earlier.len();
                mother.center_um = scale(add(nucleus.center_um, nuclei[sister].center_um), 0.5);
                mother.semi_axes_um = mother.semi_axes_um.map(|axis| 1.15 * axis);
                mother.brightness *= rng.uniform(1.0, 1.5);
            }
        }
        if options.is_planar() {
            mother.center_um[0] = 0.0;
        }
        earlier.push(mother);
    }
    (earlier, parents)
}

fn move_apart(nuclei: &mut [Nucleus], options: &SceneOptions) {
    for _ in 0..RELAXATIONS {
        for first in 0..nuclei.len() {
            for second in first + 1..nuclei.len() {
                let apart = flat(sub(nuclei[second].center_um, nuclei[first].center_um), options.is_planar());
                let missing = ROOM * options.gap.min(1.0) * (radius(&nuclei[first]) + radius(&nuclei[second]));
                let missing = missing - norm(apart);
                if missing > 0.0 {
                    let push = scale(unit(apart), 0.5 * missing);
                    nuclei[first].center_um = sub(nuclei[first].center_um, push);
                    nuclei[second].center_um = add(nuclei[second].center_um, push);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Scene, SceneSet};

    fn options(seed: u64, is_planar: bool) -> SceneOptions {
        let shape = if is_planar { [1, 64, 64] } else { [10, 64, 64] };
        let drawn = SceneOptions::draw(SceneSet::Trained, is_planar, seed);
        SceneOptions { shape, radius: 5.0, content: Content::Nuclei, fill: 0.2, ..drawn }
    }

    #[test]
    fn the_later_image_is_the_scene() {
        for is_planar in [false, true] {
            let options = options(4, is_planar);
            let (pair, again) = (ScenePair::render(&options), ScenePair::render(&options));
            assert_eq!((&pair.earlier, &pair.later), (&again.earlier, &again.later));
            assert_eq!(pair.later, Scene::render(&options).image);
            assert_ne!(pair.earlier, pair.later);
        }
    }

    #[test]
    fn nuclei_move_as_far_as_they_may_and_some_divide() {
        let (mut farthest, mut shortest, mut sisters) = (0.0_f64, f64::INFINITY, 0);
        for seed in 0..40 {
            let pair = ScenePair::render(&options(seed, seed % 2 == 0));
            let ways: Vec<f64> =
                pair.nuclei.iter().map(|moved| norm(sub(moved.earlier_um, moved.nucleus.center_um))).collect();
            let mean = ways.iter().sum::<f64>() / ways.len() as f64;
            (farthest, shortest) = (farthest.max(mean), shortest.min(mean));
            for (index, moved) in pair.nuclei.iter().enumerate() {
                assert!(seed % 2 == 1 || moved.earlier_um[0] == 0.0);
                sisters += pair.nuclei[index + 1..].iter().filter(|other| other.earlier_um == moved.earlier_um).count();
            }
        }
        assert!((3.0..15.0).contains(&farthest) && shortest < 1.5, "{shortest} to {farthest}");
        assert!(sisters > 5, "{sisters}");
    }
}
