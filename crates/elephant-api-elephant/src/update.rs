//! `/seg/update`: labels from tagged spots (docs/protocol.md, "POST /seg/update").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, LargeJson};
use elephant_pipeline::{EraseLabels, UpdateLabels};
use elephant_types::DatasetName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    spots::{SpotBody, Spots},
    vector::{Xyz, voxel_size},
};

#[derive(Deserialize, ToSchema)]
pub(crate) struct UpdateBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Erase all labels instead; every other field is ignored then.
    #[serde(default)]
    reset: bool,
    /// All tagged spots of a range of timepoints; later ones are drawn over earlier ones.
    #[serde(default)]
    #[schema(value_type = Vec<SpotBody>)]
    spots: Spots,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Size of the class "centre" as a fraction of the cell.
    #[serde(default = "default_center_ratio")]
    c_ratio: f64,
    /// Voxels with an intensity below this are background; intensities go from 0 to 1 in each frame. 0 for none.
    #[serde(default)]
    auto_bg_thresh: f64,
    /// Whether a live training waits for the labels.
    #[serde(default)]
    is_livemode: bool,
}

/// What the original takes when it is absent (docs/protocol.md, "POST /seg/update").
pub(crate) fn default_center_ratio() -> f64 {
    0.4
}

#[derive(Serialize, ToSchema)]
pub(crate) struct UpdateReply {
    /// False when the update was aborted.
    pub(crate) completed: bool,
}

/// Draw labels from tagged spots
///
/// Every timepoint that has a spot is drawn anew, and labels of timepoints between them that have none are erased. Nothing
/// is drawn when a spot cannot be. Aborted with `POST /state/process {"state": 0}`.
#[utoipa::path(
    post, path = "/seg/update", tag = "seg", request_body = UpdateBody,
    responses(
        (status = 200, body = UpdateReply),
        (status = 400, description = "A field or spot is wrong, or labels of this dataset are being drawn already"),
        (status = 404, description = "The dataset or timepoint is not there"),
        (status = 409, description = "The dataset is being made"),
        (status = 413, description = "The body is too long, or there is not enough memory"),
        (status = 500, description = "The update failed"),
        (status = 503, description = "The server is stopping, or is busy with other large requests"),
        (status = 507, description = "The labels do not fit on the disk"),
    )
)]
pub(crate) async fn update(
    State(api): State<ElephantApi>,
    LargeJson { value: body, memory }: LargeJson<UpdateBody>,
) -> Result<Reply<UpdateReply>, ApiError> {
    let dataset = body.dataset_name.ok_or_else(|| ApiError::bad_request("dataset_name key is missing"))?;
    if body.reset {
        let done = run(&api, EraseLabels { dataset }, memory).await?;
        return Ok(Reply(UpdateReply { completed: done.is_some() }));
    }
    let request = UpdateLabels {
        dataset,
        spots: body.spots.0,
        voxel_size: voxel_size(body.scales.as_deref())?,
        center_ratio: body.c_ratio,
        background_threshold: body.auto_bg_thresh,
        is_live: body.is_livemode,
    };
    request.validate()?;
    let drawn = run(&api, request, memory).await?;
    Ok(Reply(UpdateReply { completed: drawn.is_some() }))
}
