//! What can be saved of a damaged project: the log up to the damage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use elephant_fs::FsError;
use elephant_sqlite::rusqlite::Connection;
use serde::Serialize;

use crate::{
    ProjectError,
    log::{self, Row, SCHEMA},
    project::companions,
    projects::remove,
};

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The last entry that is intact; everything up to it is there again.
    pub seq: u64,
    /// What was wrong after it; `None` when the log was whole.
    pub damage: Option<String>,
    /// Where the damaged file is.
    #[serde(skip)]
    pub damaged_file: PathBuf,
}

/// Puts the intact part of a project in its place.
pub(crate) fn recover(path: &Path) -> Result<Recovered, ProjectError> {
    let (rescued, damaged_file) = (path.with_extension("rescued.sqlite"), path.with_extension("damaged"));
    remove(&rescued)?;
    let (seq, damage) = copy(path, &rescued)?;
    // The journal belongs to the damaged file. A kill from here on leaves that under its new name.
    for file in ["sqlite-shm", "snapshot"].map(|extension| path.with_extension(extension)) {
        // They are made anew.
        let _ = fs::remove_file(file);
    }
    elephant_fs::move_unflushed(path, &damaged_file)?;
    let wal = path.with_extension("sqlite-wal");
    if elephant_fs::metadata(&wal)?.is_some() {
        elephant_fs::move_unflushed(&wal, &path.with_extension("damaged-wal"))?;
    }
    elephant_fs::move_unflushed(&rescued, path)?;
    for file in companions(&rescued) {
        let _ = fs::remove_file(file);
    }
    Ok(Recovered { seq, damage, damaged_file })
}

/// Copies the entries of `from` that are intact into a new file.
fn copy(from: &Path, to: &Path) -> Result<(u64, Option<String>), ProjectError> {
    let old = SCHEMA.open_to_read(from)?;
    fs::File::options().write(true).create_new(true).open(to).map_err(FsError::io("create", to))?;
    let mut new = SCHEMA.open_existing(to)?;
    for key in ["kind", "created_at", "voxel_size_um"] {
        // What cannot be read is as in a new project.
        if let Ok(Some(value)) = log::meta(&old, key) {
            log::set_meta(&new, key, &value).map_err(SCHEMA.failed("write the rescued file"))?;
        }
    }
    let transaction = new.transaction().map_err(SCHEMA.failed("write the rescued file"))?;
    let (seq, damage) = copy_rows(&old, &transaction)?;
    // The last connection moves the journal into the file.
    transaction.commit().map_err(SCHEMA.failed("write the rescued file"))?;
    new.close().map_err(|(_, error)| SCHEMA.failed("write the rescued file")(error))?;
    Ok((seq, damage))
}

fn copy_rows(old: &Connection, new: &Connection) -> Result<(u64, Option<String>), ProjectError> {
    let (mut seq, mut checksum, mut damage) = (0, 0, None);
    let read = log::read_after(old, 0, |row: Row| {
        if let Err(reason) = row.check(seq, checksum) {
            damage = Some(reason);
            return Ok(false);
        }
        if row.changes().is_none() {
            damage = Some(format!("entry {} cannot be read", row.entry.seq));
            return Ok(false);
        }
        row.insert(new).map_err(SCHEMA.failed("write the rescued file"))?;
        (seq, checksum) = (row.entry.seq, row.checksum);
        Ok(true)
    });
    match read {
        Err(error @ ProjectError::Database(elephant_sqlite::SqliteError::Damaged { .. })) if seq > 0 => {
            damage = Some(error.to_string());
        }
        read => read?,
    }
    Ok((seq, damage))
}
