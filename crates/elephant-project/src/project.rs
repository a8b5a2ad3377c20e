//! One project: its file, its state in memory, and how both change together.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use elephant_fs::FsError;
use elephant_sqlite::{
    SqliteError,
    rusqlite::{Connection, Transaction, TransactionBehavior, config::DbConfig},
};
use elephant_types::VoxelSize;
use serde::Serialize;

pub(crate) use self::fill::ImportedEntry;
use self::replay::{added, catch_up, changes_of, repeat, repeated, unpacked};
use crate::{
    Author, Change, ClientId, Entry, EntryKind, Operation, ProjectError, SpotKey, View,
    edit::Edit,
    log::{self, Row, SCHEMA},
    snapshot,
    state::State,
};

/// A snapshot is written when the log has grown by this many bytes since the last one, or by a quarter of it.
const SNAPSHOT_BYTES: usize = 4 << 20;
const KIND: &str = "kind";
const CREATED_AT: &str = "created_at";
const VOXEL_SIZE: &str = "voxel_size_um";

/// Who may change a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectKind {
    /// Everyone.
    Normal,
    /// The server only: the project follows a session of another program.
    Mirror,
}

impl ProjectKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Mirror => "mirror",
        }
    }
}

/// What came of a request to change a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Appended {
    /// The entry of the log; the last one where nothing had to be changed.
    pub seq: u64,
    /// The number of changes.
    pub changes: usize,
    /// The numbers of the new spots, in the order in which they were given.
    pub added: Vec<SpotKey>,
    /// Whether the request had been fulfilled before, with the same client id.
    pub is_repeated: bool,
}

/// An entry of the log, and its changes unless there are too many.
pub type LoggedEntry = (Entry, Option<Vec<Change>>);

/// What a project has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectInfo {
    /// Who may change it.
    pub kind: ProjectKind,
    /// When it was made, in seconds since 1970 UTC.
    pub created_at: Option<f64>,
    /// The last entry of its log.
    pub seq: u64,
    /// The number of spots.
    pub spots: usize,
    /// The number of links that were not rejected.
    pub links: usize,
    /// The frames that have spots, and how many.
    pub frames: Vec<(u32, usize)>,
    /// Everyone who has changed it, in the order of their first entries.
    pub authors: Vec<String>,
}

/// An open project. Its functions may wait for the disk and for other writers.
#[derive(Debug)]
pub struct Project {
    path: PathBuf,
    kind: ProjectKind,
    created_at: Option<f64>,
    /// Device and inode of the file.
    file: (u64, u64),
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    state: State,
    /// Bytes of the log after the last snapshot.
    since_snapshot: usize,
    /// After how many a snapshot is written.
    snapshot_after: usize,
}

/// Runs `work` while nobody writes to the project at `path`. A file that cannot be opened has no writers.
pub(crate) fn exclusively<T>(path: &Path, work: impl FnOnce() -> Result<T, ProjectError>) -> Result<T, ProjectError> {
    let Ok(mut connection) = SCHEMA.open_existing(path) else { return work() };
    // Otherwise it would delete the journal, by name, that another file has by then.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(SCHEMA.failed("wait for other writers"))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive);
    let _writing = transaction.map_err(SCHEMA.failed("wait for other writers"))?;
    work()
}

/// The error of a damaged file that has no entry that can be read.
pub(crate) fn damaged(error: impl Into<ProjectError>) -> ProjectError {
    match error.into() {
        ProjectError::Database(damage @ SqliteError::Damaged { .. }) => {
            ProjectError::Damaged { intact: 0, reason: damage.to_string() }
        }
        error => error,
    }
}

/// Seconds since 1970 UTC.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The files beside a project's database that belong to it.
pub(crate) fn companions(path: &Path) -> [PathBuf; 3] {
    ["sqlite-wal", "sqlite-shm", "snapshot"].map(|extension| path.with_extension(extension))
}

