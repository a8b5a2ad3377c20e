//! Label images of tracked cells, written while they are drawn (docs/protocol.md, "POST /download/ctc").

use std::io::Write;

use elephant_export::{MaskSpot, Masks, stream_masks};
use elephant_image::Dims;
use elephant_jobs::{Activity, JobSpec, OnLeave, ProcessState};
use elephant_types::{DatasetName, TaskContext, VoxelSize};

use crate::{PipelineError, UseCases, frames::open_dataset};

/// Which cells to draw, into images of which size and timepoints. Not a [`Request`](crate::Request): its result is a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct MasksRequest {
    /// The dataset, which says how large images are.
    pub dataset: DatasetName,
    /// Edges of its voxels; in 2-D z is not used.
    pub voxel_size: VoxelSize,
    /// The first timepoint; that of the earliest cell if it is absent.
    pub first: Option<u32>,
    /// The last timepoint; that of the latest cell if it is absent, and at most the movie's.
    pub last: Option<u32>,
    /// The cells; only those between the first and the last timepoint are drawn.
    pub spots: Vec<MaskSpot>,
}

impl MasksRequest {
    /// The job that writes them.
    pub fn spec(&self) -> JobSpec {
        JobSpec {
            on_leave: OnLeave::Cancel,
            activity: Activity::showing(ProcessState::Wait),
            ..JobSpec::new("export", self.dataset.as_str())
        }
    }

    /// Writes a zip archive of `maskNNN.tif` and returns the number of cells that lie outside the image or have no size, and
    /// are left out.
    ///
    /// # Errors
    /// When the dataset does not exist, there is no timepoint, a cell is behind the last one, `out` fails, and when cancelled.
    pub fn write(self, use_cases: &UseCases, out: impl Write, context: &TaskContext) -> Result<usize, PipelineError> {
        let invalid = |reason: String| Err(PipelineError::Invalid(reason));
        let held = open_dataset(&use_cases.workspace, &self.dataset)?;
        let dataset = held.dataset();
        let count = dataset.timepoint_count();
        if let Some(spot) = self.spots.iter().find(|spot| spot.t as usize >= count) {
            return invalid(format!("a spot is at timepoint {}; the dataset has {count}, counted from 0", spot.t));
        }
        let times = || self.spots.iter().map(|spot| spot.t);
        let (Some(first), Some(last)) = (self.first.or_else(|| times().min()), self.last.or_else(|| times().max()))
        else {
            return invalid("nothing to export: there are neither spots nor t_start and t_end".to_owned());
        };
        let last = last.min(u32::try_from(count).unwrap_or(u32::MAX).saturating_sub(1));
        if first > last {
            return invalid(format!("there is no timepoint from t_start {first} to {last}"));
        }
        let masks = Masks {
            shape: dataset.frame_shape(),
            voxel_size: self.voxel_size,
            dims: if dataset.is_3d() { Dims::ThreeD } else { Dims::TwoD },
            timepoints: [first, last],
            spots: self.spots,
        };
        let (_, skipped) = stream_masks(&masks, out, context)?;
        if skipped > 0 {
            tracing::warn!(skipped, dataset = %self.dataset, "spots outside the image are not in the masks");
        }
        Ok(skipped)
    }
}
