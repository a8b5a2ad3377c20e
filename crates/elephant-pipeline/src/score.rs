//! How well a network finds the nuclei of synthetic scenes, of which the truth is known.

use std::path::Path;

use elephant_image::{SpotOptions, find_spots};
use elephant_model::{ProbabilityOutput, SegmentationModel, SegmentationOptions};
use elephant_synth::{Nucleus, Scene, SceneOptions};
use elephant_types::{KeepAxials, NetworkKind, Numerics, Spot, TaskContext, VoxelSize};
use ndarray::Array3;

use crate::{PipelineError, scenes};

/// Counts of one scene. F1 is 2 · `hits` / (`found` + `nuclei`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SceneScore {
    /// Nuclei whose centre is in the image.
    pub nuclei: usize,
    /// Spots, but for those of nuclei whose centre lies outside.
    pub found: usize,
    /// Nuclei with a spot of their own.
    pub hits: usize,
}

impl SceneScore {
    /// The sum of the counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nuclei: self.nuclei + other.nuclei, found: self.found + other.found, hits: self.hits + other.hits }
    }

    /// 2 · hits / (found + nuclei); 1 where there is nothing and nothing was found.
    pub fn f1(&self) -> f64 {
        if self.found + self.nuclei == 0 { 1.0 } else { 2.0 * self.hits as f64 / (self.found + self.nuclei) as f64 }
    }
}

/// Predicts a scene with the model in a file, in one piece with the client's default values, and counts.
///
/// A spot is of a nucleus when their centres are no farther apart than the nucleus's radius, or half a voxel more.
///
/// # Errors
/// When the model or the device fails, or the task is cancelled.
pub fn score_scene(
    network: &dyn SegmentationModel,
    model: &Path,
    options: &SceneOptions,
    context: &TaskContext,
) -> Result<SceneScore, PipelineError> {
    let kind = if options.is_planar() { NetworkKind::Planar } else { NetworkKind::Volumetric };
    let scene = Scene::render(options);
    let spots = detect(network, model, kind, scenes::normalized(&scene), scene.voxel_size, context)?;
    let (depth, height, width) = scene.image.dim();
    Ok(count(&spots, &scene.nuclei, [depth, height, width], scene.voxel_size))
}

/// Spots in frames without a nucleus: all zeros, and noise from another generator than that of the training.
///
/// # Errors
/// As [`score_scene`].
pub fn score_empty_frames(
    network: &dyn SegmentationModel,
    model: &Path,
    kind: NetworkKind,
    context: &TaskContext,
) -> Result<usize, PipelineError> {
    let shape = if kind == NetworkKind::Planar { [1, 256, 256] } else { [16, 96, 96] };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut found = 0;
    for noise in 0..9 {
        let mut image = Array3::from_shape_simple_fn(shape, || {
            // Uniform, bell-shaped, and with a long tail.
            match noise % 3 {
                0 => rng.f32(),
                1 => (0..6).map(|_| rng.f32()).sum(),
                _ => -rng.f32().max(1e-6).ln(),
            }
        });
        if noise == 0 {
            image.fill(0.0);
        }
        elephant_image::normalize(image.view_mut());
        let voxel_size = VoxelSize::new([[1.0, 2.0, 4.0][noise / 3], 1.0, 1.0]);
        let voxel_size = voxel_size.map_err(|error| PipelineError::Invalid(error.to_string()))?;
        found += detect(network, model, kind, image, voxel_size, context)?.len();
    }
    Ok(found)
}

fn detect(
    network: &dyn SegmentationModel,
    model: &Path,
    kind: NetworkKind,
    image: Array3<f32>,
    voxel_size: VoxelSize,
    context: &TaskContext,
) -> Result<Vec<Spot>, PipelineError> {
    let [z, _, x] = voxel_size.zyx();
    let options = SegmentationOptions {
        kind,
        keep_axials: KeepAxials::for_anisotropy(z / x),
        tile: None,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    };
    let probabilities = network.segment_whole(model, image, &options, context)?;
    let options = SpotOptions {
        t: 0,
        voxel_size,
        origin_vox: [0.0; 3],
        c_ratio: scenes::CENTER_RATIO,
        p_thresh: 0.5,
        r_min_um: x,
        r_max_um: 50.0 * x,
        dims: scenes::dims(kind),
        use_2d: false,
        numerics: Numerics::Corrected,
    };
    Ok(find_spots(probabilities.index_axis(ndarray::Axis(0), 0), &options, context.cancel_token())?)
}

/// Pairs spots and nuclei, the closest first.
fn count(spots: &[Spot], nuclei: &[Nucleus], shape: [usize; 3], voxel_size: VoxelSize) -> SceneScore {
    let edges = voxel_size.zyx();
    let is_inside = |nucleus: &Nucleus| {
        (0..3).all(|axis| (-0.5..shape[axis] as f64 - 0.5).contains(&(nucleus.center_um[axis] / edges[axis])))
    };
    let mut pairs = Vec::new();
    for (s, spot) in spots.iter().enumerate() {
        for (n, nucleus) in nuclei.iter().enumerate() {
            let radius = nucleus.semi_axes_um.iter().product::<f64>().cbrt();
            let relative =
                |axis: usize| (spot.center_um[axis] - nucleus.center_um[axis]) / (radius + 0.5 * edges[axis]);
            let distance = (0..3).map(|axis| relative(axis).powi(2)).sum::<f64>();
            if distance <= 1.0 {
                pairs.push((distance, s, n));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut is_used, mut is_found) = (vec![false; spots.len()], vec![false; nuclei.len()]);
    let mut score = SceneScore { nuclei: nuclei.iter().filter(|n| is_inside(n)).count(), found: spots.len(), hits: 0 };
    for (_, s, n) in pairs {
        if is_used[s] || is_found[n] {
            continue;
        }
        (is_used[s], is_found[n]) = (true, true);
        if is_inside(&nuclei[n]) {
            score.hits += 1;
        } else {
            score.found -= 1;
        }
    }
    score
}

#[cfg(test)]
mod tests {
    use elephant_synth::SceneSet;

    use super::*;

    fn spot(nucleus: &Nucleus) -> Spot {
        Spot { t: 0, center_um: nucleus.center_um, covariance_um2: nucleus.covariance_um2(), quality: 1.0 }
    }

    #[test]
    fn the_truth_scores_one_and_a_double_counts_against_it() {
        let scene = Scene::render(&SceneOptions::draw(SceneSet::Scored, false, 1));
        let (depth, height, width) = scene.image.dim();
        let score = |spots: &[Spot]| count(spots, &scene.nuclei, [depth, height, width], scene.voxel_size);
        let mut spots: Vec<Spot> = scene.nuclei.iter().map(spot).collect();
        let perfect = score(&spots);
        assert!(perfect.nuclei > 0 && perfect.nuclei < scene.nuclei.len());
        assert_eq!(perfect.f1(), 1.0);
        spots.push(spots[0].clone());
        assert!(score(&spots).f1() < 1.0);
        assert_eq!(score(&[]).f1(), 0.0);
    }
}
