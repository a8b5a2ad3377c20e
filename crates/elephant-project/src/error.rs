//! What can go wrong with a project.

use elephant_fs::FsError;
use elephant_sqlite::SqliteError;
use elephant_types::{Coded, ErrorCode};

use crate::{InvalidProjectName, LinkState, ProjectId, SpotKey};

/// An operation on a project is refused, or its file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such project.
    #[error("there is no project {0}; GET /v1/projects lists those that exist")]
    UnknownProject(ProjectId),
    /// There is one already.
    #[error("the project {0} exists already; choose another name")]
    Exists(ProjectId),
    /// There is no such dataset.
    #[error("the dataset does not exist: {0}; upload its movie and make it with POST /dataset/generate")]
    UnknownDataset(elephant_types::DatasetName),
    /// The project was deleted while it was open.
    #[error("the project was deleted or replaced meanwhile; open it again")]
    Deleted,
    /// A project that follows a session of another program.
    #[error(
        "the project {0} mirrors a session of Mastodon and cannot be changed here; copy it to another project first"
    )]
    ReadOnly(String),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidProjectName),
    /// The request is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    /// The request would make a project larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// A spot that does not exist, or no more.
    #[error("there is no spot {0}; it may have been deleted meanwhile")]
    UnknownSpot(SpotKey),
    /// A link that does not exist, or no more.
    #[error("there is no link from spot {source_spot} to spot {target}; it may have been deleted meanwhile")]
    UnknownLink {
        /// The earlier spot.
        source_spot: SpotKey,
        /// The later spot.
        target: SpotKey,
    },
    /// A client's number for a new spot is in use.
    #[error("there is a spot {0} already; choose another number")]
    SpotExists(SpotKey),
    /// A spot would get two parents.
    #[error("spot {target} has the parent {parent} ({state}) already; unlink them first, or set replace to true")]
    SecondParent {
        /// The later spot.
        target: SpotKey,
        /// Its parent.
        parent: SpotKey,
        /// What is known of that link.
        state: LinkState,
    },
    /// An author has nothing to undo or redo.
    #[error("{author} has nothing to {verb}")]
    NothingTo {
        /// What was asked for.
        verb: &'static str,
        /// Who asked.
        author: String,
    },
    /// An entry cannot be undone or redone any more.
    #[error("cannot {verb} entry {seq}: {reason}")]
    Overtaken {
        /// What was asked for.
        verb: &'static str,
        /// The entry.
        seq: u64,
        /// What has happened since.
        reason: String,
    },
    /// Another author has used this client id.
    #[error("the client id {0:?} was used by another author; ids must be different for each request")]
    ClientIdTaken(String),
    /// The log is damaged.
    #[error("the project's log is damaged after entry {intact}: {reason}; {}", rescue(*.intact))]
    Damaged {
        /// The last entry that is intact; 0 for none.
        intact: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file to import is not one.
    #[error("line {line} of the import: {reason}")]
    Import {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The database cannot be opened, read or written.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// What to do about a damaged log.
fn rescue(intact: u64) -> &'static str {
    if intact == 0 {
        "put a copy of the file in its place, or delete the project; POST /v1/projects/PROJECT/recover saves what can still be read"
    } else {
        "recover what is before it with POST /v1/projects/PROJECT/recover"
    }
}

impl Coded for ProjectError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownProject(_) | Self::UnknownDataset(_) | Self::UnknownSpot(_) | Self::UnknownLink { .. } => {
                ErrorCode::NotFound
            }
            Self::Exists(_)
            | Self::Deleted
            | Self::ReadOnly(_)
            | Self::SpotExists(_)
            | Self::SecondParent { .. }
            | Self::NothingTo { .. }
            | Self::Overtaken { .. }
            | Self::ClientIdTaken(_)
            | Self::Damaged { .. } => ErrorCode::Conflict,
            Self::Name(_) | Self::Invalid(_) | Self::Import { .. } => ErrorCode::InvalidArgument,
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::Database(error) => error.code(),
            Self::Fs(error) => error.code(),
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Database(error) => error.brief(),
            Self::Fs(error) => error.brief(),
            _ => None,
        }
    }
}
