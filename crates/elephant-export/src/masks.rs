//! Cells as label images: drawing and streaming them (docs/method.md, "CTC export").

use std::{
    io::Write,
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use elephant_ctc::{LabelStack, PlaneEncoder, ZipStream, mask_name};
use elephant_image::{Dims, Ellipsoid, Shells};
use elephant_types::{CancelToken, Cancelled, TaskContext, VoxelSize};
use rayon::prelude::*;

use crate::ExportError;

/// The fewest voxels of a cell, and of each of its shells.
const MIN_VOXELS: usize = 20;

/// Finished images that wait for the writer.
const WAITING: usize = 2;

/// A cell to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskSpot {
    /// Its timepoint.
    pub t: u32,
    /// Its centre (z, y, x) in micrometres.
    pub center_um: [f64; 3],
    /// Its covariance over (z, y, x) in square micrometres.
    pub covariance_um2: [[f64; 3]; 3],
    /// What its voxels become: the number of its track.
    pub label: u16,
}

/// Label images of consecutive timepoints, not yet drawn. Where cells overlap, a voxel belongs to the cell whose centre is
/// relatively nearer, in sixteenths of steps of 5 %; of equally near ones to the later in the list.
#[derive(Clone, Debug)]
pub struct Masks {
    /// The shape (z, y, x) of each.
    pub shape: [usize; 3],
    /// Voxel edges.
    pub voxel_size: VoxelSize,
    /// Whether cells are ellipsoids or ellipses over (y, x).
    pub dims: Dims,
    /// The first and the last timepoint.
    pub timepoints: [u32; 2],
    /// The cells; others than those of the timepoints are not drawn.
    pub spots: Vec<MaskSpot>,
}

/// Draws label images and writes them as `maskNNN.tif` into a zip archive while the next ones are drawn. Memory is taken
/// for some compressed images. Returns the writer and how many spots lie outside the image and are not drawn.
///
/// # Errors
/// When `out` cannot be written, the images are too large for TIFF, or the task is cancelled; a part of the archive has been
/// written then.
pub fn stream_masks<W: Write>(masks: &Masks, out: W, task: &TaskContext) -> Result<(W, usize), ExportError> {
    let mut archive = ZipStream::new(out);
    let skipped = masks.draw_each(task, |name, stack| {
        let mut bytes = Vec::new();
        stack.write(&mut bytes).map_err(ExportError::Stream)?;
        archive.add(name, &bytes).map_err(ExportError::Stream)
    })?;
    Ok((archive.finish().map_err(ExportError::Stream)?, skipped))
}

impl Masks {
    /// Whether a cell has a size and a voxel in the image.
    pub(crate) fn shows(&self, center_um: [f64; 3], covariance_um2: [[f64; 3]; 3]) -> bool {
        Cell::new(&MaskSpot { t: 0, center_um, covariance_um2, label: 0 }, self).is_some()
    }

    /// Draws the images on all threads and passes them on in the order of time, with their names. Returns how many spots
    /// are not drawn.
    pub(crate) fn draw_each(
        &self,
        task: &TaskContext,
        mut take: impl FnMut(&str, &LabelStack) -> Result<(), ExportError>,
    ) -> Result<usize, ExportError> {
        let [first, last] = self.timepoints;
        // Fails early, before a thread is there.
        LabelStack::new(self.shape)?;
        let mut by_timepoint: Vec<&MaskSpot> =
            self.spots.iter().filter(|spot| (first..=last).contains(&spot.t)).collect();
        by_timepoint.sort_by_key(|spot| spot.t);
        let [depth, height, width] = self.shape;
        let blank = PlaneEncoder::new().encode(&vec![0; height * width]);
        let at_once = (2 * rayon::current_num_threads()).div_ceil(depth.max(1)).max(1) as u32;
        let (sender, receiver) = sync_channel(WAITING);
        let stop = CancelToken::default();
        thread::scope(|scope| {
            let (by_timepoint, blank, stopped) = (&by_timepoint, &blank, &stop);
            scope.spawn(move || {
                let mut begin = first;
                loop {
                    let end = begin.saturating_add(at_once - 1).min(last);
                    let drawn: Vec<_> = (begin..=end)
                        .into_par_iter()
                        .map(|t| {
                            let from = by_timepoint.partition_point(|spot| spot.t < t);
                            let to = by_timepoint.partition_point(|spot| spot.t <= t);
                            let cancels = [task.cancel_token(), stopped];
                            (t, self.draw(&by_timepoint[from..to], blank, cancels))
                        })
                        .collect();
                    for image in drawn {
                        if sender.send(image).is_err() {
                            return;
                        }
                    }
                    if end == last {
                        return;
                    }
                    begin = end + 1;
                }
            });
            let total = u64::from(last.saturating_sub(first)) + 1;
            let mut skipped = 0;
            let mut written = || {
                for (done, (t, image)) in (1..).zip(&receiver) {
                    let (stack, outside) = image?;
                    // A writer that was told to stop fails in its own way.
                    let taken = take(&mask_name(t, last), &stack);
                    task.check()?;
                    taken?;
                    skipped += outside;
                    task.report(done, total);
                }
                Ok(skipped)
            };
            let result = written();
            stop.cancel();
            drop(receiver);
            result
        })
    }

