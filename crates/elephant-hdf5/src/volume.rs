//! A dataset with three axes, read box by box and converted while it is copied.

use std::{ops::Range, sync::Arc};

use hdf5_metno::{
    Dataset,
    dataset::{DatasetCreate, FillValue, Layout},
};
use rayon::prelude::*;

use crate::{
    Hdf5Error,
    chunks::{ChunkIndex, Grid, fill_value},
    error::Unreadable,
    file::{Hdf5File, Located, OpenFile, brief},
    filters::{Pipeline, Values},
    numbers::{Convert, NumberKind, NumberType, StoredNumbers},
    scale_offset::ScaleOffset,
    typed,
    value::StoredType,
    virtual_dataset::{self, Level, Part, Sources},
};

/// Largest chunk that is read, in bytes. Undoing its filters takes up to three times as much memory.
pub(crate) const MAX_CHUNK_BYTES: u64 = 256 << 20;
/// How many times as many voxels as a virtual dataset has may be decoded for it, whole chunks counted for each of its boxes.
const MAX_DECODED: u64 = 64;
/// Largest number of voxels of one volume; keeps every product of sizes within 64 bits.
const MAX_VOXELS: u64 = 1 << 44;
/// Contiguous data is read in pieces of about so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A dataset with the axes (z, y, x), read box by box.
#[derive(Debug)]
pub struct Volume {
    file: Arc<OpenFile>,
    object: String,
    shape: [usize; 3],
    number_type: NumberType,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    /// Chunks, each at its own place in the file.
    Chunks(ChunkIndex),
    /// One run of voxels at an offset.
    Contiguous(u64),
    /// A volume so small that it lies in the file's metadata.
    Compact(Vec<u8>),
    /// Nothing was ever written: all voxels have these bytes.
    Blank(Vec<u8>),
    /// Boxes of other volumes; voxels in none of them have these bytes.
    Virtual(Vec<Part>, Vec<u8>),
}

/// What a dataset is opened as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role<'a> {
    /// A volume of its own, with three axes.
    Image,
    /// A source of a virtual dataset, with axes (z, y, x) or (y, x).
    Source(Level<'a>),
}

impl Volume {
    /// Opens a dataset; `object` is its path, for messages.
    pub(crate) fn open(files: &Hdf5File, located: &Located, object: String, role: Role<'_>) -> Result<Self, Hdf5Error> {
        let file = Arc::clone(&located.file);
        let own = Sources::default();
        let level = if let Role::Source(level) = role { level } else { Level { nesting: 0, sources: &own } };
        let fail = |detail: String| Hdf5Error::object(&file.name, &object, detail);
        let library = |error: hdf5_metno::Error| fail(brief(&error));
        let dataset = located.open_dataset().map_err(fail)?;
        // Before the fill value, which the library looks up in a heap when the values are texts of variable length.
        let number_type = StoredType::read(&dataset).map_err(fail)?.number_type();
        let mut number_type = number_type.ok_or_else(|| {
            fail("its voxels are not numbers; save them as integers or floating-point numbers".to_owned())
        })?;
        let properties = dataset.dcpl().map_err(library)?;
        if let Some(raw) = properties.get_external().map_err(library)?.first() {
            return Err(fail(Unreadable::Raw(raw.name.clone()).to_string()));
        }
        let layout = properties.get_layout().map_err(library)?;
        // To tell the shape of a virtual dataset, the library may open its sources.
        let (shape, parts) = if layout == Layout::Virtual {
            virtual_dataset::parts(files, &file, &object, &properties, level)?
        } else {
            (dataset.get_shape().map_err(library)?, Vec::new())
        };
        let shape = checked_shape(&shape, role).map_err(fail)?;
        let mut fill = typed::fill_value(&dataset, &properties).map_err(library)?;
        let storage = match layout {
            Layout::Chunked => {
                let unsupported =
                    |filter| Hdf5Error::UnsupportedFilter { file: file.name.clone(), object: object.clone(), filter };
                let chunk = properties.get_chunk().map_err(library)?.unwrap_or_default();
                let chunk = checked_chunk(&chunk, number_type).map_err(fail)?;
                let pipeline =
                    pipeline(&properties, number_type, &fill, chunk).map_err(library)?.map_err(unsupported)?;
                if number_type.is_big_endian {
                    fill.reverse();
                }
                Storage::Chunks(ChunkIndex::list(
                    &file,
                    &object,
                    &dataset,
                    Grid { shape, chunk, number_type, pipeline, fill },
                    level.sources,
                )?)
            }
            Layout::Contiguous if dataset.offset().is_some() => {
                Storage::Contiguous(checked_offset(&file, &dataset, shape, number_type).map_err(fail)?)
            }
            other => {
                number_type = number_type.little_endian();
                match other {
                    Layout::Compact => Storage::Compact(typed::read_all(&dataset).map_err(library)?),
                    Layout::Virtual => Storage::Virtual(parts, fill),
                    _ => Storage::Blank(fill),
                }
            }
        };
        let volume = Self { file, object, shape, number_type, storage };
        // Chunks hold more than the volume at its end, and a small volume in a corner of a chunk is still small.
        let allowed = product(&shape).saturating_mul(MAX_DECODED).max(MAX_CHUNK_BYTES);
        if layout == Layout::Virtual && volume.decoded(&shape.map(|edge| 0..edge)) > allowed {
            let reason = "its parts have the same chunks decoded again and again; write a copy that holds the voxels, with h5repack or h5py";
            return Err(Hdf5Error::object(&volume.file.name, volume.object, reason));
        }
        Ok(volume)
    }

