//! A movie with its ground truth, as files.

use std::{
    io::{self, Write},
    path::Path,
};

use elephant_bdv::BdvWriter;
use elephant_ctc::{LabelStack, PlaneEncoder};
use elephant_fs::{StagingDir, write_atomic};
use elephant_types::{FileName, SpotId, TaskContext, TrackId};
use ndarray::Axis;
use serde::Serialize;

use crate::{Embryo, EmbryoOptions, Frame, SynthError};

/// Grows an embryo and writes it into `dir`, replacing an earlier movie of the same name:
///
/// - `NAME.h5` and `NAME.xml`: the movie, for BigDataViewer;
/// - `TRA/maskNNN.tif` and `TRA/man_track.txt`: nuclei and lineage in the format of the Cell Tracking Challenge;
/// - `spots.json`: nuclei as ellipsoids, in x, y, z order;
/// - `README.txt`: what these are.
///
/// The files appear together; whoever finds the `.xml` finds a complete movie.
///
/// # Errors
/// For invalid options, a nested name, a full disk, a directory that another task writes to, and when cancelled.
pub fn write_movie(dir: &Path, name: &FileName, options: &EmbryoOptions, task: &TaskContext) -> Result<(), SynthError> {
    let name = name.as_str();
    if name.contains('/') {
        return Err(SynthError::NestedName { name: name.to_owned() });
    }
    let embryo = Embryo::grow(options.clone(), task.cancel_token())?;
    let staging = StagingDir::begin(dir, "writing a synthetic movie")?;
    let staged = |file: &str| staging.path().join(file);
    let h5 = format!("{name}.h5");
    write_frames(&embryo, &staged(&h5), &staged("TRA"), task)?;
    write_atomic(&staged("TRA/man_track.txt"), |out| write_tracks(&embryo, out))?;
    write_atomic(&staged("spots.json"), |out| Ok(serde_json::to_writer(out, &SpotsFile::new(&embryo))?))?;
    write_atomic(&staged("README.txt"), |out| out.write_all(readme(&embryo, name).as_bytes()))?;
    task.check()?;
    staging.publish(&["TRA", "spots.json", "README.txt", &h5, &format!("{name}.xml")])?;
    Ok(())
}

/// Writes image and mask of each timepoint while the next one is rendered.
fn write_frames(embryo: &Embryo, h5: &Path, masks: &Path, task: &TaskContext) -> Result<(), SynthError> {
    let options = embryo.options();
    let mut writer = BdvWriter::create(h5, options.shape, options.voxel_size)?;
    let mut frame = embryo.render(0);
    for t in 0..options.timepoints {
        task.check()?;
        let write = || -> Result<(), SynthError> {
            writer.append(frame.image.view())?;
            write_atomic(&masks.join(format!("mask{t:03}.tif")), |out| write_mask(&frame, out))?;
            Ok(())
        };
        let (written, next) = rayon::join(write, || (t + 1 < options.timepoints).then(|| embryo.render(t + 1)));
        written?;
        task.report(t as u64 + 1, options.timepoints as u64);
        if let Some(next) = next {
            frame = next;
        }
    }
    writer.finish()?;
    Ok(())
}

/// A TIFF with one page for each plane.
fn write_mask(frame: &Frame, out: &mut impl Write) -> io::Result<()> {
    let (depth, height, width) = frame.labels.dim();
    let mut stack = LabelStack::new([depth, height, width]).map_err(io::Error::other)?;
    let mut encoder = PlaneEncoder::new();
    for plane in frame.labels.axis_iter(Axis(0)) {
        let values: Vec<u16> = plane.iter().copied().collect();
        stack.push(encoder.encode(&values));
    }
    stack.write(out)
}

/// Writes a line for each track: number, first and last timepoint, number of the mother or 0.
fn write_tracks(embryo: &Embryo, out: &mut impl Write) -> io::Result<()> {
    embryo.tracks().rows(embryo.lineage()).try_for_each(|row| writeln!(out, "{row}"))
}

/// The content of `spots.json`.
#[derive(Serialize)]
struct SpotsFile {
    axes: &'static str,
    unit: &'static str,
    spots: Vec<SpotRecord>,
}

/// A nucleus as the ELEPHANT client writes one, in x, y, z order.
#[derive(Serialize)]
struct SpotRecord {
    t: usize,
    id: SpotId,
    track: TrackId,
    parent: Option<SpotId>,
    pos: [f64; 3],
    covariance: [f64; 9],
}

impl SpotsFile {
    fn new(embryo: &Embryo) -> Self {
        let records = |t| {
            embryo.spots(t).zip(embryo.nuclei(t)).map(move |(id, nucleus)| {
                let ([z, y, x], c) = (nucleus.center_um, nucleus.covariance_um2());
                SpotRecord {
                    t,
                    id,
                    track: embryo.tracks().of_spot(id),
                    parent: embryo.lineage().parent(id),
                    pos: [x, y, z],
                    covariance: std::array::from_fn(|i| c[2 - i / 3][2 - i % 3]),
                }
            })
        };
        let spots = (0..embryo.options().timepoints).flat_map(records).collect();
        Self { axes: "x, y, z", unit: "micrometer", spots }
    }
}

