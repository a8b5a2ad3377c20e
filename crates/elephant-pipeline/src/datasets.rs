//! Checking and making datasets for a client, which says first what shape it expects.
//!
//! A client that is told to upload a movie does so and tries again; it has no other way to replace a movie, and shows no
//! error of a failed generation. So if no movie gives the expected shape, an upload is requested once after each check, and
//! the next check reports the reason.

use std::path::Path;

use elephant_bdv::BdvError;
use elephant_hdf5::{Hdf5Error, content_length};
use elephant_types::{Coded, DatasetName, ErrorCode, TaskContext, TaskEvent, VoxelSize};
use elephant_volume::DatasetShape;
use serde::{Deserialize, Serialize};

use crate::{
    GenerateOptions, PipelineError, READY, Summary, Workspace, check_dataset, defaults,
    generate::check_divisor,
    generate_dataset,
    movies::{candidates, described_voxel_size},
    plan::plan,
};

/// What to make a dataset of: the movie that is in its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    /// The dataset.
    pub dataset: DatasetName,
    /// The view setup; `None` takes the lowest one of the movie's `.xml`, or else of its file.
    #[serde(default)]
    pub setup: Option<u32>,
    /// The resolution level; 0 is the full one.
    #[serde(default)]
    pub level: u32,
    /// Whether to store 16 bit; `None` looks for a value above 255.
    #[serde(default)]
    pub is_uint16: Option<bool>,
    /// Values are divided by this and rounded down.
    #[serde(default = "defaults::divisor")]
    pub divisor: f64,
    /// Whether to store the first plane only, without a z axis.
    #[serde(default)]
    pub is_2d: bool,
}

/// What came of a request.
#[derive(Debug)]
pub enum Generated {
    /// The dataset is ready.
    Ready(Summary),
    /// There is no movie that gives the shape asked for, for this reason; a client can upload one.
    NeedsMovie(PipelineError),
}

/// Whether a dataset is there in the shape (t, z, y, x) or (t, y, x): [`READY`], or what is wrong, and on a line of its own
/// why the last generation failed. The shape is what the next [`generate`] has to give.
///
/// # Errors
/// When a link on the way leads out of the datasets, or as [`check_dataset`].
pub fn check(workspace: &Workspace, dataset: &DatasetName, shape: &[usize]) -> Result<String, PipelineError> {
    let folder = workspace.dataset(dataset)?;
    // The original's path; clients do not see the real one.
    let message = check_dataset(&folder, &format!("/workspace/datasets/{dataset}"), shape)?;
    let failure = workspace.records().update(dataset, &folder, |record| {
        if DatasetShape::from_images(shape).is_some() {
            record.ask(shape);
        }
        record.failure.clone()
    });
    Ok(match failure {
        Some(failure) if message != READY => format!("{message}\nThe last attempt failed: {failure}"),
        _ => message,
    })
}

/// The size of a dataset's voxels (z, y, x) in micrometres, if the `.xml` file of its movie gives it.
///
/// # Errors
/// When the dataset's folder or the `.xml` file cannot be read.
pub fn voxel_size(workspace: &Workspace, dataset: &DatasetName) -> Result<Option<VoxelSize>, PipelineError> {
    let folder = workspace.dataset(dataset)?;
    described_voxel_size(workspace, dataset, &workspace.records().load(dataset, &folder).uploads)
}

/// Makes a dataset of the movie in its folder, in the shape that the last [`check`] asked for. The old stores, with their
/// labels, stay as they are until the new ones are complete.
///
/// # Errors
/// As [`generate_dataset`], and when the movie has another shape although it was just uploaded, or asked for since the
/// last check.
pub fn generate(
    workspace: &Workspace,
    request: &GenerateRequest,
    context: &TaskContext,
) -> Result<Generated, PipelineError> {
    check_divisor(request.divisor)?;
    let folder = workspace.dataset(&request.dataset)?;
    let record = workspace.records().load(&request.dataset, &folder);
    let made = candidates(workspace, &request.dataset, &record.uploads).and_then(|candidates| {
        if candidates.is_empty() {
            return Ok(None);
        }
        let plan = plan(&candidates, request, record.asked_shape.as_deref(), context)?;
        let options = GenerateOptions {
            timepoints: Some(plan.timepoints),
            setup: Some(plan.setup),
            level: request.level,
            is_uint16: request.is_uint16,
            divisor: request.divisor,
            is_2d: request.is_2d,
            ..GenerateOptions::new(&plan.input, &folder)
        };
        generate_dataset(&options, context).map(Some)
    });
    let error = match made {
        Ok(None) => {
            let dataset = &request.dataset;
            let message = format!("there is no movie in datasets/{dataset}; upload one or copy it there");
            return Ok(Generated::NeedsMovie(PipelineError::NotFound(message)));
        }
        Ok(Some(summary)) => {
            workspace.records().update(&request.dataset, &folder, |record| record.failure = None);
            let remarks = summary.remarks("is_uint16", "divisor");
            if !remarks.is_empty() {
                context.tell(TaskEvent::note(remarks.join("; ")));
            }
            return Ok(Generated::Ready(summary));
        }
        Err(error) if matches!(error.code(), ErrorCode::Cancelled | ErrorCode::Conflict) => return Err(error),
        Err(error) => error,
    };
    let is_truncated = is_truncated_upload(&error, &folder, &record.uploads);
    let is_requested = workspace.records().update(&request.dataset, &folder, |record| {
        record.failure = Some(error.to_string());
        let is_requested = record.may_request_upload && another_movie_may_help(&error, request);
        record.may_request_upload &= !is_requested;
        is_requested || is_truncated
    });
    if is_requested {
        tracing::info!(dataset = %request.dataset, %error, "the movie cannot be used, another one is asked for");
        return Ok(Generated::NeedsMovie(error));
    }
    Err(error)
}

/// Whether an uploaded file has lost its end. It is asked for each time: that upload never was complete, and a new one is
/// not put in its place unless it is.
fn is_truncated_upload(error: &PipelineError, folder: &Path, uploads: &[String]) -> bool {
    let PipelineError::Movie(BdvError::Hdf5(Hdf5Error::Damaged { file, .. })) = error else { return false };
    let is_truncated = |path: &Path| {
        let length = path.metadata().map(|metadata| metadata.len());
        matches!((content_length(path), length), (Ok(Some(content)), Ok(length)) if content > length)
    };
    let paths = uploads.iter().map(|upload| folder.join(upload));
    paths.filter(|path| path.file_name() == Some(file.as_ref())).any(|path| is_truncated(&path))
}

/// Whether the movie is to blame, and not the request or this machine.
fn another_movie_may_help(error: &PipelineError, request: &GenerateRequest) -> bool {
    use BdvError::{NoImages, NoLevel, NoSetup};
    let is_asked_for = request.setup.is_some() || request.level != 0;
    match error {
        PipelineError::Movie(NoImages { .. } | NoLevel { .. } | NoSetup { .. }) if is_asked_for => false,
        error => matches!(error.code(), ErrorCode::InvalidArgument | ErrorCode::NotFound),
    }
}
