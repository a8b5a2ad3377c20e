//! Scores of label images with a track table, read one frame at a time.

use std::collections::HashMap;

use elephant_types::{TaskContext, TrackRow, VoxelSize};

use crate::{
    Report, ScoreError, SourceError,
    error::Input,
    graph::{Cell, Comparison, Graph, Matches, NONE, TrackInfo, some},
    options::ScoreOptions,
    overlap::{self, FrameOverlap, MOST_PAIRS, Segment},
    spots::{MOST_CELLS, MOST_FRAMES},
};

/// An image whose values are labels of cells; 0 is the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    /// Its size (z, y, x); one plane for images in 2-D.
    pub shape: [usize; 3],
    /// The labels in C order.
    pub labels: Vec<u32>,
}

/// The label images of a movie, each read when it is needed.
pub trait LabelFrames: Sync {
    /// The number of frames.
    fn count(&self) -> usize;

    /// The name of a frame's image for messages, such as its file name.
    fn name(&self, frame: usize) -> String;

    /// Reads a frame.
    ///
    /// # Errors
    /// Whatever the source says.
    fn read(&self, frame: usize) -> Result<LabelImage, SourceError>;
}

/// A movie of label images whose labels are tracks.
#[derive(Clone, Copy)]
pub struct LabelMovie<'a> {
    /// The images.
    pub frames: &'a dyn LabelFrames,
    /// The tracks. Every label of an image has a row for its frame, and a track has voxels in all of its frames; the
    /// ground truth's tracks may have gaps between their first and last frames.
    pub rows: &'a [TrackRow],
    /// The name of the table for messages, such as its file name.
    pub table: &'a str,
}

/// Images of single frames or planes with the exact outlines of cells; other labels than the tracks'.
pub trait SegmentationFrames: Sync {
    /// The number of images.
    fn count(&self) -> usize;

    /// The frame of an image and, if it is a single plane of a volume, the plane.
    fn position(&self, image: usize) -> (usize, Option<usize>);

    /// The name of an image for messages.
    fn name(&self, image: usize) -> String;

    /// Reads an image.
    ///
    /// # Errors
    /// Whatever the source says.
    fn read(&self, image: usize) -> Result<LabelImage, SourceError>;
}

/// What SEG is computed from.
#[derive(Clone, Copy)]
pub enum Segmentation<'a> {
    /// Nothing; there is no SEG.
    None,
    /// The ground truth's tracking images, where these have the cells' outlines and not only markers.
    Tracking,
    /// Images of their own.
    Frames(&'a dyn SegmentationFrames),
}

/// Scores label images against those of a ground truth. Needs memory for the images of one frame.
///
/// # Errors
/// [`ScoreError`] if the movies have different numbers of frames or sizes, tables and images contradict each other or
/// themselves, a frame cannot be read, and when `context` is cancelled.
pub fn score_labels(
    reference: &LabelMovie<'_>,
    result: &LabelMovie<'_>,
    segmentation: Segmentation<'_>,
    voxel_size: VoxelSize,
    options: &ScoreOptions,
    context: &TaskContext,
) -> Result<Report, ScoreError> {
    options.validate()?;
    let frames = reference.frames.count();
    if result.frames.count() != frames {
        return Err(ScoreError::DifferentFrames { result: result.frames.count(), reference: frames });
    }
    if frames > MOST_FRAMES {
        let (input, remedy) = (Input::Reference, "split the movie");
        return Err(ScoreError::TooMany { input, what: "frames", most: MOST_FRAMES, remedy });
    }
    let mut truth = Side::new(reference, Input::Reference, frames, voxel_size)?;
    let mut found = Side::new(result, Input::Result, frames, voxel_size)?;
    let mut seg = Seg::new(segmentation, frames)?;
    let mut of_reference = Vec::new();
    for frame in 0..frames {
        context.check()?;
        let (image, other) = rayon::join(|| truth.read(frame), || found.read(frame));
        let (image, other) = (image?, other?);
        if image.shape != other.shape {
            return Err(ScoreError::DifferentShapes {
                frame,
                result: other.shape,
                reference: image.shape,
                result_name: result.frames.name(frame),
                reference_name: reference.frames.name(frame),
            });
        }
        let overlap = compared(&image, &other.labels, Input::Reference)?;
        drop(image);
        seg.add_frame(frame, &other, &overlap)?;
        drop(other);
        let result_start = found.cells.len() as u32;
        truth.add_frame(frame, &overlap.reference)?;
        found.add_frame(frame, &overlap.result)?;
        let start = of_reference.len();
        of_reference.resize(truth.cells.len(), NONE);
        for one in &overlap.matches {
            of_reference[start + one.reference as usize] = result_start + one.result;
        }
        context.report(frame as u64 + 1, frames as u64);
    }
    let (reference, result) = (truth.finish(), found.finish());
    let matches = Matches::new(of_reference, result.len());
    Ok(Report::new(&Comparison { reference, result, matches }, seg.score(), options))
}

