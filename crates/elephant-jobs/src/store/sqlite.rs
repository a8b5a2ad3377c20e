//! The embedded state: one SQLite file in the workspace, written ahead, so that it survives kill -9.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use elephant_sqlite::{
    Durability, Schema,
    rusqlite::{self, Connection, OptionalExtension, params, types::ToSql},
};

use super::{ElephantState, JobStore, KEPT_CURVES, KEPT_JOBS, losses_from_text, losses_to_text};
use crate::{
    Activity, JobFilter, JobRecord, JobStatus, JobsError, Lease, LossPoint, Owner, ProcessState, TrainingParameters,
    record::unix_now,
};

/// Each brings the file from the form of its index to the next; `PRAGMA user_version` counts them. Files of form 0 may
/// have the first tables already.
const MIGRATIONS: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value ANY) STRICT;
     CREATE TABLE IF NOT EXISTS jobs (
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         kind TEXT NOT NULL,
         subject TEXT NOT NULL,
         status TEXT NOT NULL,
         error TEXT
     ) STRICT;
     CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status);",
    "ALTER TABLE jobs ADD COLUMN begun_at REAL;
     ALTER TABLE jobs ADD COLUMN ended_at REAL;
     CREATE TABLE losses (job INTEGER PRIMARY KEY, points TEXT NOT NULL) STRICT;
     INSERT INTO settings VALUES ('last_job', (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'))
         ON CONFLICT (key) DO NOTHING;",
    "ALTER TABLE jobs ADD COLUMN note TEXT;",
    "ALTER TABLE jobs ADD COLUMN role TEXT;
     ALTER TABLE jobs ADD COLUMN process TEXT;
     ALTER TABLE jobs ADD COLUMN lease_until REAL;",
];

const SCHEMA: Schema = Schema {
    noun: "the state database",
    migrations: &MIGRATIONS,
    application_id: 0,
    page_bytes: 4096,
    durability: Durability::Process,
};

/// An SQLite database.
#[derive(Debug)]
pub struct SqliteStore(Mutex<Connection>);

impl SqliteStore {
    /// Opens the database at `path`, making it when it is missing and bringing it to the newest form.
    ///
    /// # Errors
    /// When the file is not such a database, is of a later version, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, JobsError> {
        Ok(Self(Mutex::new(SCHEMA.open(path)?)))
    }

    /// A panic between two statements leaves no transaction open, so a poisoned lock is still good.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, operation: &'static str, settings: &[(&str, &dyn ToSql)]) -> Result<(), JobsError> {
        let mut connection = self.connection();
        let mut write = || {
            let transaction = connection.transaction()?;
            for (key, value) in settings {
                transaction.execute(
                    "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                    params![key, value],
                )?;
            }
            transaction.commit()
        };
        write().map_err(failed(operation))
    }

    fn get<T: rusqlite::types::FromSql>(&self, operation: &'static str, key: &str) -> Result<Option<T>, JobsError> {
        self.connection()
            .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map(Option::flatten)
            .map_err(failed(operation))
    }
}

/// What a function of the stores fails with.
fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> JobsError {
    move |source| JobsError::Database(SCHEMA.failed(operation)(source))
}

impl JobStore for SqliteStore {
    fn description(&self) -> String {
        "SQLite".into()
    }

    fn check(&self) -> Result<(), JobsError> {
        self.process_state().map(drop)
    }

    fn check_writable(&self) -> Result<(), JobsError> {
        self.set("write the state", &[("checked", &unix_now())])
    }

    fn connections(&self) -> u64 {
        1
    }

    fn new_job_id(&self) -> Result<i64, JobsError> {
        self.connection()
            .query_row(
                "INSERT INTO settings VALUES ('last_job', 1)
                 ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value",
                [],
                |row| row.get(0),
            )
            .map_err(failed("number a job"))
    }

