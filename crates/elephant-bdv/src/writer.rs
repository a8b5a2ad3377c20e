//! Writing a BigDataViewer movie of one view setup.

#![allow(clippy::needless_pass_by_value, reason = "array views are handles, passed by value as slices are")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use elephant_hdf5::{Hdf5Error, Writer};
use elephant_types::VoxelSize;
use ndarray::{Array3, ArrayView3, s};
use quick_xml::escape::escape;

use crate::{BdvError, error::file_name};

/// Writes a movie timepoint by timepoint, as `NAME.h5` with several resolution levels and `NAME.xml`.
///
/// The `.h5` file grows under a temporary name that starts with a dot; [`finish`](Self::finish) moves it into place and
/// then writes the `.xml`. Dropped before that, nothing stays.
#[derive(Debug)]
pub struct BdvWriter {
    path: PathBuf,
    // Closed before `temporary` removes it.
    file: Option<Writer>,
    temporary: TemporaryFile,
    shape: [usize; 3],
    voxel_size: VoxelSize,
    levels: Vec<Level>,
    timepoints: usize,
}

/// One resolution level.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    /// How many voxels of level 0 become one, along (z, y, x).
    factors: [usize; 3],
    /// Voxels along (z, y, x).
    shape: [usize; 3],
    /// Voxels of a chunk along (z, y, x).
    chunk: [usize; 3],
}

/// A file that is removed unless it was renamed.
#[derive(Debug)]
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // It is gone after a rename; and what cannot be removed is hidden and harmless.
        let _ = fs::remove_file(&self.0);
    }
}

impl BdvWriter {
    /// Begins the movie `path`, which ends in `.h5`, with volumes of `shape` (z, y, x). Its folder must exist.
    ///
    /// # Errors
    /// When the file cannot be created, or a volume of this shape has no voxels.
    pub fn create(path: &Path, shape: [usize; 3], voxel_size: VoxelSize) -> Result<Self, BdvError> {
        if shape.contains(&0) {
            return Err(BdvError::object(&file_name(path), "the first volume", "it has no voxels"));
        }
        let hidden = format!(".tmp-{}-{}", std::process::id(), file_name(path));
        let temporary = TemporaryFile(path.with_file_name(hidden));
        let file = Writer::create(&temporary.0, path)?;
        let levels = levels(shape, voxel_size);
        write_header(&file, &levels)?;
        Ok(Self { path: path.to_owned(), file: Some(file), temporary, shape, voxel_size, levels, timepoints: 0 })
    }

    /// Adds the next timepoint. Values above 32767 are stored as negative shorts, as BigDataViewer does.
    ///
    /// # Errors
    /// When the volume has another shape than the movie, or cannot be written.
    pub fn append(&mut self, volume: ArrayView3<'_, u16>) -> Result<(), BdvError> {
        let group = format!("t{:05}", self.timepoints);
        let shape: [usize; 3] = volume.dim().into();
        if shape != self.shape {
            let detail = format!("it has {shape:?} voxels (z, y, x) but the movie {:?}", self.shape);
            return Err(BdvError::object(&file_name(&self.path), group, detail));
        }
        let Some(file) = &self.file else { return Ok(()) };
        for (index, level) in self.levels.iter().enumerate() {
            let values = downsample(volume, level).mapv(|value| value as i16);
            let path = format!("{group}/s00/{index}");
            file.group(&path)?;
            file.volume(&format!("{path}/cells"), values.view(), level.chunk)?;
        }
        self.timepoints += 1;
        Ok(())
    }

    /// Moves the movie into place and describes it in the `.xml` file beside it.
    ///
    /// # Errors
    /// When the file cannot be completed or moved.
    pub fn finish(mut self) -> Result<(), BdvError> {
        if let Some(file) = self.file.take() {
            file.close()?;
        }
        elephant_fs::publish_file(&self.temporary.0, &self.path)?;
        let description = self.description();
        let xml = self.path.with_extension("xml");
        elephant_fs::write_atomic(&xml, |writer| writer.write_all(description.as_bytes()))?;
        Ok(())
    }

