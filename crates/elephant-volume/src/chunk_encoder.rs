//! Replacing an array's chunks one by one, without reading their elements, and emptying an array.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use elephant_fs::{FsError, replace_unflushed};

use crate::{ArrayStore, Element, VolumeError, array::Buffers};

/// A change of a chunk's file that is not written yet. Chunks may be encoded in parallel; files of one folder are
/// written fastest one after the other, because the file system lets only one thread change a folder.
#[derive(Debug)]
#[must_use = "nothing changes before it is written"]
pub struct ChunkChange {
    path: PathBuf,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Nothing,
    Remove,
    Replace(Vec<u8>),
}

impl ChunkChange {
    /// Changes the file. Readers see the old chunk or the new one.
    ///
    /// # Errors
    /// When the disk is full; the old chunk stays then.
    pub fn write(self) -> Result<(), VolumeError> {
        match self.change {
            Change::Nothing => Ok(()),
            Change::Replace(content) => Ok(replace_unflushed(&self.path, &content)?),
            Change::Remove => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(FsError::io("remove", self.path)(error).into())
                }
                _ => Ok(()),
            },
        }
    }
}

/// Encodes chunks of one array, one after the other; every thread has its own.
#[derive(Debug)]
pub struct ChunkEncoder<'a, T> {
    array: &'a ArrayStore,
    buffers: Buffers<T>,
}

impl<'a, T: Element> ChunkEncoder<'a, T> {
    pub(crate) fn new(array: &'a ArrayStore, buffers: Buffers<T>) -> Self {
        Self { array, buffers }
    }

    /// The elements of a whole chunk, in C order, for [`encode`](Self::encode). Elements of a chunk that reach over the
    /// array's end are not looked at by readers.
    pub fn elements(&mut self) -> &mut [T] {
        &mut self.buffers.elements
    }

    /// The change that stores [`elements`](Self::elements) as the chunk at this place in the grid of chunks. A chunk
    /// that holds nothing but the fill value has no file, and the file of one that is as before is left alone: looking
    /// at it costs a tenth of replacing it.
    ///
    /// # Errors
    /// When the place is outside the grid, the array holds another type than `T`, or the chunk cannot be compressed.
    pub fn encode(&mut self, chunk: &[usize]) -> Result<ChunkChange, VolumeError> {
        self.array.check_type::<T>()?;
        let fill = T::from_f64(self.array.fill());
        let elements: &[u8] = bytemuck::cast_slice(&self.buffers.elements);
        // Every element is as the one before: a comparison of whole blocks.
        let size = size_of::<T>();
        if elements.starts_with(bytemuck::bytes_of(&fill)) && elements[size..] == elements[..elements.len() - size] {
            return self.array.blank_chunk(chunk);
        }
        self.array.check_chunk(chunk)?;
        let path = self.array.path_for_writing(chunk)?;
        let content = self.array.encode(chunk, &mut self.buffers)?;
        let change = if holds(&path, content) { Change::Nothing } else { Change::Replace(content.to_vec()) };
        Ok(ChunkChange { path, change })
    }
}

/// Whether a file exists and has this content.
fn holds(path: &Path, content: &[u8]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let has_length = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == content.len() as u64);
    let mut found = Vec::new();
    has_length && file.read_to_end(&mut found).is_ok() && found == content
}

impl ArrayStore {
    /// The change that gives the chunk at this place in the grid of chunks its fill value again.
    ///
    /// # Errors
    /// When the place is outside the grid.
    pub fn blank_chunk(&self, chunk: &[usize]) -> Result<ChunkChange, VolumeError> {
        self.check_chunk(chunk)?;
        Ok(ChunkChange { path: self.folder().join(self.key(chunk)), change: Change::Remove })
    }

    /// Removes all elements and attributes, and what killed writers left. Readers see some chunks go before others.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<(), VolumeError> {
        let list = FsError::io("list", self.folder());
        let names: io::Result<Vec<_>> =
            self.folder().read_dir().and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        for name in names.map_err(list)?.into_iter().filter(|name| name != ".zarray") {
            let path = self.folder().join(name);
            // Chunks with the separator "/" are in folders.
            let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(FsError::io("remove", path)(error).into());
            }
        }
        Ok(())
    }

    fn check_chunk(&self, chunk: &[usize]) -> Result<(), VolumeError> {
        let is_inside = chunk.len() == self.shape().len()
            && (0..chunk.len()).all(|axis| chunk[axis] < self.shape()[axis].div_ceil(self.chunks()[axis].max(1)));
        if is_inside {
            return Ok(());
        }
        let reason = format!("it has no chunk {}", self.key(chunk));
        Err(VolumeError::Access { store: self.name().to_owned(), reason })
    }
}
