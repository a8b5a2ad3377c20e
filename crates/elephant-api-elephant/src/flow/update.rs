//! `/flow/update`: flow labels from approved links (docs/protocol.md, "POST /flow/update").

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, LargeJson};
use elephant_pipeline::{EraseFlowLabels, UpdateFlowLabels};
use elephant_types::{ApprovedLink, DatasetName, KeepAxials};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    spots::{Element, List},
    update::UpdateReply,
    vector::{Xyz, voxel_size, zyx, zyx_covariance},
};

/// An approved link in a request: its target, and where its source is from there. It becomes an [`ApprovedLink`] at once.
#[derive(Deserialize, ToSchema)]
pub(crate) struct LinkBody {
    /// Timepoint of the source, from 0.
    #[schema(value_type = u64)]
    t: Integer,
    /// Timepoint of the target, which the client does not send; t + 1 when it is absent.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    target_t: Option<Integer>,
    /// Centre of the target (x, y, z).
    pos: [f64; 3],
    /// The target's, row by row, (x, y, z).
    covariance: [f64; 9],
    /// Source − target (x, y, z).
    displacement: [f64; 3],
}

/// One element of the list.
#[derive(Deserialize)]
#[serde(try_from = "LinkBody")]
pub(crate) struct SentLink(ApprovedLink);

impl Element for SentLink {
    type Value = ApprovedLink;

    fn value(self) -> ApprovedLink {
        self.0
    }
}

impl TryFrom<LinkBody> for SentLink {
    type Error = &'static str;

    fn try_from(body: LinkBody) -> Result<Self, Self::Error> {
        let timepoint = |t: Integer, rule| t.to_usize().ok_or(rule);
        Ok(Self(ApprovedLink {
            t: timepoint(body.t, "t must be 0 or more")?,
            target_t: body.target_t.map(|t| timepoint(t, "target_t must be 0 or more")).transpose()?,
            center_um: zyx(body.pos),
            covariance_um2: zyx_covariance(body.covariance),
            displacement_um: zyx(body.displacement),
        }))
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = FlowUpdateBody)]
pub(crate) struct UpdateBody {
    /// Below the workspace's `datasets`.
    #[schema(value_type = String, example = "elephant-demo")]
    dataset_name: Option<DatasetName>,
    /// Erase all flow labels instead; every other field is ignored then.
    #[serde(default)]
    reset: bool,
    /// All approved links into a range of timepoints; later ones are drawn over earlier ones.
    #[serde(default)]
    #[schema(value_type = Vec<LinkBody>)]
    spots: List<SentLink>,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Displacement in the plane, in voxels, that the network's output of 1 stands for.
    #[serde(default = "default_max_displacement")]
    max_displacement: f64,
    /// Pooling levels, from the first, that keep z; the client does not send it.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    n_keep_axials: Option<Integer>,
}

/// What the original takes when it is absent.
pub(crate) fn default_max_displacement() -> f64 {
    80.0
}

/// Draw flow labels from approved links
///
/// Every pair of frames that has a link is drawn anew, and labels of pairs between them that have none are erased. Nothing is
/// drawn when a link cannot be. Aborted with `POST /state/process {"state": 0}`.
#[utoipa::path(
    post, path = "/flow/update", tag = "flow", request_body = UpdateBody, operation_id = "flow_update",
    responses(
        (status = 200, body = UpdateReply),
        (status = 400, description = "A field or link is wrong, or flow labels of this dataset are being drawn already"),
        (status = 404, description = "The dataset or timepoint is not there"),
        (status = 409, description = "The dataset is being made"),
        (status = 413, description = "The body is too long"),
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
        let done = run(&api, EraseFlowLabels { dataset }, memory).await?;
        return Ok(Reply(UpdateReply { completed: done.is_some() }));
    }
    let request = UpdateFlowLabels {
        dataset,
        links: body.spots.0,
        voxel_size: voxel_size(body.scales.as_deref())?,
        max_displacement: body.max_displacement,
        keep_axials: body.n_keep_axials.map(|n| KeepAxials::first(n.0)),
    };
    request.validate()?;
    let drawn = run(&api, request, memory).await?;
    Ok(Reply(UpdateReply { completed: drawn.is_some() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(link: &str) -> Result<ApprovedLink, String> {
        let text = format!(r#"{{"dataset_name":"d","spots":[{link}]}}"#);
        let body = elephant_api_core::parse::<UpdateBody>(text.as_bytes());
        body.map(|body| body.spots.0.into_iter().next().unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_clients_link_is_turned_to_zyx() {
        let link = r#"{"pos":[1,2,3.0E-1],"covariance":[11,12,13,21,22,23,31,32,33],"t":3,"displacement":[4,-5,6]}"#;
        let link = parse(link).unwrap();
        assert_eq!((link.t, link.target_t), (3, None));
        assert_eq!((link.center_um, link.displacement_um), ([0.3, 2.0, 1.0], [6.0, -5.0, 4.0]));
        assert_eq!(link.covariance_um2, [[33.0, 32.0, 31.0], [23.0, 22.0, 21.0], [13.0, 12.0, 11.0]]);
    }

    #[test]
    fn wrong_fields_are_named() {
        let good = r#""pos":[1,2,3],"covariance":[1,0,0,0,1,0,0,0,1],"t":3,"displacement":[4,5,6]"#;
        assert!(parse(&format!("{{{good}}}")).is_ok());
        for (from, to, word) in [
            (r#""t":3"#, r#""t":-1"#, "t must be 0 or more"),
            (r#""t":3"#, r#""t":3,"target_t":-1"#, "target_t must be 0 or more"),
            (r#""t":3,"#, "", "t"),
            ("[4,5,6]", "[4,5]", "spots[0].displacement"),
            ("[4,5,6]", "[4,5,null]", "spots[0].displacement[2]"),
            ("[1,2,3]", r#"["a",2,3]"#, "spots[0].pos[0]"),
        ] {
            let message = parse(&format!("{{{}}}", good.replace(from, to))).unwrap_err();
            assert!(message.contains(word), "{to}: {message}");
        }
    }
}
