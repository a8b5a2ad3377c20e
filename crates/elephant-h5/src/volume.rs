//! One volume of a movie: a timepoint of a setup at one resolution level.

use std::{ops::Range, sync::Arc};

use hdf5_metno::{
    Dataset, Group,
    dataset::{DatasetCreate, FillValue, Layout},
    datatype::ByteOrder,
    types::TypeDescriptor,
};
use rayon::prelude::*;

use crate::{
    H5Error,
    chunks::{ChunkIndex, Grid},
    element::Element,
    file::{OpenFile, brief},
    filters::Pipeline,
    scale_offset::ScaleOffset,
};

/// Largest chunk that is read, in bytes. A worker holds one in memory.
const MAX_CHUNK_BYTES: u64 = 1 << 30;
/// Most voxels of one volume; keeps every product of sizes within 64 bits.
const MAX_VOXELS: u64 = 1 << 44;
/// Contiguous data is read in pieces of about so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Voxels (z, y, x) of one timepoint, read box by box.
#[derive(Debug)]
pub struct Volume {
    file: Arc<OpenFile>,
    object: String,
    shape: [usize; 3],
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    /// Chunks, each somewhere in the file.
    Chunks(ChunkIndex),
    /// One run of voxels at an offset.
    Contiguous(Element, u64),
    /// A volume so small that it lies in the file's metadata.
    Compact(Vec<u16>),
    /// Nothing was ever written: all voxels have this value.
    Blank(u16),
}

impl Volume {
    /// Opens the dataset `name` of `group`; `object` is its whole path, for messages.
    pub(crate) fn open(file: Arc<OpenFile>, group: &Group, name: &str, object: String) -> Result<Self, H5Error> {
        let fail = |detail: String| H5Error::object(&file.name, &object, detail);
        let library = |error: hdf5_metno::Error| fail(brief(&error));
        let dataset = group.dataset(name).map_err(library)?;
        let properties = dataset.dcpl().map_err(library)?;
        let layout = properties.get_layout().map_err(library)?;
        refuse_data_elsewhere(&file, &object, &properties, layout)?;
        let shape = checked_shape(&dataset.get_shape().map_err(library)?).map_err(fail)?;
        let element = Element::of(&dataset).map_err(fail)?;
        let fill = fill_value(&properties, element);
        let storage = match layout {
            Layout::Chunked => {
                let filters = properties.get_filters().map_err(library)?;
                let partial = properties.chunk_opts().is_some_and(|options| !options.is_empty());
                let scale = ScaleOffset {
                    size: element.size(),
                    big_endian: element == Element::U16(ByteOrder::BigEndian),
                    fill: (properties.get_fill_value_defined().map_err(library)? != FillValue::Undefined)
                        .then_some(fill),
                };
                let known =
                    if partial { Err("unfiltered partial chunks".to_owned()) } else { Pipeline::of(&filters, scale) };
                let unsupported =
                    |filter| H5Error::UnsupportedFilter { file: file.name.clone(), object: object.clone(), filter };
                let pipeline = known.map_err(unsupported)?;
                let chunk = properties.get_chunk().map_err(library)?.unwrap_or_default();
                let chunk = checked_chunk(&chunk, element).map_err(fail)?;
                let grid = Grid { shape, chunk, element, pipeline, fill };
                Storage::Chunks(ChunkIndex::list(&file, &object, &dataset, grid)?)
            }
            Layout::Compact => Storage::Compact(read_compact(&dataset).map_err(library)?),
            _ => match dataset.offset() {
                Some(offset) if file.holds(offset, (shape.iter().product::<usize>() * element.size()) as u64) => {
                    Storage::Contiguous(element, offset)
                }
                Some(_) => return Err(fail("its voxels lie beyond the end of the file".to_owned())),
                None => Storage::Blank(fill),
            },
        };
        Ok(Self { file, object, shape, storage })
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
            Storage::Contiguous(..) | Storage::Compact(_) | Storage::Blank(_) => [1, 1, columns],
        }
    }

    /// Bytes that the voxels take in the file.
    pub fn stored_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Chunks(index) => index.stored_bytes(),
            Storage::Contiguous(element, _) => (self.shape.iter().product::<usize>() * element.size()) as u64,
            Storage::Compact(voxels) => size_of_val(voxels.as_slice()) as u64,
            Storage::Blank(_) => 0,
        }
    }

    /// Reads the box `region`, (z, y, x), into `out`, C order. Uses all threads of the current rayon pool.
    ///
    /// # Errors
    /// When the box leaves the volume, `out` has not as many voxels as the box, or the file is damaged.
    pub fn read(&self, region: &[Range<usize>; 3], out: &mut [u16]) -> Result<(), H5Error> {
        let inside = region.iter().zip(self.shape).all(|(range, edge)| range.start <= range.end && range.end <= edge);
        let voxels = region.iter().map(Range::len).product::<usize>();
        if !inside || voxels != out.len() {
            let detail = format!(
                "the box {region:?} (z, y, x) does not fit into a volume of {:?} and a buffer of {} voxels",
                self.shape,
                out.len()
            );
            return Err(H5Error::object(&self.file.name, &self.object, detail));
        }
        if out.is_empty() {
            return Ok(());
        }
        match &self.storage {
            Storage::Chunks(index) => index.read(&self.file, &self.object, region, out),
            Storage::Contiguous(element, offset) => self.read_contiguous(*element, *offset, region, out),
            Storage::Compact(voxels) => {
                self.copy_rows(voxels, region, out);
                Ok(())
            }
            Storage::Blank(fill) => {
                out.fill(*fill);
                Ok(())
            }
        }
    }

    fn read_contiguous(
        &self,
        element: Element,
        offset: u64,
        [z, y, x]: &[Range<usize>; 3],
        out: &mut [u16],
    ) -> Result<(), H5Error> {
        let [_, height, width] = self.shape;
        let stride = width * element.size();
        let rows = (PIECE_BYTES / stride).clamp(1, y.len());
        let pieces: Vec<_> = out
            .chunks_mut(y.len() * x.len())
            .zip(z.clone())
            .flat_map(|(plane, z)| {
                plane.chunks_mut(rows * x.len()).zip(y.clone().step_by(rows)).map(move |(piece, y)| (z, y, piece))
            })
            .collect();
        pieces.into_par_iter().try_for_each_init(Vec::new, |bytes, (z, y, piece)| {
            bytes.resize(piece.len() / x.len() * stride, 0);
            self.file.read_at(bytes, offset + ((z * height + y) * stride) as u64)?;
            for (row, line) in piece.chunks_mut(x.len()).zip(bytes.chunks(stride)) {
                element.copy(line, false, x.start, row);
            }
            Ok(())
        })
    }

    fn copy_rows(&self, voxels: &[u16], [z, y, x]: &[Range<usize>; 3], out: &mut [u16]) {
        let [_, height, width] = self.shape;
        let mut rows = out.chunks_exact_mut(x.len());
        for z in z.clone() {
            for y in y.clone() {
                let first = (z * height + y) * width;
                if let Some(row) = rows.next() {
                    row.copy_from_slice(&voxels[first..][x.clone()]);
                }
            }
        }
    }
}

