//! Crops for training, varied in position, size, rotation, orientation and contrast (docs/method.md,
//! "Training data and loop").
//!
//! All variations of geometry are one affine map from the crop to the frame, so that every voxel is interpolated once,
//! whatever is combined; the original interpolates in turn, and its rotation undoes its scaling.

use fastrand::Rng;
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};
use rayon::prelude::*;

/// How crops differ from what they are cut out of. Sizes are (z, y, x) in voxels of the rescaled frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// Size of a crop; clipped to the frame.
    pub crop_size: [usize; 3],
    /// For each axis, how much longer or shorter an edge may be before it is scaled to the crop's, as a fraction.
    pub scale_factors: [f64; 3],
    /// Largest rotation in the plane of y and x, in degrees either way.
    pub rotation_degrees: f64,
    /// Smallest factor on the contrast between labelled cells and background, 0 to 1; 0 leaves it as it is.
    pub contrast: f64,
}

/// A crop of a frame: the affine map from its voxels to positions in the frame, and a change of contrast.
#[derive(Clone, Debug, PartialEq)]
pub struct Crop {
    /// Size (z, y, x) of the crop.
    size: [usize; 3],
    /// Position in the frame along z: that of plane 0, and the step from plane to plane.
    z: [f64; 2],
    /// Positions along y and x: of voxel (0, 0), and the steps along the crop's y and x.
    yx: [[f64; 3]; 2],
    /// Factor on the contrast between cells and background.
    contrast: Option<f64>,
}

impl Augmentation {
    /// A crop at random. `frame` is the size of the stored frame and `rescaled` the size that it is seen at; the crop
    /// contains the voxel `anchor` of the stored frame, unless rotation takes it out, and is anywhere without one.
    ///
    /// None of the sizes may be 0.
    pub fn draw(&self, frame: [usize; 3], rescaled: [usize; 3], anchor: Option<[usize; 3]>, rng: &mut Rng) -> Crop {
        let size: [usize; 3] = std::array::from_fn(|axis| self.crop_size[axis].min(rescaled[axis]));
        let mut center = [0.0; 3];
        let mut edges = [0.0; 3];
        for axis in 0..3 {
            let edge = self.draw_edge(axis, size[axis], rescaled[axis], rng);
            let last = rescaled[axis] - edge;
            let origin = match anchor {
                Some(anchor) => {
                    let anchor = (anchor[axis] as f64 * ratio(rescaled[axis], frame[axis])).round() as usize;
                    rng.usize((anchor + 1).saturating_sub(edge).min(last)..=anchor.min(last))
                }
                None => rng.usize(0..=last),
            };
            edges[axis] = (edge - 1) as f64;
            center[axis] = origin as f64 + edges[axis] / 2.0;
        }
        let angle = if self.rotation_degrees > 0.0 {
            ((2.0 * rng.f64() - 1.0) * self.rotation_degrees).to_radians()
        } else {
            0.0
        };
        // From the crop's voxels to positions relative to its centre, before the rotation.
        let axes: [[f64; 2]; 3] = std::array::from_fn(|axis| {
            let step = if size[axis] > 1 { edges[axis] / (size[axis] - 1) as f64 } else { 0.0 };
            let step = if rng.bool() { -step } else { step };
            [-step * (size[axis] - 1) as f64 / 2.0, step]
        });
        // Stored voxels per voxel of the rescaled frame.
        let pitch = |axis: usize| ratio(frame[axis], rescaled[axis]);
        let [z, y, x] = axes;
        let (sine, cosine) = angle.sin_cos();
        let rotated = |axis: usize, from_y: f64, from_x: f64| {
            [center[axis] + from_y * y[0] + from_x * x[0], from_y * y[1], from_x * x[1]]
                .map(|position| position * pitch(axis))
        };
        let contrast = (self.contrast > 0.0).then(|| self.contrast + rng.f64() * (1.0 - self.contrast));
        Crop {
            size,
            z: [center[0] + z[0], z[1]].map(|position| position * pitch(0)),
            yx: [rotated(1, cosine, -sine), rotated(2, sine, cosine)],
            contrast,
        }
    }

