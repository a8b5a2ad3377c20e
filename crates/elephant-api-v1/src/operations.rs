//! `/v1/projects/{project}/operations`, `/undo` and `/redo`: changing a project, and following its changes.

use std::collections::BTreeMap;

use axum::{
    Json as Reply,
    extract::{Path, Query, State},
};
use elephant_api_core::{ApiError, Json, LargeJson, blocking};
use elephant_project::{Appended, Author, Change, ClientId, EntryKind, Operation, Project, ProjectError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    V1Api,
    query::{number, project, refuse_unknown},
};

/// So many entries are listed at once.
const MOST_ENTRIES: u64 = 1000;
/// An entry with more changes is listed without them.
const MOST_CHANGES: usize = 10_000;

/// Operations to carry out as one entry of the log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppendBody {
    /// Who changes the project.
    #[schema(value_type = String, example = "Ann")]
    author: Author,
    /// The client's own name of this request, at most 64 printable ASCII characters. A second request with the same name
    /// changes nothing and gets the first one's answer.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "tab-1-17")]
    client_id: Option<ClientId>,
    /// Objects with one key each: `add`, `move`, `resize`, `tag`, `delete`, `link`, `unlink`, `approve`, `predict` or
    /// `relink`; docs/projects.md describes them.
    #[schema(value_type = Vec<Object>, example = json!([{"tag": {"spots": [12], "detection": "tp"}}]))]
    operations: Vec<Operation>,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct AppendReply {
    /// The entry of the log; the last one where nothing had to be changed.
    seq: u64,
    /// The number of changes.
    changes: usize,
    /// The numbers of new spots, in the order in which they were given.
    added: Vec<u64>,
    /// Whether the request had been fulfilled before.
    is_repeated: bool,
}

impl From<Appended> for AppendReply {
    fn from(Appended { seq, changes, added, is_repeated }: Appended) -> Self {
        Self { seq, changes, added: added.into_iter().map(|key| key.0).collect(), is_repeated }
    }
}

/// Change a project
///
/// All operations are carried out, as one entry of its log, or none.
#[utoipa::path(
    post, path = "/v1/projects/{project}/operations", tag = "v1", request_body = AppendBody,
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses(
        (status = 200, body = AppendReply, description = "It is on the disk"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "There is no such project, spot or link"),
        (status = 409, description = "A spot would have two parents, a number is in use, or the project cannot be changed"),
        (status = 413, description = "The body is too long, or the project would have too many spots"),
        (status = 503, description = "Another process is writing, or the server is busy with other large requests"),
        (status = 507, description = "The disk is full; nothing was changed"),
    )
)]
pub(crate) async fn append(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    LargeJson { value: body, memory }: LargeJson<AppendBody>,
) -> Result<Reply<AppendReply>, ApiError> {
    let appended = blocking(move || {
        let _memory = memory;
        let AppendBody { author, client_id, operations } = body;
        Ok(project(&api.use_cases, &name)?.append(&author, client_id.as_ref(), &operations)?)
    });
    Ok(Reply(appended.await?.into()))
}

/// Who wants to undo or redo.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UndoBody {
    /// Whose last entry.
    #[schema(value_type = String, example = "Ann")]
    author: Author,
    /// As for operations.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    client_id: Option<ClientId>,
}

/// Goes one step back or forth in the author's own entries.
async fn step(
    api: V1Api,
    name: String,
    UndoBody { author, client_id }: UndoBody,
    change: fn(&Project, &Author, Option<&ClientId>) -> Result<Appended, ProjectError>,
) -> Result<Reply<AppendReply>, ApiError> {
    let appended = blocking(move || Ok(change(&*project(&api.use_cases, &name)?, &author, client_id.as_ref())?));
    Ok(Reply(appended.await?.into()))
}

/// Undo one's own last entry
#[utoipa::path(
    post, path = "/v1/projects/{project}/undo", tag = "v1", request_body = UndoBody,
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses(
        (status = 200, body = AppendReply, description = "By a new entry with the inverse changes"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "There is nothing to undo, or somebody else has changed one of its spots since"),
    )
)]
pub(crate) async fn undo(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Json(body): Json<UndoBody>,
) -> Result<Reply<AppendReply>, ApiError> {
    step(api, name, body, Project::undo).await
}

/// Redo what one has undone last
#[utoipa::path(
    post, path = "/v1/projects/{project}/redo", tag = "v1", request_body = UndoBody,
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded")),
    responses(
        (status = 200, body = AppendReply, description = "By a new entry with the same changes"),
        (status = 400, description = "A field is missing, wrong or unknown"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "There is nothing to redo, or somebody else has changed one of its spots since"),
    )
)]
pub(crate) async fn redo(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Json(body): Json<UndoBody>,
) -> Result<Reply<AppendReply>, ApiError> {
    step(api, name, body, Project::redo).await
}

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntriesQuery {
    /// Those after this entry; 0 for all.
    #[param(value_type = Option<u64>, default = 0)]
    since: Option<String>,
    /// At most so many, the oldest; up to 1000. There may be fewer although more follow: ask until the list is empty.
    #[param(value_type = Option<u64>, default = 100)]
    limit: Option<String>,
    /// Names that are not known.
    #[serde(flatten)]
    #[param(ignore)]
    unknown: BTreeMap<String, String>,
}

/// An entry of the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct EntryReply {
    /// Its number, from 1 without gaps.
    seq: u64,
    /// When it was written, in seconds since 1970 UTC.
    time: f64,
    /// Who wrote it.
    author: String,
    /// The client's own name of the request.
    client_id: Option<String>,
    /// `{"operation": NAME}` with the name of the first operation, `{"undo": {"of": SEQ}}` or `{"redo": {"of": SEQ}}`.
    #[schema(value_type = Object)]
    kind: EntryKind,
    /// The number of changes.
    change_count: usize,
    /// The changes, each with old and new values; null where there are more than 10,000.
    #[schema(value_type = Option<Vec<Object>>)]
    changes: Option<Vec<Change>>,
}

/// The log
#[utoipa::path(
    get, path = "/v1/projects/{project}/operations", tag = "v1",
    params(("project" = String, Path, description = "`DATASET/NAME`, percent-encoded"), EntriesQuery),
    responses(
        (status = 200, body = Vec<EntryReply>, description = "Oldest first"),
        (status = 400, description = "A wrong parameter"),
        (status = 404, description = "There is no such project"),
        (status = 409, description = "Its file is damaged"),
    )
)]
pub(crate) async fn list(
    State(api): State<V1Api>,
    Path(name): Path<String>,
    Query(query): Query<EntriesQuery>,
) -> Result<Reply<Vec<EntryReply>>, ApiError> {
    refuse_unknown(&query.unknown, "since, limit")?;
    let since = number("since", query.since.as_ref(), 0, i64::MAX as u64)?;
    let limit = number("limit", query.limit.as_ref(), 100, MOST_ENTRIES)?;
    let entries = blocking(move || Ok(project(&api.use_cases, &name)?.entries(since, limit as usize, MOST_CHANGES)?));
    let entries = entries.await?.into_iter().map(|(entry, changes)| EntryReply {
        seq: entry.seq,
        time: entry.time,
        author: entry.author.into(),
        client_id: entry.client_id.map(String::from),
        kind: entry.kind,
        change_count: entry.changes,
        changes,
    });
    Ok(Reply(entries.collect()))
}
