//! The readers, and how a damaged file is put before them.

use std::{
    fs,
    io::{Cursor, Read, Write},
    path::{Path, PathBuf},
};

use elephant_bdv::{BdvFile, Scale};
use elephant_checkpoint::Checkpoint;
use elephant_hdf5::{Hdf5Error, Hdf5File, Object, Reach};
use elephant_volume::{ArrayStore, DataType};
use fastrand::Rng;
use ndarray::ArrayD;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::damage::damage;

/// The readers by name: checkpoints as they are; checkpoints whose pickle is damaged within a sound archive; chunks of a
/// Zarr array; its metadata; HDF5 files; BigDataViewer movies.
pub const NAMES: [&str; 6] = ["checkpoint", "pickle", "blosc", "zarr", "hdf5", "movie"];

/// Largest box that is read, in values.
const MAX_VALUES: usize = 1 << 20;
/// Largest seed; larger files are damaged where nobody looks.
const MAX_SEED_BYTES: u64 = 256 << 10;

pub struct Target {
    name: &'static str,
    seeds: Vec<Seed>,
    folder: PathBuf,
}

/// What is damaged, and where it is put.
struct Seed {
    bytes: Vec<u8>,
    place: Place,
}

enum Place {
    /// The file itself.
    File,
    /// One file of an archive, with all others.
    Archive(Vec<(String, Vec<u8>)>, usize),
    /// A chunk of an array whose `.zarray` is this.
    Chunk(Vec<u8>),
}

impl Target {
    /// The reader `name` with those of `files` that it can take; `None` when there are none.
    pub fn new(name: &str, files: &[PathBuf], folder: &Path) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let seeds: Vec<_> = files.iter().filter_map(|path| seed(name, path)).collect();
        (!seeds.is_empty()).then(|| Self { name, seeds, folder: folder.to_owned() })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn seeds(&self) -> usize {
        self.seeds.len()
    }

    /// The damaged file.
    pub fn input(&self) -> PathBuf {
        self.folder.join(match self.name {
            "checkpoint" | "pickle" => "input.pth",
            "blosc" => "0",
            "zarr" => ".zarray",
            _ => "input.h5",
        })
    }

    /// Damages a seed and writes it for the reader.
    pub fn write_input(&self, random: &mut Rng) {
        let seed = &self.seeds[random.usize(..self.seeds.len())];
        let other = &self.seeds[random.usize(..self.seeds.len())];
        let mut bytes = seed.bytes.clone();
        damage(&mut bytes, &other.bytes, random);
        let write = |path: PathBuf, bytes: &[u8]| fs::write(path, bytes).expect("the input is written");
        match &seed.place {
            Place::File => write(self.input(), &bytes),
            Place::Archive(files, damaged) => write(self.input(), &archive(files, *damaged, &bytes)),
            Place::Chunk(zarray) => {
                write(self.folder.join(".zarray"), zarray);
                write(self.input(), &bytes);
            }
        }
    }

    /// Lets the reader have the file, and says what it made of it.
    pub fn read(&self) -> String {
        let outcome = match self.name {
            "checkpoint" | "pickle" => {
                Checkpoint::read(&self.input()).map(|read| _ = read.value_count()).map_err(|error| error.to_string())
            }
            "blosc" | "zarr" => read_array(&self.folder),
            "hdf5" => read_hdf5(&self.input()).map_err(|error| error.to_string()),
            _ => read_movie(&self.input()).map_err(|error| error.to_string()),
        };
        outcome.map_or_else(|error| error, |()| "read".to_owned())
    }
}

