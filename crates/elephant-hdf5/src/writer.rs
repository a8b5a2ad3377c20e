//! Writing an HDF5 file: no more than BigDataViewer movies need.

#![allow(clippy::needless_pass_by_value, reason = "array views are handles, passed by value as slices are")]

use std::{
    io,
    path::{Path, PathBuf},
};

use hdf5_metno::{
    Datatype, File, H5Type,
    types::{TypeDescriptor, VarLenAscii},
};
use ndarray::{ArrayView2, ArrayView3};

use crate::Hdf5Error;

/// A new HDF5 file. The same content gives the same bytes.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// The file's path, for messages.
    path: PathBuf,
}

impl Writer {
    /// Creates an empty file at `path`; messages name it `shown`. The format is the oldest that holds the data, for the
    /// many readers with an old library.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, shown: &Path) -> Result<Self, Hdf5Error> {
        let created = File::with_options().with_fapl(|properties| properties.libver_earliest()).create(path);
        let file = created.map_err(|error| write_error(shown, &error))?;
        Ok(Self { file, path: shown.to_owned() })
    }

    /// Creates the group `path`, and those above it.
    ///
    /// # Errors
    /// When it exists, or the file cannot be written.
    pub fn group(&self, path: &str) -> Result<(), Hdf5Error> {
        self.file.create_group(path).map(drop).map_err(|error| self.fail(&error))
    }

    /// Stores the types of truth values and of texts of variable length under names in the group `group`, where Java's
    /// HDF5 library looks for them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn java_types(&self, group: &str) -> Result<(), Hdf5Error> {
        let types = || {
            let group = self.file.create_group(group)?;
            group.commit_datatype("Enum_Boolean", &Datatype::from_descriptor(&TypeDescriptor::Boolean)?)?;
            group.commit_datatype("String_VariableLength", &Datatype::from_type::<VarLenAscii>()?)
        };
        types().map_err(|error| self.fail(&error))
    }

    /// Writes a small table as the dataset `path`, whose group must exist.
    ///
    /// # Errors
    /// When the dataset exists, or the file cannot be written.
    pub fn table<T: H5Type>(&self, path: &str, values: ArrayView2<'_, T>) -> Result<(), Hdf5Error> {
        let builder = self.file.new_dataset_builder().with_data(values).obj_track_times(false);
        builder.create(path).map(drop).map_err(|error| self.fail(&error))
    }

    /// Writes a volume (z, y, x) as the dataset `path`, in gzip-compressed chunks of the size `chunk`. Its group must exist.
    ///
    /// # Errors
    /// When the dataset exists, a chunk has no values, or the file cannot be written.
    pub fn volume(&self, path: &str, values: ArrayView3<'_, i16>, chunk: [usize; 3]) -> Result<(), Hdf5Error> {
        // On noise, level 6 takes four times as long and gains nothing.
        const GZIP_LEVEL: u8 = 4;
        let builder = self.file.new_dataset_builder().with_data(values).chunk(chunk).deflate(GZIP_LEVEL);
        builder.obj_track_times(false).create(path).map(drop).map_err(|error| self.fail(&error))
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn close(self) -> Result<(), Hdf5Error> {
        let Self { file, path } = self;
        file.close().map_err(|error| write_error(&path, &error))
    }

    fn fail(&self, error: &hdf5_metno::Error) -> Hdf5Error {
        write_error(&self.path, error)
    }
}

/// The library reports the operating system's errors as text only.
fn write_error(path: &Path, error: &hdf5_metno::Error) -> Hdf5Error {
    let detail = error.to_string();
    let is_full = detail.contains("No space left") || detail.contains("errno = 28");
    let kind = if is_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    Hdf5Error::io("write", path)(io::Error::new(kind, detail))
}
