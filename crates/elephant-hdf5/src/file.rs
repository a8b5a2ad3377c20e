//! An HDF5 file, the files that it links to, and the way through their links.

use std::{
    collections::VecDeque,
    fs::File,
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hdf5_metno::Group;

use crate::{
    Hdf5Error, Reach,
    error::file_name,
    header::{self, number},
    links::{Link, read_link},
    object,
    paths::WrittenPath,
};

/// Partition files kept open; the next one closes the oldest.
const MAX_OPEN: usize = 32;
/// Soft and external links followed on the way to one object.
const MAX_HOPS: usize = 16;

/// One open HDF5 file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The file's name without its folder, for messages.
    pub name: String,
    path: PathBuf,
    hdf5: hdf5_metno::File,
    raw: File,
    len: u64,
    /// Where the file's addresses begin: behind a user block, if there is one.
    base: u64,
}

impl OpenFile {
    fn open(path: &Path) -> Result<Self, Hdf5Error> {
        let name = file_name(path);
        let metadata = path.metadata().map_err(Hdf5Error::io("open", path))?;
        if !metadata.is_file() {
            return Err(Hdf5Error::NotHdf5 { file: name });
        }
        let raw = File::open(path).map_err(Hdf5Error::io("open", path))?;
        let Some(base) = signature(&raw).map_err(Hdf5Error::io("read", path))? else {
            return Err(Hdf5Error::NotHdf5 { file: name });
        };
        if widths(&raw, base) != Some([8, 8]) {
            let detail = "its addresses do not have 8 bytes, as those of every writer in use".to_owned();
            return Err(Hdf5Error::Damaged { file: name, detail });
        }
        // Reading needs no lock, and some network file systems have none.
        let hdf5 = hdf5_metno::File::with_options()
            .with_fapl(|access| access.file_locking(false))
            .open(path)
            .map_err(|error| open_error(&name, &error))?;
        Ok(Self { name, path: path.to_owned(), hdf5, raw, len: metadata.len(), base })
    }

    /// The file's top group.
    pub fn root(&self) -> &Group {
        &self.hdf5
    }

    /// Address of the top group's header (HDF5 file format specification, II.A); `None` when the file ends before it.
    pub fn root_address(&self) -> Option<u64> {
        let mut start = [0; 80];
        self.raw.read_exact_at(&mut start, self.base).ok()?;
        let place = match start[8] {
            0 => 64,
            1 => 68,
            _ => 36,
        };
        number(&start, place, 8)
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether `length` bytes from `offset` are in the file.
    pub fn holds(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.len)
    }

    /// `length` bytes from the address `address`, as the file counts them; `None` when they are not in the file, or it asks
    /// for more than a few MB.
    pub fn bytes_at(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        const MOST: u64 = 64 << 20;
        let offset = self.base.checked_add(address).filter(|&offset| length <= MOST && self.holds(offset, length))?;
        let mut bytes = vec![0; length as usize];
        self.read_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    /// Fills `buffer` from `offset`, without the HDF5 library.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), Hdf5Error> {
        self.raw.read_exact_at(buffer, offset).map_err(Hdf5Error::io("read", &self.path))
    }
}

/// Whether a file is HDF5, by its first bytes or those behind a user block.
///
/// # Errors
/// When it cannot be read.
pub fn is_hdf5(path: &Path) -> Result<bool, Hdf5Error> {
    // Opening a pipe would wait for a writer.
    if !path.metadata().map_err(Hdf5Error::io("open", path))?.is_file() {
        return Ok(false);
    }
    let file = File::open(path).map_err(Hdf5Error::io("open", path))?;
    Ok(signature(&file).map_err(Hdf5Error::io("read", path))?.is_some())
}

/// The place of the HDF5 signature, which may be 0, 512, 1024, 2048 and so on.
pub(crate) fn signature(file: &File) -> std::io::Result<Option<u64>> {
    let mut offset = 0;
    loop {
        let mut start = [0; 8];
        match file.read_exact_at(&mut start, offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
            Ok(()) if start == *b"\x89HDF\r\n\x1a\n" => return Ok(Some(offset)),
            Ok(()) => offset = if offset == 0 { 512 } else { offset * 2 },
        }
    }
}

/// Bytes of an address and of a length in the file whose signature is at `base`; `None` for an unknown version.
pub(crate) fn widths(file: &File, base: u64) -> Option<[u8; 2]> {
    let mut start = [0; 16];
    file.read_exact_at(&mut start, base).ok()?;
    match start[8] {
        0 | 1 => Some([start[13], start[14]]),
        2 | 3 => Some([start[9], start[10]]),
        _ => None,
    }
}

fn open_error(name: &str, error: &hdf5_metno::Error) -> Hdf5Error {
    let (file, detail) = (name.to_owned(), brief(error));
    // The library opens the file once more, and may be refused by the operating system.
    let number = detail.split_once("errno = ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    if let Some(source) = number.map(std::io::Error::from_raw_os_error) {
        return Hdf5Error::Io { operation: "open", file, source };
    }
    // A writer sets a mark in the file while it is open, and a killed one leaves it there.
    if detail.contains("already open for") {
        Hdf5Error::StillOpen { file }
    } else {
        Hdf5Error::Damaged { file, detail }
    }
}

/// The innermost reason the HDF5 library gave, which names the cause; the outer ones say that opening failed.
pub(crate) fn brief(error: &hdf5_metno::Error) -> String {
    let stack = error.stack();
    let reason = stack.as_ref().and_then(|stack| stack.last()).map(|frame| frame.desc().to_owned());
    reason.unwrap_or_else(|| error.to_string())
}

