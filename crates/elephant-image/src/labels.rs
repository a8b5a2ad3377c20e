//! Drawing of segmentation labels from tagged spots (docs/method.md, "Detection labels").
//!
//! A label is 0 where nothing is known, or a class (1 background, 2 border, 3 centre), plus 3 where the last prediction was
//! wrong. Later spots paint over earlier ones by the rules of [`Operation`]. Nothing is drawn before it is asked for: a part
//! of a plane costs what the spots in it cost.

use elephant_types::{CancelToken, Cancelled, SpotTag, TaggedSpot, VoxelSize};
use ndarray::{Array2, ArrayViewMut2};

use crate::{Dims, Ellipsoid, Raster};

/// The largest label.
pub const MAX_LABEL: u8 = CENTER + WRONG;
/// The label of background where the last prediction was not wrong.
pub const BACKGROUND: u8 = 1;
const BORDER: u8 = 2;
const CENTER: u8 = 3;
/// From the label of a class to that of the same class where the last prediction was wrong.
const WRONG: u8 = 3;
/// The fewest voxels of an ellipsoid.
const MIN_VOXELS: usize = 9;
/// The original writes a frame with more voxels in ellipsoids than this as it is.
const MAX_SPARSE_VOXELS: usize = 100_000;

/// The red (channel 0), green (1) or blue (2) component of the colour of a label.
#[inline]
pub fn label_color(label: u8, channel: u8) -> u8 {
    // Without branches, as whole planes are coloured.
    let class = channel + 1;
    u8::from(label == class) * 255 + u8::from(label == class + WRONG) * 127
}

/// A spot that cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the spot {label} at timepoint {t} cannot be drawn: {reason}")]
pub struct UndrawableSpot {
    /// The spot's name.
    pub label: Box<str>,
    /// Its timepoint.
    pub t: usize,
    /// Why it cannot be drawn.
    pub reason: UndrawableReason,
}

/// Why a spot cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UndrawableReason {
    /// No ellipsoid has this centre and covariance.
    #[error(
        "its covariance is not positive definite, so it has no size, or its position is not finite; give it a radius \
         or remove its tag"
    )]
    NotAnEllipsoid,
    /// The squares of the semi-axes underflow.
    #[error("its shortest semi-axis is too small to compute with; give it a larger radius or remove its tag")]
    TooThin,
    /// No voxel of the image belongs to the spot.
    #[error("it lies outside the image, at voxel {place:?} (x, y, z) of {size:?}; move it or remove its tag")]
    Outside {
        /// Its centre (x, y, z) in voxels.
        place: [f64; 3],
        /// The image's size (x, y, z) in voxels.
        size: [usize; 3],
    },
    /// A displacement has a component that is not a finite number.
    #[error("its displacement is not finite; move one of the two spots or remove the approval of the link")]
    NotADisplacement,
    /// More links than can be counted.
    #[error("there are too many links in its frame; approve fewer")]
    TooMany,
}

/// What a spot does to the labels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    /// Background where there is no border and no centre.
    Background,
    /// Border where there is no centre.
    Border,
    /// The same, and then the centre with a border one voxel wide, whatever is there.
    Cell,
}

#[derive(Clone, Debug)]
struct Mark {
    operation: Operation,
    /// 0, or [`WRONG`].
    offset: u8,
    outer: Raster,
    /// The centre, of cells alone.
    inner: Option<Raster>,
}

/// The labels of one timepoint.
#[derive(Clone, Debug)]
pub struct LabelFrame {
    shape: [usize; 3],
    voxel_size: VoxelSize,
    center_ratio: f64,
    dims: Dims,
    marks: Vec<Mark>,
    centroids: Vec<[usize; 3]>,
    loses_borders: bool,
}

impl LabelFrame {
    /// No labels, for an image of this shape (z, y, x); 2-D has one plane. A cell's centre has `center_ratio` of its size,
    /// above 0.
    pub fn new(shape: [usize; 3], voxel_size: VoxelSize, center_ratio: f64, dims: Dims) -> Self {
        Self { shape, voxel_size, center_ratio, dims, marks: Vec::new(), centroids: Vec::new(), loses_borders: false }
    }

