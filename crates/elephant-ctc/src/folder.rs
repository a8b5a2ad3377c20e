//! Folders of label images with a track table.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use elephant_fs::FsError;
use elephant_types::TrackRow;
use ndarray::Array3;

use crate::{CtcError, labels_shape, read_labels, read_tracks};

/// The track tables by which a folder is known, each with the prefixes of its images' names, the likeliest first.
const TABLES: [(&str, [&str; 2]); 2] =
    [("man_track.txt", ["man_track", "mask"]), ("res_track.txt", ["mask", "man_track"])];

/// Where in a folder its tracks may be.
const BELOW: [&str; 2] = ["TRA", "RES"];

/// The most timepoints.
const MOST_FRAMES: usize = 1 << 20;

/// A result or a ground truth of tracking: a label image for each timepoint from 0 on, and a table of tracks. Images are
/// read when they are asked for.
#[derive(Clone, Debug)]
pub struct CtcFolder {
    path: PathBuf,
    /// One image for each timepoint.
    images: Vec<PathBuf>,
    shape: [usize; 3],
    rows: Vec<TrackRow>,
}

impl CtcFolder {
    /// Opens a folder with `man_track.txt` or `res_track.txt`, or one with such a folder named `TRA` or `RES` in it. Images
    /// are named `man_trackNNN.tif` or `maskNNN.tif`, with any number of digits.
    ///
    /// Only the first image's size is looked at. Tracks are not compared with images.
    ///
    /// # Errors
    /// When there is no such folder or more than one, a timepoint has no image or two, or the table is invalid.
    pub fn open(path: &Path) -> Result<Self, CtcError> {
        let (folder, table, prefixes) = find_table(path)?;
        let images = find_images(&folder, &prefixes)?;
        let rows = read_tracks(&folder.join(table))?;
        let shape = labels_shape(&images[0])?;
        Ok(Self { path: folder, images, shape, rows })
    }

    /// The folder that has the table and the images.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of timepoints; at least 1.
    pub fn frames(&self) -> usize {
        self.images.len()
    }

    /// The shape (z, y, x) of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The tracks in the order of the table. They may contradict the images and each other, except that no two have the
    /// same number.
    pub fn rows(&self) -> &[TrackRow] {
        &self.rows
    }

    /// The labels (z, y, x) of a timepoint; 0 is the background.
    ///
    /// # Errors
    /// When there is no such timepoint, and when its image cannot be read or has another shape than the first one.
    pub fn frame(&self, t: usize) -> Result<Array3<u32>, CtcError> {
        let Some(image) = self.images.get(t) else {
            return Err(CtcError::MissingFrame { path: self.path.clone(), t: u32::try_from(t).unwrap_or(u32::MAX) });
        };
        let labels = read_labels(image)?;
        let (z, y, x) = labels.dim();
        if [z, y, x] != self.shape {
            return Err(CtcError::OtherShape { path: image.clone(), found: [z, y, x], expected: self.shape });
        }
        Ok(labels)
    }
}

/// The folder with the table, the table's name and the prefixes of images.
fn find_table(path: &Path) -> Result<(PathBuf, &'static str, [&'static str; 2]), CtcError> {
    let not_ctc = |reason: String| CtcError::NotCtc { path: path.to_owned(), reason };
    let tables_in = |folder: &Path| -> Result<Vec<(&'static str, [&'static str; 2])>, CtcError> {
        let mut found = Vec::new();
        for (table, prefixes) in TABLES {
            match fs::metadata(folder.join(table)) {
                Ok(_) => found.push((table, prefixes)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(FsError::io("look at", folder.join(table))(error).into()),
            }
        }
        Ok(found)
    };
    let mut found = Vec::new();
    found.extend(tables_in(path)?.into_iter().map(|table| (path.to_owned(), table)));
    if found.is_empty() {
        for name in BELOW {
            let folder = path.join(name);
            found.extend(tables_in(&folder)?.into_iter().map(|table| (folder.clone(), table)));
        }
    }
    match found.len() {
        0 => Err(not_ctc("neither it nor TRA or RES in it has man_track.txt or res_track.txt".to_owned())),
        1 => {
            let (folder, (table, prefixes)) = found.swap_remove(0);
            Ok((folder, table, prefixes))
        }
        _ => {
            let names: Vec<_> =
                found.iter().map(|(folder, (table, _))| folder.join(table).display().to_string()).collect();
            Err(not_ctc(format!("it has {}; name the folder of one of them", names.join(" and "))))
        }
    }
}