    /// The box `region`, (z, y, x), as a volume of its own.
    ///
    /// # Errors
    /// When the box is empty or leaves the volume.
    pub fn piece(self, region: &[Range<usize>; 3]) -> Result<Self, Hdf5Error> {
        let (file, object, number_type) = (Arc::clone(&self.file), self.object.clone(), self.number_type);
        let shape = region.each_ref().map(Range::len);
        let whole = self.shape;
        let place = shape.map(|edge| 0..edge);
        let part = if shape.contains(&0) { None } else { Part::new(&place, Some(region), Arc::new(self)) };
        let part = part.ok_or_else(|| {
            let detail = format!("it has {whole:?} voxels (z, y, x), and the piece {region:?} of it is not in there");
            Hdf5Error::object(&file.name, &object, detail)
        })?;
        let storage = Storage::Virtual(vec![part], vec![0; number_type.size]);
        Ok(Self { file, object, shape, number_type, storage })
    }

    /// Size (z, y, x) in voxels.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Size (z, y, x) of the blocks the voxels are stored in: boxes made of whole ones are read without decoding
    /// anything twice.
    pub fn block(&self) -> [usize; 3] {
        let [_, _, columns] = self.shape;
        match &self.storage {
            Storage::Chunks(index) => index.chunk(),
            Storage::Virtual(parts, _) => virtual_dataset::block(parts).unwrap_or([1, 1, columns]),
            Storage::Contiguous(_) | Storage::Compact(_) | Storage::Blank(_) => [1, 1, columns],
        }
    }

    /// Size (z, y, x) that none of the blocks exceeds which are decoded as a whole, however little is read of them.
    pub fn largest_chunk(&self) -> [usize; 3] {
        match &self.storage {
            Storage::Chunks(index) => index.chunk(),
            Storage::Virtual(parts, _) => virtual_dataset::largest_chunk(parts),
            Storage::Contiguous(_) | Storage::Compact(_) | Storage::Blank(_) => [1; 3],
        }
    }

    /// Voxels that are decoded to read the box `region`, (z, y, x).
    pub(crate) fn decoded(&self, region: &[Range<usize>; 3]) -> u64 {
        match &self.storage {
            Storage::Chunks(index) => index.decoded(region),
            Storage::Virtual(parts, _) => virtual_dataset::decoded(parts, region),
            Storage::Contiguous(_) | Storage::Compact(_) | Storage::Blank(_) => {
                product(&region.each_ref().map(Range::len))
            }
        }
    }

