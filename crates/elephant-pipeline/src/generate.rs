//! A BigDataViewer movie becomes a dataset: `imgs.zarr` and its six blank sister stores.
//!
//! One block of planes is in memory at a time. It is inflated on all cores, converted, compressed on all cores and
//! written; then comes the next. The stores are made aside and published together, so that a killed process leaves the
//! old dataset or nothing.

mod blocks;

use std::{
    mem,
    ops::Range,
    path::{Path, PathBuf},
};

use elephant_bdv::{BdvFile, Scale, Volume};
use elephant_fs::{StagingDir, require_free_bytes};
use elephant_hdf5::Reach;
use elephant_types::TaskContext;
use elephant_volume::{ArrayStore, CHUNK_EDGE, DataType, Dataset, DatasetShape, Store};
use ndarray::ArrayViewD;

use self::blocks::{BLOCK_BYTES, MAX_DECODES, block_size, blocks, decodes};
use crate::{
    PipelineError,
    values::{FEW_LEVELS, Summary, fraction_divisor, too_large},
};

/// Most timepoints of a movie: a year at five minutes each.
pub(crate) const MAX_TIMEPOINTS: usize = 105_120;
/// Most chunk files of the images.
const MAX_CHUNK_FILES: usize = 50_000_000;
/// Largest first volume that may be there without a single voxel written.
const MAX_BLANK_VOXELS: usize = 16 << 20;

/// Source and options of a dataset generation.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The movie's `.h5` file (or `.xml`, which names one).
    pub input: PathBuf,
    /// The dataset's folder. Its stores are replaced, labels and predictions included; other files stay.
    pub output: PathBuf,
    /// How far the movie's files may lead to others.
    pub reach: Reach,
    /// The movie's timepoint id of each frame; the frames of those that the movie has no image of stay blank. `None` takes
    /// what the `.xml` lists, or else all timepoints of the `.h5` file, in ascending order.
    pub timepoints: Option<Vec<u32>>,
    /// The view setup (channel, angle). `None` takes the one that BigDataViewer shows first: the lowest id of the `.xml`,
    /// or else of the `.h5` file.
    pub setup: Option<u32>,
    /// The resolution level; 0 is the full one.
    pub level: u32,
    /// Whether to store 16 bit; `None` looks for a value above 255. With 8 bit, larger values of a movie of unsigned 8 or 16
    /// bit keep their last 8 bits only, as in the original; in a movie of another type they are an error.
    pub is_uint16: Option<bool>,
    /// Whether `None` means 8 bit for a movie of unsigned 8 or 16 bit, as on the original's command line.
    pub prefers_8_bit: bool,
    /// Values are divided by this and rounded down. 1 scales floating-point movies within 0 and 1 by a power of two, because
    /// nothing would be left of them.
    pub divisor: f64,
    /// Whether to store the first plane only, without a z axis.
    pub is_2d: bool,
}

impl GenerateOptions {
    /// All timepoints of the first setup at full resolution, in 3-D, values unchanged, 8 or 16 bit as they need; all files
    /// in the movie's folder.
    pub fn new(input: &Path, output: &Path) -> Self {
        Self {
            input: input.to_owned(),
            output: output.to_owned(),
            reach: Reach::Folder,
            timepoints: None,
            setup: None,
            level: 0,
            is_uint16: None,
            prefers_8_bit: false,
            divisor: 1.0,
            is_2d: false,
        }
    }
}

/// Makes a dataset, replacing the one that may be in the folder. Timepoints are reported as they are finished.
///
/// The t-th timepoint becomes frame t, whatever its id is: BigDataViewer and Mastodon count in this way. Values are rounded
/// down; negative ones and those that are not a number become 0.
///
/// # Errors
/// When the movie cannot be read, its values do not fit, the disk is too small, another generation into the folder is
/// running, or the task is cancelled. The old dataset is untouched then.
pub fn generate_dataset(options: &GenerateOptions, context: &TaskContext) -> Result<Summary, PipelineError> {
    check_divisor(options.divisor)?;
    context.check()?;
    let movie = Movie::open(options, context)?;
    let staging = StagingDir::begin(&options.output, "a dataset generation")?;
    let mut pass = Pass { is_uint16: options.is_uint16.unwrap_or(false), scale: Scale::new(options.divisor) };
    loop {
        require_free_bytes(staging.path(), movie.needed_bytes(pass.is_uint16))?;
        let seen = movie.convert(staging.path(), &pass, context)?;
        if let Some(next) = movie.next_pass(&pass, seen)? {
            // A movie of 16 bit usually shows it in its first planes, so little is done twice. Every chunk that was
            // written is written again.
            pass = next;
            continue;
        }
        staging.publish(&Store::ALL.map(Store::folder))?;
        return Ok(movie.summary(&pass, seen));
    }
}

