//! Movies that arrive in pieces (docs/protocol.md, "POST /upload/image").
//!
//! Each piece is spooled to the disk before its name is known, then appended to `.upload-NAME` beside the target, which
//! takes the target's place when the upload is complete.
//!
//! The client ignores the replies: when a piece is lost it sends the next one, and then `complete`. So an upload that lost a
//! piece has ended: until it begins again, its further pieces are refused, and the old file stays. The unfinished uploads
//! are in memory only, because a piece may be lost with the server itself.
//!
//! The protocol does not distinguish two uploads of the same file: the last `init` restarts the upload. A mixture of both
//! almost always has another length than its HDF5 header says, and is refused.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use elephant_fs::{FsError, UPLOAD_PREFIX, publish_file};
use elephant_hdf5::content_length;
use elephant_types::{DatasetName, FileName};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{PipelineError, Workspace, movies::is_named_as_movie};

/// The name of a received file in the spool folder, before it is moved to its place in the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpooledFile(String);

impl SpooledFile {
    /// The name of a file that [`Uploads::spool`] made.
    pub fn new(file: &NamedTempFile) -> Self {
        Self(file.path().file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SpooledFile {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let is_spooled =
            name.starts_with(SPOOL_PREFIX) && name.bytes().skip(1).all(|byte| byte.is_ascii_alphanumeric());
        if is_spooled { Ok(Self(name)) } else { Err("not the name of a file that was received") }
    }
}

impl From<SpooledFile> for String {
    fn from(file: SpooledFile) -> Self {
        file.0
    }
}

/// How the names of spooled files begin; letters and digits follow.
const SPOOL_PREFIX: &str = ".tmp";

/// Where uploads of one workspace go.
#[derive(Clone, Debug)]
pub struct Uploads {
    workspace: Workspace,
    spool: PathBuf,
    /// The unfinished uploads, by the path that their file will have. An entry is locked while its file changes.
    unfinished: Arc<Mutex<HashMap<PathBuf, Entry>>>,
}

/// `None` when the upload has ended.
type Entry = Arc<Mutex<Option<Upload>>>;

/// An upload of which every piece has come so far.
#[derive(Debug)]
struct Upload {
    dataset: DatasetName,
    /// Bytes of all pieces.
    length: u64,
    /// Bytes of the longest piece; the client's are all the same.
    longest_piece: u64,
}

/// Where an upload's file will be, and where it is collected.
struct Paths {
    target: PathBuf,
    partial: PathBuf,
}

impl Uploads {
    /// The uploads of a workspace; removes spooled pieces that a killed server left.
    ///
    /// # Errors
    /// When the spool folder cannot be made anew.
    pub fn open(workspace: &Workspace) -> Result<Self, FsError> {
        let spool = workspace.spool();
        match fs::remove_dir_all(&spool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FsError::io("remove", &spool)(error)),
            _ => fs::create_dir_all(&spool).map_err(FsError::io("create", &spool))?,
        }
        Ok(Self { workspace: workspace.clone(), spool, unfinished: Arc::default() })
    }

    /// An empty file for the next piece; it vanishes when dropped.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn spool(&self) -> Result<NamedTempFile, FsError> {
        let file = tempfile::Builder::new().prefix(SPOOL_PREFIX).tempfile_in(&self.spool);
        file.map_err(FsError::io("create a temporary file in", &self.spool))
    }

    /// Begins an upload with its first piece; an earlier unfinished one of the same file is dropped.
    ///
    /// # Errors
    /// When the name is refused or the piece cannot be written; the upload has not begun then.
    pub fn begin(&self, dataset: &DatasetName, file: &FileName, piece: &mut File) -> Result<(), PipelineError> {
        let begun = self.change(dataset, file, |upload, paths| {
            *upload = None;
            if elephant_fs::metadata(&paths.target)?.is_some_and(|found| found.is_dir()) {
                return Err(PipelineError::Invalid(format!(
                    "{file} is a folder of the dataset {dataset}; use another name"
                )));
            }
            self.create(&paths.partial)?;
            let begun = Upload { dataset: dataset.clone(), length: 0, longest_piece: 0 };
            *upload = Some(begun.append(&paths.partial, piece)?);
            Ok(())
        });
        self.note_failure(dataset, file, begun)
    }