    /// Adds a spot on top of the others. A spot that is cut by the image's border is drawn in part.
    ///
    /// # Errors
    /// [`UndrawableSpot`] when no voxel of the image can belong to it.
    pub fn add(&mut self, spot: &TaggedSpot) -> Result<(), UndrawableSpot> {
        let refused = |reason| UndrawableSpot { label: spot.label.clone(), t: spot.t, reason };
        let ellipsoid = Ellipsoid::new(spot.center_um, spot.covariance_um2, self.voxel_size, self.dims);
        let ellipsoid = ellipsoid.ok_or_else(|| refused(UndrawableReason::NotAnEllipsoid))?;
        if !ellipsoid.touches(self.shape) {
            let ([z, y, x], [depth, height, width]) = (ellipsoid.center_vox(), self.shape);
            let (place, size) = ([x, y, z].map(f64::round), [width, height, depth]);
            return Err(refused(UndrawableReason::Outside { place, size }));
        }
        let outer = ellipsoid.grown_to(self.shape, MIN_VOXELS);
        let inner = outer.scaled(self.center_ratio).grown_to(self.shape, MIN_VOXELS);
        let raster = |ellipsoid: &Ellipsoid| {
            ellipsoid.raster(self.shape, MIN_VOXELS).ok_or_else(|| refused(UndrawableReason::TooThin))
        };
        self.marks.push(Mark {
            operation: match spot.tag {
                SpotTag::TruePositive | SpotTag::FalseNegative => Operation::Cell,
                SpotTag::TrueBorder | SpotTag::FalseBorder => Operation::Border,
                SpotTag::TrueNegative | SpotTag::FalsePositive => Operation::Background,
            },
            offset: if spot.tag.is_correction() { WRONG } else { 0 },
            outer: raster(&outer)?,
            inner: spot.tag.is_cell().then(|| raster(&inner)).transpose()?,
        });
        let centroid = ellipsoid.center_vox();
        self.centroids.push(std::array::from_fn(|axis| (centroid[axis] as usize).min(self.shape[axis] - 1)));
        Ok(())
    }

    /// The centres (z, y, x) of the spots in whole voxels inside the image, in the order in which they were added.
    pub fn centroids(&self) -> &[[usize; 3]] {
        &self.centroids
    }

    /// Whether a spot may be drawn in the part of plane `z` that begins at `origin` and has `size`, both (y, x).
    pub fn reaches(&self, z: usize, origin: [usize; 2], size: [usize; 2]) -> bool {
        self.marks.iter().any(|mark| mark.reaches(z, origin, size))
    }

    /// Draws the spots into the part of plane `z` that begins at `origin`, (y, x). `labels` holds its labels before that.
    ///
    /// # Errors
    /// [`Cancelled`] between two spots; some are drawn then.
    pub fn draw(
        &self,
        z: usize,
        origin: [usize; 2],
        mut labels: ArrayViewMut2<'_, u8>,
        cancel: &CancelToken,
    ) -> Result<(), Cancelled> {
        let written = if self.loses_borders {
            Some(self.written_by_original(z, origin, labels.to_owned(), cancel)?)
        } else {
            None
        };
        let (height, width) = labels.dim();
        for mark in self.marks.iter().filter(|mark| mark.reaches(z, origin, [height, width])) {
            cancel.check()?;
            mark.draw(z, origin, &mut labels);
        }
        if let Some(written) = written {
            labels.zip_mut_with(&written, |label, &is_written| *label *= u8::from(is_written != 0));
        }
        Ok(())
    }

    /// From now on, loses what the original loses: the borders of centres that are larger than the spot's ellipsoid,
    /// when it writes no more than 100,000 voxels (docs/method.md, "Defects of the original", number 35). `background`
    /// gets the number of a plane and fills in its labels before the spots.
    ///
    /// # Errors
    /// Those of `background`, and [`Cancelled`] between two spots of a plane; nothing has changed then.
    pub fn lose_borders_like_original<E: From<Cancelled>>(
        &mut self,
        background: impl Fn(usize, ArrayViewMut2<'_, u8>) -> Result<(), E>,
        cancel: &CancelToken,
    ) -> Result<(), E> {
        let [planes, height, width] = self.shape;
        let mut written = 0;
        for z in 0..planes {
            let mut plane = Array2::zeros([height, width]);
            background(z, plane.view_mut())?;
            let plane = self.written_by_original(z, [0; 2], plane, cancel)?;
            written += plane.iter().filter(|&&is_written| is_written != 0).count();
        }
        self.loses_borders = written <= MAX_SPARSE_VOXELS;
        Ok(())
    }

    /// Nonzero in ellipsoids and where `part`, as in [`draw`](Self::draw), is nonzero.
    fn written_by_original(
        &self,
        z: usize,
        origin: [usize; 2],
        mut part: Array2<u8>,
        cancel: &CancelToken,
    ) -> Result<Array2<u8>, Cancelled> {
        for mark in &self.marks {
            cancel.check()?;
            each_voxel(&mark.outer, z, 0, origin, &mut part.view_mut(), |voxel| *voxel = 1);
        }
        Ok(part)
    }
}

impl Mark {
    fn reaches(&self, z: usize, origin: [usize; 2], size: [usize; 2]) -> bool {
        let overlaps = |raster: &Raster, margin: usize| {
            (0..3).all(|axis| {
                let bounds = &raster.bounds()[axis];
                let (start, length) = if axis == 0 { (z, 1) } else { (origin[axis - 1], size[axis - 1]) };
                !bounds.is_empty() && bounds.start < start + length + margin && start < bounds.end + margin
            })
        };
        overlaps(&self.outer, 0) || self.inner.as_ref().is_some_and(|inner| overlaps(inner, 1))
    }