/// Settings of one conversion of the movie. A value that does not fit them makes another pass necessary.
struct Pass {
    is_uint16: bool,
    scale: Scale,
}

impl Pass {
    /// The largest value of the images' type.
    fn limit(&self) -> f64 {
        if self.is_uint16 { u16::MAX.into() } else { u8::MAX.into() }
    }
}

/// Statistics of the voxels that were read.
#[derive(Clone, Copy)]
struct Seen {
    /// The largest value before division, of volumes of unsigned 8 and 16 bit.
    narrow: f64,
    /// The same, of volumes of other types.
    wide: f64,
    /// Whether all volumes were floating-point numbers.
    is_float: bool,
    /// Frames without an image.
    blank_frames: usize,
}

/// Refuses a divisor that is not a positive number.
pub(crate) fn check_divisor(divisor: f64) -> Result<(), PipelineError> {
    if divisor.is_finite() && divisor > 0.0 {
        return Ok(());
    }
    Err(PipelineError::Invalid(format!("the divisor {divisor} is not a positive number")))
}

/// A movie, and the options of its conversion.
struct Movie<'a> {
    options: &'a GenerateOptions,
    file: BdvFile,
    setup: u32,
    /// Id of each frame's timepoint.
    timepoints: Vec<u32>,
    shape: DatasetShape,
    /// Size of the movie's volumes (z, y, x); in 2-D only their first plane is used.
    volume: [usize; 3],
    /// Bytes of the first volume in the file.
    volume_bytes: u64,
    /// Size of the blocks in which voxels are read, (z, y, x).
    block: [usize; 3],
}

impl<'a> Movie<'a> {
    fn open(options: &'a GenerateOptions, context: &TaskContext) -> Result<Self, PipelineError> {
        let file = BdvFile::open_within(&options.input, options.reach)?;
        let timepoints = options.timepoints.clone().unwrap_or_else(|| file.shown_timepoints().to_vec());
        if timepoints.len() > MAX_TIMEPOINTS {
            return refuse(&format!("has {} timepoints, more than {MAX_TIMEPOINTS}", timepoints.len()));
        }
        let setup = options.setup.unwrap_or_else(|| file.first_setup());
        let go_on = || Ok::<(), PipelineError>(context.check()?);
        let first = file.first_volume_while(&timepoints, setup, options.level, go_on)?;
        let volume = first.shape();
        let frame = if options.is_2d { [1, volume[1], volume[2]] } else { volume };
        check_extent(&first, frame, timepoints.len())?;
        Ok(Self {
            options,
            setup,
            shape: DatasetShape { timepoints: timepoints.len(), frame, is_3d: !options.is_2d },
            timepoints,
            volume,
            volume_bytes: first.stored_bytes(),
            block: block_size(frame, first.block()),
            file,
        })
    }

    /// About how many bytes the images will need; the other stores are blank. Compressed, they are about as large as the
    /// movie is, and never larger than uncompressed.
    fn needed_bytes(&self, is_uint16: bool) -> u64 {
        let voxel_bytes = if is_uint16 { 2 } else { 1 };
        let frame_bytes = self.shape.frame.iter().product::<usize>() as u64 * voxel_bytes;
        let stored = self.file.timepoints();
        let images = self.timepoints.iter().filter(|timepoint| stored.binary_search(timepoint).is_ok()).count();
        frame_bytes.min(self.volume_bytes).saturating_mul(images as u64)
    }