    /// Appends the next piece.
    ///
    /// # Errors
    /// When no upload of this file goes on, or the piece cannot be written; the upload has ended then.
    pub fn append(&self, dataset: &DatasetName, file: &FileName, piece: &mut File) -> Result<(), PipelineError> {
        let appended = self.change(dataset, file, |upload, paths| {
            let begun = upload.take().ok_or_else(|| not_begun(dataset, file))?;
            *upload = Some(begun.append(&paths.partial, piece)?);
            Ok(())
        });
        self.note_failure(dataset, file, appended)
    }

    /// Puts the collected file in its place. If it is a movie, it is the dataset's from now on.
    ///
    /// # Errors
    /// When no upload of this file goes on, the file is not as long as an HDF5 file says of itself, or it cannot be put in
    /// its place. The upload has ended then, and the old file is untouched.
    pub fn complete(&self, dataset: &DatasetName, file: &FileName) -> Result<(), PipelineError> {
        let completed = self.change(dataset, file, |upload, paths| {
            let collected = upload.take().ok_or_else(|| not_begun(dataset, file))?;
            collected.require_whole(&paths.partial, file)?;
            publish_file(&paths.partial, &paths.target)?;
            let folder = self.workspace.dataset(dataset)?;
            self.workspace.records().update(dataset, &folder, |record| record.add_upload(file));
            Ok(())
        });
        self.note_failure(dataset, file, completed)
    }

    /// Drops an unfinished upload, if there is one.
    ///
    /// # Errors
    /// When the name is refused.
    pub fn cancel(&self, dataset: &DatasetName, file: &FileName) -> Result<(), PipelineError> {
        self.change(dataset, file, |upload, _| {
            *upload = None;
            Ok(())
        })
    }

    /// Ends the upload of `file` because a piece of it was lost before it came here; where the file's name was lost with it,
    /// all unfinished uploads into the dataset. The next check of the dataset reports the `reason`.
    ///
    /// # Errors
    /// When the name is refused.
    pub fn fail(&self, dataset: &DatasetName, file: Option<&FileName>, reason: &str) -> Result<(), PipelineError> {
        if let Some(file) = file {
            self.cancel(dataset, file)?;
        } else {
            let unfinished: Vec<PathBuf> = lock(&self.unfinished).keys().cloned().collect();
            for target in unfinished {
                self.change_at(target, |upload, _| {
                    upload.take_if(|upload| upload.dataset == *dataset);
                });
            }
        }
        self.record_failure(dataset, file, reason)
    }

    fn change<T>(
        &self,
        dataset: &DatasetName,
        file: &FileName,
        change: impl FnOnce(&mut Option<Upload>, &Paths) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        let target = self.workspace.dataset_file(dataset, file)?;
        let longest = 255 - UPLOAD_PREFIX.len();
        if target.file_name().is_some_and(|name| name.len() > longest) {
            return Err(PipelineError::Invalid(format!(
                "the file name is longer than {longest} bytes; use a shorter one"
            )));
        }
        self.change_at(target, change)
    }

    /// Changes the upload to `target`, which no other thread changes meanwhile. Nothing stays of one that has ended.
    fn change_at<T>(&self, target: PathBuf, change: impl FnOnce(&mut Option<Upload>, &Paths) -> T) -> T {
        let entry = Arc::clone(lock(&self.unfinished).entry(target.clone()).or_default());
        let paths = Paths { partial: partial_path(&target), target };
        let mut upload = lock(&entry);
        let result = change(&mut upload, &paths);
        if upload.is_none() {
            self.remove(&paths.partial);
        }
        drop(upload);
        drop(entry);
        // Entries that others hold are not waited for.
        lock(&self.unfinished).retain(|_, entry| Arc::strong_count(entry) > 1 || lock(entry).is_some());
        result
    }

