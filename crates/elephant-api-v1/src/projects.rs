//! `/v1/projects`: making, listing, deleting, exporting, importing and recovering projects.

use std::io::{BufReader, BufWriter, Write};

use axum::{
    Json as Reply,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, Json, blocking, shown};
use elephant_project::{Project, ProjectError, ProjectId, ProjectInfo, ProjectKind};
use elephant_types::{DatasetName, VoxelSize};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

use crate::{
    V1Api,
    query::{project, project_id, refuse_unknown},
};

/// An error of the operating system.
fn io_error(error: std::io::Error) -> ApiError {
    error.into()
}

/// The largest import, in bytes: a log of some ten million changes.
const MOST_IMPORT_BYTES: u64 = 4 << 30;

/// A project.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProjectReply {
    /// `DATASET/NAME`; in addresses it is percent-encoded as one part.
    project: String,
    /// `normal`, or `mirror` where it follows a session of the ELEPHANT client and cannot be changed here.
    #[schema(value_type = String)]
    kind: ProjectKind,
    /// When it was made, in seconds since 1970 UTC.
    created_at: Option<f64>,
    /// The last entry of its log; 0 for none.
    seq: u64,
    /// The number of spots.
    spots: usize,
    /// The number of links that were not rejected.
    links: usize,
    /// The frames that have spots, each with their number.
    frames: Vec<(u32, usize)>,
    /// Everyone who has changed it, in the order of their first entries.
    authors: Vec<String>,
    /// Edges of the voxels (z, y, x) in micrometres, where they are known.
    voxel_size_um: Option<[f64; 3]>,
}

fn reply(id: &ProjectId, project: &Project) -> Result<ProjectReply, ApiError> {
    let ProjectInfo { kind, created_at, seq, spots, links, frames, authors } = project.info()?;
    let voxel_size_um = project.voxel_size()?.map(VoxelSize::zyx);
    Ok(ProjectReply { project: id.to_string(), kind, created_at, seq, spots, links, frames, authors, voxel_size_um })
}

/// Which projects to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Those of this dataset only.
    dataset: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

/// The projects
///
/// In order. A project that cannot be opened is listed too; `GET` of it says what is wrong.
#[utoipa::path(
    get, path = "/v1/projects", tag = "v1", params(ListQuery),
    responses((status = 200, body = Vec<String>, description = "Each as `DATASET/NAME`"))
)]
pub(crate) async fn list(
    State(api): State<V1Api>,
    Query(query): Query<ListQuery>,
) -> Result<Reply<Vec<ProjectId>>, ApiError> {
    refuse_unknown(&query.unknown, "dataset")?;
    let projects = blocking(move || {
        let workspace = &api.use_cases.workspace;
        let datasets = match query.dataset {
            Some(name) => vec![dataset(&name)?],
            None => workspace.dataset_names()?,
        };
        let mut projects = Vec::new();
        for dataset in datasets {
            projects.extend(workspace.projects().of_dataset(&dataset)?);
        }
        Ok(projects)
    });
    Ok(Reply(projects.await?))
}

fn dataset(name: &str) -> Result<DatasetName, ApiError> {
    name.parse().map_err(|error: elephant_types::InvalidName| ApiError::bad_request(error.to_string()))
}

/// A project to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// `DATASET/NAME`. The name has letters, digits, - and _, at most 64 bytes.
    #[schema(value_type = String, example = "fly/main")]
    project: ProjectId,
    /// The project whose log it begins with.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "fly/mastodon")]
    copy_of: Option<ProjectId>,
    /// Edges of the voxels (z, y, x) in micrometres.
    #[serde(default)]
    #[schema(value_type = Option<[f64; 3]>)]
    voxel_size_um: Option<VoxelSize>,
}

