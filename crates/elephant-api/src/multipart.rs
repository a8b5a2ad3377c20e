//! Reading multipart bodies part by part: text into memory, within a limit; files onto the disk.

use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
};
use elephant_fs::FsError;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::problem::Problem;

const MAX_TEXT_BYTES: usize = 1 << 20;

fn malformed(error: &MultipartError) -> Problem {
    // A body that breaks off is the caller's fault too.
    let status = if error.status().is_client_error() { error.status() } else { StatusCode::BAD_REQUEST };
    Problem::new(status, format!("the multipart body is not valid: {}", error.body_text()))
}

pub(crate) async fn open(request: Request) -> Result<Multipart, Problem> {
    let parts = Multipart::from_request(request, &()).await;
    parts.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
}

pub(crate) async fn next(parts: &mut Multipart) -> Result<Option<Field<'_>>, Problem> {
    parts.next_field().await.map_err(|error| malformed(&error))
}

/// A part's text, up to a megabyte of UTF-8.
pub(crate) async fn text(mut part: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        if bytes.len() + chunk.len() > MAX_TEXT_BYTES {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "a text field is larger than 1 MiB"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Problem::bad_request("a text field is not UTF-8"))
}

/// Writes a part's bytes to `spool`.
pub(crate) async fn spool(mut part: Field<'_>, spool: NamedTempFile) -> Result<NamedTempFile, Problem> {
    let path = spool.path().to_owned();
    let file = spool.as_file().try_clone().map_err(FsError::io("open", &path))?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        file.write_all(&chunk).await.map_err(FsError::io("write", &path))?;
    }
    file.flush().await.map_err(FsError::io("write", &path))?;
    Ok(spool)
}
