//! Batches for a flow network: pairs of synthetic images of nuclei that move.

use elephant_image::{FlowLabelFrame, normalize};
use elephant_model::{Objective, Targets, TrainingBatch};
use elephant_synth::{Content, SceneOptions, ScenePair, SceneSet};
use elephant_types::{ApprovedLink, CancelToken, KeepAxials, NetworkKind};
use fastrand::Rng;
use ndarray::{Array2, Array3, Array4, Array5, Axis, s};

use crate::{PipelineError, defaults, scenes};

/// Largest radius of a nucleus in pixels: larger ones fill a crop.
const MAX_RADIUS: f64 = 10.5;
/// Least share of the volume that nuclei fill.
const MIN_FILL: f64 = 0.08;
/// Voxels of a crop at most, about.
const VOXELS: f64 = 20_000.0;
/// The share of all steps over which scenes become as hard as they get.
const EASY_SHARE: f64 = 0.6;
/// Pixels along y and x of a 2-D crop.
const PLANE_EDGE: usize = 128;
/// Pairs in a step of a 2-D network.
const PLANAR_PAIRS: u64 = 2;

/// What the training minimises.
pub(super) fn objective() -> Objective {
    Objective::Vectors { max_displacement: defaults::max_displacement(), axis_weights: [1.0; 3] }
}

/// The scene of a seed, harder with `difficulty` from 0 to 1: more noise and background, debris, hollow nuclei.
fn options(is_planar: bool, seed: u64, difficulty: f64) -> SceneOptions {
    let suits = |options: &SceneOptions| options.content == Content::Nuclei && options.radius <= MAX_RADIUS;
    let drawn = |attempt: u64| SceneOptions::draw(SceneSet::Trained, is_planar, seed.wrapping_add(attempt << 40));
    let options = (0..64).map(drawn).find(suits).unwrap_or_else(|| drawn(0));
    let shape = if is_planar { [1, PLANE_EDGE, PLANE_EDGE] } else { shape(options.anisotropy, options.radius) };
    SceneOptions {
        shape,
        fill: options.fill.max(MIN_FILL),
        content: Content::Nuclei,
        noise_to_signal: options.noise_to_signal.min(0.06 + 0.44 * difficulty),
        background: options.background.min(0.2 + 0.6 * difficulty),
        unevenness: difficulty * options.unevenness,
        debris: difficulty * options.debris,
        hollowness: difficulty * options.hollowness,
        ..options
    }
}

/// A few nuclei across, in multiples of 16 along y and x.
fn shape(anisotropy: f64, radius: f64) -> [usize; 3] {
    let multiple = |length: f64, of: f64| ((length / of).floor().max(1.0) * of) as usize;
    let depth = multiple((5.0 * radius / anisotropy).clamp(8.0, 16.0), if anisotropy < 3.0 { 8.0 } else { 2.0 });
    let edge = multiple((10.0 * radius).clamp(48.0, 80.0).min((VOXELS / depth as f64).sqrt()), 16.0);
    [depth, edge, edge]
}

/// The batch of a step, after a share `progress` of all steps. Each pair comes twice, the second time turned over: all vectors
/// of a step have the mean 0, and a network cannot learn to say the last steps' common motion.
///
/// # Errors
/// When the task is cancelled.
pub(super) fn batch(
    kind: NetworkKind,
    seed: u64,
    step: u64,
    progress: f64,
    cancel: &CancelToken,
) -> Result<TrainingBatch, PipelineError> {
    let is_planar = kind == NetworkKind::Planar;
    let count = if is_planar { PLANAR_PAIRS } else { 1 };
    let first = seed.rotate_left(32).wrapping_add(step * count);
    let difficulty = (progress / EASY_SHARE).min(1.0);
    let mut crops = Vec::new();
    let mut keep_axials = KeepAxials::first(0);
    for seed in first..first + count {
        let pair = ScenePair::render(&options(is_planar, seed, difficulty));
        let [z, _, x] = pair.voxel_size.zyx();
        keep_axials = KeepAxials::for_anisotropy(z / x);
        let (values, weight) = labels(&pair, kind, keep_axials, cancel)?;
        let images = images(&pair, seed, difficulty);
        let turned = s![.., ..;-1, ..;-1, ..;-1];
        let opposite = -&values.slice(turned);
        crops.push((images.slice(turned).to_owned(), opposite, weight.slice(s![..;-1, ..;-1, ..;-1]).to_owned()));
        crops.push((images, values, weight));
    }
    let inputs: Vec<_> = crops.iter().map(|(images, ..)| images.view()).collect();
    let values: Vec<_> = crops.iter().map(|(_, values, _)| values.view()).collect();
    let weights: Vec<_> = crops.iter().map(|(.., weight)| weight.view()).collect();
    let invalid = |error: ndarray::ShapeError| PipelineError::Invalid(error.to_string());
    let inputs: Array5<f32> = ndarray::stack(Axis(0), &inputs).map_err(invalid)?;
    let targets = Targets::Vectors {
        values: ndarray::stack(Axis(0), &values).map_err(invalid)?,
        weight: ndarray::stack(Axis(0), &weights).map_err(invalid)?,
    };
    Ok(TrainingBatch { inputs, targets, keep_axials, punishes_false_positives: false })
}

