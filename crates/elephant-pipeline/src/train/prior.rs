//! Prior training: what a network learns before there are labels, which is that cells are bright (docs/protocol.md,
//! "POST /seg/reset"; docs/method.md, "Training without labels").

use elephant_checkpoint::{Checkpoint, Provenance};
use elephant_model::{Objective, TrainingOptions};
use elephant_types::{DatasetName, ModelName, NetworkType, TaskContext, TrainingStep};
use serde::{Deserialize, Serialize};

use super::{CropOptions, Trainer, check_dimensions, crops::Crops, request::check_crop_count};
use crate::{ModelSource, PipelineError, defaults, frames::open_dataset};

/// The learning rates, one for each epoch.
const LEARNING_RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// Scale factor of the crops.
const SCALE_FACTOR: f64 = 0.2;

/// A training without labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorTraining {
    /// The dataset of the images.
    pub dataset: DatasetName,
    /// Options of the crops, which are scaled and flipped, but not otherwise varied.
    pub crops: CropOptions,
    /// Crops in one of the three epochs.
    #[serde(default = "defaults::crop_count")]
    pub crop_count: u32,
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
}

impl Trainer {
    /// Replaces a model as [`Models::replace`](crate::Models::replace) does; one of random parameters first learns from
    /// images what its source says.
    ///
    /// # Errors
    /// As for [`Models::replace`](crate::Models::replace) and [`train`](Self::train); the old model is then untouched.
    pub fn reset(
        &self,
        name: &ModelName,
        network: NetworkType,
        source: &ModelSource,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        self.models.replace_after(name, network, source, context, |checkpoint| match source {
            ModelSource::Random { prior: Some(prior), .. } => self.train_prior(checkpoint, prior, context),
            _ => Ok(checkpoint),
        })
    }

    /// Trains a network with images alone, in three short epochs with falling learning rates.
    fn train_prior(
        &self,
        checkpoint: Checkpoint,
        request: &PriorTraining,
        context: &TaskContext,
    ) -> Result<Checkpoint, PipelineError> {
        let options =
            CropOptions { scale_factor: SCALE_FACTOR, rotation_degrees: 0.0, contrast: 0.0, ..request.crops.clone() };
        options.validate()?;
        check_crop_count(request.crop_count)?;
        let dataset = open_dataset(&self.workspace, &request.dataset)?;
        check_dimensions(dataset.dataset(), &options)?;
        let _memory =
            self.reserve(&checkpoint, &dataset, &options, 1, NetworkType::detection(options.kind()), context)?;
        let training = TrainingOptions { objective: Objective::Intensities, numerics: self.numerics };
        let before = checkpoint.provenance.clone();
        let model = self.trainable.begin(checkpoint, training, None, context.cancel_token())?;
        let mut crops = Crops::new(&request.dataset, &dataset, &options, request.seed);
        let total = LEARNING_RATES.len() as u64 * u64::from(request.crop_count);
        let mut done = 0;
        for rate in LEARNING_RATES {
            for _ in 0..request.crop_count {
                let loss = model.step(crops.unlabelled(context.cancel_token())?, rate, context.cancel_token())?;
                done += 1;
                let step = TrainingStep { done, total: Some(total), loss: loss.total, parts: loss.parts };
                context.tell(step);
            }
        }
        let provenance = before.map(|before| Provenance { steps: before.steps.saturating_add(done), ..before });
        Ok(Checkpoint { provenance, ..model.snapshot()?.0 })
    }
}