    /// Makes an empty file to collect pieces in, and its folder. Folders come and go under the lock of all uploads.
    fn create(&self, partial: &Path) -> Result<(), FsError> {
        let _all = lock(&self.unfinished);
        if let Some(folder) = partial.parent() {
            fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        }
        match fs::remove_file(partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::io("remove", partial)(error)),
            _ => File::create_new(partial).map(drop).map_err(FsError::io("create", partial)),
        }
    }

    /// Removes a collecting file, and its folders where nothing else is in them.
    fn remove(&self, partial: &Path) {
        let _all = lock(&self.unfinished);
        if let Err(error) = fs::remove_file(partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %partial.display(), %error, "an unfinished upload cannot be removed");
        }
        let root = self.workspace.datasets().path();
        let mut folders = partial.ancestors().skip(1).take_while(|folder| *folder != root);
        // Up to the first one that is not empty.
        while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    }

    /// Lets the next check of the dataset report why an upload failed, which the client does not show.
    fn note_failure(
        &self,
        dataset: &DatasetName,
        file: &FileName,
        result: Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        match &result {
            // The failure is recorded already, or there was no upload.
            Ok(()) | Err(PipelineError::NotFound(_)) => {}
            Err(error) => self.record_failure(dataset, Some(file), &error.to_string())?,
        }
        result
    }

    fn record_failure(
        &self,
        dataset: &DatasetName,
        file: Option<&FileName>,
        reason: &str,
    ) -> Result<(), PipelineError> {
        let file = file.map_or("a file", FileName::as_str);
        let folder = self.workspace.dataset(dataset)?;
        tracing::warn!(%dataset, file, reason, "an upload failed");
        let failure = Some(format!("the upload of {file}: {reason}"));
        self.workspace.records().update(dataset, &folder, |record| record.failure = failure);
        Ok(())
    }
}

impl Upload {
    /// The upload with one more piece.
    fn append(self, partial: &Path, piece: &mut File) -> Result<Self, FsError> {
        let mut collected = OpenOptions::new().append(true).open(partial).map_err(FsError::io("open", partial))?;
        let copied = piece.seek(SeekFrom::Start(0)).and_then(|_| io::copy(piece, &mut collected));
        let copied = copied.map_err(FsError::io("append to", partial))?;
        Ok(Self { length: self.length + copied, longest_piece: self.longest_piece.max(copied), ..self })
    }

    /// Refuses an HDF5 file that is not as long as it says. The last piece of the client is padded, so there may be less
    /// than a piece too much.
    fn require_whole(&self, collected: &Path, file: &FileName) -> Result<(), PipelineError> {
        let refuse = |why: String| Err(PipelineError::Invalid(format!("{file} {why}; upload it again")));
        match content_length(collected)? {
            None if is_named_as_movie(file.as_str()) => refuse("is not an HDF5 file".to_owned()),
            Some(content) if content > self.length => {
                refuse(format!("is incomplete: {} of its {content} bytes have come", self.length))
            }
            Some(content) if self.length - content >= self.longest_piece => Err(PipelineError::Invalid(format!(
                "{file} is too long: {} bytes came, but its content ends after {content}, so pieces may have come twice \
                 or from another upload; upload it again, or if the file itself is so long, write it anew with h5repack \
                 first",
                self.length
            ))),
            _ => Ok(()),
        }
    }
}

/// A poisoned lock can be used: a panic leaves no upload that continues (its entry is `None` while its file changes).
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `sample.h5` and `sample.xml` collect in files of their own.
fn partial_path(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(UPLOAD_PREFIX);
    name.push(target.file_name().unwrap_or_default());
    target.with_file_name(name)
}