fn readme(embryo: &Embryo, name: &str) -> String {
    let options = embryo.options();
    let ([z, y, x], [dz, dy, dx]) = (options.shape, options.voxel_size.zyx());
    let (timepoints, tracks, seed) = (options.timepoints, embryo.tracks().len(), options.seed);
    let (spots, divisions) = (embryo.lineage().len(), embryo.lineage().divisions().count());
    format!(
        "A synthetic embryo, made by elephant-server (seed {seed}).

{timepoints} timepoints, {x} x {y} x {z} voxels (x, y, z) of {dx} x {dy} x {dz} um.
{spots} nuclei in {tracks} tracks, {divisions} divisions.

{name}.h5, {name}.xml  the movie: open the .xml file with BigDataViewer or Mastodon
TRA/maskNNN.tif    where each nucleus is: 16-bit numbers of tracks, one page for each z-plane
TRA/man_track.txt  one line for each track: number, first and last timepoint, mother or 0
spots.json         the nuclei as ellipsoids:
    t           timepoint, from 0
    id          number of the nucleus at this timepoint
    track       number of its track, as in TRA
    parent      id of the nucleus, or its mother, one timepoint earlier; null in the first
    pos         centre (x, y, z) in um; the centre of the first voxel is at 0
    covariance  9 numbers, row by row, axes in x, y, z order, in um^2: the semi-axes are the
                square roots of its eigenvalues, along its eigenvectors

This is the order and meaning of pos and covariance that the ELEPHANT client uses.
"
    )
}

#[cfg(test)]
mod tests {
    use elephant_bdv::{BdvFile, Scale};
    use elephant_types::{CancelToken, Coded, ErrorCode};

    use super::*;
    use crate::Preset;

    fn name() -> FileName {
        "demo".parse().unwrap()
    }

    #[test]
    fn files_hold_the_grown_embryo() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbryoOptions::preset(Preset::Tiny, 4);
        write_movie(folder.path(), &name(), &options, &TaskContext::detached()).unwrap();
        let embryo = Embryo::grow(options.clone(), &CancelToken::default()).unwrap();
        let movie = BdvFile::open(&folder.path().join("demo.xml")).unwrap();
        let spots: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("spots.json")).unwrap()).unwrap();
        for t in 0..options.timepoints {
            let frame = embryo.render(t);
            let mut voxels = vec![0; frame.image.len()];
            let volume = movie.volume(t as u32, 0, 0).unwrap().unwrap();
            volume.read(&options.shape.map(|n| 0..n), &Scale::default(), &mut voxels).unwrap();
            assert_eq!(voxels, frame.image.into_raw_vec_and_offset().0);
            let labels = frame.labels.into_raw_vec_and_offset().0;
            assert_eq!(read_mask(&folder.path().join(format!("TRA/mask{t:03}.tif"))), labels);
            for (id, nucleus) in embryo.spots(t).zip(embryo.nuclei(t)) {
                let spot = &spots["spots"][id.index()];
                assert_eq!((&spot["t"], &spot["id"]), (&t.into(), &id.0.into()));
                assert_eq!(spot["track"], embryo.tracks().of_spot(id).get());
                assert_eq!(spot["parent"].as_u64(), embryo.lineage().parent(id).map(|parent| parent.0.into()));
                // serde_json reads numbers to the last digit but one.
                let near = |found: &serde_json::Value, expected: f64| {
                    assert!((found.as_f64().unwrap() - expected).abs() < 1e-12, "{found} is not {expected}");
                };
                near(&spot["pos"][0], nucleus.center_um[2]);
                near(&spot["covariance"][1], nucleus.covariance_um2()[2][1]);
                near(&spot["covariance"][8], nucleus.covariance_um2()[0][0]);
            }
        }
        let tracks = std::fs::read_to_string(folder.path().join("TRA/man_track.txt")).unwrap();
        assert_eq!(tracks.lines().count(), embryo.tracks().len());
        assert!(tracks.starts_with("1 0 "));
    }

    fn read_mask(path: &Path) -> Vec<u16> {
        elephant_ctc::read_labels(path).unwrap().iter().map(|&label| u16::try_from(label).unwrap()).collect()
    }

    #[test]
    fn the_same_options_give_the_same_bytes() {
        let written = |folder: &Path| {
            let options = EmbryoOptions::preset(Preset::Tiny, 9);
            write_movie(folder, &name(), &options, &TaskContext::detached()).unwrap();
            ["demo.h5", "demo.xml", "spots.json", "README.txt", "TRA/mask001.tif", "TRA/man_track.txt"]
                .map(|file| std::fs::read(folder.join(file)).unwrap())
        };
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = written(a.path());
        assert!(first == written(b.path()));
        // Over an earlier movie as well.
        assert!(first == written(b.path()));
    }

    #[test]
    fn a_cancelled_movie_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancelToken::default();
        let stop = cancel.clone();
        let task = TaskContext::new(cancel, move |progress| {
            if progress.done == 2 {
                stop.cancel();
            }
        });
        let options = EmbryoOptions::preset(Preset::Tiny, 0);
        let error = write_movie(folder.path(), &name(), &options, &task).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"]);
    }

    #[test]
    fn names_with_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbryoOptions::preset(Preset::Tiny, 0);
        let nested = "a/b".parse().unwrap();
        let error = write_movie(folder.path(), &nested, &options, &TaskContext::detached()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}
