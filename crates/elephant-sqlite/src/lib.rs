//! How SQLite files are opened: written ahead, so that they survive kill -9; with patience for other processes; and with
//! tables of a known version. Failures are told apart by what can be done about them ([`SqliteError`]).
//!
//! The library itself is [`rusqlite`], re-exported, so that no other crate depends on it. What the tables contain is the
//! matter of the crates above.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod error;

use std::path::Path;

pub use rusqlite;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use self::error::SqliteError;

/// How long a statement waits for another process, in milliseconds.
const PATIENCE_MS: u32 = 5000;
/// After how many pages the journal is moved into the file.
const JOURNAL_PAGES: u32 = 1000;

/// The tables of a kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// What the file is, for error messages: "the state database".
    pub noun: &'static str,
    /// Each entry brings a file from the form of its index to the next; `PRAGMA user_version` counts them.
    pub migrations: &'static [&'static str],
    /// The number by which `file` and SQLite know files of this kind (`PRAGMA application_id`), set with the first form. A
    /// file with another one is refused. 0 for none.
    pub application_id: i32,
    /// Bytes of a page of a new file.
    pub page_bytes: u32,
    /// What survives.
    pub durability: Durability,
}

/// What a finished transaction survives. A file is never damaged by either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, kill -9 included; a power failure may take the last transactions.
    Process,
    /// A power failure too, at the price of one flush of the disk for each transaction.
    Power,
}

impl Schema {
    /// Opens the file, making it when it is missing, and brings its tables to the newest form.
    ///
    /// # Errors
    /// When the file is damaged, is not a database of this kind, is of a later version, or cannot be written.
    pub fn open(&self, path: &Path) -> Result<Connection, SqliteError> {
        self.open_with(path, OpenFlags::default())
    }

    /// As [`open`](Self::open), of a file that exists.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is no such file.
    pub fn open_existing(&self, path: &Path) -> Result<Connection, SqliteError> {
        self.open_with(path, OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens a file only to read it, with no check of its tables: for what can be saved of a damaged one.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn open_to_read(&self, path: &Path) -> Result<Connection, SqliteError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(self.failed("open the file"))?;
        connection
            .execute_batch(&format!("PRAGMA busy_timeout = {PATIENCE_MS};"))
            .map_err(self.failed("open the file"))?;
        Ok(connection)
    }

    /// Makes an error of SQLite one of this kind of file: `.map_err(SCHEMA.failed("record a job"))`.
    pub fn failed(&self, operation: &'static str) -> impl FnOnce(rusqlite::Error) -> SqliteError + use<> {
        let noun = self.noun;
        move |source| SqliteError::new(operation, noun, source)
    }

    fn open_with(&self, path: &Path, flags: OpenFlags) -> Result<Connection, SqliteError> {
        let mut connection = Connection::open_with_flags(path, flags).map_err(self.failed("open the file"))?;
        let synchronous = match self.durability {
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        let setup = format!(
            "PRAGMA page_size = {}; PRAGMA busy_timeout = {PATIENCE_MS}; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {JOURNAL_PAGES};",
            self.page_bytes
        );
        connection.execute_batch(&setup).map_err(self.failed("open the file"))?;
        self.migrate(&mut connection)?;
        Ok(connection)
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), SqliteError> {
        let known = self.migrations.len() as i64;
        let mut run = || {
            // Two processes that open the same file take turns.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let id: i32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
            let is_foreign = found != 0 && id != self.application_id;
            if is_foreign || found > known {
                return Ok((found, is_foreign));
            }
            for migration in self.migrations.iter().skip(found.max(0) as usize) {
                transaction.execute_batch(migration)?;
            }
            if found < known {
                transaction.pragma_update(None, "application_id", self.application_id)?;
                transaction.pragma_update(None, "user_version", known)?;
            }
            transaction.commit()?;
            Ok((found, is_foreign))
        };
        let (found, is_foreign) = run().map_err(self.failed("bring the tables to the newest form"))?;
        if is_foreign {
            return Err(SqliteError::Foreign { noun: self.noun });
        }
        if found > known { Err(SqliteError::Newer { noun: self.noun, found, known }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use elephant_types::{Coded, ErrorCode};

    use super::*;

    const SCHEMA: Schema = Schema {
        noun: "the list of names",
        migrations: &["CREATE TABLE names (name TEXT) STRICT;", "ALTER TABLE names ADD COLUMN age INTEGER;"],
        application_id: 0x4e61_6d65,
        page_bytes: 4096,
        durability: Durability::Process,
    };

    #[test]
    fn a_file_is_made_and_brought_to_the_newest_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.db");
        assert_eq!(SCHEMA.open_existing(&path).unwrap_err().code(), ErrorCode::NotFound);
        let old = Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA };
        old.open(&path).unwrap().execute("INSERT INTO names VALUES ('Ada')", []).unwrap();
        let connection = SCHEMA.open_existing(&path).unwrap();
        let (name, age): (String, Option<i64>) =
            connection.query_row("SELECT name, age FROM names", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!((name.as_str(), age), ("Ada", None));
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        assert!(matches!(old.open(&path), Err(SqliteError::Newer { found: 2, known: 1, .. })));
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.db");
        Schema { application_id: 7, ..SCHEMA }.open(&path).unwrap();
        let error = SCHEMA.open(&path).unwrap_err();
        assert!(matches!(error, SqliteError::Foreign { .. }), "{error}");
        let text = folder.path().join("text");
        std::fs::write(&text, "no database ".repeat(1000)).unwrap();
        let error = SCHEMA.open(&text).unwrap_err();
        assert!(matches!(error, SqliteError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&text).unwrap().len(), 12_000);
    }
}
