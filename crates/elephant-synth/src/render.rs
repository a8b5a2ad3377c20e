//! The image that a microscope would take of the nuclei, and its ground truth.

use elephant_image::gaussian_blur;
use ndarray::{Array3, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::{
    Embryo, EmbryoOptions, Nucleus,
    rng::Rng,
    vector::{norm, sub},
};

/// Photons from the middle of an average nucleus at the near surface.
const NUCLEUS_PHOTONS: f64 = 260.0;
/// Photons from tissue between nuclei, and from outside the embryo.
const TISSUE_PHOTONS: f64 = 26.0;
const OUTSIDE_PHOTONS: f64 = 13.0;
/// Camera counts per photon, without light, and their standard deviation.
const GAIN: f64 = 2.0;
const OFFSET: f64 = 100.0;
const READ_NOISE: f64 = 4.0;
/// Standard deviation of the blur in µm along (z, y, x).
const BLUR_UM: [f64; 3] = [1.3, 0.4, 0.4];

/// One timepoint of a synthetic movie, (z, y, x).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Camera counts.
    pub image: Array3<u16>,
    /// The track of the nucleus that each voxel's centre lies in; 0 is none. Every nucleus has at least one voxel, if the
    /// image has as many voxels as nuclei.
    pub labels: Array3<u16>,
}

impl Embryo {
    /// The image at timepoint `t`, of empty tissue outside the movie.
    pub fn render(&self, t: usize) -> Frame {
        let options = self.options();
        let nuclei: Vec<(&Nucleus, u16)> = self.nuclei(t).iter().zip(self.track_numbers(t)).collect();
        let mut photons = Array3::zeros(options.shape);
        let mut labels = Array3::zeros(options.shape);
        let planes = photons.axis_iter_mut(Axis(0)).into_par_iter().zip(labels.axis_iter_mut(Axis(0)));
        planes.enumerate().for_each(|(z, (photons, labels))| draw_plane(options, &nuclei, z, photons, labels));
        ensure_labelled(options, &nuclei, &mut labels);
        let edges = options.voxel_size.zyx();
        gaussian_blur(&mut photons, std::array::from_fn(|axis| BLUR_UM[axis] / edges[axis]));
        Frame { image: self.expose(&photons, t), labels }
    }

    /// The numbers of the tracks of the nuclei at timepoint `t`.
    fn track_numbers(&self, t: usize) -> impl Iterator<Item = u16> {
        self.spots(t).map(|spot| self.tracks().of_spot(spot).get() as u16)
    }

    /// What the camera makes of the light: less from the depth, less with time, shot noise, read noise.
    fn expose(&self, photons: &Array3<f32>, t: usize) -> Array3<u16> {
        let options = self.options();
        let depth_um = options.extent_um()[0] * 1.2;
        let bleached = libm::exp(-0.02 * t as f64);
        let mut image = Array3::zeros(options.shape);
        image.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
            let depth = z as f64 * options.voxel_size.zyx()[0] / depth_um;
            let light = bleached * libm::exp(-depth);
            for (y, mut row) in plane.axis_iter_mut(Axis(0)).enumerate() {
                let mut rng = Rng::stream(options.seed, &[1, t as u64, z as u64, y as u64]);
                for (x, counts) in row.iter_mut().enumerate() {
                    let detected = rng.poisson(f64::from(photons[(z, y, x)]) * light);
                    let noisy = OFFSET + GAIN * detected + READ_NOISE * rng.normal();
                    *counts = noisy.round().clamp(0.0, f64::from(u16::MAX)) as u16;
                }
            }
        });
        image
    }
}

/// Draws tissue and nuclei into one plane, sharp and without noise.
fn draw_plane(
    options: &EmbryoOptions,
    nuclei: &[(&Nucleus, u16)],
    z: usize,
    mut photons: ArrayViewMut2<'_, f32>,
    mut labels: ArrayViewMut2<'_, u16>,
) {
    draw_tissue(options, z, &mut photons);
    let mut nearest = ndarray::Array2::from_elem(photons.dim(), 1.0_f64);
    let edges = options.voxel_size.zyx();
    for &(nucleus, track) in nuclei {
        for_each_pixel(nucleus, options.shape, edges, z, |[y, x], point, light| {
            photons[(y, x)] += (NUCLEUS_PHOTONS * light) as f32;
            let square = nucleus.relative(point).iter().map(|c| c * c).sum::<f64>();
            if square < nearest[(y, x)] {
                nearest[(y, x)] = square;
                labels[(y, x)] = track;
            }
        });
    }
}

