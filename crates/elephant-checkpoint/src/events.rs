//! TensorBoard event files: scalars over the steps of a training, and the step at which earlier trainings ended.
//!
//! Files are those of PyTorch's `SummaryWriter`: a first record with the format's version, then one record for each scalar.
//! Only appended to, one record at a time, so that a killed writer leaves whole records.

mod protobuf;
mod record;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use elephant_fs::FsError;

use self::record::Records;

/// A part of the name of every event file.
const NAME: &str = "tfevents";
/// Tells the files of this process apart.
static FILES: AtomicU64 = AtomicU64::new(0);

/// An event file that grows.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
}

impl EventWriter {
    /// Begins a new event file in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(folder: &Path) -> Result<Self, FsError> {
        fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let now = seconds_since_1970();
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        // As PyTorch names them, so that TensorBoard reads them in order.
        let name = format!("events.out.{NAME}.{:010}.{}.{}.{number}", now as u64, host_name(), process::id());
        let path = folder.join(name);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).map_err(FsError::io("create", &path))?;
        let mut writer = Self { path, file, length: 0 };
        writer.append(&protobuf::file_version(now))?;
        Ok(writer)
    }

    /// Notes the value that `tag` has at `step`; values are kept in single precision. It is in the file when this returns.
    ///
    /// # Errors
    /// When the disk is full; the file stays readable, and later scalars may be written.
    pub fn scalar(&mut self, tag: &str, step: i64, value: f64) -> Result<(), FsError> {
        self.append(&protobuf::scalar(seconds_since_1970(), tag, step, value as f32))
    }

    fn append(&mut self, event: &[u8]) -> Result<(), FsError> {
        let record = record::frame(event);
        if let Err(error) = self.file.write_all(&record) {
            // What was written of the record would hide all later ones. If this fails too, they are lost to readers.
            let _ = self.file.set_len(self.length);
            return Err(FsError::io("write", &self.path)(error));
        }
        self.length += record.len() as u64;
        Ok(())
    }
}

/// The largest step in the event files in `folder`, whichever program wrote them; `None` when there is none. A file counts
/// up to its first damaged record, and nothing is allocated by what a file claims.
///
/// # Errors
/// When the folder or a file cannot be read.
pub fn last_step(folder: &Path) -> Result<Option<i64>, FsError> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FsError::io("list", folder)(error)),
    };
    let mut last = None;
    for entry in entries {
        let entry = entry.map_err(FsError::io("list", folder))?;
        // Not links, which may lead anywhere, and not pipes, which would never end.
        let is_file = entry.file_type().map_err(FsError::io("look at", entry.path()))?.is_file();
        if is_file && entry.file_name().to_string_lossy().contains(NAME) {
            let path = entry.path();
            last = last.max(last_step_in(&path).map_err(FsError::io("read", &path))?);
        }
    }
    Ok(last)
}

fn last_step_in(path: &Path) -> io::Result<Option<i64>> {
    let mut records = Records::new(BufReader::new(File::open(path)?));
    let mut last = None;
    while let Some(event) = records.next_beginning()? {
        last = last.max(protobuf::step_with_summary(event));
    }
    Ok(last)
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |duration| duration.as_secs_f64())
}

/// This machine's name, as far as it can be part of a file's name.
fn host_name() -> String {
    const MAX_CHARS: usize = 64;
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(is_plain).take(MAX_CHARS).collect();
    if name.is_empty() { "localhost".into() } else { name }
}
