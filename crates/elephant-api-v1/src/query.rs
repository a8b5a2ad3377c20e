//! Query parameters of the routes of projects, read one by one for clear errors.

use std::collections::BTreeMap;

use elephant_api_core::{ApiError, shown};
use elephant_pipeline::UseCases;
use elephant_project::{Project, ProjectError, ProjectId};
use std::sync::Arc;

use crate::jobs::unknown_parameter;

/// The project that a path names: `DATASET/NAME`, percent-encoded as one part.
pub(crate) fn project_id(text: &str) -> Result<ProjectId, ApiError> {
    text.parse().map_err(|error: elephant_project::InvalidProjectName| ProjectError::from(error).into())
}

/// That project.
pub(crate) fn project(use_cases: &UseCases, text: &str) -> Result<Arc<Project>, ApiError> {
    Ok(use_cases.workspace.projects().get(&project_id(text)?)?)
}

/// A number among the parameters, at most `most`.
pub(crate) fn number(name: &str, value: Option<&String>, default: u64, most: u64) -> Result<u64, ApiError> {
    let Some(value) = value else { return Ok(default) };
    let number = value.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| {
        ApiError::bad_request(format!(
            "{name} must be a number of at most {most}, not {}",
            shown(&value.as_str().into())
        ))
    })
}

/// The frames of `t=A..B` (both included), `t=A`, `t=A..` and `t=..B`; all frames where it is not given.
pub(crate) fn frames(value: Option<&String>) -> Result<(u32, u32), ApiError> {
    let Some(value) = value else { return Ok((0, u32::MAX)) };
    let wrong = || {
        let value = shown(&value.as_str().into());
        ApiError::bad_request(format!("t must be a timepoint, or a first and a last one as 3..7, not {value}"))
    };
    let bound = |text: &str, open: u32| if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| wrong()) };
    let (first, last) = if let Some((first, last)) = value.split_once("..") {
        (bound(first, 0)?, bound(last, u32::MAX)?)
    } else {
        let t = value.parse().map_err(|_| wrong())?;
        (t, t)
    };
    if first <= last { Ok((first, last)) } else { Err(wrong()) }
}

/// Refuses parameters that a route does not have.
pub(crate) fn refuse_unknown(unknown: &BTreeMap<String, String>, known: &str) -> Result<(), ApiError> {
    unknown.keys().next().map_or(Ok(()), |name| Err(unknown_parameter(name, known)))
}
