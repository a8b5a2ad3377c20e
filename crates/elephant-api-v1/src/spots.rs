//! `/v1/projects/{project}/spots`, `/links` and `/lineage`: what a project has now.

use std::collections::BTreeMap;

use axum::{
    Json as Reply,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, blocking};
use elephant_project::{
    Branch, DetectionTag, ProjectLink, ProjectSpot, SpotKey, TrackingTag, View, branches, pack_spots,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    V1Api,
    query::{frames, project, refuse_unknown},
};

const PACKED: &str = "application/octet-stream";
/// The header with the last entry of the log that a packed reply shows.
const SEQ: &str = "x-project-seq";

/// Which frames.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FramesQuery {
    /// A timepoint, or the first and the last one as `3..7`, both included; all of them if it is not given.
    #[param(example = "3..7")]
    t: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

/// A spot.
#[derive(Serialize, ToSchema)]
struct SpotReply {
    /// Its number, which it keeps.
    #[schema(value_type = u64)]
    key: SpotKey,
    /// Timepoint, from 0.
    t: usize,
    /// Centre (z, y, x) in micrometres.
    center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres.
    covariance_um2: [[f64; 3]; 3],
    /// How sure a program is that it is a cell, 0 to 1.
    quality: f64,
    /// `unlabeled`, `tp`, `fp`, `tn`, `fn`, `tb` or `fb`.
    #[schema(value_type = String)]
    detection: DetectionTag,
    /// `unlabeled` or `approved`.
    #[schema(value_type = String)]
    tracking: TrackingTag,
    /// Bits for programs; 1: interpolated.
    flags: u16,
    /// Who made it: an index into `authors`.
    author: u32,
    /// The last entry of the log that changed it.
    changed: u64,
}

impl From<ProjectSpot> for SpotReply {
    fn from(spot: ProjectSpot) -> Self {
        let ProjectSpot { key, spot, detection, tracking, flags, author, changed } = spot;
        let elephant_types::Spot { t, center_um, covariance_um2, quality } = spot;
        Self { key, t, center_um, covariance_um2, quality, detection, tracking, flags, author, changed }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SpotsReply {
    /// The last entry of the log that it shows.
    seq: u64,
    /// The names of authors.
    authors: Vec<String>,
    /// Ordered by timepoint and number.
    spots: Vec<SpotReply>,
}

/// The reply that `make` makes of some frames of a project, on a thread that may wait for the disk.
async fn read<T: Send + 'static>(
    api: V1Api,
    name: String,
    query: FramesQuery,
    make: impl FnOnce(View) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    refuse_unknown(&query.unknown, "t")?;
    let (first, last) = frames(query.t.as_ref())?;
    blocking(move || make(project(&api.use_cases, &name)?.view(first, last)?)).await
}

/// Spots of some frames
///
/// As JSON, or with `Accept: application/octet-stream` packed: 64 bytes for each spot, which docs/projects.md describes.
#[utoipa::path(
    get, path = "/v1/projects/{project}/spots", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded"), FramesQuery),
    responses(
        (status = 200, content((SpotsReply = "application/json"), (Vec<u8> = "application/octet-stream"))),
        (status = 400, description = "A wrong parameter"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn spots(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Query(query): Query<FramesQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_packed = accepts
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(PACKED)));
    let reply = read(api, name, query, move |view| {
        if is_packed {
            let seq = view.seq.to_string();
            let lineage = view.lineage().map_err(|error| ApiError::internal(error.to_string()))?;
            let headers = [(header::CONTENT_TYPE.as_str(), PACKED.to_owned()), (SEQ, seq)];
            return Ok((headers, pack_spots(&view, &lineage)).into_response());
        }
        let View { seq, authors, spots, .. } = view;
        let spots = spots.into_iter().map(SpotReply::from).collect();
        Ok(Reply(SpotsReply { seq, authors, spots }).into_response())
    });
    reply.await
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LinksReply {
    /// The last entry of the log that it shows.
    seq: u64,
    /// `source`, `target`, `state` (`unlabeled`, `approved` or `rejected`) and `score` (0 to 1, or null), rejected ones last.
    #[schema(value_type = Vec<Object>)]
    links: Vec<ProjectLink>,
}

/// Links between spots of some frames
#[utoipa::path(
    get, path = "/v1/projects/{project}/links", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded"), FramesQuery),
    responses(
        (status = 200, body = LinksReply),
        (status = 400, description = "A wrong parameter"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn links(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Query(query): Query<FramesQuery>,
) -> Result<Reply<LinksReply>, ApiError> {
    read(api, name, query, |View { seq, links, .. }| Ok(Reply(LinksReply { seq, links }))).await
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LineageReply {
    /// The last entry of the log that it shows.
    seq: u64,
    /// Cells between their births and their divisions or ends: `id` (from 1, the track of packed spots), `parent` or null,
    /// first and last frame `t0` and `t1`, `first` and `last` spot, number of `spots`, place `order` across (leaves at 0, 1,
    /// 2, …), how many spots have which of the seven `tags`, and how many are `approved`. Mothers come before daughters.
    #[schema(value_type = Vec<Object>)]
    branches: Vec<Branch>,
}

/// The lineage by branches
#[utoipa::path(
    get, path = "/v1/projects/{project}/lineage", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded"), FramesQuery),
    responses(
        (status = 200, body = LineageReply),
        (status = 400, description = "A wrong parameter"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn lineage(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Query(query): Query<FramesQuery>,
) -> Result<Reply<LineageReply>, ApiError> {
    let reply = read(api, name, query, |view| {
        let branches = branches(&view).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Reply(LineageReply { seq: view.seq, branches }))
    });
    reply.await
}
