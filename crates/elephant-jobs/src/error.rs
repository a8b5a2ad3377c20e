//! What can go wrong with the records.

use elephant_sqlite::SqliteError;
use elephant_types::{Coded, ErrorCode};

use crate::{JobStatus, QueueSpec};

/// The state store failed, or a job cannot be what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The embedded database failed, is damaged or is of a later version.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// The text is not the address of a Redis server.
    #[error("cannot read the address of Redis: {reason}; give it as redis://HOST:PORT/DB")]
    RedisAddress {
        /// What is wrong with it, without its password.
        reason: String,
    },
    /// Redis does not answer.
    #[error("cannot {operation}: Redis at {place} cannot be reached ({reason}); try again when it runs")]
    RedisUnreachable {
        /// What was being done, as a verb.
        operation: &'static str,
        /// Host, port and database.
        place: String,
        /// What happened.
        reason: String,
    },
    /// Redis answers with an error.
    #[error("cannot {operation}: Redis at {place} refuses: {reason}")]
    RedisRefused {
        /// What was being done, as a verb.
        operation: &'static str,
        /// Host, port and database.
        place: String,
        /// What it said.
        reason: String,
    },
    /// The thread that writes the records cannot be started.
    #[error("cannot start the thread for job records: {0}")]
    Thread(std::io::Error),
    /// The store failed, and what happened since then is not all written.
    #[error("the state could not be written, and what is missing has not been written yet; the server's log says why")]
    NotRecorded,
    /// A job that excludes this one runs; its [`noun`](crate::JobSpec::noun).
    #[error("a {0} is running; wait until it has finished, or abort it")]
    Busy(&'static str),
    /// As many jobs wait in the queue as may.
    #[error("{} {} wait already; try again later", .0.waiting, .0.name)]
    QueueFull(QueueSpec),
    /// No such job is remembered.
    #[error("there is no job {0}")]
    UnknownJob(i64),
    /// The job cannot be cancelled any more.
    #[error("job {id} has ended already: {status}")]
    AlreadyEnded {
        /// The job.
        id: i64,
        /// How it ended.
        status: JobStatus,
    },
    /// The record says that the job runs, but not here.
    #[error("job {0} runs in another server process; cancel it there")]
    RunsElsewhere(i64),
}

impl Coded for JobsError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::Thread(_) => ErrorCode::Internal,
            Self::RedisAddress { .. } => ErrorCode::InvalidArgument,
            Self::RedisUnreachable { .. } | Self::RedisRefused { .. } | Self::NotRecorded => ErrorCode::Unavailable,
            Self::UnknownJob(_) => ErrorCode::NotFound,
            Self::QueueFull(_) => ErrorCode::TooMany,
            Self::Busy(_) | Self::AlreadyEnded { .. } | Self::RunsElsewhere(_) => ErrorCode::Conflict,
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Database(error) => error.brief(),
            Self::RedisUnreachable { .. } => Some("Redis cannot be reached; try again when it runs".to_owned()),
            Self::RedisRefused { reason, .. } => Some(format!("Redis refuses: {reason}")),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::QueueFull(queue) => Some(queue.retry_after),
            _ => None,
        }
    }
}

/// Why a job did not end as asked, where its own errors are `E`.
#[derive(Debug, thiserror::Error)]
pub enum JobError<E> {
    /// It could not begin.
    #[error(transparent)]
    Refused(JobsError),
    /// It failed.
    #[error("{0}")]
    Failed(E),
    /// It panicked, which is a defect.
    #[error("the {kind} job crashed: {reason}")]
    Crashed {
        /// What the job does.
        kind: &'static str,
        /// What the runtime says.
        reason: String,
    },
    /// The process is ending.
    #[error("the server is stopping; try again when it is back")]
    Closing,
}

impl<E: Coded> Coded for JobError<E> {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(error) => error.code(),
            Self::Failed(error) => error.code(),
            Self::Crashed { .. } => ErrorCode::Internal,
            Self::Closing => ErrorCode::Unavailable,
        }
    }

    fn brief(&self) -> Option<String> {
        match self {
            Self::Refused(error) => error.brief(),
            Self::Failed(error) => error.brief(),
            Self::Crashed { .. } | Self::Closing => None,
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Refused(error) => error.retry_after(),
            Self::Failed(error) => error.retry_after(),
            Self::Crashed { .. } | Self::Closing => None,
        }
    }
}