impl Project {
    /// Makes an empty project in a new file, whose name ends in `.sqlite`. Missing folders are created. The file appears complete
    /// or not at all.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn create(path: &Path, kind: ProjectKind) -> Result<Self, ProjectError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let staging = elephant_fs::staging_folder(folder)?;
        let made = staging.path().join("made.sqlite");
        File::options().write(true).create_new(true).open(&made).map_err(FsError::io("create", &made))?;
        Self::fill(&made, kind)?;
        elephant_fs::publish_new_file(&made, path)?;
        Self::open(path)
    }

    fn fill(path: &Path, kind: ProjectKind) -> Result<(), ProjectError> {
        let mut connection = SCHEMA.open_existing(path)?;
        let mut write = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            log::set_meta(&transaction, KIND, kind.as_str())?;
            log::set_meta(&transaction, CREATED_AT, &now().to_string())?;
            transaction.commit()
        };
        Ok(write().map_err(SCHEMA.failed("say what the project is"))?)
    }

    /// Opens a project: from its snapshot and the entries after it, or from the whole log.
    ///
    /// # Errors
    /// When there is no such file, it is damaged, or belongs to another program.
    pub fn open(path: &Path) -> Result<Self, ProjectError> {
        let file = identity(path).map_err(FsError::io("open", path))?;
        let length = path.metadata().map_err(FsError::io("open", path))?.len();
        if length == 0 {
            return Err(ProjectError::Damaged { intact: 0, reason: "the file is empty".into() });
        }
        let connection = SCHEMA.open_existing(path).map_err(damaged)?;
        let kind = match log::meta(&connection, KIND).map_err(damaged)?.as_deref() {
            Some("mirror") => ProjectKind::Mirror,
            Some(_) => ProjectKind::Normal,
            None => return Err(ProjectError::Damaged { intact: 0, reason: "it does not say what it is".into() }),
        };
        let created_at = log::meta(&connection, CREATED_AT)?.and_then(|text| text.parse().ok());
        let mut inner = Inner { connection, state: State::new(), since_snapshot: 0, snapshot_after: SNAPSHOT_BYTES };
        let snapshot = snapshot::read(&path.with_extension("snapshot"));
        if let Some(snapshot) = snapshot.filter(|state| inner.has_entry(state.seq, state.checksum)) {
            inner.state = snapshot;
        }
        inner.catch_up()?;
        let project = Self { path: path.to_owned(), kind, created_at, file, inner: Mutex::new(inner) };
        project.write_snapshot_if_due(project.lock());
        Ok(project)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who may change it.
    pub fn kind(&self) -> ProjectKind {
        self.kind
    }

    /// After a panic the state may have half of an entry, so it is read anew.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut inner = poisoned.into_inner();
            inner.state = State::new();
            self.inner.clear_poison();
            inner
        })
    }

    /// The state with all entries that other processes have written.
    fn current(&self) -> Result<MutexGuard<'_, Inner>, ProjectError> {
        self.check_file()?;
        let mut inner = self.lock();
        if log::last_seq(&inner.connection)? != inner.state.seq {
            inner.catch_up()?;
        }
        Ok(inner)
    }

    /// Refuses to go on with a file that is not there any more.
    fn check_file(&self) -> Result<(), ProjectError> {
        if identity(&self.path).is_ok_and(|file| file == self.file) { Ok(()) } else { Err(ProjectError::Deleted) }
    }

    /// Carries out operations as one entry of the log: all of them or none. A request whose `client_id` is in the log
    /// changes nothing and gets the same answer again.
    ///
    /// # Errors
    /// When one of them is refused, or the entry cannot be written; the project is as it was then.
    pub fn append(
        &self,
        author: &Author,
        client_id: Option<&ClientId>,
        operations: &[Operation],
    ) -> Result<Appended, ProjectError> {
        self.refuse_mirror()?;
        self.append_unchecked(author, client_id, operations)
    }

    pub(crate) fn append_unchecked(
        &self,
        author: &Author,
        client_id: Option<&ClientId>,
        operations: &[Operation],
    ) -> Result<Appended, ProjectError> {
        let name = operations.first().map_or("nothing", Operation::name);
        self.write(author, client_id, |edit, _| {
            operations.iter().try_for_each(|operation| operation.apply(edit))?;
            Ok(EntryKind::Operation(name.to_owned()))
        })
    }

    /// Takes back the last entry of `author` that was not taken back, by an entry with the inverse changes.
    ///
    /// # Errors
    /// When there is none, or when somebody else has changed one of its spots or links since.
    pub fn undo(&self, author: &Author, client_id: Option<&ClientId>) -> Result<Appended, ProjectError> {
        self.refuse_mirror()?;
        self.write(author, client_id, |edit, transaction| {
            let nothing = || ProjectError::NothingTo { verb: "undo", author: author.to_string() };
            let of = edit.state.history.last_done(edit.stamp.author).ok_or_else(nothing)?;
            let changes = changes_of(transaction, of)?;
            repeat(edit, "undo", of, changes.into_iter().rev().map(Change::inverse))?;
            Ok(EntryKind::Undo { of })
        })
    }

    /// Carries out once more what `author` has undone last, if the author has done nothing else since.
    ///
    /// # Errors
    /// As [`undo`](Self::undo).
    pub fn redo(&self, author: &Author, client_id: Option<&ClientId>) -> Result<Appended, ProjectError> {
        self.refuse_mirror()?;
        self.write(author, client_id, |edit, transaction| {
            let nothing = || ProjectError::NothingTo { verb: "redo", author: author.to_string() };
            let of = edit.state.history.last_undone(edit.stamp.author).ok_or_else(nothing)?;
            let changes = changes_of(transaction, of)?;
            repeat(edit, "redo", of, changes.into_iter())?;
            Ok(EntryKind::Redo { of })
        })
    }

    fn refuse_mirror(&self) -> Result<(), ProjectError> {
        if self.kind == ProjectKind::Normal {
            return Ok(());
        }
        Err(ProjectError::ReadOnly(self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()))
    }

    /// Appends the entry that `make` makes.
    pub(crate) fn write(
        &self,
        author: &Author,
        client_id: Option<&ClientId>,
        make: impl FnOnce(&mut Edit<'_>, &Transaction<'_>) -> Result<EntryKind, ProjectError>,
    ) -> Result<Appended, ProjectError> {
        let mut inner = self.lock();
        let Inner { connection, state, since_snapshot, .. } = &mut *inner;
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(SCHEMA.failed("begin a change"))?;
        // Whoever deletes the file does so as a writer.
        self.check_file()?;
        catch_up(&transaction, state, since_snapshot)?;
        if let Some(row) = client_id.map(|id| log::find(&transaction, id)).transpose()?.flatten() {
            return repeated(row, author);
        }
        let mut edit = Edit::begin(state, author.as_str());
        let kind = match make(&mut edit, &transaction) {
            Ok(kind) if edit.changes().len() > 0 => kind,
            Ok(_) => {
                edit.take_back();
                return Ok(Appended { seq: state.seq, changes: 0, added: Vec::new(), is_repeated: false });
            }
            Err(error) => {
                edit.take_back();
                return Err(error);
            }
        };
        let entry = Entry {
            seq: edit.stamp.seq,
            time: now(),
            author: author.clone(),
            client_id: client_id.cloned(),
            kind,
            changes: edit.changes().len(),
        };
        let row = Row::new(entry, edit.changes(), edit.state.checksum);
        if let Err(error) = row.insert(&transaction).and_then(|()| transaction.commit()) {
            edit.take_back();
            return Err(SCHEMA.failed("write an entry")(error).into());
        }
        let author = edit.stamp.author;
        let changes = edit.keep();
        state.history.record(author, row.entry.seq, &row.entry.kind);
        (state.seq, state.checksum) = (row.entry.seq, row.checksum);
        *since_snapshot += row.payload.len();
        let appended = Appended { seq: state.seq, changes: changes.len(), added: added(&changes), is_repeated: false };
        drop(changes);
        self.write_snapshot_if_due(inner);
        Ok(appended)
    }

    /// The spots of the frames `first` to `last` and the links between them.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn view(&self, first: u32, last: u32) -> Result<View, ProjectError> {
        Ok(View::new(&self.current()?.state, first, last))
    }

    /// All spots and links.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn view_all(&self) -> Result<View, ProjectError> {
        self.view(0, u32::MAX)
    }

    /// What it has.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn info(&self) -> Result<ProjectInfo, ProjectError> {
        let inner = self.current()?;
        let state = &inner.state;
        Ok(ProjectInfo {
            kind: self.kind,
            created_at: self.created_at,
            seq: state.seq,
            spots: state.spot_count(),
            links: state.link_count(),
            frames: state.frame_counts().collect(),
            authors: state.authors.clone(),
        })
    }

    /// At most `limit` entries after `since`, oldest first, and their changes, where these are at most `most_changes`.
    /// Ends early, but not before the first entry, when all of them have more than that together.
    ///
    /// # Errors
    /// When the log cannot be read or is damaged there.
    pub fn entries(&self, since: u64, limit: usize, most_changes: usize) -> Result<Vec<LoggedEntry>, ProjectError> {
        let inner = self.current()?;
        let (mut entries, mut total) = (Vec::new(), 0);
        if limit == 0 {
            return Ok(entries);
        }
        log::read_after(&inner.connection, since, |row| {
            let count = row.entry.changes;
            if !entries.is_empty() && count <= most_changes && total + count > most_changes {
                return Ok(false);
            }
            let changes = if count <= most_changes { Some(unpacked(&row)?) } else { None };
            total += changes.as_ref().map_or(0, Vec::len);
            entries.push((row.entry, changes));
            Ok(entries.len() < limit)
        })?;
        Ok(entries)
    }

    /// Calls `take` with all entries and their changes, oldest first, at one moment of the project.
    pub(crate) fn read_log(
        &self,
        mut take: impl FnMut(&Entry, &[Change]) -> Result<(), ProjectError>,
    ) -> Result<(), ProjectError> {
        // A connection of its own, so that others can write meanwhile.
        self.check_file()?;
        let connection = SCHEMA.open_existing(&self.path)?;
        let (mut seq, mut checksum) = (0, 0);
        log::read_after(&connection, 0, |row| {
            row.check(seq, checksum).map_err(|reason| ProjectError::Damaged { intact: seq, reason })?;
            (seq, checksum) = (row.entry.seq, row.checksum);
            take(&row.entry, &unpacked(&row)?)?;
            Ok(true)
        })
    }

    /// Edges of the dataset's voxels (z, y, x) in micrometres, where somebody has said them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn voxel_size(&self) -> Result<Option<VoxelSize>, ProjectError> {
        let text = log::meta(&self.lock().connection, VOXEL_SIZE)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Says how large the dataset's voxels are. This is no entry of the log.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_voxel_size(&self, size: VoxelSize) -> Result<(), ProjectError> {
        if self.voxel_size()? == Some(size) {
            return Ok(());
        }
        self.check_file()?;
        // Three positive numbers always have a text.
        let text = serde_json::to_string(&size).unwrap_or_default();
        Ok(log::set_meta(&self.lock().connection, VOXEL_SIZE, &text).map_err(SCHEMA.failed("write the voxel size"))?)
    }

    /// Whether its file is still there.
    pub(crate) fn is_current(&self) -> bool {
        self.check_file().is_ok()
    }

    /// Writes a snapshot when it is time for it, after the lock has been given back.
    fn write_snapshot_if_due(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.since_snapshot < inner.snapshot_after {
            return;
        }
        let bytes = snapshot::to_bytes(&inner.state);
        inner.since_snapshot = 0;
        inner.snapshot_after = SNAPSHOT_BYTES.max(bytes.len() / 4);
        drop(inner);
        snapshot::write(&self.path.with_extension("snapshot"), &bytes);
    }
}

impl Inner {
    fn has_entry(&self, seq: u64, checksum: u32) -> bool {
        // A log that cannot be read says so below.
        log::checksum_of(&self.connection, seq).ok().flatten() == Some(checksum)
    }

    fn catch_up(&mut self) -> Result<(), ProjectError> {
        catch_up(&self.connection, &mut self.state, &mut self.since_snapshot)
    }
}

mod fill;
mod replay;

#[cfg(test)]
pub(crate) mod tests;