/// An object, by the group it is in.
#[derive(Debug)]
pub(crate) struct Located {
    pub file: Arc<OpenFile>,
    pub group: Group,
    /// Its name in the group, a hard link.
    pub name: String,
    /// Address of its header.
    pub address: u64,
}

impl Located {
    /// Opens the object as a dataset, when the library can go through its header; the error says what is wrong.
    pub fn open_dataset(&self) -> Result<hdf5_metno::Dataset, String> {
        if !header::can_be_opened(&self.file, self.address) {
            return Err("the list of its parts is damaged; copy the file again".to_owned());
        }
        self.group.dataset(&self.name).map_err(|error| brief(&error))
    }
}

/// An HDF5 file, open for reading, and the files that it links to. Can be used from several threads.
#[derive(Debug)]
pub struct Hdf5File {
    main: Arc<OpenFile>,
    folder: PathBuf,
    reach: Reach,
    partitions: Mutex<VecDeque<Arc<OpenFile>>>,
}

impl Hdf5File {
    /// Opens a file for reading. Files that it links to are opened when they are needed, within `reach`.
    ///
    /// # Errors
    /// When the file is missing, is not HDF5, is truncated or damaged, or is being written.
    pub fn open(path: &Path, reach: Reach) -> Result<Self, Hdf5Error> {
        let path = path.canonicalize().map_err(Hdf5Error::io("open", path))?;
        let main = Arc::new(OpenFile::open(&path)?);
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { main, folder, reach, partitions: Mutex::default() })
    }

    /// The file's name without its folder.
    pub fn name(&self) -> &str {
        &self.main.name
    }

    /// The top group.
    ///
    /// # Errors
    /// When the file does not say where it is.
    pub fn root(&self) -> Result<object::Group<'_>, Hdf5Error> {
        object::Group::root(self)
    }

    pub(crate) fn main(&self) -> &Arc<OpenFile> {
        &self.main
    }

    /// What the name `name` in `group` of `file` stands for, when that is a hard link; `object` is its path, for messages.
    pub(crate) fn hard_link(
        file: &Arc<OpenFile>,
        group: &Group,
        name: &str,
        object: &str,
    ) -> Result<Option<Located>, Hdf5Error> {
        match read_link(group, name).map_err(|detail| Hdf5Error::object(&file.name, object, detail))? {
            Some(Link::Hard(address)) => {
                let (file, group, name) = (Arc::clone(file), group.clone(), name.to_owned());
                Ok(Some(Located { file, group, name, address }))
            }
            _ => Ok(None),
        }
    }

    /// Follows `path` from a group of a file; `None` when a name on the way does not exist. `object` is the whole path, for
    /// messages.
    pub(crate) fn locate_from(
        &self,
        mut file: Arc<OpenFile>,
        mut group: Group,
        path: &str,
        object: &str,
    ) -> Result<Option<Located>, Hdf5Error> {
        let mut ahead = names(path);
        let mut hops = 0;
        while let Some(name) = ahead.pop() {
            let link = read_link(&group, &name).map_err(|detail| Hdf5Error::object(&file.name, object, detail))?;
            match link {
                None => return Ok(None),
                Some(Link::Hard(address)) if ahead.is_empty() => {
                    return Ok(Some(Located { file, group, name, address }));
                }
                Some(Link::Hard(_)) => {
                    group = group.group(&name).map_err(|error| Hdf5Error::object(&file.name, object, brief(&error)))?;
                }
                Some(Link::Soft(target)) => {
                    if target.starts_with('/') {
                        group = file.root().clone();
                    }
                    ahead.extend(names(&target));
                    hops += 1;
                }
                Some(Link::External { file: partition, path: target }) => {
                    file = self.partition(&file, object, &partition)?;
                    group = file.root().clone();
                    ahead.extend(names(&target));
                    hops += 1;
                }
            }
            if hops > MAX_HOPS {
                return Err(Hdf5Error::object(&file.name, object, "its links go round in circles"));
            }
        }
        Err(Hdf5Error::object(&file.name, object, "its link leads to no object"))
    }

    /// Opens the partition file that `object` of `from` links to as `target`.
    pub(crate) fn partition(&self, from: &OpenFile, object: &str, target: &str) -> Result<Arc<OpenFile>, Hdf5Error> {
        let path = self.resolve(from, object, target)?;
        let mut open = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if path == self.main.path {
            return Ok(Arc::clone(&self.main));
        }
        if let Some(found) = open.iter().find(|file| file.path == path) {
            return Ok(Arc::clone(found));
        }
        let opened = Arc::new(OpenFile::open(&path)?);
        if open.len() == MAX_OPEN {
            open.pop_front();
        }
        open.push_back(Arc::clone(&opened));
        Ok(opened)
    }

    /// The real path of the file that `object` of `from` links to: as seen from `from`, or else from the main file's folder.
    fn resolve(&self, from: &OpenFile, object: &str, target: &str) -> Result<PathBuf, Hdf5Error> {
        let written = WrittenPath::new(target);
        let beside = from.path.parent().unwrap_or(&self.folder);
        // A part in another folder may have the name of the file that links to it; that file is not the part.
        let is_other = |path: &PathBuf| *path != from.path || written.last() == Some(target);
        if let Some(path) = written.find(&[beside, &self.folder], &self.folder, self.reach)?.filter(is_other) {
            return Ok(path);
        }
        let (file, target) = (from.name.clone(), target.to_owned());
        let leads_out = |name: &str| self.folder.join(name).symlink_metadata().is_ok_and(|found| found.is_symlink());
        if written.last().is_some_and(leads_out) {
            return Err(Hdf5Error::Escapes { file, object: object.to_owned(), target });
        }
        Err(Hdf5Error::MissingPartition { file, partition: target })
    }
}

/// The parts of an HDF5 path, last first.
fn names(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}
