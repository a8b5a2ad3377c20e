//! Decoded chunks that were read lately.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use elephant_fs::FileVersion;

use crate::Element;

/// What an entry takes besides its elements, in bytes: its path, twice, and its places in the maps.
const ENTRY_BYTES: usize = 512;

/// Decoded chunks of any arrays, the ones read last, within a number of bytes. Clones share the chunks.
///
/// A chunk is found again only while its file is the version that was decoded, which is asked of the file system at each
/// access. So a chunk that this process or another one has replaced is never served, and no writer has to invalidate
/// anything. Files that changed within the last two seconds are not kept, because their versions are not certain yet.
#[derive(Clone, Debug)]
pub struct ChunkCache {
    capacity: usize,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    by_path: HashMap<PathBuf, Entry>,
    /// Paths in the order of their last use.
    by_use: BTreeMap<u64, PathBuf>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    version: FileVersion,
    /// An `Arc<Vec<T>>` of the chunk's elements.
    elements: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    used: u64,
}

impl ChunkCache {
    /// A cache of at most `capacity` bytes, 512 for each chunk besides its elements.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: Arc::default() }
    }

    /// Bytes that the cache holds at the most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes by which the cache may still grow.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.lock().bytes)
    }

    /// The elements of the chunk in the file `path`, if it was decoded from this version of the file.
    pub(crate) fn get<T: Element>(&self, path: &Path, version: FileVersion) -> Option<Arc<Vec<T>>> {
        let mut entries = self.lock();
        let entry = entries.by_path.get(path).filter(|entry| entry.version == version)?;
        let (used, elements) = (entry.used, entry.elements.clone().downcast().ok()?);
        entries.touch(used);
        Some(elements)
    }

    /// Keeps the elements of a chunk, instead of those that were used longest ago.
    pub(crate) fn insert<T: Element>(&self, path: &Path, version: FileVersion, elements: Arc<Vec<T>>) {
        let bytes = size_of::<T>() * elements.len() + ENTRY_BYTES;
        if bytes > self.capacity || !version.is_settled() {
            return;
        }
        let mut entries = self.lock();
        entries.remove(path);
        while entries.bytes + bytes > self.capacity {
            let Some((_, oldest)) = entries.by_use.pop_first() else { break };
            entries.remove(&oldest);
        }
        entries.uses += 1;
        let used = entries.uses;
        entries.bytes += bytes;
        entries.by_use.insert(used, path.to_owned());
        entries.by_path.insert(path.to_owned(), Entry { version, elements, bytes, used });
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic between two changes leaves at most a wrong sum, which costs chunks and no correctness.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Makes the entry that was used at `used` the one that was used last.
    fn touch(&mut self, used: u64) {
        let Some(path) = self.by_use.remove(&used) else { return };
        self.uses += 1;
        if let Some(entry) = self.by_path.get_mut(&path) {
            entry.used = self.uses;
        }
        self.by_use.insert(self.uses, path);
    }

    fn remove(&mut self, path: &Path) {
        if let Some(entry) = self.by_path.remove(path) {
            self.bytes -= entry.bytes;
            self.by_use.remove(&entry.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;

    /// The version of a file that was modified long ago.
    fn version(path: &Path, minutes_ago: u64) -> FileVersion {
        let file = File::create(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(minutes_ago)).unwrap();
        FileVersion::of(path).unwrap()
    }

    #[test]
    fn the_chunk_used_longest_ago_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ChunkCache::new(100 + 2 * ENTRY_BYTES);
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        let [a, b, c] = &paths;
        let versions = paths.each_ref().map(|path| version(path, 1));
        cache.insert(a, versions[0], Arc::new(vec![1_u16; 20]));
        cache.insert(b, versions[1], Arc::new(vec![2_u16; 20]));
        assert_eq!(cache.room(), 20);
        assert_eq!(cache.get::<u16>(a, versions[0]).unwrap()[0], 1);
        cache.insert(c, versions[2], Arc::new(vec![3_u8; 60]));
        assert_eq!(cache.room(), 0);
        assert!(cache.get::<u16>(b, versions[1]).is_none());
        assert_eq!(cache.get::<u8>(c, versions[2]).unwrap()[0], 3);
        // The same chunk again takes the place of its former version.
        cache.insert(a, versions[0], Arc::new(vec![4_u16; 10]));
        assert_eq!((cache.room(), cache.get::<u16>(a, versions[0]).unwrap()[0]), (20, 4));
        assert!(cache.get::<u8>(a, versions[0]).is_none(), "it holds other elements");
        // What is larger than the cache is not kept, and drives nothing out.
        cache.insert(b, versions[1], Arc::new(vec![5_u8; 101 + ENTRY_BYTES]));
        assert_eq!(cache.room(), 20);
    }

    #[test]
    fn another_version_of_a_file_is_another_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ChunkCache::new(100 + ENTRY_BYTES);
        let path = folder.path().join("a");
        let old = version(&path, 2);
        cache.insert(&path, old, Arc::new(vec![1_u8; 10]));
        let new = version(&path, 1);
        assert!(cache.get::<u8>(&path, new).is_none());
        cache.insert(&path, new, Arc::new(vec![2_u8; 10]));
        assert!(cache.get::<u8>(&path, old).is_none());
        assert_eq!(cache.room(), 90);
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ChunkCache::new(100 + ENTRY_BYTES);
        let path = folder.path().join("a");
        let fresh = version(&path, 0);
        cache.insert(&path, fresh, Arc::new(vec![1_u8; 10]));
        assert!(cache.get::<u8>(&path, fresh).is_none());
    }
}
