//! Tables of spots with their parents, as the generator of synthetic movies writes its truth (`spots.csv`).

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use elephant_fs::FsError;
use elephant_image::Dims;
use elephant_types::{Lineage, Link, Spot, SpotId};

use crate::{ExportError, ImportedMovie};

/// The columns that are read: timepoint, the spot's number at its timepoint, the parent's number one timepoint earlier or a
/// negative one, place, and covariance in x, y, z order.
const COLUMNS: [&str; 15] =
    ["t", "id", "parent", "x", "y", "z", "c00", "c01", "c02", "c10", "c11", "c12", "c20", "c21", "c22"];
/// The most bytes of a line.
const LONGEST_LINE: u64 = 1 << 14;
/// The most spots.
const MOST_SPOTS: usize = 1 << 24;

/// Reads a table of comma-separated values with the columns `t`, `id`, `parent`, `x`, `y`, `z` and `c00` to `c22`, in any
/// order and among others: timepoint, number among the spots of its timepoint (or among all), number of the parent one
/// timepoint earlier (negative: none), centre in micrometres, and covariance row by row over x, y, z. Spots keep the order of
/// the lines; the numbers are `id`.
///
/// # Errors
/// When the file cannot be read, a column is missing, a value is not a finite number, two spots have the same timepoint and
/// number, or a parent does not exist.
pub fn read_spot_table(path: &Path) -> Result<ImportedMovie, ExportError> {
    let file = elephant_fs::open_file(path)?;
    let mut lines = Lines { path, reader: BufReader::new(file), number: 0 };
    let header = lines.read()?.ok_or_else(|| lines.invalid("it is empty"))?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let found = names.iter().position(|name| *name == column);
        *place = found.ok_or_else(|| lines.invalid(format!("it has no column {column}")))?;
    }
    let (mut spots, mut numbers, mut parents) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = HashMap::new();
    while let Some(line) = lines.read()? {
        if line.trim().is_empty() {
            continue;
        }
        if spots.len() == MOST_SPOTS {
            return Err(lines.invalid(format!("it has more than {MOST_SPOTS} spots")));
        }
        let words: Vec<&str> = line.split(',').map(str::trim).collect();
        let word = |index: usize| words.get(places[index]).copied().unwrap_or_default();
        let wrong =
            |index: usize, what: &str| lines.invalid(format!("{} is {:?}, not {what}", COLUMNS[index], word(index)));
        let number = |index: usize| {
            let number: Option<f64> = word(index).parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| wrong(index, "a finite number"))
        };
        let t: u32 = word(0).parse().map_err(|_| wrong(0, "a timepoint"))?;
        let id: u64 = word(1).parse().map_err(|_| wrong(1, "a number of a spot"))?;
        let parent: i64 = word(2).parse().map_err(|_| wrong(2, "a number of a spot or -1"))?;
        let mut covariance_um2 = [[0.0; 3]; 3];
        for (index, row) in covariance_um2.iter_mut().enumerate() {
            for (column, entry) in row.iter_mut().enumerate() {
                *entry = number(6 + 3 * (2 - index) + 2 - column)?;
            }
        }
        if known.insert((t, id), SpotId(spots.len() as u32)).is_some() {
            return Err(lines.invalid(format!("there is another spot {id} at timepoint {t}")));
        }
        let center_um = [number(5)?, number(4)?, number(3)?];
        spots.push(Spot { t: t as usize, center_um, covariance_um2, quality: 1.0 });
        numbers.push(id);
        parents.push(u64::try_from(parent).ok());
    }
    let mut links = Vec::new();
    for (index, (spot, parent)) in spots.iter().zip(parents).enumerate() {
        let Some(parent) = parent else { continue };
        let earlier = (spot.t as u32).checked_sub(1).and_then(|t| known.get(&(t, parent)));
        let Some(&source) = earlier else {
            let reason =
                format!("the parent {parent} of spot {} at timepoint {} does not exist", numbers[index], spot.t);
            return Err(invalid(path, reason));
        };
        links.push(Link { source, target: SpotId(index as u32) });
    }
    let timepoints = spots.iter().map(|spot| spot.t as u32).collect();
    let lineage =
        Lineage::new(timepoints, links).map_err(|source| ExportError::Lineage { path: path.to_owned(), source })?;
    Ok(ImportedMovie { spots, lineage, numbers, voxel_size: None, shape: None, dims: Dims::ThreeD })
}

/// The lines of a file.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// The number of the current line, from 1.
    number: usize,
}

impl Lines<'_> {
    /// The next one; `None` behind the last.
    fn read(&mut self) -> Result<Option<String>, ExportError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut line).map_err(FsError::io("read", self.path))?;
        self.number += 1;
        if read as u64 == LONGEST_LINE {
            return Err(self.invalid("it is too long"));
        }
        let line = String::from_utf8(line).map_err(|_| self.invalid("it is not text"))?;
        Ok((read > 0).then_some(line))
    }

    fn invalid(&self, reason: impl Into<String>) -> ExportError {
        invalid(self.path, format!("line {}: {}", self.number, reason.into()))
    }
}

fn invalid(path: &Path, reason: String) -> ExportError {
    ExportError::InvalidFile { path: path.to_owned(), format: "a table of spots", reason }
}
