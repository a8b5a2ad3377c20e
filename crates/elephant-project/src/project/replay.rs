//! Entries of the log, applied once more: to a state that lacks them, or as the undo or redo of an earlier one.

use elephant_sqlite::{SqliteError, rusqlite::Connection};

use super::Appended;
use crate::{
    Author, Change, ProjectError, SpotKey,
    edit::Edit,
    log::{self, Row},
    state::{Stamp, State},
};

/// Applies the entries that the state does not have yet.
pub(super) fn catch_up(
    connection: &Connection,
    state: &mut State,
    since_snapshot: &mut usize,
) -> Result<(), ProjectError> {
    let read = log::read_after(connection, state.seq, |row| {
        let damaged = |intact, reason| ProjectError::Damaged { intact, reason };
        row.check(state.seq, state.checksum).map_err(|reason| damaged(state.seq, reason))?;
        let changes = unpacked(&row)?;
        let author = state.author(row.entry.author.as_str());
        let stamp = Stamp { seq: row.entry.seq, author };
        for change in &changes {
            state.apply(change, stamp).map_err(|refusal| damaged(row.entry.seq - 1, refusal.to_string()))?;
        }
        state.history.record(author, row.entry.seq, &row.entry.kind);
        (state.seq, state.checksum) = (row.entry.seq, row.checksum);
        *since_snapshot += row.payload.len();
        Ok(true)
    });
    read.map_err(|error| {
        let intact = state.seq;
        // Half of an entry may have been applied.
        *state = State::new();
        match error {
            ProjectError::Database(damage @ SqliteError::Damaged { .. }) => {
                ProjectError::Damaged { intact, reason: damage.to_string() }
            }
            error => error,
        }
    })
}

pub(super) fn unpacked(row: &Row) -> Result<Vec<Change>, ProjectError> {
    row.changes().ok_or_else(|| ProjectError::Damaged {
        intact: row.entry.seq - 1,
        reason: format!("entry {} cannot be read", row.entry.seq),
    })
}

pub(super) fn changes_of(connection: &Connection, seq: u64) -> Result<Vec<Change>, ProjectError> {
    let missing = || ProjectError::Damaged { intact: seq - 1, reason: format!("entry {seq} is missing") };
    unpacked(&log::read_one(connection, seq)?.ok_or_else(missing)?)
}

/// Applies changes of an earlier entry, or their inverses, where nobody else has changed anything since.
pub(super) fn repeat(
    edit: &mut Edit<'_>,
    verb: &'static str,
    seq: u64,
    changes: impl Iterator<Item = Change>,
) -> Result<(), ProjectError> {
    let overtaken = |reason| ProjectError::Overtaken { verb, seq, reason };
    for change in changes {
        let stamp = edit.state.stamp(&change);
        if let Some(stamp) = stamp.filter(|stamp| stamp.author != edit.stamp.author && stamp.seq > seq) {
            let who = edit.state.authors.get(stamp.author as usize).map_or("somebody", String::as_str);
            let what = match change.subject() {
                (key, None) => format!("spot {key}"),
                (source, Some(target)) => format!("the link from {source} to {target}"),
            };
            return Err(overtaken(format!("{who} has changed {what} since (entry {})", stamp.seq)));
        }
        edit.change(change).map_err(|refusal| overtaken(refusal.to_string()))?;
    }
    Ok(())
}

pub(super) fn added(changes: &[Change]) -> Vec<SpotKey> {
    let keys = changes.iter().filter_map(|change| match change {
        Change::SpotAdded(record) => Some(record.key),
        _ => None,
    });
    keys.collect()
}

pub(super) fn repeated(row: Row, author: &Author) -> Result<Appended, ProjectError> {
    if row.entry.author != *author {
        return Err(ProjectError::ClientIdTaken(row.entry.client_id.map(String::from).unwrap_or_default()));
    }
    let changes = unpacked(&row)?;
    Ok(Appended { seq: row.entry.seq, changes: changes.len(), added: added(&changes), is_repeated: true })
}
