//! `/seg/reset` and `/download/model`: replacing and fetching models (contract sections 1.11 and 1.14).

use axum::{
    Json as Reply,
    body::Body,
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use elephant_fs::FsError;
use elephant_jobs::JobKind;
use elephant_pipeline::{ModelSource, PriorTraining};
use elephant_types::{DatasetName, ModelName, NetworkKind};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

use super::train::CropBody;
use crate::{
    Services,
    job::{Caller, run},
    json::{self, Json, media_type},
    multipart,
    number::Integer,
    problem::Problem,
};

/// More members than any published ensemble has.
const MAX_MEMBERS: i64 = 64;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ResetBody {
    /// Below the workspace's `models`.
    #[schema(value_type = String, example = "detection.pth")]
    model_name: Option<ModelName>,
    /// null: random parameters, which then learn from the images of the dataset, if one is named; "Versatile": the original's pretrained network, or the built-in one where that cannot be had; "built-in": that one; an https URL: that file.
    url: Option<String>,
    /// Networks in the ensemble, with random parameters.
    #[schema(value_type = u32)]
    nmodels: Integer,
    /// Seed of the random parameters and crops.
    #[schema(value_type = u64)]
    seed: Integer,
    /// Below the workspace's `datasets`; what random parameters learn from first.
    #[schema(value_type = Option<String>)]
    dataset_name: Option<DatasetName>,
    /// Crops in each of the three epochs of that.
    #[schema(value_type = u32)]
    n_crops: Integer,
    #[serde(flatten)]
    crops: CropBody,
}

impl Default for ResetBody {
    fn default() -> Self {
        Self {
            model_name: None,
            url: None,
            nmodels: Integer(1),
            seed: Integer(0),
            dataset_name: None,
            n_crops: Integer(5),
            crops: CropBody::default(),
        }
    }
}

impl ResetBody {
    fn name(&self) -> Result<ModelName, Problem> {
        self.model_name.clone().ok_or_else(|| Problem::bad_request("model_name key is missing"))
    }

    fn kind(&self) -> NetworkKind {
        if self.crops.is_3d { NetworkKind::Volumetric } else { NetworkKind::Planar }
    }

    /// What a network with random parameters learns from the images, if anything.
    fn prior(&mut self) -> Result<Option<PriorTraining>, Problem> {
        let Some(dataset) = self.dataset_name.take() else { return Ok(None) };
        let crop_count = u32::try_from(self.n_crops.0).ok().filter(|count| *count > 0);
        let crop_count = crop_count.ok_or_else(|| Problem::bad_request("n_crops should be a positive number"))?;
        let crops = std::mem::take(&mut self.crops).try_into()?;
        Ok(Some(PriorTraining { dataset, crops, crop_count, seed: self.seed.0.cast_unsigned() }))
    }

    fn source(&mut self) -> Result<ModelSource, Problem> {
        match self.url.as_deref() {
            Some("Versatile") => Ok(ModelSource::Versatile),
            Some("built-in") => Ok(ModelSource::Pretrained),
            Some(url) => Ok(ModelSource::Url(url.to_owned())),
            None if (1..=MAX_MEMBERS).contains(&self.nmodels.0) => {
                let (members, seed) = (self.nmodels.0 as usize, self.seed.0.cast_unsigned());
                Ok(ModelSource::Random { members, seed, prior: self.prior()? })
            }
            None => Err(Problem::bad_request(format!("nmodels must be 1 to {MAX_MEMBERS}"))),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ResetReply {
    completed: bool,
}

/// Replace a model
///
/// With a JSON body, or multipart with the JSON in `data` and a `.pth` file in `file`.
#[utoipa::path(
    post, path = "/seg/reset", tag = "seg", request_body = ResetBody,
    responses(
        (status = 200, body = ResetReply),
        (status = 400, description = "The file is not such a network, or a field is wrong; the old model stays"),
        (status = 500, description = "A training or reset is running"),
        (status = 503, description = "The file cannot be fetched"),
    )
)]
pub(crate) async fn reset(State(services): State<Services>, request: Request) -> Result<Reply<ResetReply>, Problem> {
    let (mut body, file) = if media_type(&request) == "multipart/form-data" {
        read_multipart(&services, request).await?
    } else {
        (Json::<ResetBody>::from_request(request, &()).await?.0, None)
    };
    let (name, kind) = (body.name()?, body.kind());
    let source = match &file {
        Some(file) => ModelSource::File(file.path().to_owned()),
        None => body.source()?,
    };
    let trainer = services.trainer.clone();
    let subject = name.clone();
    let work = move |context: &_| {
        let _uploaded = file;
        trainer.reset(&name, kind, &source, context)
    };
    let done = run(&services, JobKind::Reset, subject.as_str(), None, Caller::MayLeave, work).await?;
    Ok(Reply(ResetReply { completed: done.is_some() }))
}

async fn read_multipart(services: &Services, request: Request) -> Result<(ResetBody, Option<NamedTempFile>), Problem> {
    let mut parts = multipart::open(request).await?;
    let (mut body, mut file) = (None, None);
    while let Some(part) = multipart::next(&mut parts).await? {
        match part.name() {
            Some("data") => body = Some(json::parse(multipart::text(part).await?.as_bytes())?),
            Some("file") => file = Some(multipart::spool(part, services.uploads.spool()?).await?),
            _ => {}
        }
    }
    let body = body.ok_or_else(|| Problem::bad_request("the part data, with the JSON, is missing"))?;
    let file = file.ok_or_else(|| Problem::bad_request("the part file, with the model, is missing"))?;
    Ok((body, Some(file)))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct DownloadBody {
    /// Below the workspace's `models`.
    #[schema(value_type = String, example = "detection.pth")]
    model_name: ModelName,
}

/// A model's file
#[utoipa::path(
    post, path = "/download/model", tag = "seg", request_body = DownloadBody,
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 204, description = "There is no such model"),
    )
)]
pub(crate) async fn download(
    State(services): State<Services>,
    Json(body): Json<DownloadBody>,
) -> Result<Response, Problem> {
    let Some(path) = services.models.file(&body.model_name)? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let file = tokio::fs::File::open(&path).await.map_err(FsError::io("open", &path))?;
    // The opened file stays whole even when the model is replaced meanwhile.
    let length = file.metadata().await.map_err(FsError::io("read", &path))?.len();
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, 1 << 18)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}