fn seed(name: &str, path: &Path) -> Option<Seed> {
    let is_small = path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_SEED_BYTES);
    let bytes = if is_small { fs::read(path).ok()? } else { return None };
    let file_name = path.file_name()?.to_str()?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let place = match (name, extension, file_name) {
        ("checkpoint", "pth", _) | ("hdf5" | "movie", "h5" | "ilp", _) => Place::File,
        ("pickle", "pth", _) => {
            let mut archive = ZipArchive::new(Cursor::new(&bytes)).ok()?;
            let mut files = Vec::new();
            for index in 0..archive.len() {
                let mut file = archive.by_index(index).ok()?;
                let mut content = Vec::new();
                file.read_to_end(&mut content).ok()?;
                files.push((file.name().ok()?.into_owned(), content));
            }
            let damaged = files.iter().position(|(name, _)| name.ends_with("data.pkl"))?;
            return Some(Seed { bytes: files[damaged].1.clone(), place: Place::Archive(files, damaged) });
        }
        ("zarr", _, ".zarray") => Place::File,
        // A chunk by itself: its array is as long as it says.
        ("blosc", "", _) if !file_name.starts_with('.') => {
            let header: &[u8; 16] = bytes.first_chunk()?;
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let (data_type, size) = if header[3] == 2 { (DataType::U16, 2) } else { (DataType::U8, 1) };
            let folder = tempfile::tempdir().ok()?;
            ArrayStore::create(folder.path(), &[length / size], &[length / size], data_type).ok()?;
            Place::Chunk(fs::read(folder.path().join(".zarray")).ok()?)
        }
        _ => return None,
    };
    Some(Seed { bytes, place })
}

/// A zip file with sound checksums.
fn archive(files: &[(String, Vec<u8>)], damaged: usize, bytes: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (index, (name, content)) in files.iter().enumerate() {
        archive.start_file(name, options).expect("the name is one of an archive");
        archive.write_all(if index == damaged { bytes } else { content }).expect("memory is writable");
    }
    archive.finish().expect("memory is writable").into_inner()
}

/// Reads the whole array, unless it is large.
fn read_array(folder: &Path) -> Result<(), String> {
    let store = ArrayStore::open(folder).map_err(|error| error.to_string())?;
    let values = store.shape().iter().try_fold(1_usize, |values, &edge| values.checked_mul(edge));
    if values.is_none_or(|values| values > MAX_VALUES) {
        return Err("a large array".to_owned());
    }
    let start = vec![0; store.shape().len()];
    let outcome = match store.data_type() {
        DataType::U8 => store.read(&start, ArrayD::<u8>::zeros(store.shape()).view_mut()),
        DataType::U16 => store.read(&start, ArrayD::<u16>::zeros(store.shape()).view_mut()),
        _ => return Err("another type".to_owned()),
    };
    outcome.map_err(|error| error.to_string())
}

/// Reads every attribute and dataset, and goes on behind those that cannot be read. Returns the first error.
fn read_hdf5(path: &Path) -> Result<(), Hdf5Error> {
    let file = Hdf5File::open(path, Reach::Folder)?;
    let mut first = Ok(());
    file.root()?.walk(|_, object| {
        let outcome = match object {
            Object::Group(group) => group
                .attribute_names()
                .and_then(|names| names.iter().try_for_each(|name| group.attribute(name).map(drop))),
            Object::Dataset(dataset) => dataset
                .attribute_names()
                .and_then(|names| names.iter().try_for_each(|name| dataset.attribute(name).map(drop)))
                .and_then(|()| dataset.read().map(drop)),
            Object::Other => Ok(()),
        };
        if first.is_ok() {
            first = outcome;
        }
        Ok::<_, Hdf5Error>(())
    })?;
    first
}

/// Reads the images of the first timepoints and setups.
fn read_movie(path: &Path) -> Result<(), elephant_bdv::BdvError> {
    let movie = BdvFile::open(path)?;
    for &timepoint in movie.timepoints().iter().take(3) {
        for &setup in movie.setups().iter().take(4) {
            let Some(volume) = movie.volume(timepoint, setup, 0)? else { continue };
            let shape = volume.shape();
            if shape.iter().try_fold(1_usize, |voxels, &edge| voxels.checked_mul(edge)).is_some_and(|n| n <= MAX_VALUES)
            {
                let mut voxels = vec![0; shape.iter().product()];
                volume.read(&shape.map(|edge| 0..edge), &Scale::default(), &mut voxels)?;
            }
        }
    }
    Ok(())
}
