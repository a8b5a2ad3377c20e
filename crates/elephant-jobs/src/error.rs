//! What can go wrong with the records.

use elephant_types::{Coded, ErrorCode};

/// The state database failed.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// SQLite refused.
    #[error("cannot {operation} in the state database: {source}")]
    Database {
        /// What was being done, as a verb.
        operation: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A job that excludes this one runs.
    #[error("a {0} is running; wait until it has finished, or abort it")]
    Busy(&'static str),
}

impl JobsError {
    pub(crate) fn database(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { operation, source }
    }
}

impl Coded for JobsError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => ErrorCode::StorageFull,
                _ => ErrorCode::Internal,
            },
            Self::Busy(_) => ErrorCode::Conflict,
        }
    }
}