    /// Bytes that the voxels take in the file.
    pub fn stored_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Chunks(index) => index.stored_bytes(),
            Storage::Contiguous(_) => (self.shape.iter().product::<usize>() * self.number_type.size) as u64,
            Storage::Compact(voxels) => voxels.len() as u64,
            Storage::Virtual(parts, _) => virtual_dataset::stored_bytes(parts),
            Storage::Blank(_) => 0,
        }
    }

    /// How many volumes are read for it: one, and the parts of a virtual dataset.
    pub(crate) fn parts(&self) -> usize {
        match &self.storage {
            Storage::Virtual(parts, _) => 1 + virtual_dataset::total(parts),
            _ => 1,
        }
    }

    /// How its numbers are stored. Sources of a virtual dataset may store theirs otherwise.
    pub fn number_type(&self) -> NumberType {
        self.number_type
    }

    /// Whether `predicate` holds for the numbers of this volume or, of a virtual one, of any source.
    pub fn any_type(&self, predicate: &dyn Fn(NumberType) -> bool) -> bool {
        let in_parts = match &self.storage {
            Storage::Virtual(parts, _) => virtual_dataset::any_type(parts, predicate),
            _ => false,
        };
        in_parts || predicate(self.number_type)
    }

    /// Reads the box `region`, (z, y, x), into `out`, C order, converted by `convert`. Uses all threads of the current
    /// rayon pool. Returns the largest number before conversion, negative infinity when there is none.
    ///
    /// # Errors
    /// When the box leaves the volume, `out` has not as many voxels as the box, or the file is damaged.
    pub fn read<C: Convert>(
        &self,
        region: &[Range<usize>; 3],
        convert: &C,
        out: &mut [C::Output],
    ) -> Result<f64, Hdf5Error> {
        let inside = region.iter().zip(self.shape).all(|(range, edge)| range.start <= range.end && range.end <= edge);
        let voxels = region.iter().map(Range::len).product::<usize>();
        if !inside || voxels != out.len() {
            let detail = format!(
                "the box {region:?} (z, y, x) does not fit into a volume of {:?} and a buffer of {} voxels",
                self.shape,
                out.len()
            );
            return Err(Hdf5Error::object(&self.file.name, &self.object, detail));
        }
        if out.is_empty() {
            return Ok(f64::NEG_INFINITY);
        }
        match &self.storage {
            Storage::Chunks(index) => index.read(&self.file, &self.object, region, convert, out),
            Storage::Contiguous(offset) => self.read_contiguous(*offset, region, convert, out),
            Storage::Compact(voxels) => Ok(self.copy_rows(voxels, region, convert, out)),
            Storage::Blank(fill) => {
                let (voxel, value) = fill_value(self.number_type, fill, convert);
                out.fill(voxel);
                Ok(value)
            }
            Storage::Virtual(parts, fill) => {
                let (voxel, value) = fill_value(self.number_type, fill, convert);
                out.fill(voxel);
                let (largest, is_partial) = virtual_dataset::read(parts, region, convert, out)?;
                Ok(if is_partial { largest.max(value) } else { largest })
            }
        }
    }

    fn read_contiguous<C: Convert>(
        &self,
        offset: u64,
        [z, y, x]: &[Range<usize>; 3],
        convert: &C,
        out: &mut [C::Output],
    ) -> Result<f64, Hdf5Error> {
        let [_, height, width] = self.shape;
        let size = self.number_type.size;
        let stride = width * size;
        // Several rows, or a part of one.
        let rows = (PIECE_BYTES / stride).clamp(1, y.len());
        let columns = if rows > 1 { x.len() } else { x.len().min(PIECE_BYTES / size) };
        let pieces: Vec<_> = out
            .chunks_mut(y.len() * x.len())
            .zip(z.clone())
            .flat_map(|(plane, z)| {
                plane.chunks_mut(rows * x.len()).zip(y.clone().step_by(rows)).flat_map(move |(lines, y)| {
                    let width = if rows > 1 { lines.len() } else { columns };
                    lines.chunks_mut(width).zip(x.clone().step_by(columns)).map(move |(piece, x)| ([z, y, x], piece))
                })
            })
            .collect();
        let read_piece = |bytes: &mut Vec<u8>, ([z, y, x], piece): ([usize; 3], &mut [C::Output])| {
            let columns = columns.min(piece.len());
            bytes.resize((piece.len() / columns - 1) * stride + columns * size, 0);
            self.file.read_at(bytes, offset + (((z * height + y) * width + x) * size) as u64)?;
            let lines = piece.chunks_mut(columns).zip(bytes.chunks(stride));
            let copied = lines.map(|(row, bytes)| convert.convert(self.stored(bytes), 0, row));
            Ok(copied.fold(f64::NEG_INFINITY, f64::max))
        };
        pieces
            .into_par_iter()
            .map_init(Vec::new, read_piece)
            .try_reduce(|| f64::NEG_INFINITY, |largest, other| Ok(largest.max(other)))
    }

    /// Numbers of this volume, one after the other.
    fn stored<'a>(&self, bytes: &'a [u8]) -> StoredNumbers<'a> {
        StoredNumbers { number_type: self.number_type, bytes, is_shuffled: false }
    }

    fn copy_rows<C: Convert>(
        &self,
        voxels: &[u8],
        [z, y, x]: &[Range<usize>; 3],
        convert: &C,
        out: &mut [C::Output],
    ) -> f64 {
        let [_, height, width] = self.shape;
        let mut rows = out.chunks_exact_mut(x.len());
        let mut largest = f64::NEG_INFINITY;
        for z in z.clone() {
            for y in y.clone() {
                if let Some(row) = rows.next() {
                    let first = (z * height + y) * width + x.start;
                    largest = largest.max(convert.convert(self.stored(voxels), first, row));
                }
            }
        }
        largest
    }
}