    /// The length of an edge before it is scaled to `size`.
    fn draw_edge(&self, axis: usize, size: usize, longest: usize, rng: &mut Rng) -> usize {
        let (size, factor) = (size as f64, self.scale_factors[axis]);
        let shortest = ((size * (1.0 - factor)).round() as usize).clamp(1, longest);
        rng.usize(shortest..=((size * (1.0 + factor)) as usize).clamp(shortest, longest))
    }
}

/// How far apart the voxels of an axis of `to` are, in voxels of an axis of `from` with the same ends.
fn ratio(to: usize, from: usize) -> f64 {
    if from > 1 { (to - 1) as f64 / (from - 1) as f64 } else { 0.0 }
}

impl Crop {
    /// Size (z, y, x) of the crop.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// The box of a frame that the crop is made of: its origin and size (z, y, x). Parts outside `frame` are left out.
    pub fn source(&self, frame: [usize; 3]) -> ([usize; 3], [usize; 3]) {
        let last = self.size.map(|size| (size - 1) as f64);
        let z = [self.z[0], self.z[0] + self.z[1] * last[0]];
        let corners = |[origin, along_y, along_x]: [f64; 3]| {
            let [y, x] = [along_y * last[1], along_x * last[2]];
            [origin, origin + y, origin + x, origin + y + x]
        };
        let (z, y, x) =
            (range(&z, frame[0]), range(&corners(self.yx[0]), frame[1]), range(&corners(self.yx[1]), frame[2]));
        ([z.0, y.0, x.0], [z.1, y.1, x.1])
    }

