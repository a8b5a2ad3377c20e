//! A file or folder of tracks, whichever format it has.

use std::path::Path;

use elephant_fs::FsError;
use elephant_types::{TaskContext, VoxelSize};

use crate::{ExportError, ImportedMovie, read_ctc, read_geff, read_spot_table};

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackFormat {
    /// A folder of the Cell Tracking Challenge.
    Ctc,
    /// A folder in the Graph Exchange File Format.
    Geff,
    /// A table of spots with their parents.
    SpotTable,
}

/// The radius in micrometres of cells of a GEFF that has no sizes.
const RADIUS_UM: f64 = 5.0;

impl TrackFormat {
    /// The format of a file or folder, by what it is: a Zarr group, another folder, or a file.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, ExportError> {
        let found = path.metadata().map_err(FsError::io("read", path))?;
        if !found.is_dir() {
            return Ok(Self::SpotTable);
        }
        for name in ["zarr.json", ".zgroup", ".zattrs"] {
            if elephant_fs::metadata(&path.join(name))?.is_some() {
                return Ok(Self::Geff);
            }
        }
        Ok(Self::Ctc)
    }
}

/// Reads the tracks of a file or folder. `voxel_size` is that of images; a GEFF may have its own, a table needs none.
///
/// # Errors
/// As [`TrackFormat::of`], [`read_ctc`], [`read_geff`] and [`read_spot_table`]; and for images without a voxel size.
pub fn read_tracked(
    path: &Path,
    voxel_size: Option<VoxelSize>,
    task: &TaskContext,
) -> Result<ImportedMovie, ExportError> {
    match TrackFormat::of(path)? {
        TrackFormat::Geff => read_geff(path, voxel_size, RADIUS_UM),
        TrackFormat::SpotTable => read_spot_table(path),
        TrackFormat::Ctc => {
            let voxel_size = voxel_size.ok_or_else(|| ExportError::InvalidFile {
                path: path.to_owned(),
                format: "a movie of the Cell Tracking Challenge",
                reason: "images do not say how large their voxels are; give the voxel size (z, y, x) in micrometres"
                    .to_owned(),
            })?;
            read_ctc(path, voxel_size, task)
        }
    }
}
