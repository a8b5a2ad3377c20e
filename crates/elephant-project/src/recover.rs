//! What can be saved of a damaged project: the log up to the damage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use elephant_fs::FsError;
use elephant_sqlite::rusqlite::Connection;
use elephant_types::{Coded, ErrorCode};
use serde::Serialize;

use crate::{
    Project, ProjectError,
    log::{self, Row, SCHEMA},
    project::{companions, damaged, exclusively},
    projects::remove,
};

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The last entry that is intact; everything up to it is there.
    pub seq: u64,
    /// What was wrong after it; `None` when the project was whole and nothing was changed.
    pub damage: Option<String>,
    /// Where the damaged file is.
    #[serde(skip)]
    pub damaged_file: Option<PathBuf>,
}

/// Puts the intact part of a damaged project in its place, while nobody writes to it. A project that is whole is left alone.
pub(crate) fn recover(path: &Path) -> Result<Recovered, ProjectError> {
    let refusal = Project::open(path).err().map(|error| error.to_string());
    let rescued = path.with_extension("rescued.sqlite");
    exclusively(path, || {
        remove(&rescued)?;
        let unreadable = |error| match error {
            // There is no log in it at all.
            ProjectError::Database(error) if refusal.is_some() && error.code() == ErrorCode::Internal => {
                ProjectError::Damaged { intact: 0, reason: error.to_string() }
            }
            error => error,
        };
        let recovered =
            copy(path, &rescued).map_err(unreadable).and_then(|(seq, damage)| match damage.or(refusal.clone()) {
                None => Ok(Recovered { seq, damage: None, damaged_file: None }),
                damage => Ok(Recovered { seq, damage, damaged_file: Some(exchange(path, &rescued)?) }),
            });
        remove(&rescued)?;
        recovered
    })
}

/// Puts the rescued file in the place of the damaged one, and keeps that under a new name, which is returned.
fn exchange(path: &Path, rescued: &Path) -> Result<PathBuf, ProjectError> {
    let (mut damaged_file, mut number) = (path.with_extension("damaged"), 1);
    while elephant_fs::metadata(&damaged_file)?.is_some() {
        number += 1;
        damaged_file = path.with_extension(format!("damaged-{number}"));
    }
    // Under both names until the new file is in its place, so that there is a project at any time. Some file systems know no
    // second names.
    if fs::hard_link(path, &damaged_file).is_err() {
        elephant_fs::copy_atomic(path, &damaged_file)?;
    }
    // The journal belongs to the damaged file.
    let [wal, shm, snapshot] = companions(path);
    if elephant_fs::metadata(&wal)?.is_some() {
        let mut name = damaged_file.clone().into_os_string();
        name.push("-wal");
        elephant_fs::move_unflushed(&wal, Path::new(&name))?;
    }
    for file in [shm, snapshot] {
        // They are made anew.
        let _ = fs::remove_file(file);
    }
    elephant_fs::publish_file(rescued, path)?;
    Ok(damaged_file)
}

/// Copies the entries of `from` that are intact into a new file.
fn copy(from: &Path, to: &Path) -> Result<(u64, Option<String>), ProjectError> {
    let old = SCHEMA.open_to_read(from).map_err(damaged)?;
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
        read => read.map_err(damaged)?,
    }
    Ok((seq, damage))
}
