//! `/upload/image`: a movie in pieces, exactly as the Java client sends it (contract section 1.7).
//!
//! `init` and `append` are multipart, with the file's bytes before its name; `complete` and `cancel` are urlencoded. The
//! client goes on after a refusal, so a piece that is lost, wherever it is, has to end its upload.

use axum::{
    Form,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use elephant_types::{DatasetName, FileName, InvalidName};
use serde::Deserialize;
use tempfile::NamedTempFile;
use tracing::Instrument;

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

impl Fields {
    fn dataset(&self) -> Result<DatasetName, Problem> {
        name(specified(self.dataset_name.as_deref(), "dataset_name")?)
    }

    fn file(&self) -> Result<FileName, Problem> {
        name(specified(self.filename.as_deref(), "filename")?)
    }
}

fn specified<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, Problem> {
    let value = value.filter(|value| !value.is_empty());
    value.ok_or_else(|| Problem::bad_request(format!("{name} is not specified")))
}

fn name<T: std::str::FromStr<Err = InvalidName>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: InvalidName| Problem::bad_request(error.to_string()))
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
pub(crate) async fn image(State(services): State<Services>, request: Request) -> Result<StatusCode, Problem> {
    // In a task of its own: when the connection is cut, this function is dropped, and the piece is lost all the same.
    let received = tokio::spawn(receive(services, request).in_current_span()).await;
    let received = received.unwrap_or_else(|panic| Err(Problem::internal(format!("the request crashed: {panic}"))));
    // The original's replies have their reason under another key.
    received.map_err(|problem| problem.also_as("res"))
}

async fn receive(services: Services, request: Request) -> Result<StatusCode, Problem> {
    let mut fields = Fields::default();
    let read = match media_type(&request).as_str() {
        "multipart/form-data" => read_multipart(&services, request, &mut fields).await,
        "application/x-www-form-urlencoded" => {
            fields = read_form(request).await?;
            Ok(None)
        }
        _ => {
            let message = "Content-Type should be multipart/form-data or application/x-www-form-urlencoded";
            return Err(Problem::bad_request(message).in_short("Content-Type should be multipart/form-data"));
        }
    };
    let uploads = services.uploads.clone();
    let piece = match read {
        Ok(piece) => piece,
        Err(problem) => {
            let Ok(dataset) = fields.dataset() else { return Err(problem) };
            let file = fields.file().ok();
            return blocking(move || {
                uploads.fail(&dataset, file.as_ref(), problem.message())?;
                Err(problem)
            })
            .await;
        }
    };
    let (dataset, file) = (fields.dataset()?, fields.file()?);
    let action = specified(fields.action.as_deref(), "action")?.to_owned();
    blocking(move || {
        let piece = || {
            piece.map(NamedTempFile::into_file).ok_or_else(|| {
                let problem = Problem::bad_request("file is not specified");
                uploads.fail(&dataset, Some(&file), problem.message()).map_or_else(Problem::from, |()| problem)
            })
        };
        match action.as_str() {
            "init" => uploads.begin(&dataset, &file, &mut piece()?)?,
            "append" => uploads.append(&dataset, &file, &mut piece()?)?,
            "complete" => uploads.complete(&dataset, &file)?,
            "cancel" => uploads.cancel(&dataset, &file)?,
            _ => return Err(Problem::bad_request(format!("unknown action: {}", action.escape_debug()))),
        }
        Ok(StatusCode::OK)
    })
    .await
}

async fn read_form(request: Request) -> Result<Fields, Problem> {
    let (head, body) = request.into_parts();
    let body = text_body(Request::new(body)).await?;
    let form = Form::<Fields>::from_request(Request::from_parts(head, body.into()), &()).await;
    Ok(form.map_err(|rejection| Problem::bad_request(rejection.body_text()))?.0)
}

/// Reads the piece, and what comes of the fields, the ones behind a piece that cannot be stored included.
async fn read_multipart(
    services: &Services,
    request: Request,
    fields: &mut Fields,
) -> Result<Option<NamedTempFile>, Problem> {
    let mut parts = multipart::open(request).await?;
    let mut piece = Ok(None);
    loop {
        let part = match multipart::next(&mut parts).await {
            Ok(Some(part)) => part,
            Ok(None) => return piece,
            // The first problem is the cause.
            Err(problem) => return piece.and(Err(problem)),
        };
        match part.name() {
            Some("file") => piece = multipart::spool(part, &services.uploads).await.map(Some),
            Some("action") => fields.action = Some(multipart::text(part).await?),
            Some("dataset_name") => fields.dataset_name = Some(multipart::text(part).await?),
            Some("filename") => fields.filename = Some(multipart::text(part).await?),
            _ => {}
        }
    }
}
