//! A movie in BigDataViewer's HDF5 layout.
//!
//! Voxels are in `tNNNNN/sNN/L/cells`: timepoint, view setup (channel or angle), resolution level (0 is the full one).
//! The layout is described in section 2.4 of Pietzsch et al., arXiv:1412.0488.

use std::path::Path;

use hdf5_metno::Group;

use crate::{
    H5Error, SpimData, Volume,
    error::file_name,
    file::{Files, brief},
};

/// A BigDataViewer movie, open for reading. Can be used from several threads.
#[derive(Debug)]
pub struct BdvFile {
    files: Files,
    timepoints: Vec<u32>,
    setups: Vec<u32>,
    description: Option<SpimData>,
}

impl BdvFile {
    /// Opens the `.h5` file of a movie, or its `.xml` file, which then must name an `.h5` file in the same folder.
    ///
    /// # Errors
    /// When the file is missing, is not HDF5, is truncated, or holds no timepoints.
    pub fn open(path: &Path) -> Result<Self, H5Error> {
        let is_xml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml"));
        if !is_xml {
            return Self::open_h5(path, None);
        }
        let description = SpimData::read(path)?;
        let h5 = description.h5_path(path)?;
        Self::open_h5(&h5, Some(description))
    }

    fn open_h5(path: &Path, description: Option<SpimData>) -> Result<Self, H5Error> {
        let files = Files::open(path)?;
        let names = files
            .main()
            .root()
            .member_names()
            .map_err(|error| H5Error::Damaged { file: file_name(path), detail: brief(&error) })?;
        let timepoints = numbers(&names, "t", 5);
        let Some(&first) = timepoints.first() else { return Err(H5Error::NoTimepoints { file: file_name(path) }) };
        let mut setups = numbers(&names, "s", 2);
        if setups.is_empty() {
            // Some writers leave out the `sNN` groups that describe the levels.
            setups = numbers(&children(&files, &format!("t{first:05}"))?, "s", 2);
        }
        Ok(Self { files, timepoints, setups, description })
    }

    /// The timepoints in the file, ascending; not always without gaps.
    pub fn timepoints(&self) -> &[u32] {
        &self.timepoints
    }

    /// The view setups in the file, ascending.
    pub fn setups(&self) -> &[u32] {
        &self.setups
    }

    /// What the `.xml` file says, when the movie was opened through it.
    pub fn description(&self) -> Option<&SpimData> {
        self.description.as_ref()
    }

    /// The volume of one timepoint, or `None` where the movie has no image of this setup at this timepoint.
    ///
    /// # Errors
    /// When its file is damaged, holds something else than 8- or 16-bit voxels, or links out of the movie's folder.
    pub fn volume(&self, timepoint: u32, setup: u32, level: u32) -> Result<Option<Volume>, H5Error> {
        let path = format!("t{timepoint:05}/s{setup:02}/{level}/cells");
        let Some((file, group, name)) = self.files.locate(&path)? else { return Ok(None) };
        Volume::open(file, &group, &name, path).map(Some)
    }

    /// The first volume of a setup, whose shape is that of all its volumes.
    ///
    /// # Errors
    /// When the setup or the level does not exist, or as [`volume`](Self::volume).
    pub fn first_volume(&self, setup: u32, level: u32) -> Result<Volume, H5Error> {
        let file = &self.files.main().name;
        for &timepoint in &self.timepoints {
            if let Some(volume) = self.volume(timepoint, setup, level)? {
                return Ok(volume);
            }
            let levels = numbers(&children(&self.files, &format!("t{timepoint:05}/s{setup:02}"))?, "", 1);
            match levels.last() {
                Some(_) if levels.contains(&level) => {
                    let object = format!("t{timepoint:05}/s{setup:02}/{level}");
                    return Err(H5Error::object(file, object, "it holds no voxels; export the movie again"));
                }
                Some(&last) => return Err(H5Error::NoLevel { file: file.clone(), setup, level, last }),
                None => {}
            }
        }
        let available: Vec<_> = self.setups.iter().map(u32::to_string).collect();
        Err(H5Error::NoSetup { file: file.clone(), setup, available: available.join(", ") })
    }
}

/// The names in the group at `path`; none when it does not exist.
fn children(files: &Files, path: &str) -> Result<Vec<String>, H5Error> {
    let Some((file, parent, name)) = files.locate(path)? else { return Ok(Vec::new()) };
    let names = parent.group(&name).and_then(|group: Group| group.member_names());
    names.map_err(|error| H5Error::object(&file.name, path, brief(&error)))
}

/// The numbers of names made of `prefix` and at least `digits` digits, ascending.
fn numbers(names: &[String], prefix: &str, digits: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix))
        .filter(|number| number.len() >= digits && number.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
