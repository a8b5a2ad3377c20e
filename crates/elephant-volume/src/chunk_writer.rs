//! Replacing an array's chunks one by one, without reading them, and emptying an array.

use std::{fs, io};

use elephant_fs::FsError;

use crate::{ArrayStore, Element, VolumeError, array::Buffers};

/// Replaces chunks of one array, one after the other; every thread has its own.
///
/// A chunk that holds nothing but the fill value has no file.
#[derive(Debug)]
pub struct ChunkWriter<'a, T> {
    array: &'a ArrayStore,
    buffers: Buffers<T>,
}

impl<'a, T: Element> ChunkWriter<'a, T> {
    pub(crate) fn new(array: &'a ArrayStore, buffers: Buffers<T>) -> Self {
        Self { array, buffers }
    }

    /// The elements of a whole chunk, in C order, for [`replace`](Self::replace). Elements of a chunk that reach over the
    /// array's end are not looked at by readers.
    pub fn elements(&mut self) -> &mut [T] {
        &mut self.buffers.elements
    }

    /// Replaces the chunk at this place in the grid of chunks by [`elements`](Self::elements).
    ///
    /// # Errors
    /// When the place is outside the grid, the array holds another type than `T`, or the disk is full; the old chunk
    /// stays then.
    pub fn replace(&mut self, chunk: &[usize]) -> Result<(), VolumeError> {
        self.array.check_type::<T>()?;
        let fill = T::from_f64(self.array.fill());
        let elements: &[u8] = bytemuck::cast_slice(&self.buffers.elements);
        // Every element is as the one before: a comparison of whole blocks.
        let size = size_of::<T>();
        if elements.starts_with(bytemuck::bytes_of(&fill)) && elements[size..] == elements[..elements.len() - size] {
            return self.array.remove_chunk(chunk);
        }
        self.array.check_chunk(chunk)?;
        self.array.store(chunk, &mut self.buffers)
    }
}

impl ArrayStore {
    /// Gives the chunk at this place in the grid of chunks its fill value again, by removing its file.
    ///
    /// # Errors
    /// When the place is outside the grid or the file cannot be removed.
    pub fn remove_chunk(&self, chunk: &[usize]) -> Result<(), VolumeError> {
        self.check_chunk(chunk)?;
        let path = self.folder().join(self.key(chunk));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::io("remove", path)(error).into()),
            _ => Ok(()),
        }
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
