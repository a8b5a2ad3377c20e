//! Displacements of cells: drawing what a person says about them as labels, and reading them from a displacement field
//! (docs/method.md, "Flow labels" and "Flow network").
//!
//! A displacement points from a cell to the place where it was in the frame before. Labels and fields are parts of planes;
//! nothing of a frame is in memory but what the caller holds.

use elephant_types::{ApprovedLink, CancelToken, Cancelled, VoxelSize};
use ndarray::{ArrayView4, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::{Dims, Ellipsoid, ImageError, Raster, UndrawableReason};

/// The fewest voxels of an ellipsoid.
const MIN_VOXELS: usize = 9;
/// The most links of a frame; each has a number in [`FlowLabelFrame::draw_numbers`].
const MAX_LINKS: usize = u32::MAX as usize - 1;

/// The ellipsoid of a cell, at least [`MIN_VOXELS`] voxels large, and the voxel of its centre inside the image. `Ok(None)`
/// when no voxel of the image can belong to it.
fn raster(
    center_um: [f64; 3],
    covariance_um2: [[f64; 3]; 3],
    voxel_size: VoxelSize,
    shape: [usize; 3],
    dims: Dims,
) -> Result<Option<Raster>, UndrawableReason> {
    let ellipsoid = Ellipsoid::new(center_um, covariance_um2, voxel_size, dims);
    let ellipsoid = ellipsoid.ok_or(UndrawableReason::NotAnEllipsoid)?;
    if !ellipsoid.touches(shape) {
        return Ok(None);
    }
    let raster = ellipsoid.grown_to(shape, MIN_VOXELS).raster(shape, MIN_VOXELS);
    raster.map(Some).ok_or(UndrawableReason::TooThin)
}

/// The flow labels of one pair of frames: inside the ellipsoid of each link's target its displacement, as a network is to
/// predict it.
#[derive(Clone, Debug)]
pub struct FlowLabelFrame {
    shape: [usize; 3],
    voxel_size: VoxelSize,
    norm_vox: [f64; 3],
    dims: Dims,
    marks: Vec<Mark>,
    centroids: Vec<[usize; 3]>,
}

#[derive(Clone, Debug)]
struct Mark {
    raster: Raster,
    /// Displacement along x, y, z over the norms.
    vector: [f32; 3],
}

impl FlowLabelFrame {
    /// No labels, for an image of this shape (z, y, x); 2-D has one plane. `norm_vox` are the displacements (z, y, x) in
    /// voxels that a network's output 1 stands for.
    pub fn new(shape: [usize; 3], voxel_size: VoxelSize, norm_vox: [f64; 3], dims: Dims) -> Self {
        Self { shape, voxel_size, norm_vox, dims, marks: Vec::new(), centroids: Vec::new() }
    }

    /// Adds a link on top of the others.
    ///
    /// # Errors
    /// When no voxel of the image can belong to its target, or its displacement is not finite.
    pub fn add(&mut self, link: &ApprovedLink) -> Result<(), UndrawableReason> {
        let [dz, dy, dx] = link.displacement_um;
        if ![dz, dy, dx].iter().all(|part| part.is_finite()) {
            return Err(UndrawableReason::NotADisplacement);
        }
        let raster = raster(link.center_um, link.covariance_um2, self.voxel_size, self.shape, self.dims)?;
        let voxel = self.voxel_size.zyx();
        let place: [f64; 3] = std::array::from_fn(|axis| match self.dims {
            Dims::TwoD if axis == 0 => 0.0,
            _ => link.center_um[axis] / voxel[axis],
        });
        let Some(raster) = raster else {
            let ([z, y, x], [depth, height, width]) = (place, self.shape);
            return Err(UndrawableReason::Outside { place: [x, y, z].map(f64::round), size: [width, height, depth] });
        };
        if self.marks.len() == MAX_LINKS {
            return Err(UndrawableReason::TooMany);
        }
        // In the original's order of operations, then rounded to single precision.
        let part = |displacement: f64, axis: usize| (displacement / voxel[axis] / self.norm_vox[axis]) as f32;
        let vector = [part(dx, 2), part(dy, 1), part(dz, 0)];
        if !vector.iter().all(|part| part.is_finite()) {
            return Err(UndrawableReason::NotADisplacement);
        }
        self.marks.push(Mark { raster, vector });
        self.centroids.push(std::array::from_fn(|axis| (place[axis] as usize).min(self.shape[axis] - 1)));
        Ok(())
    }

    /// The centres (z, y, x) of the targets in whole voxels inside the image, in the order in which they were added.
    pub fn centroids(&self) -> &[[usize; 3]] {
        &self.centroids
    }

    /// How many links have a component that a network cannot reach, as its outputs are between −1 and 1.
    pub fn out_of_reach(&self) -> usize {
        let axes = if self.dims == Dims::ThreeD { 3 } else { 2 };
        self.marks.iter().filter(|mark| mark.vector[..axes].iter().any(|part| part.abs() > 1.0)).count()
    }

    /// Whether a link may be drawn in the part of plane `z` that begins at `origin` and has `size`, both (y, x).
    pub fn reaches(&self, z: usize, origin: [usize; 2], size: [usize; 2]) -> bool {
        self.marks.iter().any(|mark| reaches(&mark.raster, z, origin, size))
    }

    /// Draws into the part of plane `z` that begins at `origin`, (y, x), which link each voxel belongs to: its number from
    /// 1, later links over earlier ones. `numbers` holds zeros before that.
    ///
    /// # Errors
    /// [`Cancelled`] between two links; some are drawn then.
    pub fn draw_numbers(
        &self,
        z: usize,
        origin: [usize; 2],
        mut numbers: ArrayViewMut2<'_, u32>,
        cancel: &CancelToken,
    ) -> Result<(), Cancelled> {
        let (height, width) = numbers.dim();
        for (mark, number) in self.marks.iter().zip(1..) {
            if !reaches(&mark.raster, z, origin, [height, width]) {
                continue;
            }
            cancel.check()?;
            let rows = mark.raster.bounds()[1].clone();
            for y in rows.start.max(origin[0])..rows.end.min(origin[0] + height) {
                for run in mark.raster.runs_in_row(z, y) {
                    let inside = |x: usize| x.saturating_sub(origin[1]).min(width);
                    let columns = inside(run.x0 as usize)..inside(run.x1 as usize);
                    let mut row = numbers.row_mut(y - origin[0]);
                    columns.for_each(|column| row[column] = number);
                }
            }
        }
        Ok(())
    }

    /// A channel of the labels in a voxel with this number: the components of the displacement along x, y and, in 3-D, z,
    /// then the weight, which is 1; all 0 where the number is 0.
    pub fn value(&self, number: u32, channel: usize) -> f32 {
        let Some(index) = (number as usize).checked_sub(1) else { return 0.0 };
        let axes = if self.dims == Dims::ThreeD { 3 } else { 2 };
        if channel < axes { self.marks[index].vector[channel] } else { 1.0 }
    }
}

fn reaches(raster: &Raster, z: usize, origin: [usize; 2], size: [usize; 2]) -> bool {
    let [planes, rows, columns] = raster.bounds();
    let overlaps = |bounds: &std::ops::Range<usize>, start: usize, length: usize| {
        !bounds.is_empty() && bounds.start < start + length && start < bounds.end
    };
    planes.contains(&z) && overlaps(rows, origin[0], size[0]) && overlaps(columns, origin[1], size[1])
}

/// Means of a displacement field over the ellipsoids of cells, summed plane by plane in double precision. The cut into
/// parts and the number of threads do not change them.
#[derive(Clone, Debug)]
pub struct FieldMeans {
    cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
struct Cell {
    /// `None` for a cell outside the image.
    raster: Option<Raster>,
    /// Sums along x, y, z.
    sums: [f64; 3],
    voxels: u64,
}

impl FieldMeans {
    /// Means over cells in an image of this shape (z, y, x), of which nothing is known yet.
    pub fn builder(shape: [usize; 3], voxel_size: VoxelSize, dims: Dims) -> FieldMeansBuilder {
        FieldMeansBuilder { shape, voxel_size, dims, cells: Vec::new() }
    }

    /// The smallest box that holds all cells, along (z, y, x); `None` when no cell is in the image.
    pub fn bounds(&self) -> Option<[std::ops::Range<usize>; 3]> {
        let bounds = self.cells.iter().filter_map(|cell| cell.raster.as_ref()).map(|raster| raster.bounds().clone());
        bounds.reduce(|a, b| std::array::from_fn(|d| a[d].start.min(b[d].start)..a[d].end.max(b[d].end)))
    }

    /// Takes a part of the field, (channel, z, y, x), that begins at `origin` (z, y, x) in the image; the channels are the
    /// components along x, y and, in 3-D, z. Each voxel may be given once; parts come in ascending z.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`]; some cells have seen the part then.
    pub fn take(
        &mut self,
        origin: [usize; 3],
        field: ArrayView4<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), ImageError> {
        let size: [usize; 3] = [field.len_of(Axis(1)), field.len_of(Axis(2)), field.len_of(Axis(3))];
        let channels = field.len_of(Axis(0)).min(3);
        self.cells.par_iter_mut().try_for_each(|cell| {
            let Some(raster) = &cell.raster else { return Ok(()) };
            let [planes, rows, _] = raster.bounds();
            for z in planes.start.max(origin[0])..planes.end.min(origin[0] + size[0]) {
                cancel.check()?;
                for y in rows.start.max(origin[1])..rows.end.min(origin[1] + size[1]) {
                    for run in raster.runs_in_row(z, y) {
                        let inside = |x: u32| (x as usize).saturating_sub(origin[2]).min(size[2]);
                        let columns = inside(run.x0)..inside(run.x1);
                        for x in columns {
                            for channel in 0..channels {
                                cell.sums[channel] += f64::from(field[[channel, z - origin[0], y - origin[1], x]]);
                            }
                            cell.voxels += 1;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// The mean displacement of each cell, (z, y, x) in voxels, in the order in which they were added; zero for cells of
    /// which no voxel was seen.
    pub fn finish(self) -> impl Iterator<Item = [f64; 3]> {
        self.cells.into_iter().map(|cell| {
            let [x, y, z] = cell.sums.map(|sum| if cell.voxels == 0 { 0.0 } else { sum / cell.voxels as f64 });
            [z, y, x]
        })
    }
}

/// Collects the cells of [`FieldMeans`].
#[derive(Clone, Debug)]
pub struct FieldMeansBuilder {
    shape: [usize; 3],
    voxel_size: VoxelSize,
    dims: Dims,
    cells: Vec<Cell>,
}

impl FieldMeansBuilder {
    /// Adds a cell by its centre (z, y, x) in micrometres and its covariance over (z, y, x) in square micrometres.
    ///
    /// # Errors
    /// When there is no such ellipsoid. One that is outside the image is added, and stays where it is.
    pub fn add(&mut self, center_um: [f64; 3], covariance_um2: [[f64; 3]; 3]) -> Result<(), UndrawableReason> {
        let raster = raster(center_um, covariance_um2, self.voxel_size, self.shape, self.dims)?;
        self.cells.push(Cell { raster, sums: [0.0; 3], voxels: 0 });
        Ok(())
    }

    /// All cells are there.
    pub fn build(self) -> FieldMeans {
        FieldMeans { cells: self.cells }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, s};

    use super::*;

    const SHAPE: [usize; 3] = [6, 20, 24];

    fn diagonal(variance: f64) -> [[f64; 3]; 3] {
        [[variance, 0.0, 0.0], [0.0, variance, 0.0], [0.0, 0.0, variance]]
    }

    fn voxels() -> VoxelSize {
        VoxelSize::new([2.0, 0.5, 0.5]).unwrap()
    }

    fn link(center_um: [f64; 3], displacement_um: [f64; 3]) -> ApprovedLink {
        ApprovedLink { t: 0, target_t: None, center_um, covariance_um2: diagonal(4.0), displacement_um }
    }

    #[test]
    fn later_links_win_and_parts_are_the_parts_of_the_whole() {
        let mut frame = FlowLabelFrame::new(SHAPE, voxels(), [10.0, 20.0, 40.0], Dims::ThreeD);
        frame.add(&link([6.0, 5.0, 5.0], [2.0, 1.0, -4.0])).unwrap();
        frame.add(&link([6.0, 5.0, 6.5], [-2.0, 0.0, 2.0])).unwrap();
        let cancel = CancelToken::default();
        let mut plane = Array2::zeros([SHAPE[1], SHAPE[2]]);
        frame.draw_numbers(3, [0, 0], plane.view_mut(), &cancel).unwrap();
        assert_eq!((plane[[10, 10]], plane[[10, 13]], plane[[0, 0]]), (2, 2, 0));
        assert_eq!(plane[[10, 7]], 1);
        // Displacements of 1 voxel of 10 along z, 2 of 20 along y, −8 of 40 along x.
        assert_eq!([0, 1, 2, 3].map(|channel| frame.value(1, channel)), [-0.2, 0.1, 0.1, 1.0]);
        assert_eq!([0, 1, 2, 3].map(|channel| frame.value(0, channel)), [0.0; 4]);
        let mut part = Array2::zeros([7, 9]);
        frame.draw_numbers(3, [8, 6], part.view_mut(), &cancel).unwrap();
        assert_eq!(part, plane.slice(s![8..15, 6..15]));
        assert!(frame.reaches(3, [8, 6], [7, 9]) && !frame.reaches(3, [0, 0], [3, 3]));
        assert_eq!(frame.centroids(), [[3, 10, 10], [3, 10, 13]]);
        assert_eq!(frame.out_of_reach(), 0);
        cancel.cancel();
        assert_eq!(frame.draw_numbers(3, [0, 0], plane.view_mut(), &cancel), Err(Cancelled));
    }

    #[test]
    fn links_that_cannot_be_drawn_are_refused_with_the_reason() {
        let mut frame = FlowLabelFrame::new(SHAPE, voxels(), [80.0; 3], Dims::ThreeD);
        for (link, word) in [
            (link([6.0, 5.0, 500.0], [0.0; 3]), "outside"),
            (link([6.0, 5.0, f64::NAN], [0.0; 3]), "not finite"),
            (link([6.0, 5.0, 5.0], [f64::INFINITY, 0.0, 0.0]), "displacement"),
            (ApprovedLink { covariance_um2: diagonal(-1.0), ..link([6.0, 5.0, 5.0], [0.0; 3]) }, "positive definite"),
        ] {
            let message = frame.add(&link).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        frame.add(&link([6.0, 5.0, 5.0], [0.0, 0.0, 50.0])).unwrap();
        assert_eq!(frame.out_of_reach(), 1);
    }

    #[test]
    fn means_do_not_depend_on_the_cut_into_parts() {
        let field = Array4::from_shape_fn((3, 6, 20, 24), |(c, z, y, x)| (c * 7 + z * 31 + y * 3 + x) as f32 * 0.37);
        let means = |parts: &[([usize; 3], [usize; 3])]| -> Vec<[f64; 3]> {
            let mut builder = FieldMeans::builder(SHAPE, voxels(), Dims::ThreeD);
            builder.add([6.0, 5.0, 5.0], diagonal(4.0)).unwrap();
            builder.add([0.0, 0.0, 0.0], diagonal(1.0)).unwrap();
            builder.add([0.0, 0.0, 900.0], diagonal(1.0)).unwrap();
            let mut means = builder.build();
            for (origin, size) in parts {
                let [z, y, x] = std::array::from_fn(|d| origin[d]..origin[d] + size[d]);
                means.take(*origin, field.slice(s![.., z, y, x]), &CancelToken::default()).unwrap();
            }
            means.finish().collect()
        };
        let whole = means(&[([0; 3], SHAPE)]);
        assert_eq!(whole, means(&[([0; 3], [1, 20, 24]), ([1, 0, 0], [3, 20, 24]), ([4, 0, 0], [2, 20, 24])]));
        // A box that holds the first cell alone.
        let part = means(&[([1, 4, 4], [5, 14, 14])]);
        assert_eq!((part[0], part[1]), (whole[0], [0.0; 3]));
        assert_eq!(whole[2], [0.0; 3], "a cell outside the image stays where it is");
        // The field is linear, so the mean is its value at the centre.
        let center = |c: usize| (c * 7 + 3 * 31 + 10 * 3 + 10) as f64 * 0.37;
        assert!((whole[0][2] - center(0)).abs() < 1e-4 && (whole[0][0] - center(2)).abs() < 1e-4, "{whole:?}");
    }
}