    /// The crop of an image, by linear interpolation, 0 outside. `image` is the box of the frame that begins at `origin`
    /// and holds what [`source`](Self::source) says.
    pub fn image(&self, image: ArrayView3<'_, f32>, origin: [usize; 3]) -> Array3<f32> {
        let mut crop = Array3::zeros(self.size);
        let (depth, height, width) = image.dim();
        let image = image.as_standard_layout();
        let Some(values) = image.as_slice() else { return crop };
        crop.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
            let Some((z, above)) = split(self.z[0] + z as f64 * self.z[1] - origin[0] as f64, depth) else { return };
            for (y, mut row) in plane.axis_iter_mut(Axis(0)).enumerate() {
                let positions = self.row(y, origin);
                for (x, value) in row.iter_mut().enumerate() {
                    let [y, x] = positions.map(|[first, step]| first + x as f64 * step);
                    let (Some((y, below)), Some((x, beside))) = (split(y, height), split(x, width)) else { continue };
                    let in_plane = |z: usize| {
                        let corner = (z * height + y) * width + x;
                        bilinear(values, corner, if below > 0.0 { width } else { 0 }, below, beside)
                    };
                    *value =
                        if above > 0.0 { in_plane(z) * (1.0 - above) + in_plane(z + 1) * above } else { in_plane(z) };
                }
            }
        });
        crop
    }

    /// The crop of a frame's labels, each voxel as its nearest one, 0 outside. `labels` is the box of the frame that
    /// begins at `origin`.
    pub fn labels(&self, labels: ArrayView3<'_, u8>, origin: [usize; 3]) -> Array3<u8> {
        let mut crop = Array3::zeros(self.size);
        let (depth, height, width) = labels.dim();
        crop.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
            let Some(z) = nearest(self.z[0] + z as f64 * self.z[1] - origin[0] as f64, depth) else { return };
            for (y, mut row) in plane.axis_iter_mut(Axis(0)).enumerate() {
                let positions = self.row(y, origin);
                for (x, label) in row.iter_mut().enumerate() {
                    let [y, x] = positions.map(|[first, step]| first + x as f64 * step);
                    if let (Some(y), Some(x)) = (nearest(y, height), nearest(x, width)) {
                        *label = labels[[z, y, x]];
                    }
                }
            }
        });
        crop
    }

    /// The crop of displacements, (channel, z, y, x) along x, y and perhaps z, and of their weights: each voxel as its nearest
    /// one, 0 outside, and turned and stretched with the crop. The box begins at `origin` of a frame of size `frame` that is
    /// seen at the size `rescaled`, which does not stretch them. Their unit is the same along x and y.
    pub fn vectors(
        &self,
        values: ArrayView4<'_, f32>,
        weight: ArrayView3<'_, f32>,
        origin: [usize; 3],
        frame: [usize; 3],
        rescaled: [usize; 3],
    ) -> (Array4<f32>, Array3<f32>) {
        let channels = values.len_of(Axis(0));
        let (depth, height, width) = weight.dim();
        let [along_z, from_y, from_x] = self.stretch(frame, rescaled);
        let [size_z, size_y, size_x] = self.size;
        let mut vectors = Array4::zeros((channels, size_z, size_y, size_x));
        let mut weights = Array3::zeros(self.size);
        for z in 0..size_z {
            let Some(at_z) = nearest(self.z[0] + z as f64 * self.z[1] - origin[0] as f64, depth) else { continue };
            for y in 0..size_y {
                let positions = self.row(y, origin);
                for x in 0..size_x {
                    let [at_y, at_x] = positions.map(|[first, step]| first + x as f64 * step);
                    let (Some(at_y), Some(at_x)) = (nearest(at_y, height), nearest(at_x, width)) else { continue };
                    let at = [at_z, at_y, at_x];
                    if weight[at] == 0.0 {
                        continue;
                    }
                    let value = |channel: usize| f64::from(values[[channel, at_z, at_y, at_x]]);
                    let (dx, dy) = (value(0), value(1));
                    weights[[z, y, x]] = weight[at];
                    vectors[[0, z, y, x]] = (from_x[0] * dy + from_x[1] * dx) as f32;
                    vectors[[1, z, y, x]] = (from_y[0] * dy + from_y[1] * dx) as f32;
                    if channels > 2 {
                        vectors[[2, z, y, x]] = (value(2) * along_z[0]) as f32;
                    }
                }
            }
        }
        (vectors, weights)
    }

    /// How displacements change with the crop: the factor along z; then, for y and for x, the parts of a frame's displacement
    /// along y and x.
    fn stretch(&self, frame: [usize; 3], rescaled: [usize; 3]) -> [[f64; 2]; 3] {
        let pitch: [f64; 3] = std::array::from_fn(|axis| ratio(frame[axis], rescaled[axis]));
        let along_z = if self.z[1] == 0.0 { 1.0 } else { pitch[0] / self.z[1] };
        let [[_, yy, yx], [_, xy, xx]] = self.yx;
        let determinant = yy * xx - yx * xy;
        if determinant == 0.0 {
            // A crop of a single row or column.
            return [[along_z, 0.0], [1.0, 0.0], [0.0, 1.0]];
        }
        let part = |axis: usize, parts: [f64; 2]| parts.map(|part| part * pitch[axis] / determinant);
        [[along_z, 0.0], part(1, [xx, -yx]), part(2, [-xy, yy])]
    }

    /// Changes the contrast between labelled cells and labelled background in a crop, as it was drawn; where one of them
    /// is missing there is no contrast to change.
    pub fn change_contrast(&self, image: &mut Array3<f32>, labels: &Array3<u8>) {
        let Some(factor) = self.contrast else { return };
        let (mut cells, mut background) = (Mean::default(), Mean::default());
        for (&value, &label) in image.iter().zip(labels) {
            match Kind::new(label) {
                Kind::Cell => cells.add(value),
                Kind::Background => background.add(value),
                Kind::Unknown => {}
            }
        }
        let (Some(cells), Some(background)) = (cells.value().filter(|mean| *mean > 0.0), background.value()) else {
            return;
        };
        let factor = (((cells - background) * factor + background) / cells) as f32;
        for (value, &label) in image.iter_mut().zip(labels) {
            if Kind::new(label) == Kind::Cell {
                *value *= factor;
            }
        }
    }

    /// For y and x of the source box: the position of the first voxel of the crop's row `y`, and the step to the next voxel.
    fn row(&self, y: usize, origin: [usize; 3]) -> [[f64; 2]; 2] {
        std::array::from_fn(|axis| {
            let [first, along_y, along_x] = self.yx[axis];
            [first + y as f64 * along_y - origin[axis + 1] as f64, along_x]
        })
    }
}

