//! `/v1/models`: which models there are and where they come from.

use std::time::UNIX_EPOCH;

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, blocking};
use elephant_pipeline::{ModelContent, ModelInfo};
use elephant_types::NetworkTask;
use serde::Serialize;
use utoipa::ToSchema;

use crate::V1Api;

/// A network or an ensemble of networks.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelReply {
    /// Below the workspace's `models`; null for a built-in network.
    name: Option<String>,
    /// `3-D` or `2-D`; null where the file is not a model.
    kind: Option<&'static str>,
    /// `detection` or `flow`; null where the file is not a model.
    #[schema(value_type = Option<String>)]
    task: Option<NetworkTask>,
    /// Why the file is not a model.
    error: Option<String>,
    /// Networks in the ensemble.
    members: usize,
    /// What the parameters were first: random, a file, a URL, or a built-in network; null for a file that was put there.
    origin: Option<String>,
    /// Steps of training by this program in all, those of a built-in network included.
    steps: Option<u64>,
    /// When the file was written, in seconds since 1970 UTC; null for a built-in network.
    date: Option<f64>,
    /// Length of the file; null for a built-in network.
    bytes: Option<u64>,
}

impl ModelReply {
    fn new(content: ModelContent) -> Self {
        let (origin, steps) = content.provenance.map(|it| (it.origin, it.steps)).unzip();
        let error = content.network.as_ref().err().cloned();
        let network = content.network.ok();
        let kind = network.map(|network| network.kind.dims());
        let task = network.map(|network| network.task);
        Self { name: None, kind, task, error, members: content.members, origin, steps, date: None, bytes: None }
    }
}

impl From<ModelInfo> for ModelReply {
    fn from(info: ModelInfo) -> Self {
        let since = info.modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        Self {
            name: Some(info.name.into()),
            date: since.map(|since| since.as_secs_f64()),
            bytes: Some(info.bytes),
            ..Self::new(info.content)
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelsReply {
    /// Those of the workspace, by name.
    models: Vec<ModelReply>,
    /// Those that come with the program and take the place of a model that does not exist.
    built_in: Vec<ModelReply>,
}

/// The models
#[utoipa::path(
    get, path = "/v1/models", tag = "v1",
    responses((status = 200, body = ModelsReply))
)]
pub(crate) async fn list(State(api): State<V1Api>) -> Result<Reply<ModelsReply>, ApiError> {
    let reply = blocking(move || {
        let models = api.use_cases.models.list()?.into_iter().map(ModelReply::from).collect();
        let built_in = api.use_cases.models.bundled()?.into_iter().map(ModelReply::new).collect();
        Ok(ModelsReply { models, built_in })
    });
    Ok(Reply(reply.await?))
}
