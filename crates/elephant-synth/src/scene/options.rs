//! What a scene looks like, and how that is drawn at random.

use elephant_types::VoxelSize;

use crate::rng::Rng;

/// Largest number of voxels in a scene, and about the number where nuclei are large.
const MAX_VOXELS: f64 = 420_000.0;
/// Pixels along y and along x of a 2-D scene.
const PLANE_EDGE: usize = 256;

/// Which part of the variety a scene is drawn from. Together they cover anisotropies of 1 to 8 and radii of 3 to 25
/// pixels; each has bands of both that the other lacks, so that a network is scored on what it was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SceneSet {
    /// For training.
    Trained,
    /// For scoring: other random numbers, the whole range, the bands left out of training included.
    Scored,
    /// For scoring: only the bands of radius and anisotropy that are left out of training.
    HeldOut,
}

/// Nuclei and microscope of a scene. Lengths are in pixels: the voxel's edge along y and x.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneOptions {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Voxels along (z, y, x); a 2-D scene has z = 1.
    pub shape: [usize; 3],
    /// Edge of a voxel along z over that along y and x.
    pub anisotropy: f64,
    /// Typical radius of a nucleus, were it a ball.
    pub radius: f64,
    /// Standard deviation of the radius, relative to it.
    pub radius_spread: f64,
    /// Share of the volume that nuclei should fill; they may not find that much room.
    pub fill: f64,
    /// Smallest distance of two nuclei relative to that at which they touch.
    pub gap: f64,
    /// Share of the nuclei that are placed next to another one.
    pub clumping: f64,
    /// Longest over shortest semi-axis of the longest nuclei; at least 1.
    pub elongation: f64,
    /// Height of bulges and dents, relative to the radius.
    pub irregularity: f64,
    /// How strongly chromatin shows.
    pub texture: f64,
    /// Fluorescence that is missing inside nuclei, 0 to 1.
    pub hollowness: f64,
    /// Brightness of the dimmest nuclei relative to the brightest.
    pub dimmest: f64,
    /// Mean of the background relative to a nucleus.
    pub background: f64,
    /// How uneven the background is, relative to it.
    pub unevenness: f64,
    /// Bright specks and threads for each nucleus.
    pub debris: f64,
    /// Light lost in the corners of a plane, 0 to 1.
    pub vignetting: f64,
    /// Light lost in the deepest plane, 0 to 1.
    pub attenuation: f64,
    /// Standard deviation of the blur in a plane.
    pub blur: f64,
    /// Blur along z relative to that in a plane, as lengths.
    pub blur_axial: f64,
    /// How much more blurred the deepest plane is: 1 for twice as much.
    pub blur_deep: f64,
    /// Standard deviation of the noise relative to the light of a nucleus.
    pub noise_to_signal: f64,
    /// Whether the noise is smeared over neighbours, as where an image was rescaled.
    pub is_noise_smeared: bool,
    /// Bits of a camera count: 8 or 16.
    pub bits: u32,
    /// What the image is of.
    pub content: Content,
}

/// What a scene shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nuclei.
    Nuclei,
    /// No nucleus, but background, debris and the camera's noise.
    Empty,
    /// Nothing but noise, of one of many distributions and correlations.
    Noise,
}

