//! Reading multipart bodies part by part: text into memory, within a limit; files onto the disk.

use axum::{
    body::{Body, Bytes},
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::{HeaderMap, StatusCode, header},
};
use elephant_fs::FsError;
use futures_util::StreamExt;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::{ApiError, MAX_FILE_BYTES, MAX_TEXT_BYTES, blocking};

fn malformed(error: &MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
    }
    // A body that breaks off is the caller's fault too.
    let status = if error.status().is_client_error() { error.status() } else { StatusCode::BAD_REQUEST };
    ApiError::new(status, format!("the multipart body is not valid: {}", error.body_text()))
}

/// Opens a multipart body, which has to begin with its boundary.
///
/// # Errors
/// When the content type is not that of such a body.
pub async fn open(request: Request) -> Result<Multipart, ApiError> {
    let delimiter = delimiter(request.headers());
    let parts = Multipart::from_request(request.map(|body| beginning_with(delimiter, body)), &()).await;
    parts.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))
}

/// What the body begins with: `--` and the boundary of its content type.
fn delimiter(headers: &HeaderMap) -> Vec<u8> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = value.split(';').find_map(|part| {
        let (name, boundary) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| boundary.trim_matches('"'))
    });
    format!("--{}", boundary.unwrap_or_default()).into_bytes()
}

/// A body that fails when it does not begin with `delimiter`: what comes before would be kept in memory. The format allows
/// such text; no client sends any.
fn beginning_with(delimiter: Vec<u8>, body: Body) -> Body {
    let mut left = Bytes::from(delimiter);
    Body::from_stream(body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        let length = left.len().min(chunk.len());
        if chunk[..length] != left.split_to(length) {
            return Err("it does not begin with its boundary".into());
        }
        Ok::<_, axum::BoxError>(chunk)
    }))
}

/// The next part, if there is one.
///
/// # Errors
/// When the body is malformed, too long, or breaks off.
pub async fn next(parts: &mut Multipart) -> Result<Option<Field<'_>>, ApiError> {
    parts.next_field().await.map_err(|error| malformed(&error))
}

/// A part's text, up to a megabyte of UTF-8.
///
/// # Errors
/// When it is longer or not UTF-8, or the body breaks off.
pub async fn text(mut part: Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        if bytes.len() + chunk.len() > MAX_TEXT_BYTES {
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "a text field is larger than 1 MiB"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_request("a text field is not UTF-8"))
}

/// Writes a part's bytes to the file that `create` makes. When that fails, the part is read to its end all the same, so that
/// the next one can be.
///
/// # Errors
/// When the file cannot be made or written, or the body breaks off.
pub async fn spool(
    mut part: Field<'_>,
    create: impl FnOnce() -> Result<NamedTempFile, FsError> + Send + 'static,
) -> Result<NamedTempFile, ApiError> {
    let mut spool = Spool::create(create).await;
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        spool = match spool {
            Ok(spool) => spool.write(&chunk).await,
            Err(error) => Err(error),
        };
    }
    spool?.finish().await
}

/// A file that a part's bytes are written to.
struct Spool {
    file: NamedTempFile,
    writer: tokio::fs::File,
}

impl Spool {
    async fn create(
        create: impl FnOnce() -> Result<NamedTempFile, FsError> + Send + 'static,
    ) -> Result<Self, ApiError> {
        blocking(move || {
            let file = create()?;
            let writer = file.as_file().try_clone().map_err(FsError::io("open", file.path()))?;
            Ok(Self { file, writer: tokio::fs::File::from_std(writer) })
        })
        .await
    }

    async fn write(mut self, bytes: &[u8]) -> Result<Self, ApiError> {
        self.writer.write_all(bytes).await.map_err(FsError::io("write", self.file.path()))?;
        Ok(self)
    }

    async fn finish(mut self) -> Result<NamedTempFile, ApiError> {
        self.writer.flush().await.map_err(FsError::io("write", self.file.path()))?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Whether the parts of a body that comes in these pieces can be read.
    async fn is_read(content_type: &str, pieces: &[&str]) -> bool {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, axum::BoxError>(Bytes::from((*piece).to_owned()))).collect();
        let request = Request::post("/").header(header::CONTENT_TYPE, content_type);
        let mut parts = open(request.body(Body::from_stream(stream::iter(pieces))).unwrap()).await.unwrap();
        while let Ok(part) = next(&mut parts).await {
            match part {
                Some(part) => drop(text(part).await),
                None => return true,
            }
        }
        false
    }

    #[tokio::test]
    async fn a_body_begins_with_its_boundary() {
        let parts = "--b c\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b c--\r\n";
        let kind = "multipart/form-data; charset=UTF-8; Boundary=\"b c\"";
        assert!(is_read(kind, &[parts]).await);
        assert!(is_read(kind, &["-", "", "-b", " c", &parts[5..]]).await, "in pieces");
        assert!(!is_read(kind, &["x", parts]).await);
        assert!(!is_read(kind, &["--b", "x", parts]).await);
    }
}
