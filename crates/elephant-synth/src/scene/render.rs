//! The image that a microscope would take of a scene.

use elephant_image::gaussian_blur;
use ndarray::{Array3, Axis, Zip};
use rayon::prelude::*;

use super::SceneOptions;
use crate::{
    Nucleus,
    nucleus::{Chromatin, Surface},
    render::for_each_pixel,
    rng::Rng,
    vector::{Vector, rotation_from},
};

/// The largest share of the camera's range that the brightest voxel takes, before noise.
const FULL_RANGE: f64 = 0.95;

/// Camera counts, (z, y, x). What is not a nucleus is the same in all images of a scene, with debris as for `usual` nuclei; the
/// noise differs between numbers `exposure`.
pub(super) fn image(options: &SceneOptions, nuclei: &[Nucleus], usual: usize, exposure: u64) -> Array3<u16> {
    let mut rng = Rng::stream(options.seed, &[2]);
    let mut shining = nuclei.to_vec();
    shining.extend(debris(options, usual, &mut rng));
    let mut light = background(options, &mut rng);
    light.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for nucleus in &shining {
            for_each_pixel(nucleus, options.shape, options.edges(), z, |pixel, _, fluorescence| {
                plane[pixel] += fluorescence as f32;
            });
        }
    });
    blur_with_depth(options, &mut light);
    shade(options, &mut light, &mut rng);
    expose(options, light, exposure, &mut rng)
}

/// Smooth light that does not come from nuclei.
fn background(options: &SceneOptions, rng: &mut Rng) -> Array3<f32> {
    let edges = options.edges();
    let extent: Vector = std::array::from_fn(|axis| options.shape[axis] as f64 * edges[axis]);
    let bells: Vec<(Vector, f64, f64)> = (0..5)
        .map(|_| {
            let position = std::array::from_fn(|axis| rng.uniform(-0.2, 1.2) * extent[axis]);
            let width = rng.uniform(1.5, 6.0) * options.radius;
            (position, width * width, rng.uniform(-0.6, 1.5))
        })
        .collect();
    let mut light = Array3::zeros(options.shape);
    light.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for ((y, x), value) in plane.indexed_iter_mut() {
            let point = [z as f64 * edges[0], y as f64, x as f64];
            let mut uneven = 0.0;
            if options.unevenness > 0.0 {
                for (position, square_width, height) in &bells {
                    let square: f64 = (0..3).map(|axis| (point[axis] - position[axis]).powi(2)).sum();
                    uneven += height / (1.0 + square / square_width);
                }
            }
            *value = (options.background * (1.0 + options.unevenness * uneven)).max(0.0) as f32;
        }
    });
    light
}

/// Specks and threads that shine but are not nuclei.
fn debris(options: &SceneOptions, nuclei: usize, rng: &mut Rng) -> Vec<Nucleus> {
    let edges = options.edges();
    let count = (options.debris * (nuclei.clamp(6, 200)) as f64) as usize;
    let mut speck = || {
        let size = options.radius * rng.uniform(0.08, 0.28);
        let long = if rng.unit() < 0.3 { rng.uniform(4.0, 10.0) } else { rng.uniform(1.0, 1.6) };
        let center = std::array::from_fn(|axis| rng.uniform(0.0, (options.shape[axis] - 1) as f64 * edges[axis]));
        let (first, second) = if options.is_planar() {
            ([1.0, 0.0, 0.0], [0.0, rng.normal(), rng.normal()])
        } else {
            (rng.normal_vector(), rng.normal_vector())
        };
        Nucleus {
            center_um: center,
            semi_axes_um: [size, size, size * long],
            rotation: rotation_from(first, second),
            brightness: rng.uniform(0.5, 3.0),
            contrast: 0.0,
            chromatin: Chromatin::draw(rng),
            surface: Surface::default(),
        }
    };
    (0..count).map(|_| speck()).collect()
}

/// Blurs, more so where the light comes from deeper in the sample.
fn blur_with_depth(options: &SceneOptions, light: &mut Array3<f32>) {
    let axial = if options.is_planar() { 0.0 } else { options.blur * options.blur_axial / options.anisotropy };
    let sigma = [axial, options.blur, options.blur];
    let sharp = (options.blur_deep > 0.0).then(|| light.clone());
    let Some(mut near) = sharp else {
        return gaussian_blur(light, sigma);
    };
    gaussian_blur(&mut near, sigma);
    gaussian_blur(light, sigma.map(|sigma| sigma * (1.0 + options.blur_deep)));
    let last = (options.shape[0].max(2) - 1) as f32;
    for (z, (mut deep, near)) in light.outer_iter_mut().zip(near.outer_iter()).enumerate() {
        // A plane has no depth of its own; it is blurred half-way.
        let depth = if options.is_planar() { 0.5 } else { z as f32 / last };
        Zip::from(&mut deep).and(near).for_each(|deep, &near| *deep = near + depth * (*deep - near));
    }
}

/// Takes light away in the corners and in the depth.
fn shade(options: &SceneOptions, light: &mut Array3<f32>, rng: &mut Rng) {
    let [depth, height, width] = options.shape;
    let last = depth.max(2) as f64 - 1.0;
    let turned = rng.unit() < 0.5;
    for ((z, y, x), value) in light.indexed_iter_mut() {
        let relative = |index: usize, length: usize| 2.0 * index as f64 / length as f64 - 1.0;
        let square = relative(y, height).powi(2) + relative(x, width).powi(2);
        let deep = if turned { last - z as f64 } else { z as f64 } / last;
        let lost = (1.0 - options.vignetting * square / 2.0) * (1.0 - options.attenuation * deep.clamp(0.0, 1.0));
        *value *= lost as f32;
    }
}

/// Shot noise, read noise, and the camera's numbers.
fn expose(options: &SceneOptions, light: Array3<f32>, exposure: u64, rng: &mut Rng) -> Array3<u16> {
    // Photons of a nucleus, so that the noise in it is what it should be.
    let photons = (1.0 + options.background) / (options.noise_to_signal * options.noise_to_signal);
    let read_noise = rng.uniform(0.0, 0.4) * options.noise_to_signal * photons;
    let noise_seed = ((rng.unit() * 1e15) as u64).wrapping_add(exposure << 56);
    let mut detected = light;
    detected.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for (y, mut row) in plane.axis_iter_mut(Axis(0)).enumerate() {
            let mut rng = Rng::stream(noise_seed, &[z as u64, y as u64]);
            for value in &mut row {
                *value = (rng.poisson(f64::from(*value) * photons) + read_noise * rng.normal()) as f32;
            }
        }
    });
    if options.is_noise_smeared {
        gaussian_blur(&mut detected, [if options.is_planar() { 0.0 } else { 0.5 }, 0.7, 0.7]);
    }
    let full = f64::from((1_u32 << options.bits) - 1);
    let brightest = f64::from(detected.fold(1.0_f32, |most, &value| most.max(value)));
    // Some images use a small part of the range, and some are overexposed.
    let use_of_range = if options.bits == 8 { rng.uniform(0.4, 1.3) } else { rng.uniform(0.01, 1.1) };
    let gain = FULL_RANGE * full * use_of_range / brightest;
    let offset = rng.uniform(0.0, 0.1) * full * use_of_range;
    detected.mapv(|value| (offset + gain * f64::from(value)).round().clamp(0.0, full) as u16)
}
