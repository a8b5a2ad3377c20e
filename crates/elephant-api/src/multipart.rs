//! Reading multipart bodies part by part: text into memory, within a limit; files onto the disk.

use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
};
use elephant_fs::FsError;
use elephant_pipeline::Uploads;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::{MAX_FILE_BYTES, job::blocking, problem::Problem};

const MAX_TEXT_BYTES: usize = 1 << 20;

fn malformed(error: &MultipartError) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message);
    }
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

/// Writes a part's bytes to a file of `uploads`. When that fails, the part is read to its end all the same, so that the next
/// one can be.
pub(crate) async fn spool(mut part: Field<'_>, uploads: &Uploads) -> Result<NamedTempFile, Problem> {
    let mut spool = Spool::create(uploads).await;
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        spool = match spool {
            Ok(spool) => spool.write(&chunk).await,
            Err(problem) => Err(problem),
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
    async fn create(uploads: &Uploads) -> Result<Self, Problem> {
        let uploads = uploads.clone();
        blocking(move || {
            let file = uploads.spool()?;
            let writer = file.as_file().try_clone().map_err(FsError::io("open", file.path()))?;
            Ok(Self { file, writer: tokio::fs::File::from_std(writer) })
        })
        .await
    }

    async fn write(mut self, bytes: &[u8]) -> Result<Self, Problem> {
        self.writer.write_all(bytes).await.map_err(FsError::io("write", self.file.path()))?;
        Ok(self)
    }

    async fn finish(mut self) -> Result<NamedTempFile, Problem> {
        self.writer.flush().await.map_err(FsError::io("write", self.file.path()))?;
        Ok(self.file)
    }
}