    /// The `.xml` file: `SpimData` 0.2, with voxel coordinates scaled to micrometres.
    fn description(&self) -> String {
        let ([z, y, x], [dz, dy, dx]) = (self.shape, self.voxel_size.zyx());
        let file = file_name(&self.path);
        let h5 = escape(file.as_str());
        let last = self.timepoints.saturating_sub(1);
        let registration = |t: usize| {
            format!(
                r#"    <ViewRegistration timepoint="{t}" setup="0">
      <ViewTransform type="affine">
        <affine>{dx:?} 0.0 0.0 0.0 0.0 {dy:?} 0.0 0.0 0.0 0.0 {dz:?} 0.0</affine>
      </ViewTransform>
    </ViewRegistration>
"#
            )
        };
        let registrations: String = (0..self.timepoints).map(registration).collect();
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<SpimData version="0.2">
  <BasePath type="relative">.</BasePath>
  <SequenceDescription>
    <ImageLoader format="bdv.hdf5">
      <hdf5 type="relative">{h5}</hdf5>
    </ImageLoader>
    <ViewSetups>
      <ViewSetup>
        <id>0</id>
        <name>channel 1</name>
        <size>{x} {y} {z}</size>
        <voxelSize>
          <unit>micrometer</unit>
          <size>{dx:?} {dy:?} {dz:?}</size>
        </voxelSize>
        <attributes>
          <channel>1</channel>
        </attributes>
      </ViewSetup>
      <Attributes name="channel">
        <Channel>
          <id>1</id>
          <name>1</name>
        </Channel>
      </Attributes>
    </ViewSetups>
    <Timepoints type="range">
      <first>0</first>
      <last>{last}</last>
    </Timepoints>
  </SequenceDescription>
  <ViewRegistrations>
{registrations}  </ViewRegistrations>
</SpimData>
"#
        )
    }
}

/// Halves the finest axes from level to level, so that voxels become cubes, until an image fits into a small window.
fn levels(shape: [usize; 3], voxel_size: VoxelSize) -> Vec<Level> {
    const CHUNK: [usize; 3] = [4, 32, 32];
    const SMALL: usize = 64;
    let edges = voxel_size.zyx();
    let mut factors = [1; 3];
    let mut levels = Vec::new();
    loop {
        let at = std::array::from_fn(|axis| (shape[axis] / factors[axis]).max(1));
        levels.push(Level { factors, shape: at, chunk: std::array::from_fn(|axis| CHUNK[axis].min(at[axis])) });
        if at.iter().all(|&voxels| voxels <= SMALL) {
            return levels;
        }
        let edge = |axis: usize| edges[axis] * factors[axis] as f64;
        let finest = (0..3).filter(|&axis| at[axis] > 1).map(edge).fold(f64::INFINITY, f64::min);
        let halve: [bool; 3] = std::array::from_fn(|axis| at[axis] > 1 && edge(axis) < 1.5 * finest);
        for axis in (0..3).filter(|&axis| halve[axis]) {
            factors[axis] *= 2;
        }
    }
}

/// The rounded mean of each block of voxels; voxels beyond the last whole block are left out.
fn downsample(volume: ArrayView3<'_, u16>, level: &Level) -> Array3<u16> {
    if level.factors == [1; 3] {
        return volume.to_owned();
    }
    let shape: [usize; 3] = volume.dim().into();
    // An axis shorter than the factor is one incomplete block.
    let [bz, by, bx] = std::array::from_fn(|axis| level.factors[axis].min(shape[axis]));
    let count = (bz * by * bx) as u64;
    let mut coarse = Array3::zeros(level.shape);
    let mut sums = vec![0_u64; level.shape[2]];
    for ((z, y), mut row) in ndarray::indices([level.shape[0], level.shape[1]]).into_iter().zip(coarse.rows_mut()) {
        sums.fill(0);
        for fine in volume.slice(s![z * bz..(z + 1) * bz, y * by..(y + 1) * by, ..]).rows() {
            for (sum, block) in sums.iter_mut().zip(fine.exact_chunks(bx)) {
                *sum += block.iter().map(|&value| u64::from(value)).sum::<u64>();
            }
        }
        for (mean, sum) in row.iter_mut().zip(&sums) {
            *mean = ((sum + count / 2) / count) as u16;
        }
    }
    coarse
}

