//! `/flow/train`: training of a flow network with approved links (docs/protocol.md, "POST /flow/train").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, LargeJson};
use elephant_model::Objective;
use elephant_pipeline::{CropOptions, TrainRequest, TrainingMode, UpdateFlowLabels};
use elephant_types::{DatasetName, FileName, ModelName};
use serde::Deserialize;
use utoipa::ToSchema;

use super::update::{LinkBody, SentLink, default_max_displacement};
use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    spots::List,
    train::{
        CropFields, TrainReply, default_crop_size, default_crops, default_epochs, default_is_3d, default_keep_axials,
        default_rate, one, positive, seed_from_clock,
    },
    vector::Xyz,
};

#[derive(Deserialize, ToSchema)]
#[schema(as = FlowTrainBody)]
pub(crate) struct TrainBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Below the workspace's `models`; the pretrained network is the start of one that does not exist.
    #[serde(default)]
    #[schema(value_type = String, example = "flow.pth")]
    model_name: Option<ModelName>,
    /// Approved links; the labels of their pairs of frames are drawn anew and learnt from.
    #[serde(default)]
    #[schema(value_type = Vec<LinkBody>)]
    spots: List<SentLink>,
    #[serde(default = "default_is_3d")]
    is_3d: bool,
    /// Poolings that keep z, from the first.
    #[serde(default = "default_keep_axials")]
    #[schema(value_type = i64)]
    n_keep_axials: Integer,
    /// Displacement in the plane, in voxels, that the network's output of 1 stands for.
    #[serde(default = "default_max_displacement")]
    max_displacement: f64,
    /// Weights of displacements along x, y and z; only their ratios matter.
    #[serde(default)]
    #[schema(value_type = Option<Vec<f64>>)]
    dim_weights: Option<Xyz<f64>>,
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
    /// Learning rate of Adam; `/params` changes it while the training runs.
    #[serde(default = "default_rate")]
    lr: f64,
    /// Crops in one step; 0 means 1.
    #[serde(default = "one")]
    #[schema(value_type = u32)]
    batch_size: Integer,
    /// Crops of each pair of frames in an epoch; `/params` changes it while the training runs.
    #[serde(default = "default_crops")]
    #[schema(value_type = u32)]
    n_crops: Integer,
    /// How often all crops are gone through.
    #[serde(default = "default_epochs")]
    #[schema(value_type = u32)]
    n_epochs: Integer,
    /// Scalars are logged every so many steps.
    #[serde(default = "one")]
    #[schema(value_type = u64)]
    log_interval: Integer,
    /// Folder for TensorBoard, below the workspace's `logs`.
    #[serde(default)]
    #[schema(value_type = String, example = "flow_log")]
    log_dir: Option<FileName>,
    /// Seed of the crops; taken from the clock when it is absent.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    seed: Option<Integer>,
}

/// Train a flow model with approved links
///
/// Answers when the training has ended; until then see `/events` or `/v1/jobs`. Saved, stopped and changed as trainings of
/// detection models are.
#[utoipa::path(
    post, path = "/flow/train", tag = "flow", request_body = TrainBody, operation_id = "flow_train",
    responses(
        (status = 200, body = TrainReply),
        (status = 400, description = "A field or link is wrong, there is nothing to train with, or the loss diverged"),
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
    let request = TrainRequest::try_from(body)?;
    elephant_pipeline::Request::validate(&request)?;
    let done = run(&api, request, memory).await?;
    Ok(Reply(TrainReply { completed: done.is_some() }))
}

impl TryFrom<TrainBody> for TrainRequest {
    type Error = ApiError;

    fn try_from(body: TrainBody) -> Result<Self, ApiError> {
        let dataset = body.dataset_name.ok_or_else(|| ApiError::bad_request("dataset_name key is missing"))?;
        let crops = CropOptions::try_from(CropFields {
            is_3d: body.is_3d,
            n_keep_axials: body.n_keep_axials,
            scales: body.scales,
            input_size: body.input_size,
            crop_size: body.crop_size,
            aug_scale_factor_base: body.aug_scale_factor_base,
            aug_rotation_angle: body.aug_rotation_angle,
            aug_contrast: 0.0,
        })?;
        let axis_weights = match body.dim_weights.as_deref() {
            None => [1.0; 3],
            Some(&[x, y, z]) => [x, y, z],
            Some(&[x, y]) => [x, y, 0.0],
            Some(_) => return Err(ApiError::bad_request("dim_weights must have 3 numbers (x, y, z)")),
        };
        let labels = UpdateFlowLabels {
            dataset: dataset.clone(),
            links: body.spots.0,
            voxel_size: crops.voxel_size,
            max_displacement: body.max_displacement,
            keep_axials: Some(crops.keep_axials),
        };
        Ok(Self {
            dataset,
            model: body.model_name.unwrap_or_else(ModelName::flow),
            mode: TrainingMode::Links { labels, axis_weights, epochs: positive("n_epochs", body.n_epochs)? },
            crops,
            objective: Objective::default(),
            learning_rate: body.lr,
            // The client's 0 means one crop at a time.
            batch_size: body.batch_size.to_usize().unwrap_or(0).max(1),
            crops_per_timepoint: positive("n_crops", body.n_crops)?,
            log_interval: u64::try_from(body.log_interval.0).unwrap_or(0),
            log_folder: body.log_dir.unwrap_or_else(FileName::flow_log),
            seed: body.seed.map_or_else(seed_from_clock, |seed| seed.0.cast_unsigned()),
        })
    }
}
