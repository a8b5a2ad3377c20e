//! Where the nuclei of a scene are, and what they look like.

use std::f64::consts::PI;

use super::{Content, SceneOptions};
use crate::{
    Nucleus,
    nucleus::{Bump, Chromatin, Surface},
    rng::Rng,
    vector::{Rotation, Vector, add, into_body, norm, rotation_from, scale, sub, unit},
};

/// Largest number of nuclei in a scene.
const MAX_NUCLEI: usize = 3000;
/// Failed attempts in a row after which a scene counts as full.
const MAX_FAILURES: usize = 60;

/// The nuclei of a scene, none closer to another than it may be.
pub(super) fn place(options: &SceneOptions) -> Vec<Nucleus> {
    let mut nuclei: Vec<Nucleus> = Vec::new();
    if options.content != Content::Nuclei {
        return nuclei;
    }
    let mut rng = Rng::stream(options.seed, &[1]);
    let space = Space::new(options);
    let (mut filled, mut failures) = (0.0, 0);
    while (filled < options.fill || nuclei.is_empty()) && failures < MAX_FAILURES && nuclei.len() < MAX_NUCLEI {
        let mut nucleus = draw(options, &mut rng);
        let neighbour = if nuclei.is_empty() || rng.unit() > options.clumping {
            None
        } else {
            Some(&nuclei[(rng.unit() * nuclei.len() as f64) as usize])
        };
        nucleus.center_um = match neighbour {
            Some(neighbour) => beside(neighbour, &nucleus, options, &mut rng),
            None => space.random_position(&mut rng),
        };
        let is_free = |other: &Nucleus| {
            let apart = sub(other.center_um, nucleus.center_um);
            let distance = norm(apart);
            let farthest = longest(&nucleus) + longest(other);
            distance >= options.gap * farthest
                || distance >= options.gap * (extent(&nucleus, apart) + extent(other, apart))
        };
        if space.holds(nucleus.center_um) && nuclei.iter().all(is_free) {
            filled += space.share(&nucleus);
            nuclei.push(nucleus);
            failures = 0;
        } else {
            failures += 1;
        }
    }
    nuclei
}

/// The box that centres lie in: the image and a margin, so that nuclei are cut by the image's border too.
struct Space {
    low: Vector,
    high: Vector,
}

impl Space {
    fn new(options: &SceneOptions) -> Self {
        let edges = options.edges();
        let margin = if options.is_planar() { [0.0, 1.0, 1.0] } else { [0.7; 3] }.map(|share| share * options.radius);
        Self {
            low: margin.map(|margin| -margin),
            high: std::array::from_fn(|axis| (options.shape[axis] - 1) as f64 * edges[axis] + margin[axis]),
        }
    }

    fn random_position(&self, rng: &mut Rng) -> Vector {
        std::array::from_fn(|axis| rng.uniform(self.low[axis], self.high[axis]))
    }

    fn holds(&self, point: Vector) -> bool {
        (0..3).all(|axis| (self.low[axis]..=self.high[axis]).contains(&point[axis]))
    }

    /// The share of the volume, or of the area, that a nucleus fills.
    fn share(&self, nucleus: &Nucleus) -> f64 {
        let [z, y, x] = std::array::from_fn(|axis| self.high[axis] - self.low[axis]);
        let [a, b, c] = nucleus.semi_axes_um;
        if z > 0.0 { 4.0 / 3.0 * PI * a * b * c / (z * y * x) } else { PI * b * c / (y * x) }
    }
}

/// A position at which `nucleus` nearly touches `neighbour`.
fn beside(neighbour: &Nucleus, nucleus: &Nucleus, options: &SceneOptions, rng: &mut Rng) -> Vector {
    let mut direction = rng.normal_vector();
    if options.is_planar() {
        direction[0] = 0.0;
    }
    let direction = unit(direction);
    let distance = options.gap * (extent(neighbour, direction) + extent(nucleus, direction)) * rng.uniform(1.0, 1.12);
    add(neighbour.center_um, scale(direction, distance))
}

/// The distance of an ellipsoid's surface from its centre along a direction.
fn extent(nucleus: &Nucleus, direction: Vector) -> f64 {
    let body = into_body(&nucleus.rotation, unit(direction));
    1.0 / norm(std::array::from_fn(|k| body[k] / nucleus.semi_axes_um[k]))
}

fn longest(nucleus: &Nucleus) -> f64 {
    nucleus.semi_axes_um.into_iter().fold(0.0, f64::max)
}

/// A nucleus whose position is still to be found.
fn draw(options: &SceneOptions, rng: &mut Rng) -> Nucleus {
    let radius = options.radius * (1.0 + options.radius_spread * rng.normal()).clamp(0.5, 1.6);
    let brightness = options.dimmest + (1.0 - options.dimmest) * rng.unit();
    // As on a slide or in tissue, most nuclei are less elongated than the most elongated ones.
    let long = 1.0 + (options.elongation - 1.0) * rng.unit();
    let middle = rng.uniform(1.0, long);
    let scale_to_radius = |axes: Vector, root: f64| axes.map(|axis| radius * axis / root);
    let (semi_axes_um, rotation) = if options.is_planar() {
        let in_plane = [0.0, rng.normal(), rng.normal()];
        (scale_to_radius([1.0, 1.0, long], long.sqrt()), rotation_from([1.0, 0.0, 0.0], in_plane))
    } else {
        let rotation: Rotation = rotation_from(rng.normal_vector(), rng.normal_vector());
        (scale_to_radius([1.0, middle, long], (middle * long).cbrt()), rotation)
    };
    Nucleus {
        center_um: [0.0; 3],
        semi_axes_um,
        rotation,
        brightness,
        contrast: options.texture,
        chromatin: Chromatin::draw(rng),
        surface: surface(options, rng),
    }
}

fn surface(options: &SceneOptions, rng: &mut Rng) -> Surface {
    let count = if options.irregularity > 0.0 { 5 } else { 0 };
    let bumps = (0..count).map(|_| {
        let mut direction = rng.normal_vector();
        if options.is_planar() {
            direction[0] = 0.0;
        }
        Bump { direction: unit(direction), height: options.irregularity * rng.uniform(-1.0, 1.0) }
    });
    let bumps = bumps.collect();
    Surface { bumps, hollowness: options.hollowness * rng.uniform(0.7, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SceneSet;

    #[test]
    fn nuclei_keep_their_distance() {
        for seed in 0..30 {
            for is_planar in [false, true] {
                let options = SceneOptions::draw(SceneSet::Scored, is_planar, seed);
                let nuclei = place(&options);
                assert!(!nuclei.is_empty());
                for (i, a) in nuclei.iter().enumerate() {
                    for b in &nuclei[i + 1..] {
                        let apart = sub(a.center_um, b.center_um);
                        assert!(norm(apart) > 0.87 * (extent(a, apart) + extent(b, apart)), "seed {seed}");
                    }
                }
            }
        }
    }
}
