//! What can go wrong with a file.

use elephant_types::{Coded, ErrorCode};
use rusqlite::ErrorCode as Reason;

/// A database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite failed.
    #[error("{}cannot {operation} ({noun}): {cause}", full(cause))]
    Failed {
        /// What was being done, as a verb.
        operation: &'static str,
        /// What the file is.
        noun: &'static str,
        /// What SQLite said; it is part of the message.
        cause: rusqlite::Error,
    },
    /// The file is damaged, or is no database at all.
    #[error("cannot {operation} ({noun}): the file is damaged ({cause})")]
    Damaged {
        /// What was being done, as a verb.
        operation: &'static str,
        /// What the file is.
        noun: &'static str,
        /// What SQLite said; it is part of the message.
        cause: rusqlite::Error,
    },
    /// The file was made by a later version of this program.
    #[error("{noun} has version {found}, and this program knows versions up to {known}; use a newer program")]
    Newer {
        /// What the file is.
        noun: &'static str,
        /// The version of the file.
        found: i64,
        /// The last version known here.
        known: i64,
    },
    /// The file belongs to another program, or to another part of this one.
    #[error("the file is a database, but not {noun}")]
    Foreign {
        /// What the file should be.
        noun: &'static str,
    },
}

/// What to say first, where it is the disk's fault.
fn full(cause: &rusqlite::Error) -> &'static str {
    if is_full(cause) { "the disk is full, free some space: " } else { "" }
}

impl SqliteError {
    pub(crate) fn new(operation: &'static str, noun: &'static str, cause: rusqlite::Error) -> Self {
        match cause.sqlite_error_code() {
            Some(Reason::DatabaseCorrupt | Reason::NotADatabase) => Self::Damaged { operation, noun, cause },
            _ => Self::Failed { operation, noun, cause },
        }
    }
}

/// Whether the disk has no room, for the file or for what SQLite keeps beside it.
fn is_full(cause: &rusqlite::Error) -> bool {
    let code = cause.sqlite_error().map(|error| error.extended_code);
    cause.sqlite_error_code() == Some(Reason::DiskFull) || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

impl Coded for SqliteError {
    fn code(&self) -> ErrorCode {
        let Self::Failed { cause, .. } = self else { return ErrorCode::Internal };
        match cause.sqlite_error_code() {
            _ if is_full(cause) => ErrorCode::StorageFull,
            Some(Reason::DatabaseBusy | Reason::DatabaseLocked) => ErrorCode::Unavailable,
            Some(Reason::TooBig) => ErrorCode::TooLarge,
            Some(Reason::CannotOpen) => ErrorCode::NotFound,
            _ => ErrorCode::Internal,
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Failed { .. } if self.code() == ErrorCode::StorageFull => {
                Some("the server's disk is full".to_owned())
            }
            _ => None,
        }
    }
}
