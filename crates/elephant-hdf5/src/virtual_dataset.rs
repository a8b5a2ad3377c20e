//! Virtual datasets: volumes put together from boxes of datasets in this and other files.
//!
//! The HDF5 library would open the other files by itself, wherever they are. Here the parts are listed and each one is
//! opened as any other volume of the movie, within its reach.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Range,
    sync::Arc,
};

use hdf5_metno::dataset::DatasetCreate;

use crate::{
    Hdf5Error, Volume,
    error::Unreadable,
    file::{Hdf5File, OpenFile},
    numbers::{Convert, NumberType},
    virtual_map::mappings,
    volume::{Role, padded},
};

/// Largest number of boxes of one virtual dataset, those of its sources included each time that they are read.
pub(crate) const MAX_PARTS: usize = 1 << 16;
/// Largest number of files with sources of one virtual dataset; each takes two file descriptors.
const MAX_FILES: usize = 256;
/// How many virtual datasets may be inside each other.
const MAX_NESTING: u32 = 4;

/// The sources of one image, and theirs, that are open.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// How many boxes were listed.
    listed: Cell<usize>,
    /// How many chunks were listed.
    pub chunks: Cell<usize>,
    files: RefCell<Vec<Arc<OpenFile>>>,
    /// By the number of the file and the address in it.
    volumes: RefCell<HashMap<(usize, u64), Arc<Volume>>>,
}

impl Sources {
    /// The number of a file, which is kept open; `None` when there are too many.
    fn number(&self, file: &Arc<OpenFile>) -> Option<usize> {
        let mut files = self.files.borrow_mut();
        let known = files.iter().position(|known| Arc::ptr_eq(known, file));
        if known.is_none() && files.len() < MAX_FILES {
            files.push(Arc::clone(file));
            return Some(files.len() - 1);
        }
        known
    }
}

/// Where a virtual dataset is among those inside each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level<'a> {
    /// The number of virtual datasets around it.
    pub nesting: u32,
    pub sources: &'a Sources,
}

/// A box of a virtual volume, and the volume that has its voxels.
#[derive(Debug)]
pub(crate) struct Part {
    /// The box, (z, y, x).
    place: [Range<usize>; 3],
    source: Arc<Volume>,
    /// How many volumes are read for it, those inside each other included.
    volumes: usize,
    /// Where the box begins in the source.
    start: [usize; 3],
}

impl Part {
    /// `None` when the box in the source, or all of it, does not have the shape of the box `place`.
    pub fn new(place: &[Range<usize>], from: Option<&[Range<usize>]>, source: Arc<Volume>) -> Option<Self> {
        let place = padded(place, 0..1)?;
        let shape = source.shape();
        let from = from.map_or_else(|| Some(shape.map(|edge| 0..edge)), |from| padded(from, 0..1))?;
        let fits = from.iter().zip(shape).all(|(range, edge)| range.end <= edge);
        let is_same = place.iter().map(Range::len).eq(from.iter().map(Range::len));
        (fits && is_same).then(|| Self { place, volumes: source.parts(), start: from.map(|range| range.start), source })
    }

    /// What the box has of `region`; `None` when that is nothing.
    fn shared(&self, region: &[Range<usize>; 3]) -> Option<[Range<usize>; 3]> {
        let shared: [Range<usize>; 3] = std::array::from_fn(|axis| {
            let (requested, place) = (&region[axis], &self.place[axis]);
            requested.start.max(place.start)..requested.end.min(place.end)
        });
        (!shared.iter().any(Range::is_empty)).then_some(shared)
    }

    /// A part of the box as a box of the source.
    fn inside(&self, part: &[Range<usize>; 3]) -> [Range<usize>; 3] {
        std::array::from_fn(|axis| {
            let begin = part[axis].start - self.place[axis].start + self.start[axis];
            begin..begin + part[axis].len()
        })
    }
}

/// The shape (z, y, x) of a virtual dataset and its parts.
pub(crate) fn parts(
    files: &Hdf5File,
    file: &Arc<OpenFile>,
    object: &str,
    properties: &DatasetCreate,
    level: Level<'_>,
) -> Result<(Vec<usize>, Vec<Part>), Hdf5Error> {
    let fail = |unreadable: Unreadable| Hdf5Error::object(&file.name, object, unreadable.to_string());
    let left = MAX_PARTS.saturating_sub(level.sources.listed.get());
    let listed = if level.nesting < MAX_NESTING { mappings(properties, left) } else { None };
    let (shape, mappings) = listed.ok_or_else(|| fail(Unreadable::Virtual))?;
    level.sources.listed.update(|listed| listed + mappings.len());
    let mut sources: HashMap<(String, String), Arc<Volume>> = HashMap::new();
    let mut parts = Vec::new();
    let mut total = 0;
    for mapping in mappings {
        // A name with a number in it stands for many files.
        if mapping.file.contains('%') || mapping.path.contains('%') {
            return Err(fail(Unreadable::Virtual));
        }
        let key = (mapping.file, mapping.path);
        let known = sources.get(&key).map(Arc::clone);
        let source = known.map_or_else(|| open_source(files, file, object, &key, level), Ok)?;
        sources.entry(key).or_insert_with(|| Arc::clone(&source));
        total += source.parts();
        if total > MAX_PARTS {
            return Err(fail(Unreadable::Virtual));
        }
        let part = Part::new(&mapping.place, mapping.from.as_deref(), source);
        parts.push(part.ok_or_else(|| fail(Unreadable::Virtual))?);
    }
    Ok((shape, parts))
}

