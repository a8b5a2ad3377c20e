//! Movies from files of other programs.

use std::{collections::HashMap, path::Path};

use elephant_ctc::CtcFolder;
use elephant_image::{Dims, Moments, Run};
use elephant_types::{Lineage, LineageError, Link, Spot, SpotId, TaskContext, TrackRow, VoxelSize};
use ndarray::{Array3, Axis};
use rayon::prelude::*;

use crate::{ExportError, ImportedMovie};

/// Makes spots and lineage from a folder of the Cell Tracking Challenge (see [`CtcFolder::open`]): a spot for each label of
/// each image, with the ellipsoid that has its first and second moments. Images are read one after the other.
///
/// Spots are numbered by timepoint and, within it, by label. A track that has a gap in the images skips timepoints; one whose
/// parent has no other child continues it. The quality of each spot is 1.
///
/// # Errors
/// When a file cannot be read; for a label without a track or outside its track's time, and a parent that is missing, later
/// than its child or without voxels; and when cancelled.
pub fn read_ctc(folder: &Path, voxel_size: VoxelSize, task: &TaskContext) -> Result<ImportedMovie, ExportError> {
    let movie = CtcFolder::open(folder)?;
    let [depth, height, width] = movie.shape();
    let dims = if depth == 1 { Dims::TwoD } else { Dims::ThreeD };
    let rows: HashMap<u32, &TrackRow> = movie.rows().iter().map(|row| (row.id.get(), row)).collect();
    let invalid = |reason: String| ExportError::InvalidFile {
        path: movie.path().to_owned(),
        format: "a movie of the Cell Tracking Challenge",
        reason,
    };
    let (mut spots, mut numbers, mut timepoints) = (Vec::new(), Vec::new(), Vec::new());
    let mut links = Vec::new();
    // The latest spot of each track.
    let mut latest: HashMap<u32, SpotId> = HashMap::new();
    let mut firsts = Vec::new();
    for t in 0..movie.frames() {
        task.check()?;
        let mut regions: Vec<(u32, Moments)> = moments_by_label(&movie.frame(t)?).into_iter().collect();
        regions.sort_unstable_by_key(|(label, _)| *label);
        for (label, moments) in regions {
            let row = rows
                .get(&label)
                .ok_or_else(|| invalid(format!("track {label} of timepoint {t} has no line in the table")))?;
            if !(row.begin..=row.end).contains(&(t as u32)) {
                return Err(invalid(format!("track {label} has voxels at timepoint {t}, but its line is \"{row}\"")));
            }
            if spots.len() >= Lineage::MOST_SPOTS as usize {
                let source = LineageError::TooManySpots { most: Lineage::MOST_SPOTS };
                return Err(ExportError::Lineage { path: movie.path().to_owned(), source });
            }
            let target = SpotId(spots.len() as u32);
            match latest.insert(label, target) {
                Some(source) => links.push(Link { source, target }),
                None => firsts.push((target, **row)),
            }
            spots.push(spot_of(&moments, t, voxel_size, dims));
            numbers.push(u64::from(label));
            timepoints.push(t as u32);
        }
        task.report(t as u64 + 1, movie.frames() as u64);
    }
    for (target, row) in firsts {
        let Some(parent) = row.parent else { continue };
        let known =
            rows.get(&parent.get()).ok_or_else(|| invalid(format!("the parent in the line \"{row}\" has no line")))?;
        let Some(&source) = latest.get(&parent.get()) else {
            return Err(invalid(format!("the parent in the line \"{row}\" has no voxels")));
        };
        if known.end >= row.begin {
            return Err(invalid(format!(
                "the parent in the line \"{row}\" does not end before it, its line is \"{known}\""
            )));
        }
        links.push(Link { source, target });
    }
    let lineage = Lineage::new(timepoints, links)
        .map_err(|source| ExportError::Lineage { path: movie.path().to_owned(), source })?;
    let shape = Some([movie.frames(), depth, height, width]);
    Ok(ImportedMovie { spots, lineage, numbers, voxel_size: Some(voxel_size), shape, dims })
}

/// The moments of each label but 0.
fn moments_by_label(labels: &Array3<u32>) -> HashMap<u32, Moments> {
    let planes: Vec<_> = labels.axis_iter(Axis(0)).enumerate().collect();
    let merge = |mut all: HashMap<u32, Moments>, (label, moments): (u32, Moments)| {
        all.entry(label).and_modify(|sum| sum.merge(&moments)).or_insert(moments);
        all
    };
    planes
        .into_par_iter()
        .map(|(z, plane)| {
            let mut found = HashMap::new();
            for (y, row) in plane.axis_iter(Axis(0)).enumerate() {
                let mut x = 0;
                while x < row.len() {
                    let (label, start) = (row[x], x);
                    while x < row.len() && row[x] == label {
                        x += 1;
                    }
                    if label > 0 {
                        found = merge(found, (label, Moments::of_run(Run::new(z, y, start..x))));
                    }
                }
            }
            found
        })
        // Moments are exact, so that the order of their summation does not matter.
        .reduce(HashMap::new, |all, more| more.into_iter().fold(all, merge))
}

/// The solid ellipsoid with these moments. Each voxel counts as a box, so that one voxel has a size too.
fn spot_of(moments: &Moments, t: usize, voxel_size: VoxelSize, dims: Dims) -> Spot {
    let voxel = voxel_size.zyx();
    // The mean square along an axis of a solid ball of radius r is r²/5, and that of a disc r²/4.
    let factor = match dims {
        Dims::ThreeD => 5.0,
        Dims::TwoD => 4.0,
    };
    let (centroid, covariance) = (moments.centroid(), moments.covariance());
    let covariance_um2 = std::array::from_fn(|a| {
        std::array::from_fn(|b| {
            let of_a_box = if a == b { 1.0 / 12.0 } else { 0.0 };
            (covariance[a][b] + of_a_box) * factor * voxel[a] * voxel[b]
        })
    });
    Spot { t, center_um: std::array::from_fn(|axis| centroid[axis] * voxel[axis]), covariance_um2, quality: 1.0 }
}
