//! One chunked array on disk: a folder with a `.zarray` file and one file for each chunk (Zarr specification v2).

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use elephant_fs::{FileVersion, FsError, replace_unflushed, write_atomic};
use elephant_memory::items_per_worker;
use elephant_types::CancelToken;
use ndarray::{ArrayViewD, ArrayViewMutD};
use rayon::prelude::*;

use crate::{
    ChunkCache, ChunkEncoder, DataType, Element, VolumeError,
    blosc::{self, HEADER_BYTES},
    metadata::{Compressor, Metadata, Refused},
    tiles::{convert_into, tiles},
};

/// Longest `.zarray` file that is read, in bytes.
const MAX_METADATA_BYTES: u64 = 1 << 20;
/// What the buffers of all workers may take together, in bytes, unless one alone takes more: a worker has one for a chunk's
/// elements and one for its file.
const BUFFER_BYTES: usize = 512 << 20;
/// Most chunks that one box may touch; each takes some 200 bytes meanwhile. Whole frames touch thousands.
const MAX_CHUNKS_AT_ONCE: usize = 1 << 20;

/// A Zarr v2 array in a folder of its own.
///
/// Chunks change by replacement: a reader in any process sees a chunk's old content or its new one. Two writers of the
/// same chunk must take turns, or the later one wins.
#[derive(Debug)]
pub struct ArrayStore {
    folder: PathBuf,
    name: String,
    metadata: Metadata,
}

impl ArrayStore {
    /// Makes an empty array in a new folder.
    ///
    /// # Errors
    /// When the array or its chunks are too large, or the folder cannot be written.
    pub fn create(folder: &Path, shape: &[usize], chunks: &[usize], data_type: DataType) -> Result<Self, VolumeError> {
        let metadata = Metadata::new(shape, chunks, data_type);
        let store = store_name(folder);
        metadata.check_sizes().map_err(|reason| VolumeError::Access { store, reason: reason.to_owned() })?;
        write_atomic(&folder.join(".zarray"), |file| io::Write::write_all(file, &metadata.to_json()))?;
        Ok(Self { folder: folder.to_owned(), name: store_name(folder), metadata })
    }

