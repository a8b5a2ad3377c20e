//! Why a BigDataViewer file cannot be read.

use std::{io, path::Path};

use elephant_types::{Coded, ErrorCode};

/// A BigDataViewer movie that cannot be read. Files are named without their folder.
#[derive(Debug, thiserror::Error)]
pub enum H5Error {
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
    #[error("{file} is not an HDF5 file; give the .h5 file of a BigDataViewer .h5/.xml pair")]
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
        /// The group or dataset.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A valid HDF5 file, but no movie.
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
    #[error("{file} has no image of setup {setup} at the timepoints {wanted}; it has the timepoints {available}")]
    NoImages {
        /// The file's name.
        file: String,
        /// The view setup.
        setup: u32,
        /// The timepoints that were asked for.
        wanted: String,
        /// The timepoints that are there.
        available: String,
    },
    /// The voxels are compressed in a way this program cannot undo.
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
    /// A link, or stored data, lies outside the movie's folder.
    #[error(
        "{object} in {file} lies in {target:?}, outside the folder of the movie; put all files of the movie into one folder"
    )]
    Escapes {
        /// The file's name.
        file: String,
        /// The link or dataset.
        object: String,
        /// Where it points to, as written in the file.
        target: String,
    },
    /// The `.h5` file that an `.xml` names is neither where it says nor beside it.
    #[error("{file} names the images {h5:?}, which are not there; put that .h5 file into the folder of {file}")]
    NoMovie {
        /// The name of the `.xml` file.
        file: String,
        /// The `.h5` file, as written in it.
        h5: String,
    },
    /// A file of a movie that is split into several is not there.
    #[error("{file} needs the partition file {partition:?}, which is not in its folder; put it there")]
    MissingPartition {
        /// The file's name.
        file: String,
        /// The missing file, as written in the file.
        partition: String,
    },
    /// The XML is not a BigDataViewer description.
    #[error("cannot understand {file}: {reason}")]
    Xml {
        /// The file's name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Fs(#[from] elephant_fs::FsError),
}

/// Voxels that lie where they are not read.
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

impl H5Error {
    /// Wraps an error of the operating system.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file_name(path);
        move |source| Self::Io { operation, file, source }
    }

    /// Something is wrong with one object of a file.
    pub(crate) fn object(file: &str, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Object { file: file.to_owned(), object: object.into(), detail: detail.into() }
    }
}

impl Coded for H5Error {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => source.code(),
            Self::Fs(error) => error.code(),
            Self::MissingPartition { .. } | Self::NoMovie { .. } => ErrorCode::NotFound,
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