/// What describes the levels, and the types that BigDataViewer's HDF5 library expects to find by name.
fn write_header(file: &Writer, levels: &[Level]) -> Result<(), Hdf5Error> {
    file.java_types("__DATA_TYPES__")?;
    file.group("s00")?;
    let table = |sizes: fn(&Level) -> [usize; 3]| {
        ndarray::Array2::from_shape_fn((levels.len(), 3), |(level, column)| sizes(&levels[level])[2 - column])
    };
    file.table("s00/resolutions", table(|level| level.factors).mapv(|factor| factor as f64).view())?;
    file.table("s00/subdivisions", table(|level| level.chunk).mapv(|voxels| voxels as i32).view())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BdvFile, Scale};

    fn voxel_size() -> VoxelSize {
        VoxelSize::new([2.0, 0.5, 0.25]).unwrap()
    }

    fn volume(shape: [usize; 3], t: usize) -> Array3<u16> {
        Array3::from_shape_fn(shape, |(z, y, x)| (z * 7919 + y * 251 + x * 13 + t * 30_011) as u16)
    }

    #[test]
    fn a_written_movie_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a & b.h5");
        let shape = [5, 70, 133];
        let mut writer = BdvWriter::create(&path, shape, voxel_size()).unwrap();
        for t in 0..3 {
            writer.append(volume(shape, t).view()).unwrap();
        }
        assert!(!path.exists());
        writer.finish().unwrap();
        let movie = BdvFile::open(&path.with_extension("xml")).unwrap();
        assert_eq!(movie.timepoints(), [0, 1, 2]);
        let description = movie.description().unwrap();
        assert_eq!(description.setups[0].voxel_size, Some(voxel_size()));
        for t in 0..3 {
            let stored = movie.volume(t, 0, 0).unwrap().unwrap();
            assert_eq!(stored.shape(), shape);
            let mut values = vec![0; shape.iter().product()];
            stored.read(&shape.map(|n| 0..n), &Scale::default(), &mut values).unwrap();
            assert_eq!(values, volume(shape, t as usize).into_raw_vec_and_offset().0);
        }
        // 133 → 66 → 33 voxels along x, the finest axis.
        assert_eq!(movie.volume(0, 0, 1).unwrap().unwrap().shape(), [5, 70, 66]);
        assert_eq!(movie.volume(0, 0, 2).unwrap().unwrap().shape(), [5, 35, 33]);
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a & b.h5", "a & b.xml"]);
    }

    #[test]
    fn a_dropped_movie_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = BdvWriter::create(&folder.path().join("a.h5"), [2, 8, 8], voxel_size()).unwrap();
        writer.append(volume([2, 8, 8], 0).view()).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_shapes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        assert!(BdvWriter::create(&path, [2, 0, 8], voxel_size()).is_err());
        let mut writer = BdvWriter::create(&path, [2, 8, 8], voxel_size()).unwrap();
        let message = writer.append(volume([2, 8, 9], 0).view()).unwrap_err().to_string();
        assert!(message.contains("[2, 8, 9]") && message.contains("[2, 8, 8]"), "{message}");
    }

    #[test]
    fn blocks_are_averaged_and_rounded() {
        let volume = ndarray::array![[[1_u16, 2, 9], [3, 5, 9]], [[65535, 65535, 9], [65535, 65534, 9]]];
        let level = Level { factors: [1, 2, 2], shape: [2, 1, 1], chunk: [1, 1, 1] };
        assert_eq!(downsample(volume.view(), &level), ndarray::array![[[3]], [[65535]]]);
    }

    #[test]
    fn levels_make_voxels_cubic_and_end_small() {
        let factors: Vec<_> = levels([32, 160, 160], VoxelSize::new([2.0, 0.5, 0.5]).unwrap())
            .into_iter()
            .map(|level| level.factors)
            .collect();
        assert_eq!(factors, [[1, 1, 1], [1, 2, 2], [1, 4, 4]]);
        let plane = levels([1, 200, 4000], VoxelSize::new([1e-9, 1.0, 1.0]).unwrap());
        assert_eq!(plane.last().unwrap().shape, [1, 3, 62]);
    }
}
