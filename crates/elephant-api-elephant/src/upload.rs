//! `/upload/image`: a movie in pieces, exactly as the Java client sends it (docs/protocol.md, "POST /upload/image").
//!
//! `init` and `append` are multipart, with the file's bytes before its name; `complete` and `cancel` are urlencoded. The
//! client goes on after a refusal, so a piece that is lost, wherever it is, has to end its upload.

use axum::{
    Form,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use elephant_api_core::{ApiError, blocking, media_type, multipart, text_body};
use elephant_fs::FsError;
use elephant_types::{DatasetName, FileName, InvalidName};
use serde::Deserialize;
use tempfile::NamedTempFile;
use tracing::Instrument;

use crate::ElephantApi;

#[derive(Default, Deserialize)]
struct Fields {
    action: Option<String>,
    dataset_name: Option<String>,
    filename: Option<String>,
}

impl Fields {
    fn dataset(&self) -> Result<DatasetName, ApiError> {
        name(specified(self.dataset_name.as_deref(), "dataset_name")?)
    }

    fn file(&self) -> Result<FileName, ApiError> {
        name(specified(self.filename.as_deref(), "filename")?)
    }
}

fn specified<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, ApiError> {
    let value = value.filter(|value| !value.is_empty());
    value.ok_or_else(|| ApiError::bad_request(format!("{name} is not specified")))
}

fn name<T: std::str::FromStr<Err = InvalidName>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: InvalidName| ApiError::bad_request(error.to_string()))
}

/// Send a movie in pieces
///
/// Fields `action` (`init`, `append`, `complete` or `cancel`), `dataset_name`, `filename`, and `file` with the piece for
/// the first two. The movie is in its place after `complete`. When a piece is refused or lost, the upload has ended: what
/// follows is refused until the next `init`, and an old movie stays.
#[utoipa::path(
    post, path = "/upload/image", tag = "dataset",
    responses(
        (status = 200, description = "Done"),
        (status = 400, description = "A field is missing or wrong, or the HDF5 file is not whole"),
        (status = 404, description = "No upload of this file goes on: it was not begun, or a piece of it was lost"),
        (status = 413, description = "The piece is larger than 256 MiB"),
        (status = 507, description = "The disk is full"),
    )
)]
pub(crate) async fn image(State(api): State<ElephantApi>, request: Request) -> Result<StatusCode, ApiError> {
    // In a task of its own: when the connection is cut, this function is dropped, and the piece is lost all the same.
    let received = tokio::spawn(receive(api, request).in_current_span()).await;
    let received = received.unwrap_or_else(|panic| Err(ApiError::internal(format!("the request crashed: {panic}"))));
    // The original's replies have their reason under another key.
    received.map_err(|error| {
        let message = error.message().to_owned();
        error.with_detail("res", message)
    })
}

async fn receive(api: ElephantApi, request: Request) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::default();
    let read = match media_type(&request).as_str() {
        "multipart/form-data" => read_multipart(&api, request, &mut fields).await,
        "application/x-www-form-urlencoded" => {
            fields = read_form(request).await?;
            Ok(None)
        }
        _ => {
            let message = "Content-Type should be multipart/form-data or application/x-www-form-urlencoded";
            return Err(ApiError::bad_request(message).in_short("Content-Type should be multipart/form-data"));
        }
    };
    let uploads = api.use_cases.uploads.clone();
    let piece = match read {
        Ok(piece) => piece,
        Err(error) => {
            let Ok(dataset) = fields.dataset() else { return Err(error) };
            let file = fields.file().ok();
            return blocking(move || {
                uploads.fail(&dataset, file.as_ref(), error.message())?;
                Err(error)
            })
            .await;
        }
    };
    let (dataset, file) = (fields.dataset()?, fields.file()?);
    let action = specified(fields.action.as_deref(), "action")?.to_owned();
    blocking(move || {
        let piece = || {
            piece.map(NamedTempFile::into_file).ok_or_else(|| {
                let missing = ApiError::bad_request("file is not specified");
                uploads.fail(&dataset, Some(&file), missing.message()).map_or_else(ApiError::from, |()| missing)
            })
        };
        match action.as_str() {
            "init" => uploads.begin(&dataset, &file, &mut piece()?)?,
            "append" => uploads.append(&dataset, &file, &mut piece()?)?,
            "complete" => uploads.complete(&dataset, &file)?,
            "cancel" => uploads.cancel(&dataset, &file)?,
            _ => return Err(ApiError::bad_request(format!("unknown action: {}", action.escape_debug()))),
        }
        Ok(StatusCode::OK)
    })
    .await
}

/// Makes a file for what is received.
pub(crate) fn spool(api: &ElephantApi) -> impl FnOnce() -> Result<NamedTempFile, FsError> + Send + use<> {
    let uploads = api.use_cases.uploads.clone();
    move || uploads.spool()
}

async fn read_form(request: Request) -> Result<Fields, ApiError> {
    let (head, body) = request.into_parts();
    let body = text_body(Request::new(body)).await?;
    let form = Form::<Fields>::from_request(Request::from_parts(head, body.into()), &()).await;
    Ok(form.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?.0)
}

/// Reads the piece, and what comes of the fields, the ones behind a piece that cannot be stored included.
async fn read_multipart(
    api: &ElephantApi,
    request: Request,
    fields: &mut Fields,
) -> Result<Option<NamedTempFile>, ApiError> {
    let mut parts = multipart::open(request).await?;
    let mut piece = Ok(None);
    loop {
        let part = match multipart::next(&mut parts).await {
            Ok(Some(part)) => part,
            Ok(None) => return piece,
            // The first error is the cause.
            Err(error) => return piece.and(Err(error)),
        };
        match part.name() {
            Some("file") => piece = multipart::spool(part, spool(api)).await.map(Some),
            Some("action") => fields.action = Some(multipart::text(part).await?),
            Some("dataset_name") => fields.dataset_name = Some(multipart::text(part).await?),
            Some("filename") => fields.filename = Some(multipart::text(part).await?),
            _ => {}
        }
    }
}