impl SceneOptions {
    /// Options drawn at random from a part of the variety.
    pub fn draw(set: SceneSet, is_planar: bool, seed: u64) -> Self {
        let stream = match set {
            SceneSet::Trained => 1,
            SceneSet::Scored => 2,
            SceneSet::HeldOut => 3,
        };
        let mut rng = Rng::stream(seed, &[0x0005_ce7e, stream, u64::from(is_planar)]);
        let (anisotropy, radius) = loop {
            let anisotropy = if is_planar { 1.0 } else { log_uniform(&mut rng, 1.0, 8.0) };
            let radius = log_uniform(&mut rng, 3.0, 25.0);
            let is_held_out = is_held_out(radius, 7.5..9.0) || (!is_planar && is_held_out(anisotropy, 2.6..3.2));
            let is_in_set = match set {
                SceneSet::Trained => !is_held_out,
                SceneSet::Scored => true,
                SceneSet::HeldOut => is_held_out,
            };
            // A nucleus between two planes cannot be seen.
            if is_in_set && radius >= 0.6 * anisotropy {
                break (anisotropy, radius);
            }
        };
        let shape = if is_planar { [1, PLANE_EDGE, PLANE_EDGE] } else { shape(anisotropy, radius) };
        let sometimes = |rng: &mut Rng, chance: f64, low: f64, high: f64| {
            let (drawn, value) = (rng.unit(), rng.uniform(low, high));
            if drawn < chance { value } else { 0.0 }
        };
        let blur = rng.uniform(0.4, 2.0).min(0.35 * radius);
        Self {
            seed: seed.wrapping_mul(3).wrapping_add(stream),
            shape,
            anisotropy,
            radius,
            radius_spread: rng.uniform(0.03, 0.22),
            fill: log_uniform(&mut rng, 0.02, 0.5),
            gap: rng.uniform(0.88, 1.25),
            clumping: rng.uniform(0.0, 0.8),
            elongation: 1.0 + rng.uniform(0.0, 1.15).powi(2),
            irregularity: sometimes(&mut rng, 0.5, 0.05, 0.35),
            texture: rng.uniform(0.0, 1.2),
            hollowness: sometimes(&mut rng, 0.25, 0.3, 0.95),
            dimmest: rng.uniform(0.2, 1.0),
            background: log_uniform(&mut rng, 0.01, 0.8),
            unevenness: sometimes(&mut rng, 0.5, 0.2, 1.0),
            debris: sometimes(&mut rng, 0.35, 0.05, 0.6),
            vignetting: sometimes(&mut rng, 0.3, 0.1, 0.6),
            attenuation: sometimes(&mut rng, 0.5, 0.1, 0.7),
            blur,
            blur_axial: rng.uniform(1.0, 4.0).min(0.7 * radius / blur).max(1.0),
            blur_deep: sometimes(&mut rng, 0.3, 0.3, 1.5),
            noise_to_signal: log_uniform(&mut rng, 0.02, 0.5),
            is_noise_smeared: rng.unit() < 0.3,
            bits: if rng.unit() < 0.35 { 8 } else { 16 },
            content: content(set, &mut rng),
        }
    }

    /// Edges of a voxel; see [`Scene::voxel_size`](crate::Scene::voxel_size).
    pub(crate) fn voxel_size(&self) -> VoxelSize {
        VoxelSize::new(self.edges()).expect("the edges are positive")
    }

    /// Edges of a voxel (z, y, x).
    pub(crate) fn edges(&self) -> [f64; 3] {
        [self.anisotropy, 1.0, 1.0]
    }

    /// Whether the scene is a plane.
    pub fn is_planar(&self) -> bool {
        self.shape[0] == 1
    }
}

/// Scenes for scoring have nuclei.
fn content(set: SceneSet, rng: &mut Rng) -> Content {
    match rng.unit() {
        _ if set != SceneSet::Trained => Content::Nuclei,
        drawn if drawn < 0.05 => Content::Empty,
        drawn if drawn < 0.11 => Content::Noise,
        _ => Content::Nuclei,
    }
}

fn is_held_out(value: f64, band: std::ops::Range<f64>) -> bool {
    band.contains(&value)
}

fn log_uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low * libm::exp(rng.unit() * libm::log(high / low))
}

/// Some nuclei across, in multiples of 16.
fn shape(anisotropy: f64, radius: f64) -> [usize; 3] {
    let depth = (7.0 * radius / anisotropy).clamp(10.0, 48.0);
    let edge = (9.0 * radius).clamp(96.0, 160.0).min((MAX_VOXELS / depth).sqrt());
    let multiple = |length: f64, of: f64| ((length / of).round().max(1.0) * of) as usize;
    let edge = multiple(edge, 16.0);
    [multiple(depth, if anisotropy < 3.0 { 8.0 } else { 2.0 }), edge, edge]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_out_is_never_trained_on() {
        for seed in 0..500 {
            let trained = SceneOptions::draw(SceneSet::Trained, false, seed);
            let held_out = SceneOptions::draw(SceneSet::HeldOut, false, seed);
            let is_in_band = |o: &SceneOptions| (7.5..9.0).contains(&o.radius) || (2.6..3.2).contains(&o.anisotropy);
            assert!(!is_in_band(&trained), "{trained:?}");
            assert!(is_in_band(&held_out), "{held_out:?}");
            let voxels: usize = trained.shape.iter().product();
            assert!((60_000..=520_000).contains(&voxels), "{trained:?}");
        }
    }
}