/// Visits the pixels (y, x) of plane `z` that a nucleus may shine into, with their centres (z, y, x) in µm and the mean
/// fluorescence there. The image has `shape` voxels with edges in µm, both (z, y, x).
pub(crate) fn for_each_pixel(
    nucleus: &Nucleus,
    shape: [usize; 3],
    edges: [f64; 3],
    z: usize,
    mut visit: impl FnMut([usize; 2], [f64; 3], f64),
) {
    let (plane_um, reach) = (z as f64 * edges[0], nucleus.half_reach_um());
    if (plane_um - nucleus.center_um[0]).abs() > reach[0] + 0.5 * edges[0] {
        return;
    }
    let range = |axis: usize| {
        let (low, high) = (nucleus.center_um[axis] - reach[axis], nucleus.center_um[axis] + reach[axis]);
        let last = (high / edges[axis]).ceil().max(-1.0) + 1.0;
        (low / edges[axis]).floor().max(0.0) as usize..(last as usize).min(shape[axis])
    };
    for y in range(1) {
        for x in range(2) {
            let point = [plane_um, y as f64 * edges[1], x as f64 * edges[2]];
            // A voxel collects light from its whole depth.
            let light = [-1.0, 0.0, 1.0].map(|third| {
                let deeper = [point[0] + third / 3.0 * edges[0], point[1], point[2]];
                nucleus.fluorescence(nucleus.relative(deeper))
            });
            visit([y, x], point, light.iter().sum::<f64>() / 3.0);
        }
    }
}

/// Fills a plane with the faint light of tissue, and less outside the embryo.
fn draw_tissue(options: &EmbryoOptions, z: usize, photons: &mut ArrayViewMut2<'_, f32>) {
    let edges = options.voxel_size.zyx();
    let (tissue, shape) = (options.tissue_um(), options.shape);
    let square = |axis: usize, index: usize| {
        let away = (index as f64 - (shape[axis] - 1) as f64 / 2.0) * edges[axis];
        let relative = away / (tissue[axis] + 1.15 * options.radius_um);
        relative * relative
    };
    for ((y, x), value) in photons.indexed_iter_mut() {
        let distance = square(0, z) + square(1, y) + square(2, x);
        // Falls off around the surface, where the distance is 1.
        let inside = ((1.2 - distance) / 0.4).clamp(0.0, 1.0);
        *value = (OUTSIDE_PHOTONS + (TISSUE_PHOTONS - OUTSIDE_PHOTONS) * inside) as f32;
    }
}

/// Gives each nucleus that covers no voxel's centre a voxel near its own: one that is free, or that a nucleus with more
/// voxels has to spare.
fn ensure_labelled(options: &EmbryoOptions, nuclei: &[(&Nucleus, u16)], labels: &mut Array3<u16>) {
    let mut voxels = vec![0_usize; 1 << 16];
    for &label in labels.iter() {
        voxels[usize::from(label)] += 1;
    }
    for &(nucleus, track) in nuclei {
        if voxels[usize::from(track)] > 0 {
            continue;
        }
        let taken = nearest(options, nucleus.center_um, |voxel| {
            let owner = labels[voxel];
            owner == 0 || voxels[usize::from(owner)] > 1
        });
        if let Some(voxel) = taken {
            voxels[usize::from(labels[voxel])] -= 1;
            voxels[usize::from(track)] += 1;
            labels[voxel] = track;
        }
    }
}