/// The voxels of an axis from the lowest to the highest position: the first, and their number, at least 1.
fn range(positions: &[f64], edge: usize) -> (usize, usize) {
    let low = positions.iter().copied().fold(f64::INFINITY, f64::min).floor().clamp(0.0, (edge - 1) as f64) as usize;
    let high = positions.iter().copied().fold(0.0, f64::max).ceil().min((edge - 1) as f64) as usize;
    (low, high.max(low) - low + 1)
}

/// Rounding may move a position this far out of the box that it is in.
const TOLERANCE: f64 = 1e-6;

/// The voxel before a position, and the distance from it to the position, below 1; `None` outside. The distance is 0 for the
/// last voxel.
fn split(position: f64, edge: usize) -> Option<(usize, f32)> {
    let last = (edge - 1) as f64;
    if position < -TOLERANCE || position > last + TOLERANCE {
        return None;
    }
    let position = position.clamp(0.0, last);
    let whole = position as usize;
    let rest = (position - whole as f64) as f32;
    // At the centre of a voxel its value is taken without interpolation.
    let is_whole = f64::from(rest) < TOLERANCE;
    Some((whole, if is_whole { 0.0 } else { rest }))
}

fn nearest(position: f64, edge: usize) -> Option<usize> {
    let position = position.round();
    (position >= 0.0 && position < edge as f64).then_some(position as usize)
}

/// The value `below` rows of `width` voxels and `beside` voxels after a corner; `width` is 0 for positions on a row.
#[inline]
fn bilinear(values: &[f32], corner: usize, width: usize, below: f32, beside: f32) -> f32 {
    let next = usize::from(beside > 0.0);
    let row = |start: usize| values[start] + (values[start + next] - values[start]) * beside;
    let upper = row(corner);
    if width == 0 { upper } else { upper + (row(corner + width) - upper) * below }
}

#[derive(Debug, PartialEq)]
enum Kind {
    Cell,
    Background,
    Unknown,
}

