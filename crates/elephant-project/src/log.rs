//! The log in the database: entries with checksums that chain them.

use elephant_sqlite::{
    Durability, Schema,
    rusqlite::{self, Connection, OptionalExtension, params},
};
use serde::{Deserialize, Serialize};

use crate::{Author, Change, ClientId, ProjectError, codec};

/// The tables of a project's file.
pub(crate) const SCHEMA: Schema = Schema {
    noun: "the project's file",
    migrations: &["CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT;
         CREATE TABLE log (
             seq INTEGER PRIMARY KEY,
             time REAL NOT NULL,
             author TEXT NOT NULL,
             client_id TEXT,
             kind TEXT NOT NULL,
             reverses INTEGER,
             changes INTEGER NOT NULL,
             payload BLOB NOT NULL,
             checksum INTEGER NOT NULL
         ) STRICT;
         CREATE UNIQUE INDEX log_by_client_id ON log (client_id) WHERE client_id IS NOT NULL;"],
    application_id: 0x656c_7031, // "elp1"
    page_bytes: 8192,
    durability: Durability::Power,
};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// One or more operations; the name of the first one.
    Operation(String),
    /// The inverse of an earlier entry of the same author.
    Undo {
        /// That entry.
        of: u64,
    },
    /// An earlier entry of the same author once more, after its undo.
    Redo {
        /// That entry.
        of: u64,
    },
}

impl EntryKind {
    fn columns(&self) -> (&str, Option<i64>) {
        match self {
            Self::Operation(name) => (name, None),
            Self::Undo { of } => ("undo", Some(*of as i64)),
            Self::Redo { of } => ("redo", Some(*of as i64)),
        }
    }

    fn from_columns(name: String, reverses: Option<i64>) -> Self {
        match (name.as_str(), reverses) {
            ("undo", Some(of)) => Self::Undo { of: of as u64 },
            ("redo", Some(of)) => Self::Redo { of: of as u64 },
            _ => Self::Operation(name),
        }
    }
}

/// An entry of the log without its changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number, from 1 without gaps.
    pub seq: u64,
    /// When it was written, in seconds since 1970 UTC.
    pub time: f64,
    /// Who wrote it.
    pub author: Author,
    /// The client's own name of the request.
    pub client_id: Option<ClientId>,
    /// What it is.
    pub kind: EntryKind,
    /// The number of its changes.
    pub changes: usize,
}

/// An entry with its changes, packed, and its checksum.
pub(crate) struct Row {
    pub entry: Entry,
    pub payload: Vec<u8>,
    pub checksum: u32,
}

impl Row {
    /// The row of an entry after one with the checksum `previous`.
    pub fn new<'a>(entry: Entry, changes: impl IntoIterator<Item = &'a Change>, previous: u32) -> Self {
        let payload = codec::pack(changes);
        let checksum = checksum(previous, &entry, &payload);
        Self { entry, payload, checksum }
    }

    /// Whether it is what was written, as the next one after `seq` with the checksum `previous`.
    pub fn check(&self, seq: u64, previous: u32) -> Result<(), String> {
        if self.entry.seq != seq + 1 {
            return Err(format!("entry {} is missing", seq + 1));
        }
        if checksum(previous, &self.entry, &self.payload) != self.checksum {
            return Err(format!("entry {} has another checksum than its content", self.entry.seq));
        }
        Ok(())
    }

    pub fn changes(&self) -> Option<Vec<Change>> {
        codec::unpack(&self.payload, self.entry.changes)
    }

    pub fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Entry { seq, time, author, client_id, kind, changes } = &self.entry;
        let (kind, reverses) = kind.columns();
        let client_id = client_id.as_ref().map(ClientId::as_str);
        let mut statement = connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        statement.execute(params![
            *seq as i64,
            time,
            author.as_str(),
            client_id,
            kind,
            reverses,
            *changes as i64,
            self.payload,
            self.checksum
        ])?;
        Ok(())
    }
}

fn checksum(previous: u32, entry: &Entry, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(previous);
    let (kind, reverses) = entry.kind.columns();
    let head = (entry.seq, entry.time.to_bits(), entry.changes as u64, reverses.unwrap_or(-1));
    for number in [head.0, head.1, head.2, head.3 as u64] {
        hasher.update(&number.to_le_bytes());
    }
    for text in [entry.author.as_str(), entry.client_id.as_ref().map_or("", ClientId::as_str), kind] {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(payload);
    hasher.finalize()
}

const COLUMNS: &str = "seq, time, author, client_id, kind, reverses, changes, payload, checksum";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let name = |index: usize, error: crate::InvalidProjectName| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    };
    let author: String = row.get(2)?;
    let client_id: Option<String> = row.get(3)?;
    let entry = Entry {
        seq: row.get::<_, i64>(0)? as u64,
        time: row.get(1)?,
        author: author.try_into().map_err(|error| name(2, error))?,
        client_id: client_id.map(ClientId::try_from).transpose().map_err(|error| name(3, error))?,
        kind: EntryKind::from_columns(row.get(4)?, row.get(5)?),
        changes: row.get::<_, i64>(6)? as usize,
    };
    Ok(Row { entry, payload: row.get(7)?, checksum: row.get(8)? })
}

/// Calls `take` with the rows after `seq` in their order, until it says that it has enough.
pub(crate) fn read_after(
    connection: &Connection,
    seq: u64,
    mut take: impl FnMut(Row) -> Result<bool, ProjectError>,
) -> Result<(), ProjectError> {
    let failed = |error| ProjectError::from(SCHEMA.failed("read the log")(error));
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM log WHERE seq > ?1 ORDER BY seq")).map_err(failed)?;
    let mut rows = statement.query_map([seq as i64], row).map_err(failed)?;
    while let Some(row) = rows.next().transpose().map_err(failed)? {
        if !take(row)? {
            break;
        }
    }
    Ok(())
}

/// One row.
pub(crate) fn read_one(connection: &Connection, seq: u64) -> Result<Option<Row>, ProjectError> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM log WHERE seq = ?1"))?;
        statement.query_row([seq as i64], row).optional()
    };
    Ok(read(connection).map_err(SCHEMA.failed("read the log"))?)
}

/// The row of a client's request.
pub(crate) fn find(connection: &Connection, client_id: &ClientId) -> Result<Option<Row>, ProjectError> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM log WHERE client_id = ?1"))?;
        statement.query_row([client_id.as_str()], row).optional()
    };
    Ok(read(connection).map_err(SCHEMA.failed("read the log"))?)
}

/// The checksum of an entry; that of none, before the first one, is 0.
pub(crate) fn checksum_of(connection: &Connection, seq: u64) -> Result<Option<u32>, ProjectError> {
    if seq == 0 {
        return Ok(Some(0));
    }
    let read = connection.query_row("SELECT checksum FROM log WHERE seq = ?1", [seq as i64], |row| row.get(0));
    Ok(read.optional().map_err(SCHEMA.failed("read the log"))?)
}

/// The last sequence number; 0 for an empty log.
pub(crate) fn last_seq(connection: &Connection) -> Result<u64, ProjectError> {
    let read = |connection: &Connection| {
        connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM log")?.query_row([], |row| row.get::<_, i64>(0))
    };
    Ok(read(connection).map_err(SCHEMA.failed("read the log"))? as u64)
}

/// A text among what is known of the project itself.
pub(crate) fn meta(connection: &Connection, key: &str) -> Result<Option<String>, ProjectError> {
    let value = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional();
    Ok(value.map_err(SCHEMA.failed("read what the project is"))?)
}

/// Sets such a text.
pub(crate) fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .execute("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2", [key, value])
        .map(drop)
}