/// The voxel nearest to a position in µm among those for which `is_candidate` holds; looks at ever larger boxes around it.
fn nearest(
    options: &EmbryoOptions,
    position_um: [f64; 3],
    is_candidate: impl Fn([usize; 3]) -> bool,
) -> Option<[usize; 3]> {
    let (edges, shape) = (options.voxel_size.zyx(), options.shape);
    let middle: [usize; 3] = std::array::from_fn(|axis| {
        (position_um[axis] / edges[axis]).round().clamp(0.0, (shape[axis] - 1) as f64) as usize
    });
    let distance =
        |voxel: [usize; 3]| norm(sub(std::array::from_fn(|axis| voxel[axis] as f64 * edges[axis]), position_um));
    let mut reach = 0;
    loop {
        let [z, y, x] =
            std::array::from_fn(|axis| middle[axis].saturating_sub(reach)..(middle[axis] + reach + 1).min(shape[axis]));
        let is_all = [&z, &y, &x].into_iter().zip(shape).all(|(range, edge)| range.len() == edge);
        let row = |z: usize, y: usize| x.clone().map(move |x| [z, y, x]);
        let voxels = z.flat_map(|z| y.clone().flat_map(move |y| row(z, y)));
        let found = voxels.filter(|&voxel| is_candidate(voxel)).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        if found.is_some() || is_all {
            return found;
        }
        reach = 2 * reach + 1;
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::CancelToken;

    use super::*;
    use crate::Preset;

    fn tiny(seed: u64) -> Embryo {
        Embryo::grow(EmbryoOptions::preset(Preset::Tiny, seed), &CancelToken::default()).unwrap()
    }

    /// FNV-1a over the voxels.
    fn fingerprint(frame: &Frame) -> u64 {
        let voxels = frame.image.iter().chain(&frame.labels);
        voxels.fold(0xcbf2_9ce4_8422_2325, |hash, &voxel| (hash ^ u64::from(voxel)).wrapping_mul(0x0100_0000_01b3))
    }

    #[test]
    fn the_same_seed_gives_the_same_voxels_on_any_number_of_threads() {
        let render = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| tiny(5).render(2))
        };
        let frame = render(1);
        assert_eq!(frame, render(3));
        assert_ne!(frame, tiny(6).render(2));
        // Pinned, so that a change of machine, compiler or code that changes voxels is noticed.
        assert_eq!(fingerprint(&frame), 3_389_084_620_801_031_578);
    }

    #[test]
    fn nuclei_are_brighter_than_what_is_around_them() {
        let embryo = tiny(1);
        for t in 0..4 {
            let frame = embryo.render(t);
            let mean = |is_chosen: &dyn Fn(u16) -> bool| {
                let chosen = frame.image.iter().zip(&frame.labels).filter(|(_, label)| is_chosen(**label));
                let (sum, count) = chosen.fold((0.0, 0.0), |(sum, n), (&value, _)| (sum + f64::from(value), n + 1.0));
                sum / count
            };
            let background = mean(&|label| label == 0);
            for track in embryo.track_numbers(t) {
                assert!(mean(&|label| label == track) > 1.5 * background);
            }
        }
    }

    #[test]
    fn labels_are_the_voxels_inside_the_ellipsoids() {
        let embryo = tiny(2);
        let frame = embryo.render(0);
        let voxel_um3: f64 = embryo.options().voxel_size.zyx().iter().product();
        for (nucleus, track) in embryo.nuclei(0).iter().zip(embryo.track_numbers(0)) {
            let voxels = frame.labels.iter().filter(|&&label| label == track).count() as f64;
            let volume = 4.0 / 3.0 * std::f64::consts::PI * nucleus.semi_axes_um.iter().product::<f64>();
            assert!((voxels * voxel_um3 / volume - 1.0).abs() < 0.12, "{} {volume}", voxels * voxel_um3);
        }
    }

    #[test]
    fn small_nuclei_do_not_take_each_others_only_voxel() {
        let embryo = tiny(2);
        let options = embryo.options();
        let small = Nucleus { center_um: [6.1, 10.2, 10.2], ..embryo.nuclei(0)[0].clone() };
        // All of them between the same voxels, of which the first has one and the large one many.
        let mut labels = Array3::zeros(options.shape);
        labels[[3, 20, 20]] = 1;
        labels.slice_mut(ndarray::s![.., 22.., ..]).fill(9);
        let nuclei = [1, 2, 3, 4, 5, 9].map(|track| (&small, track));
        ensure_labelled(options, &nuclei, &mut labels);
        assert_eq!(labels[[3, 20, 20]], 1);
        for (_, track) in nuclei {
            assert!(labels.iter().any(|&label| label == track), "{track}");
        }
    }
}
