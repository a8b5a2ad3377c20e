//! One volume of a movie: a timepoint of a setup at one resolution level.

use std::{ops::Range, sync::Arc};

use hdf5_metno::{
    Dataset, Group,
    dataset::{ChunkOpts, DatasetCreate, Layout},
};
use ndarray::{Array3, s};
use rayon::prelude::*;

use crate::{
    H5Error,
    chunks::{ChunkIndex, Grid, Pipeline},
    element::Element,
    file::{OpenFile, brief},
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
    /// Chunks this crate decodes itself.
    Chunks(ChunkIndex),
    /// One run of little-endian voxels at an offset.
    Contiguous(Element, u64),
    /// Nothing was ever written: all voxels have this value.
    Blank(u16),
    /// Everything else, through the HDF5 library.
    Library(Element, Dataset),
}

impl Volume {
    /// Opens the dataset `name` of `group`; `object` is its whole path, for messages.
    pub(crate) fn open(file: Arc<OpenFile>, group: &Group, name: &str, object: String) -> Result<Self, H5Error> {
        let fail = |detail: String| H5Error::object(&file.name, &object, detail);
        let dataset = group.dataset(name).map_err(|error| fail(brief(&error)))?;
        let properties = dataset.dcpl().map_err(|error| fail(brief(&error)))?;
        let layout = properties.get_layout().map_err(|error| fail(brief(&error)))?;
        refuse_data_elsewhere(&file, &object, &properties, layout)?;
        let shape = dataset.get_shape().map_err(|error| fail(brief(&error)))?;
        let shape = checked_shape(&shape).map_err(fail)?;
        let (element, little_endian) = Element::of(&dataset).map_err(fail)?;
        let filters = properties.get_filters().map_err(|error| fail(brief(&error)))?;
        if let Some(missing) = filters.iter().find(|filter| !filter.is_available()) {
            let filter = filter_name(missing.id());
            return Err(H5Error::UnsupportedFilter { file: file.name.clone(), object, filter });
        }
        let direct = little_endian && file.user_block() == 0;
        let storage = match layout {
            Layout::Chunked => {
                let chunk = properties.get_chunk().map_err(|error| fail(brief(&error)))?;
                let chunk = checked_chunk(&chunk.unwrap_or_default(), element).map_err(fail)?;
                let whole = !properties
                    .chunk_opts()
                    .is_some_and(|options| options.contains(ChunkOpts::DONT_FILTER_PARTIAL_CHUNKS));
                match Pipeline::of(&filters).filter(|_| direct && whole) {
                    Some(pipeline) => {
                        let grid = Grid { shape, chunk, element, pipeline, fill: fill_value(&properties, element) };
                        Storage::Chunks(ChunkIndex::list(&file, &object, &dataset, grid)?)
                    }
                    None => Storage::Library(element, dataset),
                }
            }
            Layout::Contiguous if direct => match dataset.offset() {
                Some(offset) if file.holds(offset, (shape.iter().product::<usize>() * element.size()) as u64) => {
                    Storage::Contiguous(element, offset)
                }
                Some(_) => return Err(fail("its voxels lie beyond the end of the file".to_owned())),
                None => Storage::Blank(fill_value(&properties, element)),
            },
            _ => Storage::Library(element, dataset),
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
            Storage::Library(_, dataset) => {
                dataset.chunk().and_then(|chunk| chunk.try_into().ok()).unwrap_or([1, 1, columns])
            }
            Storage::Contiguous(..) | Storage::Blank(_) => [1, 1, columns],
        }
    }

    /// Bytes that the voxels take in the file.
    pub fn stored_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Chunks(index) => index.stored_bytes(),
            Storage::Contiguous(element, _) => (self.shape.iter().product::<usize>() * element.size()) as u64,
            Storage::Blank(_) => 0,
            Storage::Library(_, dataset) => dataset.storage_size(),
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
            Storage::Library(element, dataset) => self.read_by_library(*element, dataset, region, out),
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

    fn read_by_library(
        &self,
        element: Element,
        dataset: &Dataset,
        [z, y, x]: &[Range<usize>; 3],
        out: &mut [u16],
    ) -> Result<(), H5Error> {
        let selection = s![z.clone(), y.clone(), x.clone()];
        let fail = |error: hdf5_metno::Error| H5Error::object(&self.file.name, &self.object, brief(&error));
        match element {
            Element::U8 => {
                let voxels: Array3<u8> = dataset.read_slice(selection).map_err(fail)?;
                out.iter_mut().zip(&voxels).for_each(|(out, &voxel)| *out = voxel.into());
            }
            Element::U16 => {
                let voxels: Array3<u16> = dataset.read_slice(selection).map_err(fail)?;
                out.iter_mut().zip(&voxels).for_each(|(out, &voxel)| *out = voxel);
            }
            Element::I16 => {
                // Read as what the file calls them: the library would turn negative ones into 0.
                let voxels: Array3<i16> = dataset.read_slice(selection).map_err(fail)?;
                out.iter_mut().zip(&voxels).for_each(|(out, &voxel)| *out = voxel.cast_unsigned());
            }
        }
        Ok(())
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

/// The value of voxels that were never written.
fn fill_value(properties: &DatasetCreate, element: Element) -> u16 {
    let value = match element {
        Element::U8 => properties.get_fill_value_as::<u8>().ok().flatten().map(u16::from),
        Element::U16 => properties.get_fill_value_as::<u16>().ok().flatten(),
        Element::I16 => properties.get_fill_value_as::<i16>().ok().flatten().map(i16::cast_unsigned),
    };
    value.unwrap_or(0)
}

/// Names of the filters that movies are compressed with, as registered with The HDF Group.
fn filter_name(id: i32) -> String {
    let name = match id {
        4 => "SZIP",
        32001 => "Blosc",
        32004 => "LZ4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "Zstandard",
        32026 => "Blosc2",
        _ => return format!("HDF5 filter {id}"),
    };
    format!("{name} (HDF5 filter {id})")
}