/// The images of all timepoints, in their order.
fn find_images(folder: &Path, prefixes: &[&str]) -> Result<Vec<PathBuf>, CtcError> {
    let not_ctc = |reason: String| CtcError::NotCtc { path: folder.to_owned(), reason };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(FsError::io("list", folder))? {
        let entry = entry.map_err(FsError::io("list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    for prefix in prefixes {
        let mut images = BTreeMap::new();
        for name in &names {
            let Some(t) = timepoint(name, prefix) else { continue };
            if let Some(other) = images.insert(t, name) {
                return Err(not_ctc(format!("{other} and {name} are both of timepoint {t}")));
            }
        }
        if images.len() > MOST_FRAMES {
            return Err(not_ctc(format!("it has more than {MOST_FRAMES} images")));
        }
        if images.is_empty() {
            continue;
        }
        if let Some((t, _)) = (0..).zip(images.keys()).find(|(t, found)| t != *found) {
            return Err(CtcError::MissingFrame { path: folder.to_owned(), t });
        }
        return Ok(images.into_values().map(|name| folder.join(name)).collect());
    }
    Err(not_ctc(format!("it has no image named {}000.tif or {}000.tif", prefixes[0], prefixes[1])))
}

/// The timepoint in a name such as `mask007.tif`.
fn timepoint(name: &str, prefix: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.strip_suffix(".tif").or_else(|| rest.strip_suffix(".tiff"))?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;
    use crate::{LabelStack, PlaneEncoder};

    fn put(folder: &Path, name: &str, size: [usize; 2]) {
        create_dir_all(folder).unwrap();
        let mut stack = LabelStack::new([1, size[0], size[1]]).unwrap();
        stack.push(PlaneEncoder::new().encode(&vec![3; size[0] * size[1]]));
        let mut bytes = Vec::new();
        stack.write(&mut bytes).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }

    fn message(path: &Path) -> String {
        CtcFolder::open(path).unwrap_err().to_string()
    }

    #[test]
    fn results_and_ground_truths_are_found() {
        for (below, table, prefix) in
            [("", "res_track.txt", "mask"), ("TRA", "man_track.txt", "man_track"), ("TRA", "man_track.txt", "mask")]
        {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join(below);
            for t in 0..3 {
                put(&folder, &format!("{prefix}{t:03}.tif"), [2, 4]);
            }
            fs::write(folder.join(table), "3 0 2 0\n").unwrap();
            fs::write(folder.join("notes.txt"), "mask").unwrap();
            let movie = CtcFolder::open(root.path()).unwrap();
            assert_eq!((movie.frames(), movie.shape(), movie.rows().len()), (3, [1, 2, 4], 1));
            assert!(movie.frame(2).unwrap().iter().all(|&label| label == 3));
            assert!(movie.frame(3).unwrap_err().to_string().contains("no label image of timepoint 3"));
        }
    }

    #[test]
    fn incomplete_folders_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        assert!(message(folder).contains("man_track.txt or res_track.txt"));
        assert!(message(&folder.join("missing")).contains("man_track.txt or res_track.txt"));
        fs::write(folder.join("res_track.txt"), "3 0 2 0\n").unwrap();
        assert!(message(folder).contains("no image named mask000.tif"));
        put(folder, "mask001.tif", [2, 4]);
        assert!(message(folder).contains("no label image of timepoint 0"));
        put(folder, "mask000.tif", [2, 5]);
        let movie = CtcFolder::open(folder).unwrap();
        assert!(movie.frame(1).unwrap_err().to_string().contains("has [1, 2, 4] voxels"));
        put(folder, "mask1.tif", [2, 5]);
        assert!(message(folder).contains("both of timepoint 1"));
        fs::write(folder.join("man_track.txt"), "3 0 2 0\n").unwrap();
        assert!(message(folder).contains("name the folder of one of them"));
    }

    #[test]
    fn names_are_a_prefix_and_digits() {
        assert_eq!(timepoint("mask007.tif", "mask"), Some(7));
        assert_eq!(timepoint("mask1234.tiff", "mask"), Some(1234));
        for name in ["mask.tif", "mask-1.tif", "mask+1.tif", "mask1.tif.bak", "mask99999999999.tif", "man_track000.tif"]
        {
            assert_eq!(timepoint(name, "mask"), None, "{name}");
        }
    }
}
