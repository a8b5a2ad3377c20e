//! Scores of folders as the Cell Tracking Challenge has them.

use std::path::{Path, PathBuf};

use elephant_ctc::{CtcError, CtcFolder, read_labels};
use elephant_types::{TaskContext, VoxelSize};
use ndarray::Array3;

use crate::{
    LabelFrames, LabelImage, LabelMovie, Report, ScoreError, ScoreOptions, Segmentation, SegmentationFrames,
    SourceError, score_labels,
};

/// Scores a folder of label images and tracks against one of ground truth; both as [`CtcFolder::open`] finds them.
///
/// SEG is computed from the images in the ground truth's folder `SEG`, beside or below its tracking images
/// (`man_segTTT.tif`, or `man_seg_TTT_ZZZ.tif` for a single plane). Without such a folder, `outlines_from_tracks` says
/// whether the tracking images are taken instead.
///
/// # Errors
/// As [`score_labels`], and if a folder or file cannot be read.
pub fn score_folders(
    reference: &Path,
    result: &Path,
    voxel_size: VoxelSize,
    outlines_from_tracks: bool,
    options: &ScoreOptions,
    context: &TaskContext,
) -> Result<Report, ScoreError> {
    let (truth, found) = (Movie(CtcFolder::open(reference)?), Movie(CtcFolder::open(result)?));
    let outlines = Outlines::find(reference, truth.0.path())?;
    let segmentation = match &outlines {
        Some(outlines) => Segmentation::Frames(outlines),
        None if outlines_from_tracks => Segmentation::Tracking,
        None => Segmentation::None,
    };
    let (truth_table, found_table) = (truth.table(), found.table());
    let reference = LabelMovie { frames: &truth, rows: truth.0.rows(), table: &truth_table };
    let result = LabelMovie { frames: &found, rows: found.0.rows(), table: &found_table };
    score_labels(&reference, &result, segmentation, voxel_size, options, context)
}

fn image_of(labels: Array3<u32>) -> LabelImage {
    let (planes, height, width) = labels.dim();
    LabelImage { shape: [planes, height, width], labels: labels.into_iter().collect() }
}

struct Movie(CtcFolder);

impl Movie {
    fn table(&self) -> String {
        format!("the track table in {}", self.0.path().display())
    }
}

impl LabelFrames for Movie {
    fn count(&self) -> usize {
        self.0.frames()
    }

    fn name(&self, frame: usize) -> String {
        format!("image {frame} in {}", self.0.path().display())
    }

    fn read(&self, frame: usize) -> Result<LabelImage, SourceError> {
        Ok(image_of(self.0.frame(frame)?))
    }
}

/// The images in a folder `SEG`.
struct Outlines(Vec<(PathBuf, usize, Option<usize>)>);

impl Outlines {
    /// The folder `SEG` in the ground truth's folder, or beside its tracking images.
    fn find(reference: &Path, tracking: &Path) -> Result<Option<Self>, ScoreError> {
        let beside = tracking.parent().filter(|_| tracking.ends_with("TRA")).map(|parent| parent.join("SEG"));
        for folder in [Some(reference.join("SEG")), beside].into_iter().flatten() {
            let unreadable = |error: std::io::Error| ScoreError::Outlines {
                path: folder.clone(),
                reason: format!("it cannot be listed: {error}"),
            };
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(error)),
            };
            let mut images = Vec::new();
            for entry in entries {
                let path = entry.map_err(unreadable)?.path();
                if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("tif")) {
                    let (frame, plane) = position(&path).ok_or_else(|| ScoreError::Outlines {
                        path: path.clone(),
                        reason:
                            "its name must be man_segTTT.tif or man_seg_TTT_ZZZ.tif, with the numbers of the frame \
                                 and the plane"
                                .to_owned(),
                    })?;
                    images.push((path, frame, plane));
                }
            }
            if !images.is_empty() {
                images.sort();
                return Ok(Some(Self(images)));
            }
        }
        Ok(None)
    }
}

/// Frame and plane in the name of an image of outlines.
fn position(path: &Path) -> Option<(usize, Option<usize>)> {
    let numbers = path.file_stem()?.to_str()?.strip_prefix("man_seg")?;
    let mut numbers = numbers.strip_prefix('_').unwrap_or(numbers).split('_');
    let frame = numbers.next()?.parse().ok()?;
    let plane = numbers.next().map(str::parse).transpose().ok()?;
    numbers.next().is_none().then_some((frame, plane))
}

impl SegmentationFrames for Outlines {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn position(&self, image: usize) -> (usize, Option<usize>) {
        (self.0[image].1, self.0[image].2)
    }

    fn name(&self, image: usize) -> String {
        self.0[image].0.display().to_string()
    }

    fn read(&self, image: usize) -> Result<LabelImage, SourceError> {
        Ok(image_of(read_labels(&self.0[image].0).map_err(|error: CtcError| error)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_outlines_are_read() {
        let of = |name: &str| position(Path::new(name));
        assert_eq!(of("SEG/man_seg012.tif"), Some((12, None)));
        assert_eq!(of("SEG/man_seg_012_003.tif"), Some((12, Some(3))));
        assert_eq!(of("SEG/man_seg_0012.tif"), Some((12, None)));
        for name in ["man_seg.tif", "man_segx.tif", "man_seg_1_2_3.tif", "mask001.tif", "man_seg_1_.tif"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
