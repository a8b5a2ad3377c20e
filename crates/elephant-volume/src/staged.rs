//! Writing a box of an array aside and putting it into the array at once.

use elephant_fs::move_unflushed;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use tempfile::TempDir;

use crate::{ArrayStore, Element, VolumeError, tiles::tiles};

/// A box of an array whose new elements are written aside, chunk by chunk. Dropped without [`publish`](Self::publish), it
/// leaves the array as it was.
#[derive(Debug)]
pub struct StagedBox<'a> {
    target: &'a ArrayStore,
    start: Vec<usize>,
    shape: Vec<usize>,
    /// An array with the target's shape and chunks, in the staging folder.
    staged: ArrayStore,
    folder: TempDir,
}

impl<'a> StagedBox<'a> {
    /// Begins to write the box of `target` that begins at `start` and has `shape`. `folder` is an empty folder for
    /// this alone, best on the array's file system.
    ///
    /// # Errors
    /// When the box leaves the array.
    pub fn new(target: &'a ArrayStore, start: &[usize], shape: &[usize], folder: TempDir) -> Result<Self, VolumeError> {
        target.check_box(start, shape)?;
        let staged = target.with_folder(folder.path());
        Ok(Self { target, start: start.to_vec(), shape: shape.to_vec(), staged, folder })
    }

    /// Writes a part of the box, which begins at `start` in the array, with every element passed through `convert`. Parts may
    /// share chunks but not elements, and together they must fill the box.
    ///
    /// # Errors
    /// As [`ArrayStore::write`].
    pub fn write_as<T: Element, U: Copy + Sync>(
        &self,
        start: &[usize],
        part: ArrayViewD<'_, U>,
        convert: impl Fn(U) -> T + Sync,
    ) -> Result<(), VolumeError> {
        self.staged.write_as(start, part, convert)
    }

    /// Puts the box into the array, chunk by chunk: those that the box covers are moved, those that it covers in part are
    /// read, changed and written. Readers see each chunk as it was before or after, never half. Two boxes that share chunks
    /// must be published one after the other.
    ///
    /// # Errors
    /// When the disk is full or a file cannot be moved. Some chunks may be replaced then, as after a kill.
    pub fn publish<T: Element>(self) -> Result<(), VolumeError> {
        // Elements without a size have a box without memory.
        let places = ArrayD::from_elem(IxDyn(&self.shape), ());
        for tile in tiles(places.view(), &self.start, self.target.chunks(), ArrayViewD::split_at) {
            if tile.covers(self.target.shape(), self.target.chunks()) {
                let from = self.folder.path().join(self.target.key(&tile.chunk));
                move_unflushed(&from, &self.target.path_for_writing(&tile.chunk)?)?;
                continue;
            }
            let start: Vec<usize> = (0..tile.chunk.len())
                .map(|axis| tile.chunk[axis] * self.target.chunks()[axis] + tile.offset[axis])
                .collect();
            let mut part = ArrayD::from_elem(tile.part.raw_dim(), T::zeroed());
            self.staged.read(&start, part.view_mut())?;
            self.target.write(&start, part.view())?;
        }
        Ok(())
    }
}
