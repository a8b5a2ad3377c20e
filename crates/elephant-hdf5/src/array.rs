//! Whole datasets of any number of axes, read around the HDF5 library.

use hdf5_metno::{
    Dataset,
    dataset::{DatasetCreate, FillValue, Layout},
};

use crate::{
    Hdf5Error, NumberKind, Value,
    error::Unreadable,
    file::{OpenFile, brief},
    filters::{Pipeline, Scratch, Values},
    header,
    scale_offset::ScaleOffset,
    typed,
    value::StoredType,
    volume::MAX_CHUNK_BYTES,
};

/// Largest number of bytes that all values of a dataset take.
const MAX_BYTES: usize = 256 << 20;

/// Reads all values of `dataset`, whose header is at `address`; `object` is its path, for messages.
pub(crate) fn read(file: &OpenFile, object: &str, dataset: &Dataset, address: u64) -> Result<Value, Hdf5Error> {
    let fail = |detail: String| Hdf5Error::object(&file.name, object, detail);
    let library = |error: hdf5_metno::Error| fail(brief(&error));
    let stored = StoredType::read(dataset).map_err(fail)?;
    let properties = dataset.dcpl().map_err(library)?;
    if let Some(raw) = properties.get_external().map_err(library)?.first() {
        return Err(fail(Unreadable::Raw(raw.name.clone()).to_string()));
    }
    let layout = properties.get_layout().map_err(library)?;
    if layout == Layout::Virtual {
        return Err(fail(Unreadable::Virtual.to_string()));
    }
    let space = dataset.space().map_err(library)?;
    let shape = if space.is_null() { vec![0] } else { space.shape() };
    let length = bytes_of(&shape, stored.size()).filter(|&length| length <= MAX_BYTES).ok_or_else(|| {
        fail(format!("its {shape:?} values take more than the {} MiB that are read at once", MAX_BYTES >> 20))
    })?;
    let bytes = match layout {
        Layout::Compact => {
            header::compact_data(file, address).filter(|bytes| bytes.len() >= length).ok_or_else(|| {
                fail("its values are damaged, or stored by an old writer; write it again with h5repack".to_owned())
            })?
        }
        Layout::Contiguous => match dataset.offset() {
            Some(offset) if file.holds(offset, length as u64) => {
                let mut bytes = vec![0; length];
                file.read_at(&mut bytes, offset)?;
                bytes
            }
            Some(_) => return Err(fail("its values lie beyond the end of the file".to_owned())),
            None => filled(dataset, &properties, stored, length).map_err(library)?,
        },
        _ => {
            let mut bytes = filled(dataset, &properties, stored, length).map_err(library)?;
            let chunks = Chunks::open(file, object, dataset, &properties, stored, &shape)?;
            chunks.read(file, dataset, &mut bytes).map_err(fail)?;
            bytes
        }
    };
    stored.decode(file, &shape, &bytes[..length]).map_err(fail)
}

/// `length` bytes of values that were never written.
fn filled(
    dataset: &Dataset,
    properties: &DatasetCreate,
    stored: StoredType,
    length: usize,
) -> hdf5_metno::Result<Vec<u8>> {
    // The library looks up the fill value of texts in a heap, which may be damaged.
    let Some(number_type) = stored.number_type() else { return Ok(vec![0; length]) };
    let mut value = typed::fill_value(dataset, properties)?;
    if number_type.is_big_endian {
        value.reverse();
    }
    Ok(value.iter().copied().cycle().take(length).collect())
}

/// The chunks of a dataset of any number of axes.
struct Chunks<'a> {
    shape: &'a [usize],
    chunk: Vec<usize>,
    /// Bytes of one value.
    size: usize,
    pipeline: Pipeline,
}