/// The filters of a chunked dataset, or the name of the one that cannot be undone. `fill` is little endian.
fn pipeline(
    properties: &DatasetCreate,
    number_type: NumberType,
    fill: &[u8],
    chunk: [usize; 3],
) -> Result<Result<Pipeline, String>, hdf5_metno::Error> {
    let filters = properties.get_filters()?;
    if properties.chunk_opts().is_some_and(|options| !options.is_empty()) {
        return Ok(Err("unfiltered partial chunks".to_owned()));
    }
    let bits = fill.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
    let scale = ScaleOffset {
        size: number_type.size,
        big_endian: number_type.is_big_endian,
        fill: (properties.get_fill_value_defined()? != FillValue::Undefined).then_some(bits),
        decimals: None,
    };
    Ok(Pipeline::new(&filters, Values { scale, is_float: number_type.kind == NumberKind::Float, chunk }))
}

/// Where contiguous voxels begin, all of which must be in the file.
fn checked_offset(
    file: &OpenFile,
    dataset: &Dataset,
    shape: [usize; 3],
    number_type: NumberType,
) -> Result<u64, String> {
    let bytes = (shape.iter().product::<usize>() * number_type.size) as u64;
    let offset = dataset.offset().filter(|&offset| file.holds(offset, bytes));
    offset.ok_or_else(|| "its voxels lie beyond the end of the file".to_owned())
}

/// Voxels of a box of this size.
pub(crate) fn product(size: &[usize; 3]) -> u64 {
    size.iter().fold(1, |product: u64, &edge| product.saturating_mul(edge as u64))
}

/// Values for the axes (z, y, x), or for (y, x) with `one` for z; `None` for another number of axes.
pub(crate) fn padded<T: Clone>(values: &[T], one: T) -> Option<[T; 3]> {
    match values {
        [z, y, x] => Some([z.clone(), y.clone(), x.clone()]),
        [y, x] => Some([one, y.clone(), x.clone()]),
        _ => None,
    }
}

fn checked_shape(shape: &[usize], role: Role<'_>) -> Result<[usize; 3], String> {
    let axes = shape.len();
    let shape = padded(shape, 1)
        .filter(|_| axes == 3 || !matches!(role, Role::Image))
        .ok_or_else(|| format!("it has {axes} axes; three are expected (z, y, x)"))?;
    let voxels = shape.iter().try_fold(1_u64, |voxels, &edge| voxels.checked_mul(edge as u64));
    match voxels {
        Some(1..=MAX_VOXELS) => Ok(shape),
        Some(0) => Err("it has no voxels".to_owned()),
        _ => Err(format!("a volume of {shape:?} voxels is too large")),
    }
}

fn checked_chunk(chunk: &[usize], number_type: NumberType) -> Result<[usize; 3], String> {
    let chunk = padded(chunk, 1).ok_or_else(|| "its chunks do not have three axes".to_owned())?;
    let bytes = chunk.iter().try_fold(number_type.size as u64, |bytes, &edge| bytes.checked_mul(edge as u64));
    match bytes {
        Some(1..=MAX_CHUNK_BYTES) => Ok(chunk),
        _ => Err(format!(
            "its chunks of {chunk:?} voxels (z, y, x) are too large; save it with smaller ones (h5repack -l CHUNK=16x64x64)"
        )),
    }
}
