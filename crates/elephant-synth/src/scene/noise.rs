//! Images of nothing but noise.

use elephant_image::gaussian_blur;
use ndarray::Array3;

use super::SceneOptions;
use crate::rng::Rng;

/// Numbers over the whole range of 16 bits, from one of several distributions, smeared or not.
pub(super) fn image(options: &SceneOptions) -> Array3<u16> {
    let mut rng = Rng::stream(options.seed, &[3]);
    let kind = rng.unit();
    let mut values = Array3::zeros(options.shape);
    for value in &mut values {
        *value = sample(kind, &mut rng) as f32;
    }
    if rng.unit() < 0.5 {
        let sigma = rng.uniform(0.3, 1.5);
        gaussian_blur(&mut values, [if options.is_planar() { 0.0 } else { sigma / options.anisotropy }, sigma, sigma]);
    }
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &value| (low.min(value), high.max(value)));
    let scale = f32::from(u16::MAX) / (high - low).max(1e-9);
    values.mapv(|value| ((value - low) * scale).round() as u16)
}

/// A random number; `kind`, 0 to 1, selects the distribution.
fn sample(kind: f64, rng: &mut Rng) -> f64 {
    if kind < 0.2 {
        rng.unit()
    } else if kind < 0.5 {
        rng.normal()
    } else if kind < 0.7 {
        -libm::log(rng.unit())
    } else {
        // Photons: few in the dark, more where it is not.
        rng.poisson(0.1 + 60.0 * (kind - 0.7))
    }
}