fn compared(image: &LabelImage, other: &[u32], input: Input) -> Result<FrameOverlap, ScoreError> {
    overlap::compare(image, other).ok_or(ScoreError::TooMany {
        input,
        what: "pairs of overlapping labels in a frame",
        most: MOST_PAIRS,
        remedy: "check that the images have labels, not intensities",
    })
}

/// Checks the size that a source gives.
fn checked(image: LabelImage, name: impl FnOnce() -> String) -> Result<LabelImage, ScoreError> {
    let voxels = image.shape.iter().try_fold(1_usize, |product, &edge| product.checked_mul(edge));
    if voxels == Some(image.labels.len()) {
        return Ok(image);
    }
    Err(ScoreError::InvalidImage { name: name(), labels: image.labels.len(), shape: image.shape })
}

/// One of the two movies, as far as it has been read.
struct Side<'a> {
    movie: &'a LabelMovie<'a>,
    input: Input,
    voxel_size: [f64; 3],
    /// The rows, sorted by label.
    rows: Vec<TrackRow>,
    table: Vec<TrackInfo>,
    index: HashMap<u32, u32>,
    /// Tracks in the order of their begins, and how many have begun.
    by_begin: Vec<u32>,
    begun: usize,
    /// Tracks that have begun and not ended.
    active: Vec<u32>,
    frame_starts: Vec<u32>,
    cells: Vec<Cell>,
    tracks: Vec<u32>,
    /// For each track its last cell.
    last: Vec<u32>,
}

impl<'a> Side<'a> {
    fn new(movie: &'a LabelMovie<'a>, input: Input, frames: usize, voxel_size: VoxelSize) -> Result<Self, ScoreError> {
        let mut rows = movie.rows.to_vec();
        rows.sort_by_key(|row| row.id);
        let invalid =
            |row: TrackRow, problem| ScoreError::InvalidRow { input, table: movie.table.to_owned(), row, problem };
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(invalid(pair[1], format!("there is another row for track {}", pair[0].id)));
        }
        let index = crate::graph::index_of(rows.iter().map(|row| row.id.get()));
        let mut table = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.end < row.begin {
                return Err(invalid(*row, "the track ends before it begins".to_owned()));
            }
            if row.end as usize >= frames {
                let problem = format!("the movie has only {frames} frames, numbered from 0");
                return Err(invalid(*row, problem));
            }
            let mut parent = NONE;
            if let Some(id) = row.parent {
                let Some(&found) = index.get(&id.get()) else {
                    return Err(invalid(*row, format!("its parent, track {id}, has no row")));
                };
                if rows[found as usize].end >= row.begin {
                    return Err(invalid(*row, format!("its parent, track {id}, does not end before it begins")));
                }
                parent = found;
            }
            table.push(TrackInfo { begin: row.begin, end: row.end, parent });
        }
        let mut by_begin: Vec<u32> = (0..rows.len() as u32).collect();
        by_begin.sort_by_key(|&track| table[track as usize].begin);
        Ok(Self {
            movie,
            input,
            voxel_size: voxel_size.zyx(),
            last: vec![NONE; rows.len()],
            rows,
            table,
            index,
            by_begin,
            begun: 0,
            active: Vec::new(),
            frame_starts: vec![0],
            cells: Vec::new(),
            tracks: Vec::new(),
        })
    }

    fn read(&self, frame: usize) -> Result<LabelImage, ScoreError> {
        let image = self.movie.frames.read(frame);
        let image = image.map_err(|source| ScoreError::Frame { input: self.input, frame, source })?;
        checked(image, || self.movie.frames.name(frame))
    }

    /// Adds the cells of a frame, sorted by label, and compares them with the table.
    fn add_frame(&mut self, frame: usize, labels: &[Segment]) -> Result<(), ScoreError> {
        let now = frame as u32;
        if self.cells.len() + labels.len() > MOST_CELLS {
            let (input, remedy) = (self.input, "split the movie");
            return Err(ScoreError::TooMany { input, what: "cells", most: MOST_CELLS, remedy });
        }
        for one in labels {
            let track = self.index.get(&one.label).map(|&track| (track, self.table[track as usize]));
            let Some((track, row)) = track.filter(|(_, row)| (row.begin..=row.end).contains(&now)) else {
                return Err(ScoreError::LabelWithoutRow {
                    image: self.movie.frames.name(frame),
                    frame,
                    label: one.label,
                    table: self.movie.table.to_owned(),
                });
            };
            let parent = match some(self.last[track as usize]) {
                // A gap in the ground truth has no link.
                Some(last) if self.cells[last].frame + 1 == now => last as u32,
                Some(_) => NONE,
                None => some(row.parent).map_or(NONE, |parent| self.last[parent]),
            };
            self.last[track as usize] = self.cells.len() as u32;
            let place = std::array::from_fn(|axis| one.centre[axis] * self.voxel_size[axis]);
            self.cells.push(Cell { frame: now, place, id: one.label, parent });
            self.tracks.push(track);
        }
        self.frame_starts.push(self.cells.len() as u32);
        self.check_tracks(frame)
    }

    /// Checks that the tracks of the table are in a frame that was just added.
    fn check_tracks(&mut self, frame: usize) -> Result<(), ScoreError> {
        let now = frame as u32;
        while let Some(&track) = self.by_begin.get(self.begun).filter(|&&track| self.table[track as usize].begin <= now)
        {
            self.active.push(track);
            self.begun += 1;
        }
        for &track in &self.active {
            let row = self.table[track as usize];
            let is_here = some(self.last[track as usize]).is_some_and(|cell| self.cells[cell].frame == now);
            let may_be_missing = self.input == Input::Reference && now != row.begin && now != row.end;
            if !is_here && !may_be_missing {
                return Err(ScoreError::RowWithoutLabel {
                    image: self.movie.frames.name(frame),
                    frame,
                    label: self.rows[track as usize].id.get(),
                    table: self.movie.table.to_owned(),
                });
            }
        }
        let table = &self.table;
        self.active.retain(|&track| table[track as usize].end > now);
        Ok(())
    }

    fn finish(self) -> Graph {
        let parents = self.cells.iter().map(|cell| cell.parent).collect();
        Graph::new(self.frame_starts, &self.cells, parents, self.tracks, self.table)
    }
}

