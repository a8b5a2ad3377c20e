//! `/flow/predict`: where cells were in the frame before (docs/protocol.md, "POST /flow/predict").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, LargeJson};
use elephant_pipeline::{FlowAnswer, FlowSpot, PredictFlowRequest};
use elephant_types::{DatasetName, KeepAxials, ModelName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    predict::crop_box,
    spots::{Element, List},
    vector::{Xyz, voxel_size, zyx, zyx_covariance, zyx_sizes},
};

/// A cell whose place in the frame before is asked for; it becomes a [`FlowSpot`] at once.
#[derive(Deserialize, ToSchema)]
pub(crate) struct FlowSpotBody {
    /// Centre (x, y, z).
    pos: [f64; 3],
    /// Row by row, (x, y, z); the ellipsoid's semi-axes are the square roots of its eigenvalues.
    covariance: [f64; 9],
    /// The client's number of the spot; it comes back.
    #[schema(value_type = i64)]
    id: Integer,
}

impl Element for FlowSpotBody {
    type Value = FlowSpot;

    fn value(self) -> FlowSpot {
        FlowSpot { id: self.id.0, center_um: zyx(self.pos), covariance_um2: zyx_covariance(self.covariance) }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = FlowPredictBody)]
pub(crate) struct PredictBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Below the workspace's `models`; a missing one is replaced by the pretrained one.
    #[schema(value_type = String, default = "flow.pth")]
    model_name: Option<ModelName>,
    /// The later frame, from 1.
    #[schema(value_type = u64)]
    timepoint: Option<Integer>,
    /// Cells of that frame; none are answered by none.
    #[schema(value_type = Vec<FlowSpotBody>)]
    spots: List<FlowSpotBody>,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Pooling levels, from the first, that keep z.
    #[schema(value_type = i64)]
    n_keep_axials: Integer,
    /// Displacement in the plane, in voxels, that the network's output of 1 stands for.
    max_displacement: f64,
    /// Store the displacements of the whole frame in the dataset, even where a crop would do.
    output_prediction: bool,
    is_3d: bool,
    /// Tiles per forward pass; 0 means 1.
    #[schema(value_type = u64)]
    batch_size: Integer,
    /// Rescale the whole frames to this size (x, y, z) in voxels first.
    #[schema(value_type = Option<Vec<u64>>)]
    input_size: Option<Xyz<Integer>>,
    /// Tile size (x, y, z) in voxels of the rescaled image; absent: in one piece.
    #[schema(value_type = Option<Vec<u64>>)]
    patch: Option<Xyz<Integer>>,
    /// Origin (x, y, z) and size (x, y, z) in voxels; absent: the whole frame. Moved to where the cells are.
    #[schema(value_type = Option<Vec<u64>>)]
    crop_box: Option<Xyz<Integer>>,
}

impl Default for PredictBody {
    /// What the original takes for absent fields (docs/protocol.md, "POST /flow/predict").
    fn default() -> Self {
        Self {
            dataset_name: None,
            model_name: None,
            timepoint: None,
            spots: List::default(),
            scales: None,
            n_keep_axials: Integer(4),
            max_displacement: 80.0,
            output_prediction: false,
            is_3d: true,
            batch_size: Integer(1),
            input_size: None,
            patch: None,
            crop_box: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = FlowPredictReply)]
pub(crate) struct PredictReply {
    /// False when the prediction was aborted.
    completed: bool,
    /// In the order of the request.
    spots: Vec<FlowSpotReply>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct FlowSpotReply {
    /// As in the request.
    id: i64,
    /// Centre in the frame before (x, y, z).
    pos: [f64; 3],
    /// Squared length of the displacement.
    sqdisp: f64,
}

impl From<FlowAnswer> for FlowSpotReply {
    fn from(answer: FlowAnswer) -> Self {
        let [z, y, x] = answer.center_um;
        Self { id: answer.id, pos: [x, y, z], sqdisp: answer.squared_um2 }
    }
}

/// Where cells were in the frame before
///
/// The displacements of a whole frame are computed once and kept in the dataset. Aborted with
/// `POST /state/process {"state": 0}`.
#[utoipa::path(
    post, path = "/flow/predict", tag = "flow", request_body = PredictBody, operation_id = "flow_predict",
    responses(
        (status = 200, body = PredictReply),
        (status = 400, description = "A field or spot is wrong, or the timepoint has no frame before it"),
        (status = 404, description = "The dataset, timepoint or model is not there"),
        (status = 409, description = "The dataset is being made"),
        (status = 413, description = "Not enough memory; predict with patches. Or the body is too long"),
        (status = 429, description = "Too many predictions wait already; Retry-After says when to try again"),
        (status = 500, description = "The prediction failed"),
        (status = 503, description = "The server is stopping, is busy with other large requests, or cannot fetch the \
                                      pretrained model"),
        (status = 507, description = "The displacements do not fit on the disk"),
    )
)]
pub(crate) async fn predict(
    State(api): State<ElephantApi>,
    LargeJson { value: body, memory }: LargeJson<PredictBody>,
) -> Result<Reply<PredictReply>, ApiError> {
    let request = PredictFlowRequest::try_from(body)?;
    let answers = run(&api, request, memory).await?;
    let completed = answers.is_some();
    let spots = answers.unwrap_or_default().into_iter().map(FlowSpotReply::from).collect();
    Ok(Reply(PredictReply { completed, spots }))
}

impl TryFrom<PredictBody> for PredictFlowRequest {
    type Error = ApiError;

