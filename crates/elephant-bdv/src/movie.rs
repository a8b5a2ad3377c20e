//! A movie in BigDataViewer's HDF5 layout.
//!
//! Voxels are in `tNNNNN/sNN/L/cells`: timepoint, view setup (channel or angle), resolution level (0 is the full one).
//! The layout is described in section 2.4 of Pietzsch et al., arXiv:1412.0488.

use std::{ops::Range, path::Path};

use elephant_hdf5::{Group, Hdf5File, Reach};

use crate::{BdvError, SpimData, Volume, error::file_name, voxels::Meaning};

/// A BigDataViewer movie, open for reading. Can be used from several threads.
#[derive(Debug)]
pub struct BdvFile {
    file: Hdf5File,
    timepoints: Vec<u32>,
    setups: Vec<u32>,
    description: Option<SpimData>,
}

impl BdvFile {
    /// Opens a movie, all of whose files must be in its folder: [`open_within`](Self::open_within) [`Reach::Folder`].
    ///
    /// # Errors
    /// As [`open_within`](Self::open_within).
    pub fn open(path: &Path) -> Result<Self, BdvError> {
        Self::open_within(path, Reach::Folder)
    }

    /// Opens the `.h5` file of a movie, or the one that its `.xml` file names. Files elsewhere than in the movie's folder
    /// are opened within `reach` only.
    ///
    /// # Errors
    /// When the file is missing, is not HDF5, is truncated, or holds no timepoints.
    pub fn open_within(path: &Path, reach: Reach) -> Result<Self, BdvError> {
        let is_xml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml"));
        if !is_xml {
            return Self::open_h5(path, reach, None);
        }
        let description = SpimData::read(path)?;
        let h5 = description.h5_path(path, reach)?;
        Self::open_h5(&h5, reach, Some(description))
    }

    fn open_h5(path: &Path, reach: Reach, description: Option<SpimData>) -> Result<Self, BdvError> {
        let file = Hdf5File::open(path, reach)?;
        let names = file.root()?.members()?;
        let timepoints = numbers(&names, "t", 5);
        let Some(&first) = timepoints.first() else { return Err(BdvError::NoTimepoints { file: file_name(path) }) };
        let mut setups = numbers(&names, "s", 2);
        if setups.is_empty() {
            // Some writers leave out the `sNN` groups that describe the levels.
            setups = numbers(&children(&file.root()?, &format!("t{first:05}"))?, "s", 2);
        }
        Ok(Self { file, timepoints, setups, description })
    }

    /// The timepoints in the file, ascending; not always without gaps.
    pub fn timepoints(&self) -> &[u32] {
        &self.timepoints
    }

    /// The view setups in the file, ascending.
    pub fn setups(&self) -> &[u32] {
        &self.setups
    }

    /// Ids of the timepoints in the order in which BigDataViewer shows them: those that the `.xml` lists, when the movie was
    /// opened through it, or else those in the file.
    pub fn shown_timepoints(&self) -> &[u32] {
        let listed = self.description.as_ref().map(|description| description.timepoints.as_slice());
        listed.filter(|listed| !listed.is_empty()).unwrap_or(&self.timepoints)
    }

    /// The setup that BigDataViewer shows first: the lowest one of the `.xml`, when the movie was opened through it, or
    /// else of the file.
    pub fn first_setup(&self) -> u32 {
        let described = self.description.as_ref().and_then(|description| description.setups.first());
        described.map(|setup| setup.id).or(self.setups.first().copied()).unwrap_or(0)
    }

    /// What the `.xml` file says, when the movie was opened through it.
    pub fn description(&self) -> Option<&SpimData> {
        self.description.as_ref()
    }

    /// The volume of one timepoint, or `None` where the movie has no image of this setup at this timepoint: it is not in
    /// the file, or the `.xml` calls it missing.
    ///
    /// # Errors
    /// When its file is damaged, holds voxels that cannot be read, or lies outside the movie's reach.
    pub fn volume(&self, timepoint: u32, setup: u32, level: u32) -> Result<Option<Volume>, BdvError> {
        if self.description.as_ref().is_some_and(|description| description.is_missing(timepoint, setup)) {
            return Ok(None);
        }
        let (stored, region) = self.stored(setup);
        let path = format!("t{timepoint:05}/s{stored:02}/{level}/cells");
        let Some(dataset) = self.file.root()?.dataset(&path)? else { return Ok(None) };
        let volume = Volume::new(dataset.volume()?, self.meaning(stored)?);
        match region {
            None => Ok(Some(volume)),
            Some(region) if level == 0 => volume.piece(&region).map(Some),
            Some(_) => {
                let object = format!("setup {setup}, level {level}");
                let detail = "it is a piece of a split image, which has level 0 only";
                Err(BdvError::object(self.file.name(), object, detail))
            }
        }
    }