    fn draw(&self, z: usize, origin: [usize; 2], labels: &mut ArrayViewMut2<'_, u8>) {
        let (border, center) = (BORDER + self.offset, CENTER + self.offset);
        each_voxel(&self.outer, z, 0, origin, labels, |label| match self.operation {
            Operation::Background if is_at_most(BACKGROUND, *label) => *label = BACKGROUND + self.offset,
            Operation::Border | Operation::Cell if is_at_most(BORDER, *label) => *label = border,
            _ => {}
        });
        let Some(inner) = &self.inner else { return };
        for near in z.saturating_sub(1)..=z + 1 {
            each_voxel(inner, near, 1, origin, labels, |label| *label = border);
        }
        each_voxel(inner, z, 0, origin, labels, |label| *label = center);
    }
}

/// Whether a label's class is not above `class`; no label counts as background.
fn is_at_most(class: u8, label: u8) -> bool {
    label == 0 || (label - 1) % WRONG < class
}

/// Visits the voxels of plane `z` of a raster, each of them made a square with `margin` voxels on each side, as far as they
/// are in `labels`, which begins at `origin`. With a margin, voxels are visited more than once.
fn each_voxel(
    raster: &Raster,
    z: usize,
    margin: usize,
    origin: [usize; 2],
    labels: &mut ArrayViewMut2<'_, u8>,
    mut visit: impl FnMut(&mut u8),
) {
    let [planes, rows, _] = raster.bounds();
    if !planes.contains(&z) {
        return;
    }
    let (height, width) = labels.dim();
    // From indices of the image to indices of the part, cut to the part.
    let inside = |start: usize, end: usize, origin: usize, length: usize| {
        start.saturating_sub(origin + margin).min(length)..(end + margin).saturating_sub(origin).min(length)
    };
    for y in rows.clone() {
        let lines = inside(y, y + 1, origin[0], height);
        if lines.is_empty() {
            continue;
        }
        for run in raster.runs_in_row(z, y) {
            let columns = inside(run.x0 as usize, run.x1 as usize, origin[1], width);
            for line in lines.clone() {
                let mut line = labels.row_mut(line);
                columns.clone().for_each(|column| visit(&mut line[column]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, Axis, s};
    use proptest::prelude::*;

    use super::*;

    fn spot(center_um: [f64; 3], radius_um: f64, tag: SpotTag) -> TaggedSpot {
        let variance = radius_um * radius_um;
        let covariance_um2 = [[variance, 0.0, 0.0], [0.0, variance, 0.0], [0.0, 0.0, variance]];
        TaggedSpot { t: 3, center_um, covariance_um2, tag, label: "mother".into() }
    }

    fn frame(shape: [usize; 3]) -> LabelFrame {
        LabelFrame::new(shape, VoxelSize::new([1.0; 3]).unwrap(), 0.4, Dims::ThreeD)
    }

    fn whole(frame: &LabelFrame) -> Array3<u8> {
        let mut labels = Array3::zeros(frame.shape);
        for (z, plane) in labels.axis_iter_mut(Axis(0)).enumerate() {
            frame.draw(z, [0; 2], plane, &CancelToken::default()).unwrap();
        }
        labels
    }

    #[test]
    fn spots_without_voxels_are_named() {
        let mut frame = frame([8, 16, 16]);
        let mut thin = spot([4.1, 8.0, 8.0], 3.0, SpotTag::TruePositive);
        thin.covariance_um2[0][0] = 1e-320;
        for (bad, word) in [
            (spot([4.0, 8.0, 40.0], 2.0, SpotTag::TruePositive), "outside"),
            (spot([4.0, 8.0, -9.0], 2.0, SpotTag::TruePositive), "outside"),
            (spot([4.0, 8.0, 8.0], 0.0, SpotTag::TrueNegative), "positive definite"),
            (spot([4.0, 8.0, 8.0], f64::NAN, SpotTag::TrueNegative), "positive definite"),
            (spot([4.0, f64::NAN, 8.0], 2.0, SpotTag::TrueNegative), "position is not finite"),
            (thin, "semi-axis is too small"),
        ] {
            let message = frame.add(&bad).unwrap_err().to_string();
            assert!(
                message.contains(word) && message.contains("mother") && message.contains("timepoint 3"),
                "{message}"
            );
        }
        assert!(frame.centroids().is_empty());
    }

    #[test]
    fn drawing_stops_between_spots() {
        let mut frame = frame([8, 16, 16]);
        frame.add(&spot([4.0, 8.0, 8.0], 3.0, SpotTag::TruePositive)).unwrap();
        let cancel = CancelToken::default();
        cancel.cancel();
        let mut plane = Array2::zeros([16, 16]);
        assert_eq!(frame.draw(4, [0; 2], plane.view_mut(), &cancel), Err(Cancelled));
        assert_eq!(frame.lose_borders_like_original(|_, _| Ok(()), &cancel), Err(Cancelled));
        assert_eq!(plane.sum(), 0);
    }

    #[test]
    fn a_spot_at_the_border_is_cut() {
        let mut frame = frame([8, 16, 16]);
        frame.add(&spot([4.0, 8.0, 17.0], 4.0, SpotTag::TruePositive)).unwrap();
        assert_eq!(frame.centroids(), [[4, 8, 15]]);
        let labels = whole(&frame);
        assert_eq!(labels[[4, 8, 15]], 3, "the centre has its voxels inside the image");
        assert!(labels.slice(s![.., .., ..12]).iter().all(|&label| label == 0));
    }

    #[test]
    fn a_large_center_keeps_its_border() {
        // Its dilated centre is larger than itself (docs/method.md, "Defects of the original", number 35).
        let mut frame = frame([8, 16, 16]);
        frame.add(&spot([4.0, 8.0, 8.0], 1.0, SpotTag::FalseNegative)).unwrap();
        let labels = whole(&frame);
        let outside = labels.indexed_iter().filter(|((z, y, x), label)| {
            let away = |i: usize, c: i32| (i as i32 - c).pow(2);
            **label == 5 && away(*z, 4) + away(*y, 8) + away(*x, 8) > 4
        });
        assert!(outside.count() > 20);
    }

    #[test]
    fn centers_stay_below_later_borders() {
        let mut frame = frame([9, 9, 9]);
        frame.add(&spot([4.0; 3], 4.0, SpotTag::TruePositive)).unwrap();
        let before = whole(&frame);
        frame.add(&spot([4.0; 3], 4.0, SpotTag::FalseBorder)).unwrap();
        frame.add(&spot([4.0; 3], 4.0, SpotTag::FalsePositive)).unwrap();
        let after = whole(&frame);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(*after, if *before == 2 { 5 } else { *before });
        }
    }

    proptest! {
        #[test]
        fn parts_are_the_parts_of_the_whole(
            spots in prop::collection::vec((prop::array::uniform3(-2.0..18.0_f64), 0.1..6.0_f64, 0..6_usize), 0..8),
            origin in prop::array::uniform2(0..15_usize),
            size in prop::array::uniform2(1..9_usize),
            z in 0..16_usize,
        ) {
            let mut frame = frame([16; 3]);
            for (center, radius, tag) in spots {
                let _ = frame.add(&spot(center, radius, SpotTag::ALL[tag]));
            }
            let labels = whole(&frame);
            let size = [size[0].min(16 - origin[0]), size[1].min(16 - origin[1])];
            let mut part = Array2::zeros(size);
            frame.draw(z, origin, part.view_mut(), &CancelToken::default()).unwrap();
            let [y, x] = origin;
            let expected = labels.slice(s![z, y..y + size[0], x..x + size[1]]);
            prop_assert_eq!(&part, &expected);
            prop_assert!(frame.reaches(z, origin, size) || expected.iter().all(|&label| label == 0));
        }
    }
}
