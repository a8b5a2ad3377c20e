//! A field of displacements on its way from the network into the dataset and to the cells that ask for it.

use elephant_image::FieldMeans;
use elephant_model::{ModelError, PlaneSink};
use elephant_types::{CancelToken, Coded, ErrorCode};
use elephant_volume::{Dataset, FlowWriter};
use half::f16;
use ndarray::{Array4, ArrayView4, Axis};

use crate::{PipelineError, frames::CropBox, predict::PlaneResampler};

/// Voxels of a field that are read at once, unless a plane has more.
const MAX_VOXELS_AT_ONCE: usize = 4 << 20;

/// Takes a network's output plane by plane: turns it into displacements in stored voxels, in half precision, stores them and
/// adds them to the means of cells.
pub(super) struct Field<'a> {
    /// Displacements along (x, y, z) in voxels that an output of 1 stands for.
    norm_xyz: [f64; 3],
    /// First voxel of the network's input in the frame, (z, y, x).
    origin: [usize; 3],
    /// `None` where the network sees stored voxels.
    resampler: Option<PlaneResampler>,
    results: Results<'a>,
}

struct Results<'a> {
    means: &'a mut FieldMeans,
    writer: Option<FlowWriter<'a>>,
    /// Whether the request is to fail where the field cannot be stored.
    must_store: bool,
}

impl<'a> Field<'a> {
    /// A field over the box `area` of a frame, which the network sees in the size `seen` (z, y, x).
    ///
    /// # Errors
    /// When a size has no voxels.
    pub fn new(
        norm_vox: [f64; 3],
        channels: usize,
        area: CropBox,
        seen: [usize; 3],
        means: &'a mut FieldMeans,
        writer: Option<FlowWriter<'a>>,
        must_store: bool,
    ) -> Result<Self, PipelineError> {
        let resampler = if seen == area.size { None } else { Some(PlaneResampler::new(channels, seen, area.size)?) };
        let [z, y, x] = norm_vox;
        let results = Results { means, writer, must_store };
        Ok(Self { norm_xyz: [x, y, z], origin: area.origin, resampler, results })
    }

    /// What puts the field into the dataset; `None` where it could not be stored or was not to be.
    pub fn into_writer(self) -> Option<FlowWriter<'a>> {
        self.results.writer
    }
}

impl PlaneSink for Field<'_> {
    fn take(&mut self, z: usize, planes: ArrayView4<'_, f32>, cancel: &CancelToken) -> Result<(), ModelError> {
        let (norm_xyz, origin, results) = (self.norm_xyz, self.origin, &mut self.results);
        let mut emit = |z: usize, planes: ArrayView4<'_, f32>| results.take(z, origin, norm_xyz, planes, cancel);
        let taken = match &mut self.resampler {
            None => emit(z, planes),
            Some(resampler) => resampler.take(z, planes, cancel, &mut emit),
        };
        taken.map_err(|error| ModelError::from_coded(&error))
    }
}

impl Results<'_> {
    /// Takes the network's output for planes of stored voxels from plane `z` of the box on.
    #[allow(clippy::needless_pass_by_value, reason = "a view is already a reference")]
    fn take(
        &mut self,
        z: usize,
        origin: [usize; 3],
        norm_xyz: [f64; 3],
        planes: ArrayView4<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), PipelineError> {
        let mut field: Array4<f32> = planes.to_owned();
        for (mut component, norm) in field.axis_iter_mut(Axis(0)).zip(norm_xyz) {
            // As the store keeps it, so that an answer is the same from the store.
            component.par_mapv_inplace(|value| f16::from_f32(value * norm as f32).to_f32());
        }
        self.means.take([origin[0] + z, origin[1], origin[2]], field.view(), cancel)?;
        if let Some(writer) = &self.writer
            && let Err(error) = writer.write(z, field.view())
        {
            if self.must_store || error.code() != ErrorCode::StorageFull {
                return Err(error.into());
            }
            tracing::warn!(%error, "displacements are not kept for later requests");
            self.writer = None;
        }
        Ok(())
    }
}

/// Adds a stored field to the means of cells. Reads no more of it than the cells need. `false` if parts of it are missing: somebody
/// has deleted files, or what was stored is no number.
///
/// # Errors
/// When the store is damaged or the task is cancelled.
pub(super) fn read_stored(
    dataset: &Dataset,
    pair: usize,
    means: &mut FieldMeans,
    cancel: &CancelToken,
) -> Result<bool, PipelineError> {
    let Some([planes, rows, columns]) = means.bounds() else { return Ok(true) };
    let plane = (rows.len() * columns.len()).max(1);
    let at_once = (MAX_VOXELS_AT_ONCE / plane).max(1);
    for first in planes.clone().step_by(at_once) {
        cancel.check()?;
        let origin = [first, rows.start, columns.start];
        let depth = at_once.min(planes.end - first);
        let mut field = Array4::zeros((dataset.flow_channels(), depth, rows.len(), columns.len()));
        dataset.read_flow(pair, origin, field.view_mut())?;
        if field.iter().any(|component| component.is_nan()) {
            return Ok(false);
        }
        means.take(origin, field.view(), cancel)?;
    }
    Ok(true)
}

/// Bytes that a field takes at the most while it is computed or read, besides the planes that the network gives, where the
/// box has `size` stored voxels and the network sees `seen`, both (z, y, x).
pub(super) fn field_bytes(channels: usize, seen: [usize; 3], size: [usize; 3]) -> u64 {
    /// Planes that the network gives at once, at the most. More are given only of small images.
    const PLANES: usize = 32;
    let values = |depth: usize| {
        [channels, depth, size[1], size[2]].iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64))
    };
    let taken = values(PLANES.min(size[0])).max((channels * MAX_VOXELS_AT_ONCE) as u64);
    taken.saturating_mul(size_of::<f32>() as u64).saturating_add(PlaneResampler::bytes(channels, seen, size))
}
