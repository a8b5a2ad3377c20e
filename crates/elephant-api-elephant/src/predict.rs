//! `/seg/predict`: the cells of one frame (docs/protocol.md, "POST /seg/predict").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, Json};
use elephant_pipeline::{CropBox, PredictRequest};
use elephant_types::{DatasetName, KeepAxials, ModelName, Spot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    vector::{Xyz, voxel_size, zyx_sizes},
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct PredictBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Below the workspace's `models`; a missing one is replaced by the pretrained one.
    #[schema(value_type = String, default = "detection.pth")]
    model_name: Option<ModelName>,
    /// From 0.
    #[schema(value_type = u64)]
    timepoint: Option<Integer>,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Pooling levels, from the first, that keep z.
    #[schema(value_type = i64)]
    n_keep_axials: Integer,
    /// Size of the class "centre" as a fraction of the cell.
    c_ratio: f64,
    /// Probability of the class "centre" above which a voxel belongs to a cell.
    p_thresh: f64,
    /// Smaller cells are dropped.
    r_min: f64,
    /// Larger semi-axes are clipped.
    r_max: f64,
    /// Store the class probabilities in the dataset.
    output_prediction: bool,
    /// Move each plane's median to that of the frame first.
    use_median: bool,
    /// Pad tiles by replication.
    is_pad: bool,
    is_3d: bool,
    /// Let a 2-D network look at each plane of a 3-D dataset.
    use_2d: bool,
    /// Tiles per forward pass; 0 means 1.
    #[schema(value_type = u64)]
    batch_size: Integer,
    /// Rescale the whole frame to this size (x, y, z) in voxels first.
    #[schema(value_type = Option<Vec<u64>>)]
    input_size: Option<Xyz<Integer>>,
    /// Tile size (x, y, z) in voxels of the rescaled image; absent: in one piece.
    #[schema(value_type = Option<Vec<u64>>)]
    patch: Option<Xyz<Integer>>,
    /// Origin (x, y, z) and size (x, y, z) in voxels; absent: the whole frame.
    #[schema(value_type = Option<Vec<u64>>)]
    crop_box: Option<Xyz<Integer>>,
}

impl Default for PredictBody {
    /// What the original takes for absent fields (docs/protocol.md, "POST /seg/predict").
    fn default() -> Self {
        Self {
            dataset_name: None,
            model_name: None,
            timepoint: None,
            scales: None,
            n_keep_axials: Integer(4),
            c_ratio: 0.4,
            p_thresh: 0.5,
            r_min: 0.0,
            r_max: 1e6,
            output_prediction: false,
            use_median: false,
            is_pad: false,
            is_3d: true,
            use_2d: false,
            batch_size: Integer(1),
            input_size: None,
            patch: None,
            crop_box: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PredictReply {
    /// False when the prediction was aborted.
    completed: bool,
    spots: Vec<SpotReply>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SpotReply {
    t: usize,
    /// Centre (x, y, z).
    pos: [f64; 3],
    /// Row by row, (x, y, z); the ellipsoid's semi-axes are the square roots of its eigenvalues.
    covariance: [f64; 9],
    /// Mean probability of the class "centre".
    quality: f64,
}

impl From<Spot> for SpotReply {
    fn from(spot: Spot) -> Self {
        let [z, y, x] = spot.center_um;
        let covariance = std::array::from_fn(|i| spot.covariance_um2[2 - i / 3][2 - i % 3]);
        Self { t: spot.t, pos: [x, y, z], covariance, quality: spot.quality }
    }
}

/// The cells of one frame
///
/// A second prediction waits its turn. Aborted with `POST /state/process {"state": 0}`.
#[utoipa::path(
    post, path = "/seg/predict", tag = "seg", request_body = PredictBody,
    responses(
        (status = 200, body = PredictReply),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "The dataset, timepoint or model is not there"),
        (status = 409, description = "The dataset is being made"),
        (status = 413, description = "Not enough memory; predict with patches"),
        (status = 429, description = "Too many predictions wait already; Retry-After says when to try again"),
        (status = 500, description = "The prediction failed"),
        (status = 503, description = "The server is stopping, or the pretrained model cannot be fetched"),
        (status = 507, description = "The probabilities do not fit on the disk"),
    )
)]
pub(crate) async fn predict(
    State(api): State<ElephantApi>,
    Json(body): Json<PredictBody>,
) -> Result<Reply<PredictReply>, ApiError> {
    let request = PredictRequest::try_from(body)?;
    let spots = run(&api, request, ()).await?;
    let completed = spots.is_some();
    let spots = spots.unwrap_or_default().into_iter().map(SpotReply::from).collect();
    Ok(Reply(PredictReply { completed, spots }))
}

impl TryFrom<PredictBody> for PredictRequest {
    type Error = ApiError;

