//! What can go wrong with a file.

use elephant_types::{Coded, ErrorCode};
use rusqlite::ErrorCode as Reason;

/// A database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite failed.
    #[error("{}cannot {operation} ({noun}): {source}", full(source))]
    Failed {
        /// What was being done, as a verb.
        operation: &'static str,
        /// What the file is.
        noun: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is damaged, or is no database at all.
    #[error("cannot {operation} ({noun}): the file is damaged ({source})")]
    Damaged {
        /// What was being done, as a verb.
        operation: &'static str,
        /// What the file is.
        noun: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
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
fn full(source: &rusqlite::Error) -> &'static str {
    match source.sqlite_error_code() {
        Some(Reason::DiskFull) => "the disk is full, free some space: ",
        _ => "",
    }
}

impl SqliteError {
    pub(crate) fn new(operation: &'static str, noun: &'static str, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(Reason::DatabaseCorrupt | Reason::NotADatabase) => Self::Damaged { operation, noun, source },
            _ => Self::Failed { operation, noun, source },
        }
    }
}

impl Coded for SqliteError {
    fn code(&self) -> ErrorCode {
        let Self::Failed { source, .. } = self else { return ErrorCode::Internal };
        match source.sqlite_error_code() {
            Some(Reason::DiskFull) => ErrorCode::StorageFull,
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
