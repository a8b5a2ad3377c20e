//! Tables of spots as comma-separated values: for napari and Mastodon.

use std::{io::Write, path::Path};

use elephant_fs::write_atomic;
use elephant_types::TaskContext;

use crate::{ExportError, TrackedMovie, movie::mean_radius_um};

/// Writes the tracks for napari: a line for each spot, sorted by track and timepoint, with `track_id`, `t`, `z`, `y`, `x`
/// (micrometres), the spot's number `id`, the track and spot that it comes from, `parent_track_id` and `parent_id` (−1 for
/// none), `radius` and `quality`. The first five columns are the data of a tracks layer; its graph follows from
/// `parent_track_id`.
///
/// # Errors
/// For an invalid movie, a full disk, and when cancelled; an earlier file is unchanged then.
pub fn write_napari(movie: &TrackedMovie<'_>, path: &Path, task: &TaskContext) -> Result<(), ExportError> {
    movie.check()?;
    task.check()?;
    let tracks = movie.lineage.tracks();
    write_atomic(path, |out| {
        writeln!(out, "track_id,t,z,y,x,id,parent_track_id,parent_id,radius,quality")?;
        for track in tracks.iter() {
            let parent_track = track.parent.map_or(-1, |parent| i64::from(parent.get()));
            for &id in track.spots {
                let spot = &movie.spots[id.index()];
                let [z, y, x] = spot.center_um;
                let radius = mean_radius_um(&spot.covariance_um2, movie.dims);
                let parent = movie.lineage.parent(id).map_or(-1, |parent| i64::from(parent.0));
                let (t, quality) = (spot.t, spot.quality);
                writeln!(out, "{},{t},{z},{y},{x},{id},{parent_track},{parent},{radius},{quality}", track.id)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Writes the spots for Mastodon's *File › Import › CSV Importer*: a line for each spot, with `x`, `y`, `z` in micrometres,
/// `frame`, `id`, `parent` (−1 for none), `radius`, `quality`, `label` and `tag`. The importer does not know quotes: commas,
/// quotes and control characters in labels and tags become blanks.
///
/// Mastodon makes a ball of each spot. Give it the covariance through GEFF instead.
///
/// # Errors
/// For an invalid movie, a full disk, and when cancelled; an earlier file is unchanged then.
pub fn write_mastodon(movie: &TrackedMovie<'_>, path: &Path, task: &TaskContext) -> Result<(), ExportError> {
    movie.check()?;
    task.check()?;
    let plain = |text: &str| -> String {
        let plain = text.chars().map(|c| if c.is_control() || matches!(c, ',' | '"' | '\'' | '\\') { ' ' } else { c });
        plain.collect::<String>().trim().to_owned()
    };
    write_atomic(path, |out| {
        let tag_column = if movie.tags.is_some() { ",tag" } else { "" };
        writeln!(out, "x,y,z,frame,id,parent,radius,quality,label{tag_column}")?;
        for (id, spot) in movie.numbered() {
            let [z, y, x] = spot.center_um;
            let radius = mean_radius_um(&spot.covariance_um2, movie.dims);
            let parent = movie.lineage.parent(id).map_or(-1, |parent| i64::from(parent.0));
            let label = plain(&movie.name_of(id));
            write!(out, "{x},{y},{z},{},{id},{parent},{radius},{},{label}", spot.t, spot.quality)?;
            match movie.tags {
                Some(tags) => writeln!(out, ",{}", plain(&tags[id.index()]))?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    })?;
    Ok(())
}