/// The earlier and the later image, (c, z, y, x), scaled to 0..=1; up to a half of them dimmed, as something outside a crop may
/// be brighter than all that it shows.
fn images(pair: &ScenePair, seed: u64, difficulty: f64) -> Array4<f32> {
    let mut rng = Rng::with_seed(seed);
    let gain = if rng.f64() < 0.5 * difficulty { 0.15_f32.powf(rng.f32()) } else { 1.0 };
    let image = |counts: &Array3<u16>| {
        let mut image = counts.mapv(f32::from);
        normalize(image.view_mut());
        image * gain
    };
    let (earlier, later) = (image(&pair.earlier), image(&pair.later));
    let (depth, height, width) = later.dim();
    let mut both = Array4::zeros((2, depth, height, width));
    both.index_axis_mut(Axis(0), 0).assign(&earlier);
    both.index_axis_mut(Axis(0), 1).assign(&later);
    both
}

/// Vectors (c, z, y, x) as a person's links would be drawn, and where they are known, (z, y, x).
fn labels(
    pair: &ScenePair,
    kind: NetworkKind,
    keep_axials: KeepAxials,
    cancel: &CancelToken,
) -> Result<(Array4<f32>, Array3<f32>), PipelineError> {
    let (depth, height, width) = pair.later.dim();
    let dims = scenes::dims(kind);
    let norm = keep_axials.flow_norm(defaults::max_displacement());
    let mut frame = FlowLabelFrame::new([depth, height, width], pair.voxel_size, norm, dims);
    for moved in &pair.nuclei {
        let center_um = moved.nucleus.center_um;
        // One that lies in the margin shows nothing of itself.
        let _ = frame.add(&ApprovedLink {
            t: 0,
            target_t: None,
            center_um,
            covariance_um2: moved.nucleus.covariance_um2(),
            displacement_um: std::array::from_fn(|axis| moved.earlier_um[axis] - center_um[axis]),
        });
    }
    let axes = if kind == NetworkKind::Planar { 2 } else { 3 };
    let mut values = Array4::zeros((axes, depth, height, width));
    let mut weight = Array3::zeros((depth, height, width));
    for z in 0..depth {
        let mut numbers = Array2::zeros((height, width));
        frame.draw_numbers(z, [0, 0], numbers.view_mut(), cancel)?;
        for ((y, x), &number) in numbers.indexed_iter() {
            for channel in 0..axes {
                values[[channel, z, y, x]] = frame.value(number, channel);
            }
            weight[[z, y, x]] = frame.value(number, axes);
        }
    }
    Ok((values, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_vectors_where_there_are_nuclei() {
        for (kind, components) in [(NetworkKind::Volumetric, 3), (NetworkKind::Planar, 2)] {
            for step in 0..3 {
                let cancel = CancelToken::default();
                let found = batch(kind, 1, step, 0.4 * step as f64, &cancel).unwrap();
                let Targets::Vectors { values, weight } = &found.targets else { panic!("no vectors") };
                let (n, channels, z, y, x) = found.inputs.dim();
                assert_eq!((channels, values.dim(), weight.dim()), (2, (n, components, z, y, x), (n, z, y, x)));
                assert!(weight.iter().any(|&weight| weight == 1.0) && weight.iter().any(|&weight| weight == 0.0));
                assert!(found.inputs.iter().all(|value| (0.0..=1.0).contains(value)));
                assert!(values.iter().all(|value| value.abs() < 1.0) && values.iter().any(|value| *value != 0.0));
                assert!(values.sum().abs() < 1e-3, "{}", values.sum());
                assert_eq!(found, batch(kind, 1, step, 0.4 * step as f64, &cancel).unwrap());
            }
        }
    }
}
