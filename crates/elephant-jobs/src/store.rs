//! The embedded state: one SQLite file in the workspace, written ahead, so that it survives kill -9.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::{JobRecord, JobStatus, JobsError, ProcessState};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value ANY) STRICT;
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        status TEXT NOT NULL,
        error TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status);
";

/// Records older than the newest of this number are forgotten.
const KEPT_JOBS: i64 = 10_000;

/// Training parameters that a client may change while training runs (`/params`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingParameters {
    /// Learning rate, when one was set.
    pub learning_rate: Option<f64>,
    /// Crops per timepoint and epoch, when set.
    pub crop_count: Option<u32>,
}

/// Process state, parameters and job records.
#[derive(Debug)]
pub struct Store(Mutex<Connection>);

impl Store {
    /// Opens the database at `path`, making it when it is missing.
    ///
    /// # Errors
    /// When the file is not such a database or cannot be written.
    pub fn open(path: &Path) -> Result<Self, JobsError> {
        let connection = Connection::open(path).map_err(JobsError::database("open the file"))?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;")
            .map_err(JobsError::database("set up the journal"))?;
        connection.execute_batch(SCHEMA).map_err(JobsError::database("create the tables"))?;
        Ok(Self(Mutex::new(connection)))
    }

    /// A panic between two statements leaves no transaction open, so a poisoned lock is still good.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set<T: rusqlite::ToSql>(&self, key: &str, value: T) -> Result<(), JobsError> {
        self.connection()
            .execute(
                "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                params![key, value],
            )
            .map(|_| ())
            .map_err(JobsError::database("write a setting"))
    }

    fn get<T: rusqlite::types::FromSql>(&self, key: &str) -> Result<Option<T>, JobsError> {
        self.connection()
            .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(JobsError::database("read a setting"))
    }

    /// The process state last written.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn process_state(&self) -> Result<ProcessState, JobsError> {
        Ok(self.get("state")?.and_then(ProcessState::from_number).unwrap_or(ProcessState::Idle))
    }

    pub(crate) fn set_process_state(&self, state: ProcessState) -> Result<(), JobsError> {
        self.set("state", state as i64)
    }

    /// The training parameters last set.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn training_parameters(&self) -> Result<TrainingParameters, JobsError> {
        Ok(TrainingParameters { learning_rate: self.get("lr")?, crop_count: self.get("n_crops")? })
    }

    /// Sets those training parameters that are given.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_training_parameters(&self, parameters: TrainingParameters) -> Result<(), JobsError> {
        if let Some(rate) = parameters.learning_rate {
            self.set("lr", rate)?;
        }
        if let Some(count) = parameters.crop_count {
            self.set("n_crops", count)?;
        }
        Ok(())
    }

    pub(crate) fn insert_job(&self, kind: &str, subject: &str) -> Result<i64, JobsError> {
        let connection = self.connection();
        connection
            .execute(
                "INSERT INTO jobs (kind, subject, status) VALUES (?1, ?2, ?3)",
                params![kind, subject, JobStatus::Running.as_str()],
            )
            .map_err(JobsError::database("record a job"))?;
        let id = connection.last_insert_rowid();
        connection
            .execute("DELETE FROM jobs WHERE id <= ?1", [id - KEPT_JOBS])
            .map_err(JobsError::database("forget old jobs"))?;
        Ok(id)
    }

    pub(crate) fn finish_job(&self, id: i64, status: JobStatus, error: Option<&str>) -> Result<(), JobsError> {
        self.connection()
            .execute("UPDATE jobs SET status = ?2, error = ?3 WHERE id = ?1", params![id, status.as_str(), error])
            .map(|_| ())
            .map_err(JobsError::database("record the end of a job"))
    }

    /// Marks the jobs that a killed server left running, and returns them.
    pub(crate) fn interrupt_running(&self) -> Result<Vec<JobRecord>, JobsError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare("UPDATE jobs SET status = ?1 WHERE status = ?2 RETURNING id, kind, subject, status, error")
            .map_err(JobsError::database("find interrupted jobs"))?;
        let rows = statement
            .query_map(params![JobStatus::Interrupted.as_str(), JobStatus::Running.as_str()], record)
            .and_then(Iterator::collect);
        rows.map_err(JobsError::database("find interrupted jobs"))
    }

    /// The newest `count` jobs, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn recent_jobs(&self, count: u32) -> Result<Vec<JobRecord>, JobsError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT id, kind, subject, status, error FROM jobs ORDER BY id DESC LIMIT ?1")
            .map_err(JobsError::database("list the jobs"))?;
        let rows = statement.query_map([count], record).and_then(Iterator::collect);
        rows.map_err(JobsError::database("list the jobs"))
    }
}

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord { id: row.get(0)?, kind: row.get(1)?, subject: row.get(2)?, status: row.get(3)?, error: row.get(4)? })
}