/// Refuses datasets whose voxels are in other files, which may be any file of this machine.
fn refuse_data_elsewhere(
    file: &OpenFile,
    object: &str,
    properties: &DatasetCreate,
    layout: Layout,
) -> Result<(), H5Error> {
    let external = properties.get_external().map_err(|error| H5Error::object(&file.name, object, brief(&error)))?;
    let target = match external.first() {
        Some(first) => first.name.clone(),
        None if layout == Layout::Virtual => "a virtual dataset".to_owned(),
        None => return Ok(()),
    };
    Err(H5Error::Escapes { file: file.name.clone(), object: object.to_owned(), target })
}

fn checked_shape(shape: &[usize]) -> Result<[usize; 3], String> {
    let shape: [usize; 3] =
        shape.try_into().map_err(|_| format!("it has {} axes; three are expected (z, y, x)", shape.len()))?;
    let voxels = shape.iter().try_fold(1_u64, |voxels, &edge| voxels.checked_mul(edge as u64));
    match voxels {
        Some(1..=MAX_VOXELS) => Ok(shape),
        Some(0) => Err("it has no voxels".to_owned()),
        _ => Err(format!("a volume of {shape:?} voxels is too large")),
    }
}

fn checked_chunk(chunk: &[usize], element: Element) -> Result<[usize; 3], String> {
    let chunk: [usize; 3] = chunk.try_into().map_err(|_| "its chunks do not have three axes".to_owned())?;
    let bytes = chunk.iter().try_fold(element.size() as u64, |bytes, &edge| bytes.checked_mul(edge as u64));
    match bytes {
        Some(1..=MAX_CHUNK_BYTES) => Ok(chunk),
        _ => Err(format!(
            "its chunks of {chunk:?} voxels (z, y, x) are too large; save it with smaller ones (h5repack -l CHUNK=16x64x64)"
        )),
    }
}

/// All voxels of a dataset, through the library. Signed ones are read as such: it would turn negative ones into 0.
fn read_compact(dataset: &Dataset) -> Result<Vec<u16>, hdf5_metno::Error> {
    match dataset.dtype()?.to_descriptor()? {
        TypeDescriptor::Integer(_) => Ok(dataset.read_raw::<i16>()?.into_iter().map(i16::cast_unsigned).collect()),
        _ => dataset.read_raw::<u16>(),
    }
}

/// The value of voxels that were never written.
fn fill_value(properties: &DatasetCreate, element: Element) -> u16 {
    let value = match element {
        Element::U8 => properties.get_fill_value_as::<u8>().ok().flatten().map(u16::from),
        // Read as signed and as unsigned, as the file may call it either; the library clips what does not fit.
        Element::U16(_) => {
            let signed = properties.get_fill_value_as::<i16>().ok().flatten();
            let unsigned = properties.get_fill_value_as::<u16>().ok().flatten();
            signed.filter(|&value| value < 0).map(i16::cast_unsigned).or(unsigned)
        }
    };
    value.unwrap_or(0)
}