    /// Writes the stores into `folder`. Stops early when a value shows that the pass cannot be the last one.
    fn convert(&self, folder: &Path, pass: &Pass, context: &TaskContext) -> Result<Seen, PipelineError> {
        let dataset = Dataset::create(folder, self.shape, if pass.is_uint16 { DataType::U16 } else { DataType::U8 })?;
        let images = dataset.store(Store::Images);
        let overlaps = 2 * self.block.iter().product::<usize>() * size_of::<u16>() <= BLOCK_BYTES;
        let seen = Seen { narrow: f64::NEG_INFINITY, wide: f64::NEG_INFINITY, is_float: true, blank_frames: 0 };
        let mut reader = Reader { movie: self, scale: &pass.scale, opened: None, seen };
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut filled: Option<Step> = None;
        for step in self.steps().map(Some).chain([None]) {
            context.check()?;
            let write = |voxels: &[u16]| filled.as_ref().map_or(Ok(()), |step| self.write(images, step, voxels));
            let mut read = |voxels: &mut Vec<u16>| step.as_ref().map_or(Ok(()), |step| reader.read(step, voxels));
            let (written, was_read) = if overlaps {
                // Compressing and writing a block fills the gaps in which reading the next one waits, and the reverse.
                rayon::join(|| write(&front), || read(&mut back))
            } else {
                mem::swap(&mut front, &mut back);
                (write(&back), read(&mut back))
            };
            written?;
            was_read?;
            mem::swap(&mut front, &mut back);
            if let Some(done) = filled.and_then(|step| step.completes) {
                context.report(done, self.timepoints.len() as u64);
            }
            if self.needs_more(pass, reader.seen) {
                break;
            }
            filled = step;
        }
        Ok(reader.seen)
    }

    /// Whether a value does not fit into the pass.
    fn needs_more(&self, pass: &Pass, seen: Seen) -> bool {
        let is_above = |value: f64| value.max(pass.scale.quotient(value)) > pass.limit();
        let may_wrap = pass.is_uint16 || self.options.is_uint16.is_some() || self.options.prefers_8_bit;
        pass.scale.quotient(seen.wide) > pass.limit() || !may_wrap && (is_above(seen.narrow) || is_above(seen.wide))
    }

    /// The next pass, when this one could not be the last.
    fn next_pass(&self, pass: &Pass, seen: Seen) -> Result<Option<Pass>, PipelineError> {
        if self.needs_more(pass, seen) {
            if pass.is_uint16 || self.options.is_uint16.is_some() {
                return Err(too_large(seen.wide, pass.is_uint16));
            }
            return Ok(Some(Pass { is_uint16: true, scale: pass.scale.clone() }));
        }
        let is_fraction = seen.is_float && seen.wide > 0.0 && seen.wide <= 1.0;
        if is_fraction && pass.scale.divisor() == 1.0 {
            let is_uint16 = self.options.is_uint16 != Some(false);
            return Ok(Some(Pass { is_uint16, scale: Scale::new(fraction_divisor(seen.wide, is_uint16)) }));
        }
        Ok(None)
    }

    fn summary(&self, pass: &Pass, seen: Seen) -> Summary {
        let quotient = |value| pass.scale.quotient(value);
        Summary {
            shape: self.shape,
            is_uint16: pass.is_uint16,
            max_value: seen.narrow.max(seen.wide).max(0.0),
            divisor: pass.scale.divisor(),
            is_scaled: pass.scale.divisor() != self.options.divisor,
            is_wrapped: quotient(seen.narrow) > pass.limit(),
            blank_frames: seen.blank_frames,
            is_coarse: seen.is_float && seen.wide > 0.0 && quotient(seen.wide) < FEW_LEVELS,
        }
    }

    /// Everything there is to read, in order.
    fn steps(&self) -> impl Iterator<Item = Step> {
        let last = blocks(self.shape.frame, self.block).last();
        self.timepoints.iter().enumerate().flat_map(move |(frame, &timepoint)| {
            let last = last.clone();
            blocks(self.shape.frame, self.block).map(move |region| {
                let completes = (Some(&region) == last.as_ref()).then_some(frame as u64 + 1);
                Step { frame, timepoint, region, completes }
            })
        })
    }

