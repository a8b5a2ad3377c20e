//! How well a flow network tells where the cells of a movie were, of which the lineage is known.

use std::path::Path;

use elephant_image::{FieldMeans, normalize};
use elephant_model::{FlowModel, FlowOptions};
use elephant_synth::{Embryo, EmbryoOptions, Nucleus, Preset, SynthError};
use elephant_types::{Coded, KeepAxials, NetworkKind, Numerics, SpotId, TaskContext};
use ndarray::{Array4, Axis};

use crate::{PipelineError, defaults, scenes};

/// Pairs of frames of a movie.
const PAIRS: usize = 3;
/// Timepoints before the first pair.
const FIRST: usize = 2;

/// Sums over the cells of one or several movies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowScore {
    /// Pairs of frames.
    pub pairs: usize,
    /// Cells of the later frames.
    pub cells: usize,
    /// How far cells, or their mothers, were from where they are, in µm: the error of a network that sees no motion.
    pub displacement_um: f64,
    /// How far they were from where the network says, in µm.
    pub error_um: f64,
    /// Cells whose own cell is the nearest one in the earlier frame.
    pub nearest: usize,
    /// Cells whose own cell is the nearest one to where the network says.
    pub nearest_with_flow: usize,
}

impl FlowScore {
    /// The sums of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            pairs: self.pairs + other.pairs,
            cells: self.cells + other.cells,
            displacement_um: self.displacement_um + other.displacement_um,
            error_um: self.error_um + other.error_um,
            nearest: self.nearest + other.nearest,
            nearest_with_flow: self.nearest_with_flow + other.nearest_with_flow,
        }
    }
}

/// Predicts some pairs of frames of a synthetic movie, `interval` timepoints apart, with the model in a file, in one piece with
/// the client's default values, and compares with the lineage.
///
/// # Errors
/// When the model or the device fails, or the task is cancelled.
pub fn score_flow(
    network: &dyn FlowModel,
    model: &Path,
    kind: NetworkKind,
    seed: u64,
    interval: usize,
    context: &TaskContext,
) -> Result<FlowScore, PipelineError> {
    let options = EmbryoOptions { timepoints: FIRST + interval + PAIRS, ..EmbryoOptions::preset(Preset::Small, seed) };
    let options = match kind {
        NetworkKind::Volumetric => options,
        NetworkKind::Planar => EmbryoOptions { shape: [1, 256, 256], nuclei: 40, ..options },
    };
    let embryo = Embryo::grow(options, context.cancel_token()).map_err(|error| invalid(&error))?;
    let mut score = FlowScore::default();
    for t in FIRST..FIRST + PAIRS {
        context.check()?;
        score = score.plus(score_pair(network, model, kind, &embryo, [t, t + interval], context)?);
    }
    Ok(score)
}

fn score_pair(
    network: &dyn FlowModel,
    model: &Path,
    kind: NetworkKind,
    embryo: &Embryo,
    [earlier, later]: [usize; 2],
    context: &TaskContext,
) -> Result<FlowScore, PipelineError> {
    let voxel_size = embryo.options().voxel_size;
    let voxel = voxel_size.zyx();
    let keep_axials = KeepAxials::for_anisotropy(voxel[0] / voxel[2]);
    let pair = [earlier, later].map(|t| {
        let mut image = embryo.render(t).image.mapv(f32::from);
        normalize(image.view_mut());
        image
    });
    let pair: Array4<f32> = ndarray::stack(Axis(0), &pair.each_ref().map(|image| image.view()))
        .map_err(|error| PipelineError::Invalid(error.to_string()))?;
    let numerics = Numerics::Corrected;
    let options = FlowOptions { kind, keep_axials, tile: None, is_pad: false, batch_size: 1, numerics };
    let field = network.displacements_whole(model, pair, &options, context)?;

    let (earlier_nuclei, later_nuclei) = (embryo.nuclei(earlier), embryo.nuclei(later));
    let mut means = FieldMeans::builder(embryo.options().shape, voxel_size, scenes::dims(kind));
    for nucleus in later_nuclei {
        let added = means.add(nucleus.center_um, nucleus.covariance_um2());
        added.map_err(|reason| PipelineError::Invalid(reason.to_string()))?;
    }
    let mut means = means.build();
    means.take([0; 3], field.view(), context.cancel_token())?;
    let norm = keep_axials.flow_norm(defaults::max_displacement());
    let first = embryo.spots(earlier).next().map_or(0, SpotId::index);
    let mut score = FlowScore { pairs: 1, cells: later_nuclei.len(), ..FlowScore::default() };
    for ((nucleus, spot), mean) in later_nuclei.iter().zip(embryo.spots(later)).zip(means.finish()) {
        let ancestor = (earlier..later).try_fold(spot, |spot, _| embryo.lineage().parent(spot));
        let Some(own) = ancestor.map(|spot| spot.index() - first) else { continue };
        let true_um = earlier_nuclei[own].center_um;
        let predicted_um: [f64; 3] =
            std::array::from_fn(|axis| nucleus.center_um[axis] + mean[axis] * norm[axis] * voxel[axis]);
        score.displacement_um += distance(nucleus.center_um, true_um);
        score.error_um += distance(predicted_um, true_um);
        score.nearest += usize::from(nearest(earlier_nuclei, nucleus.center_um) == Some(own));
        score.nearest_with_flow += usize::from(nearest(earlier_nuclei, predicted_um) == Some(own));
    }
    Ok(score)
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn nearest(nuclei: &[Nucleus], place_um: [f64; 3]) -> Option<usize> {
    let of = |nucleus: &Nucleus| distance(nucleus.center_um, place_um);
    (0..nuclei.len()).min_by(|&a, &b| of(&nuclei[a]).total_cmp(&of(&nuclei[b])))
}

fn invalid(error: &SynthError) -> PipelineError {
    elephant_model::ModelError::new(error.code(), error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use elephant_model::fake::FakeNetwork;

    use super::*;

    #[test]
    fn a_network_that_sees_no_motion_has_the_displacements_as_its_error() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m.pth");
        FakeNetwork::flow_checkpoint(NetworkKind::Volumetric, 0).write(&model).unwrap();
        let (network, context) = (FakeNetwork::default(), TaskContext::detached());
        let score = |network: &FakeNetwork, interval| {
            score_flow(network, &model, NetworkKind::Volumetric, 1, interval, &context).unwrap()
        };
        let still = score(&network, 1);
        assert_eq!(still.pairs, PAIRS);
        assert!(still.cells > 60 && still.displacement_um / still.cells as f64 > 0.5, "{still:?}");
        assert!((still.error_um - still.displacement_um).abs() < 1e-9);
        assert_eq!(still.nearest, still.nearest_with_flow);
        assert!(score(&network, 3).displacement_um > 1.5 * still.displacement_um);
        // Four voxels along x, that is 2 µm, for all.
        network.set_displacement([0.05, 0.0, 0.0]);
        let moved = score(&network, 1);
        assert_eq!(moved.displacement_um, still.displacement_um);
        assert!(moved.error_um > 1.3 * still.error_um, "{moved:?}");
    }
}