    /// The setup of the file that has the images of `setup`, and the box (z, y, x) of them that it is, if not all.
    fn stored(&self, setup: u32) -> (u32, Option<[Range<usize>; 3]>) {
        self.description.as_ref().map_or((setup, None), |description| description.stored(setup))
    }

    /// The meaning of the voxel type that the group of a setup declares ("int16", "float32") in its attribute `dataType`.
    /// Movies written before 2024 declare none.
    fn meaning(&self, setup: u32) -> Result<Meaning, BdvError> {
        let Some(group) = self.file.root()?.group(&format!("s{setup:02}"))? else { return Ok(Meaning::Undeclared) };
        let declared = group.attribute("dataType")?;
        let text = declared.as_ref().and_then(|declared| declared.text());
        Ok(Meaning::from_declaration(text.map(|text| text.trim().to_lowercase()).as_deref()))
    }

    /// The first volume of a setup among `timepoints`, whose shape is that of all its volumes.
    ///
    /// # Errors
    /// When the setup or the level does not exist there, or as [`volume`](Self::volume).
    pub fn first_volume(&self, timepoints: &[u32], setup: u32, level: u32) -> Result<Volume, BdvError> {
        self.first_volume_while(timepoints, setup, level, || Ok(()))
    }

    /// As [`first_volume`](Self::first_volume); asks `go_on` before each timepoint, of which there may be many.
    ///
    /// # Errors
    /// As [`first_volume`](Self::first_volume), and what `go_on` says.
    pub fn first_volume_while<E: From<BdvError>>(
        &self,
        timepoints: &[u32],
        setup: u32,
        level: u32,
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<Volume, E> {
        for &timepoint in timepoints.iter().filter(|timepoint| self.timepoints.binary_search(timepoint).is_ok()) {
            go_on()?;
            if let Some(volume) = self.volume(timepoint, setup, level)? {
                return Ok(volume);
            }
            self.check_level(timepoint, setup, level)?;
        }
        let file = self.file.name().to_owned();
        if self.setups.contains(&self.stored(setup).0) {
            let (requested, available) = (listed(timepoints), listed(&self.timepoints));
            return Err(BdvError::NoImages { file, setup, requested, available }.into());
        }
        Err(BdvError::NoSetup { file, setup, available: listed(&self.setups) }.into())
    }

    /// Says what is wrong where a view has levels, but not this one.
    fn check_level(&self, timepoint: u32, setup: u32, level: u32) -> Result<(), BdvError> {
        let file = self.file.name();
        let (stored, _) = self.stored(setup);
        let levels = numbers(&children(&self.file.root()?, &format!("t{timepoint:05}/s{stored:02}"))?, "", 1);
        if levels.contains(&level) && !self.description.as_ref().is_some_and(|movie| movie.is_missing(timepoint, setup))
        {
            let object = format!("t{timepoint:05}/s{setup:02}/{level}");
            return Err(BdvError::object(file, object, "it holds no voxels; export the movie again"));
        }
        if levels.is_empty() || levels.contains(&level) {
            return Ok(());
        }
        let word = if levels.len() == 1 { "only level" } else { "levels" };
        Err(BdvError::NoLevel { file: file.to_owned(), setup, level, available: format!("{word} {}", listed(&levels)) })
    }
}

/// Numbers for a message: the runs among them, "0 to 4, 7", and only the first few of them.
fn listed(numbers: &[u32]) -> String {
    const MOST: usize = 8;
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
        if runs.len() > MOST {
            break;
        }
    }
    let is_cut = runs.len() > MOST;
    let run = |&(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    };
    let texts: Vec<String> = runs.iter().take(MOST).map(run).collect();
    format!("{}{}", texts.join(", "), if is_cut { " and more" } else { "" })
}

/// The names in the group at `path`; none when it does not exist.
fn children(root: &Group<'_>, path: &str) -> Result<Vec<String>, BdvError> {
    Ok(root.group(path)?.map_or_else(|| Ok(Vec::new()), |group| group.members())?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed_as_runs() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&[1]), "1");
        assert_eq!(listed(&[0, 1, 3, 4, 5, 20_210_603]), "0, 1, 3 to 5, 20210603");
        assert_eq!(listed(&[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]), "0, 2, 4, 6, 8, 10, 12, 14 and more");
    }
}