    fn save_job(&self, job: &JobRecord, lease: Option<&Lease>) -> Result<(), JobsError> {
        let mut connection = self.connection();
        let mut write = || {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO jobs
                     (id, kind, subject, status, error, begun_at, ended_at, note, role, process, lease_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                    job.id,
                    job.kind,
                    job.subject,
                    job.status.as_str(),
                    job.error,
                    job.begun_at,
                    job.ended_at,
                    job.note,
                    lease.map(|lease| &lease.owner.role),
                    lease.map(|lease| &lease.owner.process),
                    lease.map(|lease| lease.until),
                ],
            )?;
            transaction.execute(
                "DELETE FROM jobs WHERE id <= ?1 AND status <> ?2",
                params![job.id - KEPT_JOBS, JobStatus::Running.as_str()],
            )?;
            transaction.commit()
        };
        write().map_err(failed("record a job"))
    }

    fn renew(&self, jobs: &[i64], lease: &Lease) -> Result<(), JobsError> {
        let mut connection = self.connection();
        let mut write = || {
            let transaction = connection.transaction()?;
            for job in jobs {
                transaction.execute(
                    "UPDATE jobs SET role = ?2, process = ?3, lease_until = ?4 WHERE id = ?1 AND status = ?5",
                    params![job, lease.owner.role, lease.owner.process, lease.until, JobStatus::Running.as_str()],
                )?;
            }
            transaction.commit()
        };
        write().map_err(failed("renew the leases of jobs"))
    }

    fn interrupt_abandoned(&self, owner: &Owner, now: f64) -> Result<Vec<JobRecord>, JobsError> {
        let connection = self.connection();
        // As `Lease::has_ended` says.
        let update = format!(
            "UPDATE jobs SET status = ?1, ended_at = ?2, role = NULL, process = NULL, lease_until = NULL
             WHERE status = ?3 AND (process IS NULL OR process <> ?4 AND (role = ?5 OR lease_until < ?2))
             RETURNING {COLUMNS}"
        );
        let read = || {
            let mut statement = connection.prepare(&update)?;
            let (interrupted, running) = (JobStatus::Interrupted.as_str(), JobStatus::Running.as_str());
            let parameters = params![interrupted, now, running, owner.process, owner.role];
            statement.query_map(parameters, record)?.collect::<Result<Vec<_>, _>>()
        };
        let mut jobs: Vec<JobRecord> = read().map_err(failed("find interrupted jobs"))?;
        jobs.sort_by_key(|job| job.id);
        Ok(jobs)
    }

    fn job(&self, id: i64) -> Result<Option<JobRecord>, JobsError> {
        self.connection()
            .query_row(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"), [id], record)
            .optional()
            .map_err(failed("read a job"))
    }

    fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, JobsError> {
        let connection = self.connection();
        let query = format!(
            "SELECT {COLUMNS} FROM jobs WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR status = ?2)
             ORDER BY id DESC LIMIT ?3"
        );
        let read = || {
            let mut statement = connection.prepare(&query)?;
            let (kind, status) = (&filter.kind, filter.status.map(JobStatus::as_str));
            statement.query_map(params![kind, status, filter.limit], record)?.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(failed("list the jobs"))
    }

    fn save_losses(&self, job: i64, losses: &[LossPoint]) -> Result<(), JobsError> {
        let mut connection = self.connection();
        let mut write = || {
            let transaction = connection.transaction()?;
            transaction
                .execute("INSERT OR REPLACE INTO losses VALUES (?1, ?2)", params![job, losses_to_text(losses)])?;
            transaction.execute(
                "DELETE FROM losses WHERE job NOT IN (SELECT job FROM losses ORDER BY job DESC LIMIT ?1)",
                [KEPT_CURVES as i64],
            )?;
            transaction.commit()
        };
        write().map_err(failed("write a loss curve"))
    }

    fn losses(&self, job: i64) -> Result<Vec<LossPoint>, JobsError> {
        let text: Option<String> = self
            .connection()
            .query_row("SELECT points FROM losses WHERE job = ?1", [job], |row| row.get(0))
            .optional()
            .map_err(failed("read a loss curve"))?;
        Ok(losses_from_text(text.as_deref()))
    }
}

impl ElephantState for SqliteStore {
    fn process_state(&self) -> Result<ProcessState, JobsError> {
        let state = self.get("read the process state", "state")?;
        Ok(state.and_then(ProcessState::from_number).unwrap_or(ProcessState::Idle))
    }

    fn set_activity(&self, activity: Activity) -> Result<(), JobsError> {
        let state = activity.state as i64;
        let (labels, flow) = (activity.updating_labels.then_some(1), activity.updating_flow_labels.then_some(1));
        let values: [(&str, &dyn ToSql); 3] =
            [("state", &state), ("update_ongoing_seg", &labels), ("update_ongoing_flow", &flow)];
        self.set("write the process state", &values)
    }

    fn training_parameters(&self) -> Result<TrainingParameters, JobsError> {
        let operation = "read the training parameters";
        Ok(TrainingParameters {
            learning_rate: self.get(operation, "lr")?,
            crop_count: self.get(operation, "n_crops")?,
        })
    }

    fn set_training_parameters(&self, parameters: TrainingParameters) -> Result<(), JobsError> {
        let rate = parameters.learning_rate.as_ref().map(|rate| ("lr", rate as &dyn ToSql));
        let count = parameters.crop_count.as_ref().map(|count| ("n_crops", count as &dyn ToSql));
        let settings: Vec<_> = rate.into_iter().chain(count).collect();
        self.set("write the training parameters", &settings)
    }

    fn live_timepoint(&self) -> Result<Option<u64>, JobsError> {
        let timepoint: Option<i64> = self.get("read the live timepoint", "timepoint")?;
        Ok(timepoint.and_then(|timepoint| u64::try_from(timepoint).ok()))
    }

    fn set_live_timepoint(&self, timepoint: Option<u64>) -> Result<(), JobsError> {
        self.set("write the live timepoint", &[("timepoint", &timepoint.map(|timepoint| timepoint as i64))])
    }
}

const COLUMNS: &str = "id, kind, subject, status, error, begun_at, ended_at, note";

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        id: row.get(0)?,
        kind: row.get(1)?,
        subject: row.get(2)?,
        status: status(&row.get::<_, String>(3)?)?,
        error: row.get(4)?,
        begun_at: row.get(5)?,
        ended_at: row.get(6)?,
        note: row.get(7)?,
    })
}