    fn try_from(body: PredictBody) -> Result<Self, ApiError> {
        let missing = |field: &str| ApiError::bad_request(format!("{field} key is missing"));
        let timepoint = body.timepoint.ok_or_else(|| missing("timepoint"))?;
        let sizes =
            |field: &str, values: Option<Xyz<Integer>>| values.map(|values| zyx_sizes(field, &values)).transpose();
        let request = Self {
            dataset: body.dataset_name.ok_or_else(|| missing("dataset_name"))?,
            model: body.model_name.unwrap_or_else(ModelName::flow),
            timepoint: timepoint.to_usize().ok_or_else(|| ApiError::bad_request("timepoint must be 0 or more"))?,
            spots: body.spots.0,
            voxel_size: voxel_size(body.scales.as_deref())?,
            keep_axials: KeepAxials::first(body.n_keep_axials.0),
            is_3d: body.is_3d,
            max_displacement: body.max_displacement,
            output_prediction: body.output_prediction,
            patch: sizes("patch", body.patch)?,
            crop: body.crop_box.map(|values| crop_box(&values)).transpose()?,
            input_size: sizes("input_size", body.input_size)?,
            batch_size: body.batch_size.to_usize().unwrap_or(0).max(1),
        };
        request.validate().map_err(ApiError::from)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use elephant_pipeline::CropBox;

    use super::*;

    /// What the client sends for *Backtrack* (docs/protocol.md, "POST /flow/predict").
    const CLIENT: &str = r#"{"dataset_name":"dataset","model_name":"flow.pth","debug":false,"output_prediction":false,
        "max_displacement":80,"scales":[0.2767553206210389,0.2767553206210389,2.1605444611492426],"n_keep_axials":3,
        "cache_maxbytes":1073741824,"is_3d":true,"use_memmap":true,"input_size":[256,256,8],"patch":[384,384,24],
        "crop_box":[1,2,3,40,50,6],"timepoint":2,
        "spots":[{"pos":[20,20.5,8.0E-1],"covariance":[11,12,13,21,22,23,31,32,33],"id":12}]}"#;

    fn parse(text: &str) -> Result<PredictFlowRequest, String> {
        let body = elephant_api_core::parse::<PredictBody>(text.as_bytes());
        body.and_then(PredictFlowRequest::try_from).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_clients_request_is_turned_to_zyx() {
        let request = parse(CLIENT).unwrap();
        assert_eq!(request.patch, Some([24, 384, 384]));
        assert_eq!(request.input_size, Some([8, 256, 256]));
        assert_eq!(request.crop, Some(CropBox { origin: [3, 2, 1], size: [6, 50, 40] }));
        assert_eq!(request.keep_axials, KeepAxials([true, true, true, false]));
        let covariance_um2 = [[33.0, 32.0, 31.0], [23.0, 22.0, 21.0], [13.0, 12.0, 11.0]];
        assert_eq!(request.spots, [FlowSpot { id: 12, center_um: [0.8, 20.5, 20.0], covariance_um2 }]);
    }

    #[test]
    fn what_old_clients_leave_out_has_the_originals_values() {
        let request = parse(r#"{"dataset_name":"d","timepoint":1.0}"#).unwrap();
        assert_eq!((request.model.as_str(), request.max_displacement, request.batch_size), ("flow.pth", 80.0, 1));
        assert!(request.spots.is_empty() && request.is_3d && request.crop.is_none());
    }

    #[test]
    fn wrong_fields_are_named() {
        for (body, field) in [
            (r#"{"timepoint":1}"#, "dataset_name"),
            (r#"{"dataset_name":"d"}"#, "timepoint"),
            (r#"{"dataset_name":"d","timepoint":0}"#, "timepoint 0 has no frame before it"),
            (r#"{"dataset_name":"d","timepoint":-1}"#, "timepoint"),
            (r#"{"dataset_name":"d","timepoint":1,"scales":[1,1,1,1]}"#, "scales"),
            (r#"{"dataset_name":"d","timepoint":1,"max_displacement":0}"#, "max_displacement"),
            (r#"{"dataset_name":"d","timepoint":1,"crop_box":[1,2,3]}"#, "crop_box"),
            (r#"{"dataset_name":"d","timepoint":1,"crop_box":[1,2,3,0,1,1]}"#, "crop_box"),
            (r#"{"dataset_name":"d","timepoint":1,"patch":[0,2,3]}"#, "patch"),
            (r#"{"dataset_name":"d","timepoint":1,"spots":3}"#, "spots"),
            (r#"{"dataset_name":"d","timepoint":1,"spots":[{"pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1]}]}"#, "id"),
            (
                r#"{"dataset_name":"d","timepoint":1,"spots":[{"id":1,"pos":[1,2],"covariance":[1,0,0,0,1,0,0,0,1]}]}"#,
                "spots[0].pos",
            ),
            (r#"{"dataset_name":"d","timepoint":1,"spots":[{"id":1,"pos":[1,2,NaN],"covariance":[]}]}"#, "not valid"),
            (
                r#"{"dataset_name":"d","timepoint":1,"spots":[{"id":1,"pos":[1,2,3],"covariance":[1,0,0]}]}"#,
                "spots[0].covariance",
            ),
            (
                r#"{"dataset_name":"d","timepoint":1,"spots":[{"id":1e300,"pos":[1,2,3],"covariance":[]}]}"#,
                "spots[0].id",
            ),
        ] {
            let message = parse(body).expect_err(body);
            assert!(message.contains(field), "{body}: {message}");
        }
    }

    #[test]
    fn an_answer_is_turned_to_xyz() {
        let answer = FlowAnswer { id: -3, center_um: [3.0, 2.0, 1.0], squared_um2: 0.25 };
        let reply = serde_json::to_string(&FlowSpotReply::from(answer)).unwrap();
        assert_eq!(reply, r#"{"id":-3,"pos":[1.0,2.0,3.0],"sqdisp":0.25}"#);
    }
}