    fn try_from(body: PredictBody) -> Result<Self, ApiError> {
        let missing = |field: &str| ApiError::bad_request(format!("{field} key is missing"));
        let timepoint = body.timepoint.ok_or_else(|| missing("timepoint"))?;
        let sizes =
            |field: &str, values: Option<Xyz<Integer>>| values.map(|values| zyx_sizes(field, &values)).transpose();
        let request = Self {
            dataset: body.dataset_name.ok_or_else(|| missing("dataset_name"))?,
            model: body.model_name.unwrap_or_else(ModelName::detection),
            timepoint: timepoint.to_usize().ok_or_else(|| ApiError::bad_request("timepoint must be 0 or more"))?,
            voxel_size: voxel_size(body.scales.as_deref())?,
            keep_axials: KeepAxials::first(body.n_keep_axials.0),
            is_3d: body.is_3d,
            use_2d: body.use_2d && body.is_3d,
            is_pad: body.is_pad,
            use_median: body.use_median,
            output_prediction: body.output_prediction,
            center_ratio: body.c_ratio,
            threshold: body.p_thresh,
            min_radius_um: body.r_min,
            max_radius_um: body.r_max,
            patch: sizes("patch", body.patch)?,
            crop: body.crop_box.map(|values| crop_box(&values)).transpose()?,
            input_size: sizes("input_size", body.input_size)?,
            batch_size: body.batch_size.to_usize().unwrap_or(0).max(1),
        };
        request.validate().map_err(ApiError::from)?;
        Ok(request)
    }
}

pub(crate) fn crop_box(values: &[Integer]) -> Result<CropBox, ApiError> {
    if values.len() != 6 {
        let message = "crop_box must have 6 numbers: the origin (x, y, z) and the size (x, y, z) in voxels";
        return Err(ApiError::bad_request(message));
    }
    let (origin, size) = values.split_at(3);
    Ok(CropBox { origin: zyx_sizes("crop_box", origin)?, size: zyx_sizes("crop_box", size)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client sends for the first frame of its sample (docs/protocol.md, "POST /seg/predict").
    const CLIENT: &str = r#"{"dataset_name":"dataset","model_name":"detection.pth","n_keep_axials":3,
        "scales":[0.2767553206210389,0.2767553206210389,2.1605444611492426],
        "c_ratio":0.4,"p_thresh":0.5,"r_min":1,"r_max":5,"debug":false,"output_prediction":false,
        "use_median":false,"is_pad":true,"cache_maxbytes":1073741824,"is_3d":true,"use_2d":false,
        "use_memmap":true,"batch_size":0,"input_size":[256,256,8],"patch":[384,384,24],
        "crop_box":[1,2,3,40,50,6],"timepoint":0}"#;

    #[test]
    fn the_clients_request_is_turned_to_zyx() {
        let body: PredictBody = elephant_api_core::parse(CLIENT.as_bytes()).unwrap();
        let request = PredictRequest::try_from(body).unwrap();
        assert_eq!(request.patch, Some([24, 384, 384]));
        assert_eq!(request.input_size, Some([8, 256, 256]));
        assert_eq!(request.crop, Some(CropBox { origin: [3, 2, 1], size: [6, 50, 40] }));
        assert_eq!(
            request.voxel_size.zyx(),
            [2.160_544_461_149_242_6, 0.276_755_320_621_038_9, 0.276_755_320_621_038_9]
        );
        assert_eq!(request.keep_axials, KeepAxials([true, true, true, false]));
        assert_eq!(request.batch_size, 1);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (body, field) in [
            (r#"{"timepoint":0}"#, "dataset_name"),
            (r#"{"dataset_name":"d"}"#, "timepoint"),
            (r#"{"dataset_name":"../d","timepoint":0}"#, "dataset_name"),
            (r#"{"dataset_name":"d","timepoint":0.5}"#, "timepoint"),
            (r#"{"dataset_name":"d","timepoint":-1}"#, "timepoint"),
            (r#"{"dataset_name":"d","timepoint":0,"scales":[0,1,1]}"#, "scales"),
            (r#"{"dataset_name":"d","timepoint":0,"crop_box":[1,2,3]}"#, "crop_box"),
            (r#"{"dataset_name":"d","timepoint":0,"patch":[-1,2,3]}"#, "patch"),
            (r#"{"dataset_name":"d","timepoint":0,"patch":[0,2,3]}"#, "patch"),
            (r#"{"dataset_name":"d","timepoint":0,"c_ratio":0}"#, "c_ratio"),
            (r#"{"dataset_name":"d","timepoint":0,"r_min":-1}"#, "r_min"),
            (r#"{"dataset_name":"d","timepoint":0,"r_min":7,"r_max":5}"#, "r_max"),
            (r#"{"dataset_name":"d","timepoint":0,"p_thresh":"x"}"#, "p_thresh"),
        ] {
            let parsed = elephant_api_core::parse::<PredictBody>(body.as_bytes()).and_then(PredictRequest::try_from);
            let message = parsed.expect_err(body).message().to_owned();
            assert!(message.contains(field), "{body}: {message}");
        }
    }

    #[test]
    fn a_spot_is_turned_to_xyz() {
        let covariance_um2 = [[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]];
        let reply = SpotReply::from(Spot { t: 1, center_um: [3.0, 2.0, 1.0], covariance_um2, quality: 0.5 });
        assert_eq!(reply.pos, [1.0, 2.0, 3.0]);
        assert_eq!(reply.covariance, [6.0, 5.0, 3.0, 5.0, 4.0, 2.0, 3.0, 2.0, 1.0]);
    }
}
