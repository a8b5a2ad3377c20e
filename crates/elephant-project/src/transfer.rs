//! A project as one file: its log as JSON lines (docs/projects.md, "Export and import").

use std::io::{BufRead, Read, Write};

use elephant_fs::FsError;
use elephant_types::VoxelSize;
use serde::{Deserialize, Serialize};

use crate::{
    Author, Change, ClientId, Entry, EntryKind, Project, ProjectError, SpotKey, SpotRecord, edit::MOST_CHANGES,
    project::ImportedEntry, state::LAST_TIMEPOINT,
};

/// The form of the file.
const VERSION: u32 = 1;
/// No line is longer, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    elephant_project: u32,
    /// Edges of the voxels (z, y, x) in micrometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voxel_size_um: Option<VoxelSize>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Entry(EntryLine),
    Change(Change),
}

/// An entry, whose changes are on the next lines.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    seq: u64,
    time: f64,
    author: Author,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<ClientId>,
    kind: EntryKind,
    changes: usize,
}

impl Project {
    /// Writes the log as JSON lines: a head, then for each entry a line and one for each of its changes.
    ///
    /// # Errors
    /// When the log is damaged or `file` cannot be written.
    pub fn export(&self, file: &mut impl Write) -> Result<(), ProjectError> {
        fn line(file: &mut impl Write, line: &impl Serialize) -> Result<(), ProjectError> {
            let written = serde_json::to_writer(&mut *file, line).map_err(std::io::Error::from);
            Ok(written.and_then(|()| file.write_all(b"\n")).map_err(FsError::io("write", "the export"))?)
        }
        line(file, &Head { elephant_project: VERSION, voxel_size_um: self.voxel_size()? })?;
        self.read_log(|entry, changes| {
            let Entry { seq, time, author, client_id, kind, .. } = entry.clone();
            line(file, &Line::Entry(EntryLine { seq, time, author, client_id, kind, changes: changes.len() }))?;
            changes.iter().try_for_each(|change| line(file, &Line::Change(change.clone())))
        })
    }

    /// Fills an empty project from what [`export`](Self::export) wrote: all of it or nothing.
    ///
    /// # Errors
    /// When the project is not empty, a line is no such line, or a change does not follow from those before it.
    pub fn import(&self, file: impl BufRead) -> Result<(), ProjectError> {
        let mut lines = Lines { file, line: 0 };
        let head: Head = lines.next()?.ok_or_else(|| lines.error("the file is empty"))?;
        if head.elephant_project != VERSION {
            return Err(lines.error(format!("version {} is not known, only {VERSION}", head.elephant_project)));
        }
        self.fill_with(|| {
            let Some(line) = lines.next::<Line>()? else { return Ok(None) };
            let Line::Entry(entry) = line else { return Err(lines.error("a line of an entry is expected")) };
            if entry.changes > MOST_CHANGES {
                return Err(lines.error(format!("an entry has at most {MOST_CHANGES} changes")));
            }
            let mut changes = Vec::new();
            for _ in 0..entry.changes {
                match lines.next::<Line>()? {
                    Some(Line::Change(change)) => changes.push(checked(change).map_err(|reason| lines.error(reason))?),
                    Some(Line::Entry(_)) => return Err(lines.error("a line of a change is expected")),
                    None => return Err(lines.error("the file ends within an entry")),
                }
            }
            let EntryLine { seq, time, author, client_id, kind, .. } = entry;
            let entry = Entry { seq, time, author, client_id, kind, changes: changes.len() };
            Ok(Some(ImportedEntry { entry, changes, line: lines.line }))
        })?;
        head.voxel_size_um.map_or(Ok(()), |size| self.set_voxel_size(size))
    }
}

/// Refuses values that no operation would have made.
fn checked(change: Change) -> Result<Change, String> {
    const FARTHEST_UM: f64 = 1e9;
    let is_place = |place: &[f64; 3]| place.iter().all(|value| value.abs() <= FARTHEST_UM);
    let is_record = |record: &SpotRecord| {
        is_place(&record.center_um)
            && (0.0..=1.0).contains(&record.quality)
            && (SpotKey(1)..=SpotKey::MAX).contains(&record.key)
            && record.t <= LAST_TIMEPOINT
    };
    let is_valid = match &change {
        Change::SpotAdded(record) | Change::SpotRemoved(record) => is_record(record),
        Change::Moved { from, to, .. } => is_place(from) && is_place(to),
        Change::LinkAdded(link) | Change::LinkRemoved(link) => {
            link.score.is_none_or(|score| (0.0..=1.0).contains(&score))
        }
        Change::LinkScored { to, .. } => to.is_none_or(|score| (0.0..=1.0).contains(&score)),
        _ => true,
    };
    if is_valid { Ok(change) } else { Err("a value is out of range".into()) }
}

/// The lines of a file, parsed one by one.
struct Lines<R> {
    file: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    fn error(&self, reason: impl Into<String>) -> ProjectError {
        ProjectError::Import { line: self.line, reason: reason.into() }
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, ProjectError> {
        self.line += 1;
        let mut text = Vec::new();
        let read = self.file.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut text);
        read.map_err(|error| self.error(format!("the file cannot be read: {error}")))?;
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() as u64 > LONGEST_LINE {
            return Err(self.error(format!("the line is longer than {LONGEST_LINE} bytes")));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| self.error(error.to_string()))
    }
}
