//! `/seg/train`: training with labels (docs/protocol.md, "POST /seg/train").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, LargeJson};
use elephant_model::Objective;
use elephant_pipeline::{CropOptions, TrainRequest, TrainingMode, UpdateLabels};
use elephant_types::{DatasetName, FileName, KeepAxials, ModelName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    spots::{SpotBody, Spots},
    update::default_center_ratio,
    vector::{Xyz, voxel_size, zyx_sizes},
};

/// Which crops a network is trained with: fields that `/seg/train` and `/seg/reset` have in common. Each lists them itself,
/// as serde's `flatten` would keep every unknown field of a body in memory, at many times its length.
pub(crate) struct CropFields {
    pub(crate) is_3d: bool,
    pub(crate) n_keep_axials: Integer,
    pub(crate) scales: Option<Xyz<f64>>,
    pub(crate) input_size: Option<Xyz<Integer>>,
    pub(crate) crop_size: Xyz<Integer>,
    pub(crate) aug_scale_factor_base: f64,
    pub(crate) aug_rotation_angle: f64,
    pub(crate) aug_contrast: f64,
}

impl TryFrom<CropFields> for CropOptions {
    type Error = ApiError;

    fn try_from(fields: CropFields) -> Result<Self, ApiError> {
        let input_size = fields.input_size.map(|size| zyx_sizes("input_size", &size)).transpose()?;
        Ok(Self {
            is_3d: fields.is_3d,
            keep_axials: KeepAxials::first(fields.n_keep_axials.0),
            voxel_size: voxel_size(fields.scales.as_deref())?,
            input_size,
            crop_size: zyx_sizes("crop_size", &fields.crop_size)?,
            scale_factor: fields.aug_scale_factor_base,
            rotation_degrees: fields.aug_rotation_angle,
            contrast: fields.aug_contrast,
        })
    }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct TrainBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Below the workspace's `models`; the pretrained network is the start of one that does not exist.
    #[serde(default)]
    #[schema(value_type = String, example = "detection.pth")]
    model_name: Option<ModelName>,
    /// Tagged spots; the labels of their timepoints are drawn anew and learnt from. Not used in live mode.
    #[serde(default)]
    #[schema(value_type = Vec<SpotBody>)]
    spots: Spots,
    /// Wait for `/seg/update` and learn from each timepoint that it labels, until stopped.
    #[serde(default)]
    is_livemode: bool,
    #[serde(default = "default_is_3d")]
    is_3d: bool,
    /// Poolings that keep z, from the first.
    #[serde(default = "default_keep_axials")]
    #[schema(value_type = i64)]
    n_keep_axials: Integer,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Size (x, y, z) in voxels that frames are resized to first.
    #[schema(value_type = Option<Vec<u64>>)]
    input_size: Option<Xyz<Integer>>,
    /// Size (x, y, z) of a training crop in voxels.
    #[serde(default = "default_crop_size")]
    #[schema(value_type = Vec<u64>)]
    crop_size: Xyz<Integer>,
    /// Largest change of a crop's scale, as a fraction.
    #[serde(default)]
    aug_scale_factor_base: f64,
    /// Largest rotation in the plane of x and y, in degrees.
    #[serde(default)]
    aug_rotation_angle: f64,
    /// Smallest factor on the contrast of labelled cells, 0 to 1; 0 leaves it.
    #[serde(default)]
    aug_contrast: f64,
    /// Learning rate of Adam; `/params` changes it while the training runs.
    #[serde(default = "default_rate")]
    lr: f64,
    /// Crops in one step.
    #[serde(default = "one")]
    #[schema(value_type = u32)]
    batch_size: Integer,
    /// Crops of each timepoint in an epoch; `/params` changes it while the training runs.
    #[serde(default = "default_crops")]
    #[schema(value_type = u32)]
    n_crops: Integer,
    /// How often all crops are gone through.
    #[serde(default = "default_epochs")]
    #[schema(value_type = u32)]
    n_epochs: Integer,
    /// Weights of the classes background, border and centre.
    #[serde(default = "default_class_weights")]
    class_weights: [f64; 3],
    /// Weight of voxels with a "false" tag, relative to others.
    #[serde(default = "default_false_weight")]
    false_weight: f64,
    /// Voxels with an intensity below this are background; intensities go from 0 to 1 in each frame. 0 for none.
    #[serde(default)]
    auto_bg_thresh: f64,
    /// Size of the class "centre" as a fraction of the cell.
    #[serde(default = "default_center_ratio")]
    c_ratio: f64,
    /// Scalars are logged every so many steps.
    #[serde(default = "one")]
    #[schema(value_type = u64)]
    log_interval: Integer,
    /// Folder for TensorBoard, below the workspace's `logs`.
    #[serde(default)]
    #[schema(value_type = String, example = "detection_log")]
    log_dir: Option<FileName>,
    /// Seed of the crops; taken from the clock when it is absent.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    seed: Option<Integer>,
}

