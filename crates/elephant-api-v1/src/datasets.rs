//! `/v1/datasets`: which datasets there are, and what is known of them.

use axum::{
    Json as Reply,
    extract::{Path, State},
};
use elephant_api_core::{ApiError, blocking};
use elephant_pipeline::{DatasetInfo, UseCases};
use elephant_project::{Mirror, ProjectError};
use elephant_types::DatasetName;
use serde::Serialize;
use utoipa::ToSchema;

use crate::V1Api;

/// A dataset.
#[derive(Serialize, ToSchema)]
pub(crate) struct DatasetReply {
    /// Its name; in addresses it is percent-encoded as one part.
    #[schema(value_type = String)]
    name: DatasetName,
    /// Its shape (t, z, y, x); z is 1 in 2-D.
    shape: [usize; 4],
    /// Whether it is 3-D.
    is_3d: bool,
    /// `uint8` or `uint16`.
    data_type: &'static str,
    /// Edges of the voxels (z, y, x) in micrometres; null until a client has said them.
    voxel_size_um: Option<[f64; 3]>,
    /// Its projects, as `DATASET/NAME`.
    projects: Vec<String>,
    /// The numbers of spots that the ELEPHANT client has in each frame, as far as its requests tell; null before the first.
    cells_per_frame: Option<Vec<usize>>,
}

fn reply(use_cases: &UseCases, name: DatasetName) -> Result<DatasetReply, ApiError> {
    let DatasetInfo { shape, is_3d, data_type } = use_cases.dataset_info(&name)?;
    let projects = use_cases.workspace.projects();
    let mirror = match projects.get(&Mirror::id(&name)) {
        Ok(project) => Some(project),
        Err(ProjectError::UnknownProject(_)) => None,
        Err(error) => {
            tracing::warn!(dataset = %name, %error, "the mirror of the client's session cannot be read");
            None
        }
    };
    let mut cells = None;
    let mut voxel_size_um = None;
    if let Some(mirror) = mirror {
        let mut counts = vec![0; shape[0]];
        for (t, count) in mirror.info()?.frames {
            if let Some(frame) = counts.get_mut(t as usize) {
                *frame = count;
            }
        }
        cells = Some(counts);
        voxel_size_um = mirror.voxel_size()?.map(elephant_types::VoxelSize::zyx);
    }
    let projects = projects.of_dataset(&name)?.iter().map(ToString::to_string).collect();
    Ok(DatasetReply { name, shape, is_3d, data_type, voxel_size_um, projects, cells_per_frame: cells })
}

/// The names of the datasets
#[utoipa::path(
    get, path = "/v1/datasets", tag = "v1",
    responses((status = 200, body = Vec<String>, description = "In order"))
)]
pub(crate) async fn list(State(api): State<V1Api>) -> Result<Reply<Vec<DatasetName>>, ApiError> {
    Ok(Reply(blocking(move || Ok(api.use_cases.workspace.dataset_names()?)).await?))
}

/// One dataset
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}", tag = "v1",
    params(("dataset" = String, Path, description = "Its name, percent-encoded: `lab%2Ffly`")),
    responses((status = 200, body = DatasetReply), (status = 404, description = "There is no such dataset"))
)]
pub(crate) async fn get(
    State(api): State<V1Api>,
    Path(dataset): Path<String>,
) -> Result<Reply<DatasetReply>, ApiError> {
    let name: DatasetName =
        dataset.parse().map_err(|error: elephant_types::InvalidName| ApiError::bad_request(error.to_string()))?;
    Ok(Reply(blocking(move || reply(&api.use_cases, name)).await?))
}
