//! Why a BigDataViewer movie cannot be read or written.

use std::{io, path::Path};

use elephant_hdf5::Hdf5Error;
use elephant_types::{Coded, ErrorCode};

/// A BigDataViewer movie that cannot be read or written. Files are named without their folder.
#[derive(Debug, thiserror::Error)]
pub enum BdvError {
    /// The HDF5 file cannot be read or written.
    #[error(transparent)]
    Hdf5(Hdf5Error),
    /// The operating system refused to open or read the `.xml` file.
    #[error("cannot {operation} {file}: {source}")]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The file's name.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is something else than HDF5.
    #[error("{file} is not an HDF5 file; give the .h5 file of a BigDataViewer .h5/.xml pair")]
    NotHdf5 {
        /// The file's name.
        file: String,
    },
    /// A valid HDF5 file, but not a movie.
    #[error("{file} holds no timepoints (groups t00000, t00001 and so on); export it from BigDataViewer as HDF5/XML")]
    NoTimepoints {
        /// The file's name.
        file: String,
    },
    /// The view setup (channel, angle) is not in the file.
    #[error("{file} has no setup {setup}; it has {available}")]
    NoSetup {
        /// The file's name.
        file: String,
        /// What was asked for.
        setup: u32,
        /// What is there.
        available: String,
    },
    /// The resolution level is not in the file.
    #[error("setup {setup} of {file} has no resolution level {level}; it has {available}")]
    NoLevel {
        /// The file's name.
        file: String,
        /// The view setup.
        setup: u32,
        /// What was asked for.
        level: u32,
        /// What is there, "only level 1".
        available: String,
    },
    /// The setup has no image at any of the timepoints.
    #[error("{file} has no image of setup {setup} at the timepoints {requested}; it has the timepoints {available}")]
    NoImages {
        /// The file's name.
        file: String,
        /// The view setup.
        setup: u32,
        /// The timepoints that were asked for.
        requested: String,
        /// The timepoints that are there.
        available: String,
    },
    /// The `.h5` file that an `.xml` names is neither where it says nor beside it.
    #[error("{file} names the images {h5:?}, which are not there; put that .h5 file into the folder of {file}")]
    NoMovie {
        /// The name of the `.xml` file.
        file: String,
        /// The `.h5` file, as written in it.
        h5: String,
    },
    /// The XML is not a BigDataViewer description.
    #[error("cannot understand {file}: {reason}")]
    Xml {
        /// The file's name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be put into its place.
    #[error(transparent)]
    Fs(#[from] elephant_fs::FsError),
}

impl BdvError {
    /// Wraps an error of the operating system.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file_name(path);
        move |source| Self::Io { operation, file, source }
    }

    /// An error about one object of a movie.
    pub(crate) fn object(file: &str, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Hdf5(Hdf5Error::object(file, object, detail))
    }
}

impl From<Hdf5Error> for BdvError {
    fn from(error: Hdf5Error) -> Self {
        match error {
            Hdf5Error::NotHdf5 { file } => Self::NotHdf5 { file },
            other => Self::Hdf5(other),
        }
    }
}

impl Coded for BdvError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Hdf5(error) => error.code(),
            Self::Io { source, .. } => source.code(),
            Self::Fs(error) => error.code(),
            Self::NoMovie { .. } => ErrorCode::NotFound,
            _ => ErrorCode::InvalidArgument,
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Fs(error) => error.brief(),
            _ => None,
        }
    }
}

/// The last part of a path, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