/// Opens the source of a virtual dataset in `file`, by the names of its file and its path there.
fn open_source(
    files: &Hdf5File,
    file: &Arc<OpenFile>,
    object: &str,
    (source_file, path): &(String, String),
    level: Level<'_>,
) -> Result<Arc<Volume>, Hdf5Error> {
    let home = if source_file == "." { Arc::clone(file) } else { files.partition(file, object, source_file)? };
    let root = home.root().clone();
    let located = files.locate_from(home, root, path, path)?;
    let missing = || Hdf5Error::object(&file.name, object, format!("its source {path:?} is not in {source_file:?}"));
    let located = located.ok_or_else(missing)?;
    let too_many = || Hdf5Error::object(&file.name, object, Unreadable::Files(MAX_FILES).to_string());
    let place = (level.sources.number(&located.file).ok_or_else(too_many)?, located.address);
    if let Some(known) = level.sources.volumes.borrow().get(&place) {
        return Ok(Arc::clone(known));
    }
    let role = Role::Source(Level { nesting: level.nesting + 1, ..level });
    let volume = Arc::new(Volume::open(files, &located, path.clone(), role)?);
    level.sources.volumes.borrow_mut().insert(place, Arc::clone(&volume));
    Ok(volume)
}

/// How many volumes are read for all parts.
pub(crate) fn total(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.volumes).sum()
}

/// Whether `predicate` holds for the numbers of any source.
pub(crate) fn any_type(parts: &[Part], predicate: &dyn Fn(NumberType) -> bool) -> bool {
    parts.iter().any(|part| part.source.any_type(predicate))
}

/// Bytes of all sources as they are stored.
pub(crate) fn stored_bytes(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.source.stored_bytes()).fold(0, u64::saturating_add)
}

/// The block (z, y, x) of the first source.
pub(crate) fn block(parts: &[Part]) -> Option<[usize; 3]> {
    parts.first().map(|part| part.source.block())
}

/// The size (z, y, x) that no chunk of any source exceeds.
pub(crate) fn largest_chunk(parts: &[Part]) -> [usize; 3] {
    let chunks = parts.iter().map(|part| part.source.largest_chunk());
    chunks.fold([1; 3], |a, b| std::array::from_fn(|axis| a[axis].max(b[axis])))
}

/// Voxels that are decoded to read the box `region`, (z, y, x).
pub(crate) fn decoded(parts: &[Part], region: &[Range<usize>; 3]) -> u64 {
    let boxes = parts.iter().filter_map(|part| Some((part, part.shared(region)?)));
    boxes.map(|(part, shared)| part.source.decoded(&part.inside(&shared))).fold(0, u64::saturating_add)
}

/// Reads the voxels of `region`, (z, y, x), that the parts have into `out`. Returns the largest number before conversion,
/// and whether voxels were left as they are.
pub(crate) fn read<C: Convert>(
    parts: &[Part],
    region: &[Range<usize>; 3],
    convert: &C,
    out: &mut [C::Output],
) -> Result<(f64, bool), Hdf5Error> {
    let [_, rows, columns] = region.each_ref().map(Range::len);
    let mut largest = f64::NEG_INFINITY;
    let mut is_all_read = false;
    // Parts may overlap.
    let mut is_read = Vec::new();
    let mut voxels = Vec::new();
    for part in parts {
        let Some(shared) = part.shared(region) else { continue };
        let inside = part.inside(&shared);
        voxels.resize(shared.iter().map(Range::len).product(), C::Output::default());
        largest = largest.max(part.source.read(&inside, convert, &mut voxels)?);
        is_all_read |= voxels.len() == out.len();
        is_read.resize(if is_all_read { 0 } else { out.len() }, false);
        let [z, y, x] = shared;
        let mut lines = voxels.chunks_exact(x.len());
        for z in z {
            for y in y.clone() {
                let first = ((z - region[0].start) * rows + y - region[1].start) * columns + x.start - region[2].start;
                if let Some(line) = lines.next() {
                    out[first..first + line.len()].copy_from_slice(line);
                    if !is_all_read {
                        is_read[first..first + line.len()].fill(true);
                    }
                }
            }
        }
    }
    let is_partial = !is_all_read && (is_read.is_empty() || is_read.contains(&false));
    Ok((largest, is_partial))
}
