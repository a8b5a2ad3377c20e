//! TensorBoard event files: writes scalars over the steps of a training, and finds the last step of earlier trainings.
//!
//! The format is that of PyTorch's `SummaryWriter`: a first record with the format's version, then one record per
//! scalar. Files are only appended to, one record at a time, so that a killed writer leaves complete records.

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

/// Part of the name of every event file.
const NAME: &str = "tfevents";
/// Number of the next event file of this process.
static FILES: AtomicU64 = AtomicU64::new(0);

/// An event file to which scalars are appended.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Length of the complete records in bytes.
    length: u64,
}

impl EventWriter {
    /// Begins a new event file in `folder`, which is created if it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(folder: &Path) -> Result<Self, FsError> {
        fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
        let now = seconds_since_1970();
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        // PyTorch's naming, by which TensorBoard reads files in order.
        let name = format!("events.out.{NAME}.{:010}.{}.{}.{number}", now as u64, host_name(), process::id());
        let path = folder.join(name);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).map_err(FsError::io("create", &path))?;
        let mut writer = Self { path, file, length: 0 };
        writer.append(&protobuf::file_version(now))?;
        Ok(writer)
    }

    /// Appends the value of `tag` at `step`, in single precision. It has been written to the file when this returns.
    ///
    /// # Errors
    /// When the disk is full; the file stays readable, and later scalars can be written.
    pub fn scalar(&mut self, tag: &str, step: i64, value: f64) -> Result<(), FsError> {
        self.append(&protobuf::scalar(seconds_since_1970(), tag, step, value as f32))
    }

    fn append(&mut self, event: &[u8]) -> Result<(), FsError> {
        let record = record::frame(event);
        if let Err(error) = self.file.write_all(&record) {
            // A partial record would hide all later ones. If it cannot be removed either, readers lose them.
            let _ = self.file.set_len(self.length);
            return Err(FsError::io("write", &self.path)(error));
        }
        self.length += record.len() as u64;
        Ok(())
    }
}

/// The largest step in the event files in `folder`, whichever program wrote them; `None` when there is none. A file is
/// read up to its first damaged record. No memory is allocated from lengths in a file.
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
        // Skips links, which may point anywhere, and pipes, which may never end.
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

/// This machine's name, reduced to characters that are valid in a file name.
fn host_name() -> String {
    const MAX_CHARS: usize = 64;
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(is_plain).take(MAX_CHARS).collect();
    if name.is_empty() { "localhost".into() } else { name }
}