    /// Draws one image, and says how many spots it does not show.
    fn draw(
        &self,
        spots: &[&MaskSpot],
        blank: &Arc<[u8]>,
        cancels: [&CancelToken; 2],
    ) -> Result<(LabelStack, usize), ExportError> {
        let [depth, height, width] = self.shape;
        let mut stack = LabelStack::new(self.shape)?;
        let cells: Vec<Cell> = spots
            .par_iter()
            .map(|spot| {
                cancels.iter().try_for_each(|cancel| cancel.check())?;
                Ok(Cell::new(spot, self))
            })
            .collect::<Result<Vec<_>, Cancelled>>()?
            .into_iter()
            .flatten()
            .collect();
        let planes = (0..depth).into_par_iter().map_init(
            || (PlaneEncoder::new(), vec![0_u16; height * width], vec![0_u8; height * width]),
            |(encoder, labels, depths), z| {
                cancels.iter().try_for_each(|cancel| cancel.check())?;
                let reaching: Vec<&Cell> = cells.iter().filter(|cell| cell.shells.bounds()[0].contains(&z)).collect();
                if reaching.is_empty() {
                    return Ok(Arc::clone(blank));
                }
                labels.fill(0);
                depths.fill(0);
                for cell in &reaching {
                    cell.draw(z, width, labels, depths);
                }
                for (cell, [_, y, x]) in
                    reaching.iter().filter_map(|cell| Some((cell, cell.center.filter(|c| c[0] == z)?)))
                {
                    labels[y * width + x] = cell.label;
                }
                Ok(encoder.encode(labels))
            },
        );
        for plane in planes.collect::<Result<Vec<_>, Cancelled>>()? {
            stack.push(plane);
        }
        Ok((stack, spots.len() - cells.len()))
    }
}

/// A cell in an image.
struct Cell {
    label: u16,
    shells: Shells,
    /// The voxel of its centre, if it is in the image.
    center: Option<[usize; 3]>,
}

impl Cell {
    /// `None` if no voxel of the image belongs to it, or it has no size.
    fn new(spot: &MaskSpot, masks: &Masks) -> Option<Self> {
        let ellipsoid = Ellipsoid::new(spot.center_um, spot.covariance_um2, masks.voxel_size, masks.dims)?;
        if !ellipsoid.touches(masks.shape) {
            return None;
        }
        let shells = Shells::new(&ellipsoid, masks.shape, MIN_VOXELS)?;
        let position = ellipsoid.center_vox();
        // A centre in the outer half of the first voxel is rounded towards 0, as all others.
        let voxel = position.map(|place| (place > -1.0).then_some(place as usize));
        let center = match voxel {
            [Some(z), Some(y), Some(x)] if z < masks.shape[0] && y < masks.shape[1] && x < masks.shape[2] => {
                Some([z, y, x])
            }
            _ => None,
        };
        Some(Self { label: spot.label, shells, center })
    }

    fn draw(&self, z: usize, width: usize, labels: &mut [u16], depths: &mut [u8]) {
        for y in self.shells.bounds()[1].clone() {
            let row = y * width..(y + 1) * width;
            let (labels, depths) = (&mut labels[row.clone()], &mut depths[row]);
            self.shells.visit_row(z, y, |x, depth| {
                if depth >= depths[x] {
                    depths[x] = depth;
                    labels[x] = self.label;
                }
            });
        }
    }
}