fn status(name: &str) -> rusqlite::Result<JobStatus> {
    let unknown = || rusqlite::Error::InvalidColumnType(3, format!("status {name}"), rusqlite::types::Type::Text);
    JobStatus::from_name(name).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use elephant_sqlite::SqliteError;

    use super::*;

    #[test]
    fn a_file_of_the_first_form_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("elephant.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO settings VALUES ('lr', 0.25), ('state', 1);
             INSERT INTO jobs (kind, subject, status) VALUES ('predict', 'a', 'completed'), ('reset', 'b', 'running');
             DELETE FROM jobs WHERE id = 1;",
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let store = SqliteStore::open(&path).unwrap();
            assert_eq!(store.training_parameters().unwrap().learning_rate, Some(0.25));
            let job = store.job(2).unwrap().unwrap();
            assert_eq!((job.subject.as_str(), job.begun_at), ("b", None));
        }
        assert_eq!(SqliteStore::open(&path).unwrap().new_job_id().unwrap(), 3, "numbers go on");
    }

    /// A database as the version before leases wrote it.
    #[test]
    fn jobs_without_leases_were_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("elephant.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&MIGRATIONS[..3].concat()).unwrap();
        old.execute_batch(
            "PRAGMA user_version = 3;
             INSERT INTO jobs (id, kind, subject, status, begun_at, note)
                 VALUES (1, 'train', 'm.pth', 'completed', 1.5, 'built-in'), (2, 'predict', 'fly', 'running', 2.5, NULL);",
        )
        .unwrap();
        drop(old);
        let store = SqliteStore::open(&path).unwrap();
        let interrupted = store.interrupt_abandoned(&Owner::new("server"), 9.5).unwrap();
        assert_eq!(interrupted.iter().map(|job| (job.id, job.ended_at)).collect::<Vec<_>>(), [(2, Some(9.5))]);
        assert_eq!(store.job(1).unwrap().unwrap().note.as_deref(), Some("built-in"));
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("elephant.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(SqliteStore::open(&path), Err(JobsError::Database(SqliteError::Newer { found: 99, .. }))));
    }
}
