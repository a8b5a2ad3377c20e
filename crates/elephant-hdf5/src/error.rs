//! Why an HDF5 file cannot be read or written.

use std::{io, path::Path};

use elephant_types::{Coded, ErrorCode};

/// An HDF5 file that cannot be read or written. Files are named without their folder.
#[derive(Debug, thiserror::Error)]
pub enum Hdf5Error {
    /// The operating system refused.
    #[error("cannot {operation} {file}: {source}")]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The file's name.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{file} is not an HDF5 file")]
    NotHdf5 {
        /// The file's name.
        file: String,
    },
    /// The HDF5 library cannot make sense of the file.
    #[error("cannot open {file}: {detail}; the file is damaged or incomplete, copy or upload it again")]
    Damaged {
        /// The file's name.
        file: String,
        /// What the library said.
        detail: String,
    },
    /// The file is marked as open for writing.
    #[error(
        "cannot open {file}: another program is still writing it, or was stopped while writing; close it there, or run h5clear -s {file} and try again"
    )]
    StillOpen {
        /// The file's name.
        file: String,
    },
    /// The HDF5 library cannot make sense of a part of the file.
    #[error("cannot read {object} in {file}: {detail}")]
    Object {
        /// The file's name.
        file: String,
        /// The path of the group, dataset or attribute.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The data are compressed in a way this program cannot undo.
    #[error(
        "{object} in {file} is compressed with {filter}, which cannot be read here; save it with gzip (h5repack -f GZIP=4)"
    )]
    UnsupportedFilter {
        /// The file's name.
        file: String,
        /// The dataset.
        object: String,
        /// The filter's name or number.
        filter: String,
    },
    /// A link, or stored data, lies outside the folder of the file.
    #[error("{object} in {file} lies in {target:?}, outside the folder of the file; put all its files into one folder")]
    Escapes {
        /// The file's name.
        file: String,
        /// The link or dataset.
        object: String,
        /// Where it points to, as written in the file.
        target: String,
    },
    /// A file that another one links to is not there.
    #[error("{file} needs the partition file {partition:?}, which is not in its folder; put it there")]
    MissingPartition {
        /// The file's name.
        file: String,
        /// The missing file, as written in the file.
        partition: String,
    },
}

/// Data that are stored where they are not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("virtual datasets of this kind cannot be read; write a copy that holds the voxels, with h5repack or h5py")]
    Virtual,
    #[error("its voxels are in more than {0} files; write a copy that holds them, with h5repack or h5py")]
    Files(usize),
    #[error(
        "its voxels are in the raw file {0:?}, which is not opened; write a copy that holds them, with h5repack or h5py"
    )]
    Raw(String),
}

impl Hdf5Error {
    /// Wraps an error of the operating system.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file_name(path);
        move |source| Self::Io { operation, file, source }
    }

    /// An error about one object of a file: `object` is its path, `detail` what is wrong with it.
    pub fn object(file: &str, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Object { file: file.to_owned(), object: object.into(), detail: detail.into() }
    }
}

impl Coded for Hdf5Error {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => source.code(),
            Self::MissingPartition { .. } => ErrorCode::NotFound,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

/// The last part of a path, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