    /// Refuses a volume that does not fit the first one, or whose chunks do not fit the blocks that the first one's gave.
    fn check_volume(&self, volume: &Volume, timepoint: u32) -> Result<(), PipelineError> {
        let (shape, chunk) = (volume.shape(), volume.largest_chunk());
        if shape != self.volume {
            return Err(PipelineError::Invalid(format!(
                "timepoint {timepoint} of the movie has {shape:?} voxels (z, y, x) and the first one {:?}; all must have the same size",
                self.volume
            )));
        }
        if decodes(self.shape.frame, self.block, chunk) > MAX_DECODES {
            return Err(PipelineError::Invalid(format!(
                "timepoint {timepoint} of the movie has chunks of {chunk:?} voxels (z, y, x), which are too large to be read \
                 in blocks of {:?}; save the movie with smaller ones (h5repack -l CHUNK=16x64x64)",
                self.block
            )));
        }
        Ok(())
    }

    /// Writes the voxels of a box. For images of 8 bit, larger values keep their last 8 bits, as in the original.
    fn write(&self, images: &ArrayStore, step: &Step, voxels: &[u16]) -> Result<(), PipelineError> {
        if voxels.is_empty() {
            return Ok(());
        }
        let axes = usize::from(self.options.is_2d)..3;
        let start = [&[step.frame], &step.region.each_ref().map(|range| range.start)[axes.clone()]].concat();
        let size = [&[1], &step.region.each_ref().map(Range::len)[axes]].concat();
        let data = ArrayViewD::from_shape(size, voxels).map_err(|error| PipelineError::Invalid(error.to_string()))?;
        match images.data_type() {
            DataType::U8 => images.write_as(&start, data, |value: u16| value as u8)?,
            _ => images.write(&start, data)?,
        }
        Ok(())
    }
}

/// One block of one frame.
struct Step {
    frame: usize,
    /// Id of the frame's timepoint.
    timepoint: u32,
    /// The voxels (z, y, x).
    region: [Range<usize>; 3],
    /// How many frames are finished with this block, if it is the last one of its frame.
    completes: Option<u64>,
}

/// Reads block after block, and keeps the frame it is in open.
struct Reader<'m> {
    movie: &'m Movie<'m>,
    scale: &'m Scale,
    opened: Option<(usize, Option<Volume>)>,
    seen: Seen,
}

impl Reader<'_> {
    /// Fills `voxels` with a block; leaves it empty where the movie has no image.
    fn read(&mut self, step: &Step, voxels: &mut Vec<u16>) -> Result<(), PipelineError> {
        let Movie { options, file, setup, .. } = self.movie;
        let volume = match self.opened.take() {
            Some((frame, volume)) if frame == step.frame => volume,
            _ => {
                let opened = file.volume(step.timepoint, *setup, options.level)?;
                opened.iter().try_for_each(|volume| self.movie.check_volume(volume, step.timepoint))?;
                self.seen.blank_frames += usize::from(opened.is_none());
                opened
            }
        };
        if let Some(volume) = &volume {
            voxels.resize(step.region.iter().map(Range::len).product(), 0);
            let largest = volume.read(&step.region, self.scale, voxels)?;
            let seen = if volume.is_wide() { &mut self.seen.wide } else { &mut self.seen.narrow };
            *seen = seen.max(largest);
            self.seen.is_float &= volume.is_float();
        } else {
            voxels.clear();
        }
        self.opened = Some((step.frame, volume));
        Ok(())
    }
}

fn refuse<T>(what: &str) -> Result<T, PipelineError> {
    Err(PipelineError::Invalid(format!("the movie {what}; it is damaged or not a movie")))
}

/// Refuses sizes that no movie has: a small hostile file can claim any, and would fill the memory or the disk.
fn check_extent(first: &Volume, frame: [usize; 3], timepoints: usize) -> Result<(), PipelineError> {
    let product = |sizes: [usize; 3]| sizes.iter().fold(1, |product: usize, &size| product.saturating_mul(size));
    let tiles = [frame[0], frame[1].div_ceil(CHUNK_EDGE), frame[2].div_ceil(CHUNK_EDGE)];
    if product(tiles).saturating_mul(timepoints) > MAX_CHUNK_FILES {
        return refuse(&format!("of {timepoints} x {frame:?} voxels needs more than {MAX_CHUNK_FILES} files"));
    }
    if first.stored_bytes() == 0 && product(frame) > MAX_BLANK_VOXELS {
        return refuse(&format!("holds no voxels of its {frame:?}"));
    }
    Ok(())
}
