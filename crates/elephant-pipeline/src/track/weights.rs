//! Fitted weights in the workspace: JSON files beside the models.

use std::path::PathBuf;

use elephant_fs::{FsError, write_atomic};
use elephant_track::{TrackError, TrackOptions, Weights};
use elephant_types::ModelName;

use crate::{PipelineError, Workspace};

/// How the names of files with weights end, so that they are never mistaken for a network.
const ENDING: &str = ".json";
/// Largest file of weights in bytes; those that ship with the program have a twentieth of it.
const LARGEST: u64 = 1 << 20;

/// Checks that a name can be one of weights.
///
/// # Errors
/// [`PipelineError::Invalid`].
pub(super) fn check_name(name: &ModelName) -> Result<(), PipelineError> {
    let is_valid = name.as_str().strip_suffix(ENDING).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'));
    if is_valid {
        return Ok(());
    }
    Err(PipelineError::Invalid(format!(
        "weights are files whose names end in {ENDING}, for example embryo{ENDING}, but weights is {name}"
    )))
}

/// Checks that weights are given in one way only.
///
/// # Errors
/// [`PipelineError::Invalid`].
pub(super) fn check(name: Option<&ModelName>, options: &TrackOptions) -> Result<(), PipelineError> {
    let Some(name) = name else { return Ok(()) };
    check_name(name)?;
    if options.weights.is_some() {
        return Err(PipelineError::Invalid(
            "weights are given twice, by name and in tracking; leave one of them out".to_owned(),
        ));
    }
    Ok(())
}

impl Workspace {
    /// The options of tracking with the weights of that name in them.
    ///
    /// # Errors
    /// [`PipelineError::NotFound`] if there is no such file, and [`TrackError::InvalidWeights`] if it has no weights of this version.
    pub(super) fn with_weights(
        &self,
        options: &TrackOptions,
        name: Option<&ModelName>,
    ) -> Result<TrackOptions, PipelineError> {
        let Some(name) = name else { return Ok(options.clone()) };
        Ok(TrackOptions { weights: Some(self.weights(name)?), ..options.clone() })
    }

    fn weights(&self, name: &ModelName) -> Result<Weights, PipelineError> {
        let path = self.model(name)?;
        let damaged = |reason: String| TrackError::InvalidWeights { reason: format!("{name}: {reason}") };
        match elephant_fs::metadata(&path)? {
            Some(found) if found.is_file() && found.len() <= LARGEST => {}
            Some(_) => return Err(damaged("it is no file, or above 1 MiB; fit them again".to_owned()).into()),
            None => {
                return Err(PipelineError::NotFound(format!(
                    "there are no weights {name} among the models; fit them first"
                )));
            }
        }
        let text = std::fs::read(&path).map_err(FsError::io("read", &path))?;
        let weights: Weights = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("the file has no weights of this version ({error}); fit them again")))?;
        match weights.validate() {
            Ok(()) => Ok(weights),
            Err(TrackError::InvalidWeights { reason }) => Err(damaged(reason).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes weights, and returns their path.
    pub(super) fn write_weights(&self, name: &ModelName, weights: &Weights) -> Result<PathBuf, PipelineError> {
        let path = self.model(name)?;
        write_atomic(&path, |out| Ok(serde_json::to_writer(out, weights)?))?;
        Ok(path)
    }
}
