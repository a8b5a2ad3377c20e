//! Filling an empty project with the entries of an import, all in one transaction.

use elephant_sqlite::rusqlite::{ErrorCode, TransactionBehavior};

use super::{Inner, Project};
use crate::{
    Change, Entry, ProjectError,
    log::{self, Row, SCHEMA},
    state::{Stamp, State},
};

/// An entry of a file that is imported, and the line where it ends.
pub(crate) struct ImportedEntry {
    pub entry: Entry,
    pub changes: Vec<Change>,
    pub line: u64,
}

impl Project {
    /// Fills an empty project with entries, until `next` has no more: all of them or none.
    pub(crate) fn fill_with(
        &self,
        mut next: impl FnMut() -> Result<Option<ImportedEntry>, ProjectError>,
    ) -> Result<(), ProjectError> {
        let mut inner = self.lock();
        let Inner { connection, state, since_snapshot, .. } = &mut *inner;
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(SCHEMA.failed("begin an import"))?;
        self.check_file()?;
        if log::last_seq(&transaction)? != 0 || state.seq != 0 {
            return Err(ProjectError::Invalid("only an empty project can be filled by an import".into()));
        }
        let (mut filled, mut bytes) = (State::new(), 0);
        while let Some(ImportedEntry { entry, changes, line }) = next()? {
            let wrong = |reason: String| ProjectError::Import { line, reason };
            if entry.seq != filled.seq + 1 {
                return Err(wrong(format!("entry {} comes where entry {} is expected", entry.seq, filled.seq + 1)));
            }
            let author = filled.author(entry.author.as_str());
            let stamp = Stamp { seq: entry.seq, author };
            for change in &changes {
                filled.apply(change, stamp).map_err(|refusal| wrong(refusal.to_string()))?;
            }
            let row = Row::new(entry, &changes, filled.checksum);
            row.insert(&transaction).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation) => wrong("the client id is that of another entry".into()),
                _ => SCHEMA.failed("write an entry")(error).into(),
            })?;
            filled.history.record(author, row.entry.seq, &row.entry.kind);
            (filled.seq, filled.checksum) = (row.entry.seq, row.checksum);
            bytes += row.payload.len();
        }
        transaction.commit().map_err(SCHEMA.failed("finish an import"))?;
        (*state, *since_snapshot) = (filled, bytes);
        self.write_snapshot_if_due(inner);
        Ok(())
    }
}