    /// Opens an existing array.
    ///
    /// # Errors
    /// [`VolumeError::Missing`] when there is no array in the folder, others when it cannot be read or is of a kind that this
    /// crate does not read.
    pub fn open(folder: &Path) -> Result<Self, VolumeError> {
        let store = store_name(folder);
        let path = folder.join(".zarray");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(VolumeError::Missing { store }),
            Err(error) => return Err(FsError::io("open", path)(error).into()),
        };
        let mut text = Vec::new();
        file.take(MAX_METADATA_BYTES).read_to_end(&mut text).map_err(FsError::io("read", path))?;
        match Metadata::from_json(&text) {
            Ok(metadata) => Ok(Self { folder: folder.to_owned(), name: store, metadata }),
            Err(Refused::Damaged(reason)) => Err(VolumeError::Metadata { store, reason }),
            Err(Refused::Unsupported(feature)) => Err(VolumeError::Unsupported { store, feature }),
        }
    }

    /// The name of the array's folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Elements along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.metadata.shape
    }

    /// Elements of a chunk along each axis.
    pub fn chunks(&self) -> &[usize] {
        &self.metadata.chunks
    }

    /// Type of the elements.
    pub fn data_type(&self) -> DataType {
        self.metadata.data_type
    }

    /// Reads the box that begins at `start` into `out`, which has the box's shape. Elements that were never written have
    /// the array's fill value. Uses all threads of the current rayon pool.
    ///
    /// # Errors
    /// When the box leaves the array, the array holds another type than `T`, or a chunk is damaged.
    pub fn read<T: Element>(&self, start: &[usize], out: ArrayViewMutD<'_, T>) -> Result<(), VolumeError> {
        self.read_as(start, out, |value: T| value)
    }

    /// As [`read`](Self::read), with every element passed through `convert`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as<T: Element, U: Copy + Send + Sync>(
        &self,
        start: &[usize],
        out: ArrayViewMutD<'_, U>,
        convert: impl Fn(T) -> U + Sync,
    ) -> Result<(), VolumeError> {
        let fill = convert(T::from_f64(self.metadata.fill));
        self.read_or(start, out, fill, convert)
    }

    /// As [`read_as`](Self::read_as), with `absent` for elements of chunks that were never written.
    pub(crate) fn read_or<T: Element, U: Copy + Send + Sync>(
        &self,
        start: &[usize],
        out: ArrayViewMutD<'_, U>,
        absent: U,
        convert: impl Fn(T) -> U + Sync,
    ) -> Result<(), VolumeError> {
        self.check_access::<T>(start, out.shape())?;
        let tiles = tiles(out, start, self.chunks(), ArrayViewMutD::split_at);
        let at_least = tiles_per_worker(tiles.len(), 2 * self.metadata.chunk_bytes());
        tiles.into_par_iter().with_min_len(at_least).try_for_each_init(
            || Buffers::new(&self.metadata),
            |buffers, mut tile| {
                if !self.load(&tile.chunk, buffers)? {
                    tile.part.fill(absent);
                    return Ok(());
                }
                let stored = tile.window(&buffers.elements, self.chunks());
                convert_into(stored, tile.part.view_mut(), &convert);
                Ok(())
            },
        )
    }

    /// As [`read_as`](Self::read_as), but looks for every chunk in `cache` first and keeps there what was decoded.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when the task is cancelled between two chunks.
    pub fn read_cached<T: Element, U: Copy + Send + Sync>(
        &self,
        cache: &ChunkCache,
        start: &[usize],
        out: ArrayViewMutD<'_, U>,
        convert: impl Fn(T) -> U + Sync,
        cancel: &CancelToken,
    ) -> Result<(), VolumeError> {
        self.check_access::<T>(start, out.shape())?;
        let fill = convert(T::from_f64(self.metadata.fill));
        let tiles = tiles(out, start, self.chunks(), ArrayViewMutD::split_at);
        let at_least = tiles_per_worker(tiles.len(), 2 * self.metadata.chunk_bytes());
        tiles.into_par_iter().with_min_len(at_least).try_for_each_init(Vec::new, |stored, mut tile| {
            cancel.check()?;
            match self.cached_chunk::<T>(cache, &tile.chunk, stored)? {
                Some(elements) => {
                    convert_into(tile.window(&elements, self.chunks()), tile.part.view_mut(), &convert);
                }
                None => tile.part.fill(fill),
            }
            Ok(())
        })
    }

    /// Writes `data` into the box that begins at `start`. Chunks that the box covers in part keep their other elements.
    /// Uses all threads of the current rayon pool.
    ///
    /// # Errors
    /// When the box leaves the array, the array holds another type than `T`, or the disk is full. Some chunks may be
    /// written then, each of them whole.
    pub fn write<T: Element>(&self, start: &[usize], data: ArrayViewD<'_, T>) -> Result<(), VolumeError> {
        self.write_as(start, data, |value: T| value)
    }

    /// As [`write`](Self::write), with every element passed through `convert`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_as<T: Element, U: Copy + Sync>(
        &self,
        start: &[usize],
        data: ArrayViewD<'_, U>,
        convert: impl Fn(U) -> T + Sync,
    ) -> Result<(), VolumeError> {
        self.check_access::<T>(start, data.shape())?;
        let tiles = tiles(data, start, self.chunks(), ArrayViewD::split_at);
        let at_least = tiles_per_worker(tiles.len(), 2 * self.metadata.chunk_bytes());
        tiles.into_par_iter().with_min_len(at_least).try_for_each_init(
            || Buffers::new(&self.metadata),
            |buffers, tile| {
                let is_whole = tile.part.len() == buffers.elements.len();
                if !is_whole && (tile.covers(self.shape(), self.chunks()) || !self.load(&tile.chunk, buffers)?) {
                    buffers.elements.fill(T::from_f64(self.metadata.fill));
                }
                let stored = tile.window_mut(&mut buffers.elements, self.chunks());
                convert_into(tile.part.view(), stored, &convert);
                self.store(&tile.chunk, buffers)
            },
        )
    }

    /// A way to replace whole chunks.
    pub fn chunk_encoder<T: Element>(&self) -> ChunkEncoder<'_, T> {
        ChunkEncoder::new(self, Buffers::new(&self.metadata))
    }

    /// The same array in another folder, where nothing is written yet.
    pub(crate) fn with_folder(&self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), name: self.name.clone(), metadata: self.metadata.clone() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether all chunks are in the array's folder itself, so that replacing one changes the folder.
    pub(crate) fn has_flat_keys(&self) -> bool {
        self.metadata.separator == '.'
    }

    /// The value of elements that were never written.
    pub(crate) fn fill(&self) -> f64 {
        self.metadata.fill
    }

    pub(crate) fn check_type<T: Element>(&self) -> Result<(), VolumeError> {
        if T::TYPE == self.data_type() {
            return Ok(());
        }
        let reason = format!("it holds {:?}, not {:?}", self.data_type(), T::TYPE);
        Err(VolumeError::Access { store: self.name.clone(), reason })
    }

    /// Whether a box lies in the array and its elements are `T`.
    fn check_access<T: Element>(&self, start: &[usize], shape: &[usize]) -> Result<(), VolumeError> {
        self.check_type::<T>()?;
        self.check_box(start, shape)
    }

    /// Whether a box lies in the array and does not have too many chunks.
    pub(crate) fn check_box(&self, start: &[usize], shape: &[usize]) -> Result<(), VolumeError> {
        let refuse = |reason| Err(VolumeError::Access { store: self.name.clone(), reason });
        let axes = self.shape().len();
        let inside = start.len() == axes
            && shape.len() == axes
            && (0..axes).all(|axis| start[axis].checked_add(shape[axis]).is_some_and(|end| end <= self.shape()[axis]));
        if !inside {
            return refuse(format!("the box {shape:?} at {start:?} is not inside {:?}", self.shape()));
        }
        let touched = (0..axes).try_fold(1_usize, |touched, axis| {
            touched.checked_mul(shape[axis].div_ceil(self.chunks()[axis].max(1)) + 1)
        });
        if touched.is_none_or(|touched| touched > MAX_CHUNKS_AT_ONCE) {
            return refuse(format!("its chunks of {:?} elements are too small", self.chunks()));
        }
        Ok(())
    }

    /// The name of a chunk's file.
    pub(crate) fn key(&self, chunk: &[usize]) -> String {
        let numbers: Vec<_> = chunk.iter().map(usize::to_string).collect();
        numbers.join(&self.metadata.separator.to_string())
    }

    /// Reads a chunk into the buffers. `false` when it was never written.
    fn load<T: Element>(&self, chunk: &[usize], buffers: &mut Buffers<T>) -> Result<bool, VolumeError> {
        let Some(file) = self.open_chunk(chunk)? else { return Ok(false) };
        self.decode(file, &mut buffers.stored, &mut buffers.elements)?;
        Ok(true)
    }

    /// A chunk's elements, from the cache if the chunk's file is still the version that was decoded. `None` when the chunk
    /// was never written.
    fn cached_chunk<T: Element>(
        &self,
        cache: &ChunkCache,
        chunk: &[usize],
        stored: &mut Vec<u8>,
    ) -> Result<Option<Arc<Vec<T>>>, VolumeError> {
        let Some(chunk) = self.open_chunk(chunk)? else { return Ok(None) };
        let metadata = chunk.file.metadata().map_err(FsError::io("look at", &chunk.path))?;
        let (path, version) = (chunk.path.clone(), FileVersion::from(&metadata));
        if let Some(elements) = cache.get(&path, version) {
            return Ok(Some(elements));
        }
        let mut elements = vec![T::zeroed(); self.metadata.chunk_len()];
        self.decode(chunk, stored, &mut elements)?;
        let elements = Arc::new(elements);
        cache.insert(&path, version, elements.clone());
        Ok(Some(elements))
    }

    /// Opens a chunk's file. `None` when it was never written.
    fn open_chunk(&self, chunk: &[usize]) -> Result<Option<ChunkFile>, VolumeError> {
        let key = self.key(chunk);
        let path = self.folder.join(&key);
        match File::open(&path) {
            Ok(file) => Ok(Some(ChunkFile { file, path, key })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FsError::io("open", path)(error).into()),
        }
    }

    /// Reads a chunk's file into `stored` and decodes it into `elements`, which has a chunk's length.
    fn decode<T: Element>(
        &self,
        chunk: ChunkFile,
        stored: &mut Vec<u8>,
        elements: &mut [T],
    ) -> Result<(), VolumeError> {
        let ChunkFile { file, path, key } = chunk;
        let damaged = |reason| VolumeError::Chunk { store: self.name.clone(), key: key.clone(), reason };
        let longest = (self.metadata.chunk_bytes() + HEADER_BYTES) as u64;
        stored.clear();
        let length = file.take(longest + 1).read_to_end(stored).map_err(FsError::io("read", path))?;
        if length as u64 > longest {
            return Err(damaged("its file is too long"));
        }
        let plain = bytemuck::cast_slice_mut(elements);
        match &self.metadata.compressor {
            Compressor::Blosc { .. } => blosc::decompress(stored, plain).map_err(damaged)?,
            Compressor::None if length == plain.len() => plain.copy_from_slice(stored),
            Compressor::None => return Err(damaged("its file has the wrong length")),
        }
        Ok(())
    }

    /// Replaces a chunk by what is in the buffers.
    fn store<T: Element>(&self, chunk: &[usize], buffers: &mut Buffers<T>) -> Result<(), VolumeError> {
        let path = self.path_for_writing(chunk)?;
        Ok(replace_unflushed(&path, self.encode(chunk, buffers)?)?)
    }

    /// The file of a chunk, in a folder that exists.
    pub(crate) fn path_for_writing(&self, chunk: &[usize]) -> Result<PathBuf, VolumeError> {
        let path = self.folder.join(self.key(chunk));
        if self.metadata.separator == '/'
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent).map_err(FsError::io("create", parent))?;
        }
        Ok(path)
    }

    /// What the chunk's file holds when the buffers' elements are the chunk's.
    pub(crate) fn encode<'a, T: Element>(
        &self,
        chunk: &[usize],
        buffers: &'a mut Buffers<T>,
    ) -> Result<&'a [u8], VolumeError> {
        let plain: &[u8] = bytemuck::cast_slice(&buffers.elements);
        let Compressor::Blosc { method, level, shuffle } = &self.metadata.compressor else { return Ok(plain) };
        if blosc::compress(plain, self.data_type().size(), method, *level, *shuffle, &mut buffers.stored) {
            return Ok(&buffers.stored);
        }
        let reason = format!("Blosc cannot compress its chunk {}", self.key(chunk));
        Err(VolumeError::Access { store: self.name.clone(), reason })
    }
}

/// The opened file of a chunk.
struct ChunkFile {
    file: File,
    path: PathBuf,
    key: String,
}

/// Buffers of one worker, used for one chunk after the other.
#[derive(Debug)]
pub(crate) struct Buffers<T> {
    /// The chunk's elements, C order.
    pub elements: Vec<T>,
    /// The chunk's file.
    stored: Vec<u8>,
}

impl<T: Element> Buffers<T> {
    fn new(metadata: &Metadata) -> Self {
        Self { elements: vec![T::zeroed(); metadata.chunk_len()], stored: Vec::new() }
    }
}

/// Smallest number of tiles that a worker takes, so that the buffers of all workers stay within [`BUFFER_BYTES`].
fn tiles_per_worker(tiles: usize, worker_bytes: usize) -> usize {
    items_per_worker(tiles, worker_bytes, BUFFER_BYTES, rayon::current_num_threads())
}

fn store_name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
