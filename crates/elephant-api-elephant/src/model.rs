//! `/seg/reset` and `/download/model`: replacing and fetching models (docs/protocol.md, "POST /seg/reset" and
//! "POST /download/model").

use std::fs::File;

use axum::{
    Json as Reply,
    body::Body,
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use elephant_api_core::{ApiError, Json, blocking, media_type, multipart, parse};
use elephant_fs::FsError;
use elephant_pipeline::{ModelSource, PriorTraining, Request as _, ResetRequest, SpooledFile};
use elephant_types::{DatasetName, ModelName, NetworkKind, NetworkTask};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

use crate::{
    ElephantApi,
    job::run,
    number::Integer,
    train::{CropFields, default_crop_size, default_is_3d, default_keep_axials},
    upload::spool,
    vector::Xyz,
};

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
    /// Crops in each of the three epochs of that; 0 leaves it out.
    #[schema(value_type = u32)]
    n_crops: Integer,
    /// Whether the network is a 3-D one.
    is_3d: bool,
    /// Poolings that keep z, from the first.
    #[schema(value_type = i64)]
    n_keep_axials: Integer,
    /// Voxel size (x, y, z).
    #[schema(value_type = Option<Vec<f64>>)]
    scales: Option<Xyz<f64>>,
    /// Size (x, y, z) in voxels that frames are resized to first.
    #[schema(value_type = Option<Vec<u64>>)]
    input_size: Option<Xyz<Integer>>,
    /// Size (x, y, z) of a training crop in voxels.
    #[schema(value_type = Vec<u64>)]
    crop_size: Xyz<Integer>,
    /// Largest change of a crop's scale, as a fraction.
    aug_scale_factor_base: f64,
    /// Largest rotation in the plane of x and y, in degrees.
    aug_rotation_angle: f64,
    /// Smallest factor on the contrast of labelled cells, 0 to 1; 0 leaves it.
    aug_contrast: f64,
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
            is_3d: default_is_3d(),
            n_keep_axials: default_keep_axials(),
            scales: None,
            input_size: None,
            crop_size: default_crop_size(),
            aug_scale_factor_base: 0.0,
            aug_rotation_angle: 0.0,
            aug_contrast: 0.0,
        }
    }
}

impl ResetBody {
    fn name(&self) -> Result<ModelName, ApiError> {
        self.model_name.clone().ok_or_else(|| ApiError::bad_request("model_name key is missing"))
    }

    fn kind(&self) -> NetworkKind {
        if self.is_3d { NetworkKind::Volumetric } else { NetworkKind::Planar }
    }

    /// What a network with random parameters learns from the images, if anything.
    fn prior(&mut self) -> Result<Option<PriorTraining>, ApiError> {
        let Some(dataset) = self.dataset_name.take() else { return Ok(None) };
        let crop_count = u32::try_from(self.n_crops.0);
        let crop_count = crop_count.map_err(|_| ApiError::bad_request("n_crops should be 0 or more"))?;
        // No crops are no prior training, as in the original.
        if crop_count == 0 {
            return Ok(None);
        }
        let crops = CropFields {
            is_3d: self.is_3d,
            n_keep_axials: self.n_keep_axials,
            scales: self.scales.take(),
            input_size: self.input_size.take(),
            crop_size: std::mem::take(&mut self.crop_size),
            aug_scale_factor_base: self.aug_scale_factor_base,
            aug_rotation_angle: self.aug_rotation_angle,
            aug_contrast: self.aug_contrast,
        };
        let crops = crops.try_into()?;
        Ok(Some(PriorTraining { dataset, crops, crop_count, seed: self.seed.0.cast_unsigned() }))
    }

    fn source(&mut self) -> Result<ModelSource, ApiError> {
        match self.url.as_deref() {
            Some("Versatile") => Ok(ModelSource::Versatile),
            Some("built-in") => Ok(ModelSource::Pretrained),
            Some(url) => Ok(ModelSource::Url(url.to_owned())),
            None => {
                let (members, seed) = (self.nmodels.to_usize().unwrap_or(0), self.seed.0.cast_unsigned());
                Ok(ModelSource::Random { members, seed, prior: self.prior()? })
            }
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
        (status = 404, description = "The dataset whose images a random network shall learn from is not there"),
        (status = 409, description = "That dataset is being made"),
        (status = 413, description = "The file is larger than 256 MiB, or there is not enough memory"),
        (status = 500, description = "A training or reset is running"),
        (status = 503, description = "The file cannot be fetched, or the server is stopping"),
    )
)]
pub(crate) async fn reset(State(api): State<ElephantApi>, request: Request) -> Result<Reply<ResetReply>, ApiError> {
    reset_model(&api, request, NetworkTask::Detection).await
}

/// Replaces a model of either task.
pub(crate) async fn reset_model(
    api: &ElephantApi,
    request: Request,
    task: NetworkTask,
) -> Result<Reply<ResetReply>, ApiError> {
    let (mut body, file) = if media_type(&request) == "multipart/form-data" {
        read_multipart(api, request).await?
    } else {
        (Json::<ResetBody>::from_request(request, &()).await?.0, None)
    };
    let (model, kind) = (body.name()?, body.kind());
    let source = if let Some(file) = &file {
        ModelSource::Uploaded(SpooledFile::new(file))
    } else {
        // What networks learn from images alone is where cells are.
        if task == NetworkTask::Flow {
            body.dataset_name = None;
        }
        body.source()?
    };
    let request = ResetRequest { model, task, kind, source };
    request.validate()?;
    let done = run(api, request, file).await?;
    Ok(Reply(ResetReply { completed: done.is_some() }))
}

async fn read_multipart(api: &ElephantApi, request: Request) -> Result<(ResetBody, Option<NamedTempFile>), ApiError> {
    let mut parts = multipart::open(request).await?;
    let (mut body, mut file) = (None, None);
    while let Some(part) = multipart::next(&mut parts).await? {
        match part.name() {
            Some("data") => body = Some(parse(multipart::text(part).await?.as_bytes())?),
            Some("file") => file = Some(multipart::spool(part, spool(api)).await?),
            _ => {}
        }
    }
    let body = body.ok_or_else(|| ApiError::bad_request("the part data, with the JSON, is missing"))?;
    let file = file.ok_or_else(|| ApiError::bad_request("the part file, with the model, is missing"))?;
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
    State(api): State<ElephantApi>,
    Json(body): Json<DownloadBody>,
) -> Result<Response, ApiError> {
    let opened = blocking(move || {
        let Some(path) = api.use_cases.models.file(&body.model_name)? else { return Ok(None) };
        let file = File::open(&path).map_err(FsError::io("open", &path))?;
        let length = file.metadata().map_err(FsError::io("read", &path))?.len();
        Ok(Some((file, length)))
    });
    // The opened file stays whole even when the model is replaced meanwhile.
    let Some((file, length)) = opened.await? else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let file = tokio::fs::File::from_std(file);
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, 1 << 18)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior(n_crops: i32) -> Result<Option<PriorTraining>, ApiError> {
        let text = format!(r#"{{"model_name": "m.pth", "url": null, "dataset_name": "fly", "n_crops": {n_crops}}}"#);
        match parse::<ResetBody>(text.as_bytes())?.source()? {
            ModelSource::Random { members: 1, seed: 0, prior } => Ok(prior),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_crops_are_no_prior_training() {
        assert_eq!(prior(0).unwrap(), None);
        assert_eq!(prior(3).unwrap().unwrap().crop_count, 3);
        assert_eq!(prior(-1).unwrap_err().message(), "n_crops should be 0 or more");
    }
}