impl Kind {
    /// The kind of a label of [`LabelFrame`](crate::LabelFrame).
    fn new(label: u8) -> Self {
        match label {
            1 | 4 => Self::Background,
            2 | 3 | 5 | 6 => Self::Cell,
            _ => Self::Unknown,
        }
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.count += 1;
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use ndarray::s;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const PLAIN: Augmentation =
        Augmentation { crop_size: [4, 6, 8], scale_factors: [0.0; 3], rotation_degrees: 0.0, contrast: 0.0 };

    /// An image whose values are linear in the position and differ between voxels.
    fn ramp([z, y, x]: [usize; 3]) -> Array3<f32> {
        Array3::from_shape_fn([z, y, x], |(z, y, x)| (100 * z + 10 * y + x) as f32)
    }

    fn cut(crop: &Crop, image: &Array3<f32>) -> Array3<f32> {
        let (origin, size) = crop.source(image.dim().into());
        let [z, y, x]: [_; 3] = std::array::from_fn(|axis| origin[axis]..origin[axis] + size[axis]);
        crop.image(image.slice(s![z, y, x]), origin)
    }

    #[test]
    fn a_plain_crop_is_a_copy_in_one_of_eight_orientations() {
        let image = ramp([9, 10, 11]);
        let mut orientations = std::collections::HashSet::new();
        let mut rng = Rng::with_seed(1);
        for _ in 0..200 {
            let crop = PLAIN.draw([9, 10, 11], [9, 10, 11], Some([4, 0, 10]), &mut rng);
            let ([z, y, x], size) = crop.source([9, 10, 11]);
            assert_eq!(size, PLAIN.crop_size);
            let mut expected = image.slice(s![z..z + 4, y..y + 6, x..x + 8]);
            let signs = [crop.z[1], crop.yx[0][1], crop.yx[1][2]].map(f64::is_sign_negative);
            for (axis, is_flipped) in signs.into_iter().enumerate() {
                if is_flipped {
                    expected.invert_axis(Axis(axis));
                }
            }
            assert_eq!(cut(&crop, &image), expected);
            orientations.insert(signs);
        }
        assert_eq!(orientations.len(), 8);
    }

    #[test]
    fn labels_and_images_move_together() {
        let frame = [12, 40, 44];
        let augmentation = Augmentation {
            crop_size: [6, 20, 24],
            scale_factors: [0.1, 0.4, 0.4],
            rotation_degrees: 180.0,
            contrast: 0.0,
        };
        let labels = Array3::from_shape_fn(frame, |(z, y, x)| ((z / 3 + y / 5 + x / 7) % 2) as u8);
        let image = labels.mapv(f32::from);
        let mut rng = Rng::with_seed(2);
        for _ in 0..50 {
            let crop = augmentation.draw(frame, frame, None, &mut rng);
            let (origin, size) = crop.source(frame);
            let [z, y, x]: [_; 3] = std::array::from_fn(|axis| origin[axis]..origin[axis] + size[axis]);
            let image = crop.image(image.slice(s![z.clone(), y.clone(), x.clone()]), origin);
            let labels = crop.labels(labels.slice(s![z, y, x]), origin);
            let agree = image.iter().zip(&labels).filter(|(value, label)| (*value - f32::from(**label)).abs() <= 0.5);
            // Half a voxel outside the frame there is a label, but no image.
            assert!(agree.count() as f64 > 0.9 * labels.len() as f64);
            assert!(labels.iter().any(|&label| label == 1) && labels.iter().any(|&label| label == 0));
        }
    }

    #[test]
    fn vectors_are_turned_and_stretched_with_the_image() {
        let frame = [12, 60, 64];
        let image = ramp(frame);
        // In voxels of the frame: x, y, z.
        let displacement = [3.0, -2.0, 1.0];
        let values = Array4::from_shape_fn((3, 12, 60, 64), |(channel, ..)| displacement[channel]);
        let weight = Array3::from_shape_fn(frame, |(z, ..)| if z < 6 { 2.0 } else { 0.0 });
        let augmentation = Augmentation {
            crop_size: [6, 20, 24],
            scale_factors: [0.1, 0.4, 0.4],
            rotation_degrees: 180.0,
            contrast: 0.0,
        };
        let mut rng = Rng::with_seed(6);
        for rescaled in [frame, [12, 30, 32]] {
            for _ in 0..20 {
                let crop = augmentation.draw(frame, rescaled, Some([3, 30, 30]), &mut rng);
                let (origin, size) = crop.source(frame);
                let [z, y, x]: [_; 3] = std::array::from_fn(|axis| origin[axis]..origin[axis] + size[axis]);
                let values = values.slice(s![.., z.clone(), y.clone(), x.clone()]);
                let weight = weight.slice(s![z.clone(), y.clone(), x.clone()]);
                let (vectors, weights) = crop.vectors(values, weight, origin, frame, rescaled);
                let seen = crop.image(image.slice(s![z, y, x]), origin);
                assert!(weights.iter().all(|&weight| weight == 0.0 || weight == 2.0));
                let pitch: [f64; 3] = std::array::from_fn(|axis| ratio(frame[axis], rescaled[axis]));
                let here = [3, 10, 12];
                if weights[here] == 0.0 {
                    assert!((0..3).all(|channel| vectors[[channel, 3, 10, 12]] == 0.0));
                    continue;
                }
                // The ramp is linear: its slopes in the crop tell what a displacement in the crop's voxels adds to it.
                let slope = |axis: usize| {
                    let mut next = here;
                    next[axis] += 1;
                    f64::from(seen[next] - seen[here])
                };
                let moved = |axis: usize| f64::from(vectors[[2 - axis, 3, 10, 12]]) / pitch[axis];
                let found: f64 = (0..3).map(|axis| slope(axis) * moved(axis)).sum();
                let expected = 100.0 * displacement[2] + 10.0 * displacement[1] + displacement[0];
                assert!((found - f64::from(expected)).abs() < 0.05, "{found} is not {expected}: {crop:?}");
            }
        }
    }

    #[test]
    fn scaling_keeps_a_ramp_straight() {
        let image = ramp([8, 30, 30]);
        let augmentation = Augmentation { crop_size: [8, 16, 16], scale_factors: [0.0, 0.5, 0.5], ..PLAIN };
        let crop = augmentation.draw([8, 30, 30], [8, 30, 30], Some([3, 15, 15]), &mut Rng::with_seed(3));
        let (_, [_, height, width]) = crop.source([8, 30, 30]);
        assert!(height != 16 && width != 16, "the seed draws other lengths");
        let values = cut(&crop, &image);
        let steps = values.slice(s![0, 0, 1..]).to_owned() - values.slice(s![0, 0, ..-1]);
        let expected = (width - 1) as f32 / 15.0;
        assert!(steps.iter().all(|step| (step.abs() - expected).abs() < 1e-4), "{steps} {expected}");
    }

    #[test]
    fn a_rescaled_frame_is_resampled_once() {
        let stored = [5, 21, 21];
        let crop =
            Augmentation { crop_size: [9, 41, 41], ..PLAIN }.draw(stored, [9, 41, 41], None, &mut Rng::with_seed(4));
        let mut values = cut(&crop, &ramp(stored));
        for (axis, step) in [crop.z[1], crop.yx[0][1], crop.yx[1][2]].into_iter().enumerate() {
            if step < 0.0 {
                values.invert_axis(Axis(axis));
            }
        }
        let expected = Array3::from_shape_fn((9, 41, 41), |(z, y, x)| (100 * z + 10 * y + x) as f32 / 2.0);
        assert!((values - expected).iter().all(|difference| difference.abs() < 1e-3));
    }

    #[test]
    fn unknown_label_values_keep_their_intensity() {
        assert!((7..=255).all(|label| Kind::new(label) == Kind::Unknown) && Kind::new(0) == Kind::Unknown);
    }

    #[test]
    fn contrast_moves_cells_towards_the_background() {
        let labels = Array3::from_shape_fn((1, 2, 4), |(_, y, x)| [[1, 4, 0, 1], [2, 3, 5, 6]][y][x]);
        let mut image = labels.mapv(|label| if label == 0 || label % 3 == 1 { 0.2 } else { 0.8 });
        let crop = Augmentation { contrast: 0.5, crop_size: [1, 2, 4], ..PLAIN };
        let mut crop = crop.draw([1, 2, 4], [1, 2, 4], None, &mut Rng::with_seed(5));
        assert!(crop.contrast.is_some_and(|factor| (0.5..=1.0).contains(&factor)));
        crop.contrast = Some(0.5);
        crop.change_contrast(&mut image, &labels);
        assert!(image.slice(s![0, 0, ..]).iter().all(|&value| value == 0.2));
        assert!(image.slice(s![0, 1, ..]).iter().all(|&value| (value - 0.5).abs() < 1e-6), "{image}");
        let before = image.clone();
        crop.change_contrast(&mut image, &Array3::zeros((1, 2, 4)));
        assert_eq!(image, before);
    }

    proptest! {
        #[test]
        fn crops_stay_in_the_frame_and_keep_their_anchor(
            frame in prop::array::uniform3(1usize..20),
            rescaled in prop::array::uniform3(1usize..20),
            crop_size in prop::array::uniform3(1usize..30),
            scale in 0.0f64..0.99,
            rotation_degrees in prop::sample::select(vec![0.0, 33.3, 180.0]),
            seed in any::<u64>(),
        ) {
            let mut rng = Rng::with_seed(seed);
            let anchor = frame.map(|edge| rng.usize(0..edge));
            let augmentation = Augmentation { crop_size, scale_factors: [scale; 3], rotation_degrees, contrast: 0.0 };
            let crop = augmentation.draw(frame, rescaled, Some(anchor), &mut rng);
            let (origin, size) = crop.source(frame);
            for axis in 0..3 {
                prop_assert!(size[axis] >= 1 && origin[axis] + size[axis] <= frame[axis]);
                prop_assert_eq!(crop.size()[axis], crop_size[axis].min(rescaled[axis]));
                if rotation_degrees == 0.0 && rescaled == frame && crop.size()[axis] > 1 {
                    prop_assert!((origin[axis]..origin[axis] + size[axis]).contains(&anchor[axis]));
                }
            }
            let image = cut(&crop, &ramp(frame));
            prop_assert!(image.iter().all(|value| value.is_finite() && *value <= 100.0 * 20.0 + 10.0 * 20.0 + 20.0));
        }
    }
}