pub(crate) fn default_is_3d() -> bool {
    true
}

pub(crate) fn default_keep_axials() -> Integer {
    Integer(4)
}

pub(crate) fn default_crop_size() -> Xyz<Integer> {
    [384, 384, 16].map(Integer).into()
}

pub(crate) fn default_rate() -> f64 {
    1e-3
}

pub(crate) fn one() -> Integer {
    Integer(1)
}

pub(crate) fn default_crops() -> Integer {
    Integer(5)
}

pub(crate) fn default_epochs() -> Integer {
    Integer(10)
}

fn default_class_weights() -> [f64; 3] {
    [1.0, 10.0, 10.0]
}

fn default_false_weight() -> f64 {
    10.0
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TrainReply {
    /// False when the training was aborted; a live training always is.
    pub(crate) completed: bool,
}

/// Train a model with labels
///
/// Answers when the training has ended; until then see `/events` or `/v1/jobs`. Predictions use the model after each
/// epoch; its file is written every half minute and when the training ends or is stopped with
/// `POST /state/process {"state": 0}`. Predictions run between two steps.
#[utoipa::path(
    post, path = "/seg/train", tag = "seg", request_body = TrainBody,
    responses(
        (status = 200, body = TrainReply),
        (status = 400, description = "A field is wrong, there is nothing to train with, or the loss diverged"),
        (status = 404, description = "The dataset, a timepoint or the model is not there"),
        (status = 409, description = "The dataset is being made; or the model was replaced during the training, and the \
                                      trained one is kept beside it"),
        (status = 413, description = "The crops of a step do not fit into memory, or the body is too long"),
        (status = 500, description = "Another training or a reset is running, or the training failed"),
        (status = 503, description = "The server is stopping, is busy with other large requests, or cannot fetch the \
                                      pretrained model"),
        (status = 507, description = "The model does not fit on the disk; the old one stays"),
    )
)]
pub(crate) async fn train(
    State(api): State<ElephantApi>,
    LargeJson { value: body, memory }: LargeJson<TrainBody>,
) -> Result<Reply<TrainReply>, ApiError> {
    let request = body.into_request(api.use_cases.trainer.live().update_count())?;
    request.validate()?;
    let done = run(&api, request, memory).await?;
    Ok(Reply(TrainReply { completed: done.is_some() }))
}

impl TrainBody {
    /// The request, made after so many updates of labels.
    fn into_request(self, update_count: u64) -> Result<TrainRequest, ApiError> {
        let body = self;
        let dataset = body.dataset_name.ok_or_else(|| ApiError::bad_request("dataset_name key is missing"))?;
        let crops = CropOptions::try_from(CropFields {
            is_3d: body.is_3d,
            n_keep_axials: body.n_keep_axials,
            scales: body.scales,
            input_size: body.input_size,
            crop_size: body.crop_size,
            aug_scale_factor_base: body.aug_scale_factor_base,
            aug_rotation_angle: body.aug_rotation_angle,
            aug_contrast: body.aug_contrast,
        })?;
        let mode = if body.is_livemode {
            TrainingMode::Live { after: Some(update_count) }
        } else {
            let labels = UpdateLabels {
                dataset: dataset.clone(),
                spots: body.spots.0,
                voxel_size: crops.voxel_size,
                center_ratio: body.c_ratio,
                background_threshold: body.auto_bg_thresh,
                is_live: false,
            };
            TrainingMode::Spots { labels, epochs: positive("n_epochs", body.n_epochs)? }
        };
        Ok(TrainRequest {
            dataset,
            model: body.model_name.unwrap_or_else(ModelName::detection),
            mode,
            crops,
            objective: Objective::Labels { class_weights: body.class_weights, false_weight: body.false_weight },
            learning_rate: body.lr,
            // The client's 0 means one crop at a time.
            batch_size: body.batch_size.to_usize().unwrap_or(0).max(1),
            crops_per_timepoint: positive("n_crops", body.n_crops)?,
            log_interval: u64::try_from(body.log_interval.0).unwrap_or(0),
            log_folder: body.log_dir.unwrap_or_else(FileName::detection_log),
            seed: body.seed.map_or_else(seed_from_clock, |seed| seed.0.cast_unsigned()),
        })
    }
}

/// A number above 0.
pub(crate) fn positive(field: &str, number: Integer) -> Result<u32, ApiError> {
    let positive = u32::try_from(number.0).ok().filter(|number| *number > 0);
    positive.ok_or_else(|| ApiError::bad_request(format!("{field} should be a positive number")))
}

/// A seed that no earlier training had.
pub(crate) fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