impl<'a> Chunks<'a> {
    fn open(
        file: &OpenFile,
        object: &str,
        dataset: &Dataset,
        properties: &DatasetCreate,
        stored: StoredType,
        shape: &'a [usize],
    ) -> Result<Self, Hdf5Error> {
        let fail = |detail: String| Hdf5Error::object(&file.name, object, detail);
        let library = |error: hdf5_metno::Error| fail(brief(&error));
        let chunk = properties.get_chunk().map_err(library)?.unwrap_or_default();
        let size = stored.size();
        if chunk.is_empty() || chunk.len() != shape.len() || chunk.contains(&0) {
            return Err(fail("its chunks have another number of axes than its values".to_owned()));
        }
        if bytes_of(&chunk, size).is_none_or(|bytes| bytes as u64 > MAX_CHUNK_BYTES) {
            return Err(fail(format!("its chunks of {chunk:?} values are too large; save it with smaller ones")));
        }
        let filters = properties.get_filters().map_err(library)?;
        let unsupported =
            |filter| Hdf5Error::UnsupportedFilter { file: file.name.clone(), object: object.to_owned(), filter };
        let number_type = stored.number_type();
        let fill = match number_type {
            Some(_) => typed::fill_value(dataset, properties).map_err(library)?,
            None => Vec::new(),
        };
        let has_fill = properties.get_fill_value_defined().map_err(library)? != FillValue::Undefined;
        let scale = ScaleOffset {
            size,
            big_endian: number_type.is_some_and(|number_type| number_type.is_big_endian),
            fill: has_fill.then(|| fill.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte))),
            decimals: None,
        };
        // The leading axes count as one, and the last one by itself.
        let row = chunk.last().copied().unwrap_or(1);
        let values = Values {
            scale,
            is_float: number_type.is_some_and(|number_type| number_type.kind == NumberKind::Float),
            chunk: [1, chunk.iter().product::<usize>() / row, row],
        };
        if properties.chunk_opts().is_some_and(|options| !options.is_empty()) {
            return Err(unsupported("unfiltered partial chunks".to_owned()));
        }
        let pipeline = Pipeline::new(&filters, values).map_err(unsupported)?;
        if number_type.is_none() && pipeline.is_for_numbers() {
            return Err(unsupported("a filter for numbers".to_owned()));
        }
        Ok(Self { shape, chunk, size, pipeline })
    }

    /// Reads the chunks that were written into `bytes`, which has room for all values.
    fn read(&self, file: &OpenFile, dataset: &Dataset, bytes: &mut [u8]) -> Result<(), String> {
        let chunk_bytes = bytes_of(&self.chunk, self.size).unwrap_or(0);
        let longest = chunk_bytes as u64 + chunk_bytes as u64 / 100 + 1024;
        let most: u64 = self.shape.iter().zip(&self.chunk).map(|(&edge, &chunk)| edge.div_ceil(chunk) as u64).product();
        let mut places = Vec::new();
        let mut damage = None;
        let visited = dataset.chunks_visit(|info| {
            let inside = info.offset.len() == self.shape.len()
                && info.offset.iter().zip(self.shape).all(|(&start, &edge)| start < edge as u64);
            if !inside || !file.holds(info.addr, info.size) || info.size > longest || places.len() as u64 == most {
                damage = Some("its index of chunks is damaged");
                return -1;
            }
            places.push((info.offset.to_vec(), info.addr, info.size as usize, info.filter_mask));
            0
        });
        if let Some(damage) = damage {
            return Err(damage.to_owned());
        }
        visited.map_err(|error| brief(&error))?;
        let mut scratch = Scratch::default();
        let mut unshuffled = vec![0; chunk_bytes];
        for (start, offset, length, skipped) in places {
            scratch.stored.resize(length, 0);
            file.read_at(&mut scratch.stored, offset).map_err(|error| error.to_string())?;
            let (plain, is_shuffled) = self.pipeline.undo(skipped, chunk_bytes, &mut scratch)?;
            let plain = if is_shuffled {
                unshuffle(plain, self.size, &mut unshuffled);
                &unshuffled
            } else {
                plain
            };
            let start: Vec<usize> = start.into_iter().map(|start| start as usize).collect();
            self.place(&start, plain, bytes);
        }
        Ok(())
    }

    /// Copies the values of the chunk that begins at `start` to where they belong.
    fn place(&self, start: &[usize], chunk: &[u8], bytes: &mut [u8]) {
        let axes = self.shape.len();
        let inside: Vec<usize> = (0..axes).map(|axis| self.chunk[axis].min(self.shape[axis] - start[axis])).collect();
        let row = inside[axes - 1] * self.size;
        for lead in ndarray::indices(&inside[..axes - 1]) {
            let number = |edges: &[usize], start: &[usize]| {
                let leading = (0..axes - 1).fold(0, |number, axis| number * edges[axis] + start[axis] + lead[axis]);
                (leading * edges[axes - 1] + start[axes - 1]) * self.size
            };
            let (from, to) = (number(&self.chunk, &vec![0; axes]), number(self.shape, start));
            bytes[to..to + row].copy_from_slice(&chunk[from..from + row]);
        }
    }
}

/// Puts the bytes of each value together again.
fn unshuffle(shuffled: &[u8], size: usize, out: &mut [u8]) {
    let values = shuffled.len() / size.max(1);
    for (index, value) in out.chunks_exact_mut(size.max(1)).enumerate() {
        for (byte, place) in value.iter_mut().enumerate() {
            *place = shuffled[byte * values + index];
        }
    }
}

fn bytes_of(shape: &[usize], size: usize) -> Option<usize> {
    shape.iter().try_fold(size, |bytes: usize, &edge| bytes.checked_mul(edge))
}
