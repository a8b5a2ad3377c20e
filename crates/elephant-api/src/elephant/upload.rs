//! `/upload/image`: a movie in pieces, exactly as the Java client sends it (contract section 1.7).
//!
//! `init` and `append` are multipart, with the file's bytes before its name; `complete` and `cancel` are urlencoded.

use axum::{
    Form,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use elephant_types::{DatasetName, FileName};
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::{
    Services,
    job::blocking,
    json::{media_type, text_body},
    multipart,
    problem::Problem,
};

#[derive(Default, Deserialize)]
struct Fields {
    action: Option<String>,
    dataset_name: Option<String>,
    filename: Option<String>,
}

/// Send a movie in pieces
///
/// Fields `action` (`init`, `append`, `complete` or `cancel`), `dataset_name`, `filename`, and `file` with the piece for
/// the first two. The movie is in its place after `complete`.
#[utoipa::path(
    post, path = "/upload/image", tag = "dataset",
    responses(
        (status = 200, description = "Done"),
        (status = 400, description = "A field is missing or wrong"),
        (status = 404, description = "No upload of this file was begun"),
        (status = 507, description = "The disk is full; the piece can be sent again"),
    )
)]
pub(crate) async fn image(State(services): State<Services>, request: Request) -> Result<StatusCode, Problem> {
    // The original's replies have their reason under another key.
    receive(services, request).await.map_err(|problem| problem.also_as("res"))
}

async fn receive(services: Services, request: Request) -> Result<StatusCode, Problem> {
    let (fields, piece) = match media_type(&request).as_str() {
        "multipart/form-data" => read_multipart(&services, request).await?,
        "application/x-www-form-urlencoded" => {
            let (head, body) = request.into_parts();
            let body = text_body(Request::new(body)).await?;
            let form = Form::<Fields>::from_request(Request::from_parts(head, body.into()), &()).await;
            (form.map_err(|rejection| Problem::bad_request(rejection.body_text()))?.0, None)
        }
        _ => {
            let message = "Content-Type should be multipart/form-data or application/x-www-form-urlencoded";
            return Err(Problem::bad_request(message));
        }
    };
    let specified = |value: Option<String>, name: &str| {
        value.filter(|value| !value.is_empty()).ok_or_else(|| Problem::bad_request(format!("{name} is not specified")))
    };
    let invalid = |error: elephant_types::InvalidName| Problem::bad_request(error.to_string());
    let dataset: DatasetName = specified(fields.dataset_name, "dataset_name")?.try_into().map_err(invalid)?;
    let file: FileName = specified(fields.filename, "filename")?.try_into().map_err(invalid)?;
    let action = specified(fields.action, "action")?;
    let uploads = services.uploads.clone();
    blocking(move || {
        let piece = || piece.ok_or_else(|| Problem::bad_request("file is not specified"));
        match action.as_str() {
            "init" => uploads.begin(&dataset, &file, piece()?.as_file_mut())?,
            "append" => uploads.append(&dataset, &file, piece()?.as_file_mut())?,
            "complete" => uploads.complete(&dataset, &file)?,
            "cancel" => uploads.cancel(&dataset, &file)?,
            _ => return Err(Problem::bad_request(format!("unknown action: {}", action.escape_debug()))),
        }
        Ok(StatusCode::OK)
    })
    .await
}

async fn read_multipart(services: &Services, request: Request) -> Result<(Fields, Option<NamedTempFile>), Problem> {
    let mut parts = multipart::open(request).await?;
    let (mut fields, mut piece) = (Fields::default(), None);
    while let Some(part) = multipart::next(&mut parts).await? {
        match part.name() {
            Some("file") => piece = Some(multipart::spool(part, services.uploads.spool()?).await?),
            Some("action") => fields.action = Some(multipart::text(part).await?),
            Some("dataset_name") => fields.dataset_name = Some(multipart::text(part).await?),
            Some("filename") => fields.filename = Some(multipart::text(part).await?),
            _ => {}
        }
    }
    Ok((fields, piece))
}