fn not_begun(dataset: &DatasetName, file: &FileName) -> PipelineError {
    PipelineError::NotFound(format!(
        "no upload of {file} into the dataset {dataset} goes on: it was not begun, or a piece of it was lost; begin anew \
         with action=init"
    ))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::mpsc, thread, time::Duration};

    use elephant_testkit::golden;

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        workspace: Workspace,
        uploads: Uploads,
        dataset: DatasetName,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let workspace = Workspace::open(folder.path()).unwrap();
            let uploads = Uploads::open(&workspace).unwrap();
            Self { _folder: folder, workspace, uploads, dataset: "lab/fly".parse().unwrap() }
        }

        fn piece(&self, bytes: &[u8]) -> File {
            let mut spooled = self.uploads.spool().unwrap();
            spooled.write_all(bytes).unwrap();
            spooled.into_file()
        }

        fn begin(&self, file: &str, bytes: &[u8]) {
            self.uploads.begin(&self.dataset, &name(file), &mut self.piece(bytes)).unwrap();
        }

        fn append(&self, file: &str, bytes: &[u8]) -> Result<(), PipelineError> {
            self.uploads.append(&self.dataset, &name(file), &mut self.piece(bytes))
        }

        fn complete(&self, file: &str) -> Result<(), PipelineError> {
            self.uploads.complete(&self.dataset, &name(file))
        }

        fn send(&self, file: &str, pieces: &[&[u8]]) -> Result<(), PipelineError> {
            self.begin(file, pieces[0]);
            pieces[1..].iter().try_for_each(|piece| self.append(file, piece))?;
            self.complete(file)
        }

        fn path(&self, file: &str) -> PathBuf {
            self.workspace.dataset_file(&self.dataset, &name(file)).unwrap()
        }

        fn failure(&self) -> Option<String> {
            let folder = self.workspace.dataset(&self.dataset).unwrap();
            self.workspace.records().load(&self.dataset, &folder).failure
        }
    }

    fn name(file: &str) -> FileName {
        file.parse().unwrap()
    }

    fn movie() -> Vec<u8> {
        fs::read(golden("field/ids/from_5.h5")).unwrap()
    }

    /// A file that can be read, and not written.
    fn broken_piece() -> File {
        File::open("/").unwrap()
    }

    fn is_refused(result: &Result<(), PipelineError>) -> bool {
        matches!(result, Err(PipelineError::NotFound(_)))
    }

    #[test]
    fn pieces_become_a_file_when_complete() {
        let fixture = Fixture::new();
        let movie = movie();
        let (one, two) = movie.split_at(movie.len() / 2 + 1);
        fixture.begin("fly.h5", one);
        fixture.begin("fly.xml", b"<xml/>");
        fixture.append("fly.h5", two).unwrap();
        assert!(!fixture.path("fly.h5").exists(), "nothing is seen before the end");
        fixture.complete("fly.h5").unwrap();
        assert_eq!(fs::read(fixture.path("fly.h5")).unwrap(), movie);
        fixture.uploads.cancel(&fixture.dataset, &name("fly.xml")).unwrap();
        assert!(is_refused(&fixture.complete("fly.xml")) && is_refused(&fixture.append("fly.xml", b"x")));
        assert_eq!(fs::read_dir(&fixture.uploads.spool).unwrap().count(), 0, "no piece stays");
        assert!(fixture.uploads.unfinished.lock().unwrap().is_empty());
    }

    #[test]
    fn an_upload_that_lost_a_piece_has_ended() {
        let fixture = Fixture::new();
        let movie = movie();
        fixture.send("fly.h5", &[&movie]).unwrap();
        let ways: [&dyn Fn(); 3] = [
            &|| drop(fixture.uploads.append(&fixture.dataset, &name("fly.h5"), &mut broken_piece()).unwrap_err()),
            &|| fixture.uploads.fail(&fixture.dataset, Some(&name("fly.h5")), "the disk is full").unwrap(),
            // The name of the file is not known.
            &|| fixture.uploads.fail(&fixture.dataset, None, "the connection was cut").unwrap(),
        ];
        for lose in ways {
            fixture.begin("fly.h5", b"new ");
            lose();
            assert!(is_refused(&fixture.append("fly.h5", b"gap")));
            assert!(is_refused(&fixture.complete("fly.h5")));
            assert_eq!(fs::read(fixture.path("fly.h5")).unwrap(), movie, "the old file stays");
            assert!(!partial_path(&fixture.path("fly.h5")).exists());
            let failure = fixture.failure().unwrap();
            assert!(failure.starts_with("the upload of "), "{failure}");
            fixture.send("fly.h5", &[&movie]).unwrap();
            assert_eq!(fixture.failure(), None);
        }
        let names = fs::read_dir(fixture.path("fly.h5").parent().unwrap()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".record.json", "fly.h5"]);
    }

    #[test]
    fn a_piece_lost_in_one_dataset_ends_no_upload_of_another() {
        let fixture = Fixture::new();
        fixture.begin("fly.xml", b"<xml/>");
        fixture.uploads.fail(&"lab".parse().unwrap(), None, "the connection was cut").unwrap();
        fixture.complete("fly.xml").unwrap();
    }

    #[test]
    fn the_server_may_have_lost_a_piece_when_it_ended() {
        let fixture = Fixture::new();
        fixture.begin("fly.xml", b"<xml/>");
        let next = Uploads::open(&fixture.workspace).unwrap();
        assert!(is_refused(&next.complete(&fixture.dataset, &name("fly.xml"))));
    }

    #[test]
    fn an_hdf5_file_must_be_as_long_as_it_says() {
        let fixture = Fixture::new();
        let movie = movie();
        fixture.send("fly.h5", &[&movie]).unwrap();
        let third = movie.len() / 3 + 1;
        let pieces: Vec<&[u8]> = movie.chunks(third).collect();
        let padded = [pieces[2], &vec![7; third - pieces[2].len()]].concat();
        let padded = padded.as_slice();
        for (what, pieces) in [
            ("no end", &[pieces[0], pieces[1]][..]),
            ("a gap", &[pieces[0], padded]),
            ("a piece twice", &[pieces[0], pieces[1], pieces[1], padded]),
            ("no beginning", &[pieces[1], padded]),
            ("text", &[b"text"]),
            ("nothing", &[b""]),
        ] {
            let error = fixture.send("fly.h5", pieces).unwrap_err().to_string();
            let advice = if what == "a piece twice" { "h5repack first" } else { "; upload it again" };
            assert!(error.ends_with(advice), "{what}: {error}");
            assert_eq!(fs::read(fixture.path("fly.h5")).unwrap(), movie, "{what}");
        }
        fixture.send("fly.h5", &[pieces[0], pieces[1], padded]).unwrap();
        assert_eq!(fs::read(fixture.path("fly.h5")).unwrap(), [pieces[0], pieces[1], padded].concat());
    }

    #[test]
    fn a_file_that_begins_anew_holds_nothing_of_before() {
        let fixture = Fixture::new();
        fixture.begin("fly.xml", b"one client");
        fixture.begin("fly.xml", b"another");
        fixture.complete("fly.xml").unwrap();
        assert_eq!(fs::read(fixture.path("fly.xml")).unwrap(), b"another");
        assert!(is_refused(&fixture.append("fly.xml", b"one client goes on")));
    }

    #[test]
    fn no_empty_folder_stays() {
        let fixture = Fixture::new();
        fixture.begin("fly.h5", b"x");
        fixture.uploads.cancel(&fixture.dataset, &name("fly.h5")).unwrap();
        assert!(!fixture.workspace.datasets().path().join("lab").exists());
        assert!(fixture.workspace.datasets().path().exists());
        fixture.begin("a.xml", b"x");
        fixture.begin("b.xml", b"x");
        fixture.uploads.cancel(&fixture.dataset, &name("a.xml")).unwrap();
        fixture.complete("b.xml").unwrap();
    }

    #[test]
    fn one_upload_does_not_wait_for_another() {
        const PATIENCE: Duration = Duration::from_mins(1);
        let fixture = Fixture::new();
        fixture.begin("slow.xml", b"x");
        let (uploads, dataset, mut piece) = (fixture.uploads.clone(), fixture.dataset.clone(), fixture.piece(b"quick"));
        let (done, is_done) = mpsc::sync_channel(1);
        fixture.uploads.change_at(fixture.path("slow.xml"), |_, _| {
            thread::spawn(move || done.send(uploads.begin(&dataset, &name("quick.xml"), &mut piece).is_ok()));
            assert_eq!(is_done.recv_timeout(PATIENCE), Ok(true));
        });
        fixture.complete("slow.xml").unwrap();
    }
}
