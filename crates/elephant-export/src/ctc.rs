//! Results for the Cell Tracking Challenge: label images and a track table.

use std::{fs, path::Path};

use elephant_ctc::{mask_name, write_tracks};
use elephant_fs::{FsError, StagingDir, write_atomic};
use elephant_types::{TaskContext, TrackId, TrackRow};

use crate::{ExportError, MaskSpot, Masks, TrackedMovie};

/// The track table.
const TABLE: &str = "res_track.txt";

/// The tracks of a lineage as the format wants them: each has a cell at every timepoint from its first to its last. A track
/// that skips timepoints becomes several, each the parent of the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtcTracks {
    /// For each spot the number of its track, from 1; 0 for spots that were left out.
    pub of_spots: Vec<u32>,
    /// The tracks in the order of their numbers.
    pub rows: Vec<TrackRow>,
}

impl CtcTracks {
    /// Cuts a movie's lineage into tracks, without the spots for which `is_drawn` is false: there a track is interrupted as
    /// where it skips a timepoint.
    pub fn new(movie: &TrackedMovie<'_>, is_drawn: impl Fn(usize) -> bool) -> Self {
        let lineage = movie.lineage;
        let mut of_spots = vec![0; lineage.len()];
        // The first spot of each row, and the row before it in the same track.
        let (mut rows, mut firsts): (Vec<TrackRow>, Vec<_>) = (Vec::new(), Vec::new());
        for track in lineage.tracks().iter() {
            let mut before: Option<TrackId> = None;
            for &spot in track.spots.iter().filter(|spot| is_drawn(spot.index())) {
                let t = lineage.timepoint(spot);
                let open = before.and_then(|id| rows.get_mut(id.index()));
                match open {
                    Some(row) if row.end + 1 == t => row.end = t,
                    _ => {
                        let Some(id) = TrackId::new(rows.len() as u32 + 1) else { continue };
                        rows.push(TrackRow { id, begin: t, end: t, parent: before });
                        firsts.push(spot);
                        before = Some(id);
                    }
                }
                of_spots[spot.index()] = rows.len() as u32;
            }
        }
        // Mothers may have larger numbers than their daughters.
        for (row, first) in rows.iter_mut().zip(firsts) {
            if row.parent.is_none() {
                let mut drawn = std::iter::successors(lineage.parent(first), |&spot| lineage.parent(spot));
                row.parent = drawn.find_map(|spot| TrackId::new(of_spots[spot.index()]));
            }
        }
        Self { of_spots, rows }
    }
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtcSummary {
    /// The number of images.
    pub frames: usize,
    /// The number of tracks.
    pub tracks: usize,
    /// How many spots are outside the image or have no size, and were left out.
    pub skipped: usize,
}

/// Writes `maskNNN.tif` for every timepoint and `res_track.txt` into `folder`, which is created if it is missing. An earlier
/// export of no more timepoints is replaced. Spots that have no voxel in the image are left out, and their tracks interrupted.
///
/// # Errors
/// For an invalid movie or one of no timepoint, more than 65,535 tracks, a folder with images that would not be replaced, a
/// full disk, and when cancelled. The folder is unchanged then.
pub fn write_ctc(movie: &TrackedMovie<'_>, folder: &Path, task: &TaskContext) -> Result<CtcSummary, ExportError> {
    movie.check()?;
    task.check()?;
    let [frames, depth, height, width] = movie.shape;
    let Some(last) = frames.checked_sub(1).and_then(|last| u32::try_from(last).ok()) else {
        return Err(ExportError::InvalidMovie(format!("it has {frames} timepoints")));
    };
    let mut masks = Masks {
        shape: [depth, height, width],
        voxel_size: movie.voxel_size,
        dims: movie.dims,
        timepoints: [0, last],
        spots: Vec::new(),
    };
    let is_drawn: Vec<bool> = movie.spots.iter().map(|spot| masks.shows(spot.center_um, spot.covariance_um2)).collect();
    let tracks = CtcTracks::new(movie, |spot| is_drawn[spot]);
    if tracks.rows.len() > usize::from(u16::MAX) {
        return Err(ExportError::TooManyTracks { tracks: tracks.rows.len() });
    }
    let drawn = movie.spots.iter().zip(&tracks.of_spots).filter(|(_, label)| **label > 0);
    masks.spots = drawn
        .map(|(spot, &label)| MaskSpot {
            t: spot.t as u32,
            center_um: spot.center_um,
            covariance_um2: spot.covariance_um2,
            label: label as u16,
        })
        .collect();
    let names: Vec<String> = (0..=last).map(|t| mask_name(t, last)).chain([TABLE.to_owned()]).collect();
    fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
    let staging = StagingDir::begin(folder, "writing a result for the Cell Tracking Challenge")?;
    refuse_other_masks(folder, &names)?;
    masks.draw_each(task, |name, stack| Ok(write_atomic(&staging.path().join(name), |out| stack.write(out))?))?;
    write_atomic(&staging.path().join(TABLE), |out| write_tracks(tracks.rows.iter().copied(), out))?;
    task.check()?;
    staging.publish(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let skipped = is_drawn.iter().filter(|is_drawn| !**is_drawn).count();
    Ok(CtcSummary { frames, tracks: tracks.rows.len(), skipped })
}

/// Images that stay beside the new ones would belong to them.
fn refuse_other_masks(folder: &Path, names: &[String]) -> Result<(), ExportError> {
    for entry in fs::read_dir(folder).map_err(FsError::io("list", folder))? {
        let name = entry.map_err(FsError::io("list", folder))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_image = name.starts_with("mask") || name.starts_with("man_track");
        if is_image && names.iter().all(|new| new != name) {
            return Err(ExportError::Occupied { path: folder.to_owned(), name: name.to_owned() });
        }
    }
    Ok(())
}