/// SEG, as far as frames have been read.
struct Seg<'a> {
    source: Segmentation<'a>,
    /// (frame, image), sorted.
    images: Vec<(usize, usize)>,
    sum: f64,
    cells: usize,
}

impl<'a> Seg<'a> {
    fn new(source: Segmentation<'a>, frames: usize) -> Result<Self, ScoreError> {
        let mut images = Vec::new();
        if let Segmentation::Frames(source) = source {
            images.extend((0..source.count()).map(|image| (source.position(image).0, image)));
            images.sort_unstable();
            if let Some(&(frame, image)) = images.last().filter(|one| one.0 >= frames) {
                return Err(ScoreError::NoSuchFrame { name: source.name(image), frame, plane: None });
            }
        }
        Ok(Self { source, images, sum: 0.0, cells: 0 })
    }

    fn add(&mut self, overlap: &FrameOverlap) {
        self.cells += overlap.reference.len();
        self.sum += overlap.matches.iter().map(|one| one.overlap).sum::<f64>();
    }

    /// Adds a frame of the result; `tracking` is its overlap with the tracking images.
    fn add_frame(&mut self, frame: usize, result: &LabelImage, tracking: &FrameOverlap) -> Result<(), ScoreError> {
        let source = match self.source {
            Segmentation::None => return Ok(()),
            Segmentation::Tracking => {
                self.add(tracking);
                return Ok(());
            }
            Segmentation::Frames(source) => source,
        };
        let first = self.images.partition_point(|one| one.0 < frame);
        let last = self.images.partition_point(|one| one.0 <= frame);
        for at in first..last {
            let image = self.images[at].1;
            let name = || source.name(image);
            let outlines = source.read(image);
            let outlines = outlines.map_err(|source| ScoreError::Frame { input: Input::Reference, frame, source })?;
            let outlines = checked(outlines, name)?;
            let [planes, height, width] = result.shape;
            let plane = source.position(image).1;
            let (shape, voxels) = match plane {
                Some(plane) if plane >= planes => {
                    return Err(ScoreError::NoSuchFrame { name: name(), frame, plane: Some(plane) });
                }
                Some(plane) => {
                    let voxels = height * width;
                    ([1, height, width], &result.labels[plane * voxels..(plane + 1) * voxels])
                }
                None => (result.shape, &result.labels[..]),
            };
            if outlines.shape != shape {
                return Err(ScoreError::DifferentShapes {
                    frame,
                    result: shape,
                    reference: outlines.shape,
                    result_name: "the result".to_owned(),
                    reference_name: name(),
                });
            }
            self.add(&compared(&outlines, voxels, Input::Reference)?);
        }
        Ok(())
    }

    fn score(&self) -> Option<f64> {
        (self.cells > 0).then(|| self.sum / self.cells as f64)
    }
}