/// Make a project
#[utoipa::path(
    post, path = "/v1/projects", tag = "v1", request_body = CreateBody,
    responses(
        (status = 201, body = ProjectReply, description = "Its address is in `Location`"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "There is no such dataset, or no such project to copy"),
        (status = 409, description = "There is such a project already"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn create(State(api): State<V1Api>, Json(body): Json<CreateBody>) -> Result<Response, ApiError> {
    let reply = blocking(move || {
        let projects = api.use_cases.workspace.projects();
        api.use_cases.dataset_info(&body.project.dataset)?;
        let made = match &body.copy_of {
            Some(source) => projects.copy(source, &body.project)?,
            None => projects.create(&body.project, ProjectKind::Normal)?,
        };
        body.voxel_size_um.map_or(Ok(()), |size| made.set_voxel_size(size))?;
        reply(&body.project, &made)
    });
    Ok(created(reply.await?))
}

fn created(reply: ProjectReply) -> Response {
    let location = format!("/v1/projects/{}", encoded(&reply.project));
    (StatusCode::CREATED, [(header::LOCATION, location)], Reply(reply)).into_response()
}

/// A text as one part of an address.
fn encoded(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

/// One project
#[utoipa::path(
    get, path = "/v1/projects/{project}", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded: `fly%2Fmain`")),
    responses(
        (status = 200, body = ProjectReply),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn get(State(api): State<V1Api>, Path(name): Path<String>) -> Result<Reply<ProjectReply>, ApiError> {
    Ok(Reply(blocking(move || reply(&project_id(&name)?, &*project(&api.use_cases, &name)?)).await?))
}

/// Delete a project for good
#[utoipa::path(
    delete, path = "/v1/projects/{project}", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is no such project"))
)]
pub(crate) async fn delete(State(api): State<V1Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    blocking(move || Ok(api.use_cases.workspace.projects().delete(&project_id(&name)?)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Export a project
///
/// Its log as JSON lines; docs/projects.md describes them.
#[utoipa::path(
    get, path = "/v1/projects/{project}/export", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses(
        (status = 200, content_type = "application/x-ndjson", description = "The log"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn export(State(api): State<V1Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let file = blocking(move || {
        let id = project_id(&name)?;
        let project = project(&api.use_cases, &name)?;
        let mut file = api.use_cases.workspace.projects().temporary_file(&id.dataset)?;
        let mut writer = BufWriter::new(file.as_file_mut());
        project.export(&mut writer)?;
        writer.flush().map_err(io_error)?;
        drop(writer);
        // The file is deleted here and now, and stays readable.
        file.reopen().map_err(io_error)
    });
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file.await?), 64 << 10);
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"project.jsonl\""),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Make a project of an export
#[utoipa::path(
    post, path = "/v1/projects/{project}/import", tag = "v1",
    params(("project" = String, Path, description = "The new project: `DATASET/NAME`, percent-encoded")),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses(
        (status = 201, body = ProjectReply, description = "Its address is in `Location`"),
        (status = 400, description = "A line is wrong; there is no new project"),
        (status = 404, description = "There is no such dataset"),
        (status = 409, description = "There is such a project already"),
        (status = 413, description = "The body is too long"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn import(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = project_id(&name)?;
    let (use_cases, target) = (api.use_cases.clone(), id.clone());
    let file = blocking(move || {
        use_cases.dataset_info(&target.dataset)?;
        if use_cases.workspace.projects().of_dataset(&target.dataset)?.contains(&target) {
            return Err(ProjectError::Exists(target).into());
        }
        Ok(use_cases.workspace.projects().temporary_file(&target.dataset)?)
    });
    let file = file.await?;
    receive(request.into_body(), file.reopen().map_err(io_error)?).await?;
    let reply = blocking(move || {
        let reader = BufReader::new(file.reopen().map_err(io_error)?);
        let projects = api.use_cases.workspace.projects();
        let project = projects.create_filled(&id, |project| project.import(reader))?;
        reply(&id, &project)
    });
    Ok(created(reply.await?))
}

/// Writes a body to a file.
async fn receive(mut body: Body, file: std::fs::File) -> Result<(), ApiError> {
    let mut file = tokio::io::BufWriter::new(tokio::fs::File::from_std(file));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > MOST_IMPORT_BYTES {
            let message = format!("the import is longer than {} MiB", MOST_IMPORT_BYTES >> 20);
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        file.write_all(&data).await.map_err(io_error)?;
    }
    file.flush().await.map_err(io_error)
}

/// What was saved of a damaged project.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoverReply {
    /// The last entry that is intact; everything up to it is there again.
    seq: u64,
    /// What was wrong after it; null when the log was whole.
    damage: Option<String>,
}

/// Recover a damaged project
///
/// Puts the log up to the damage in its place. The damaged file stays beside it, as `NAME.damaged`.
#[utoipa::path(
    post, path = "/v1/projects/{project}/recover", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses(
        (status = 200, body = RecoverReply),
        (status = 404, description = "There is no such project"),
        (status = 500, description = "Nothing of it can be read"),
    )
)]
pub(crate) async fn recover(
    State(api): State<V1Api>,
    Path(name): Path<String>,
) -> Result<Reply<RecoverReply>, ApiError> {
    let recovered = blocking(move || Ok(api.use_cases.workspace.projects().recover(&project_id(&name)?)?)).await?;
    if let Some(damage) = &recovered.damage {
        tracing::warn!(seq = recovered.seq, damage = %shown(&damage.as_str().into()), "a damaged project was recovered");
    }
    Ok(Reply(RecoverReply { seq: recovered.seq, damage: recovered.damage }))
}
