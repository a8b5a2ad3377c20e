//! PyTorch's zip format: `NAME/data.pkl`, `NAME/byteorder` and one uncompressed entry per storage, `NAME/data/KEY`.

use std::io::{self, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use crate::{
    Checkpoint, CheckpointError, Provenance, interpret,
    pickle::Pickle,
    views::{self, ByteOrder, View},
};

/// Largest table of contents that is read, in bytes; an entry takes about 100.
const MAX_DIRECTORY_BYTES: u64 = 8 << 20;
/// Largest `data.pkl` that is read, in bytes; a tensor takes about 200.
const MAX_PICKLE_BYTES: u64 = 4 << 20;

/// Name of the entry with the model's origin, as JSON. PyTorch ignores it.
pub(crate) const PROVENANCE: &str = "elephant-provenance.json";
const MAX_PROVENANCE_BYTES: u64 = 4096;

pub(crate) fn read(reader: impl Read + Seek, file_length: u64) -> Result<Checkpoint, CheckpointError> {
    let mut archive = Archive::open(reader, file_length)?;
    let description = archive.entry("data.pkl", MAX_PICKLE_BYTES)?;
    let pickle = Pickle::parse(&description, interpret::is_known_global)?;
    let members = interpret::members(&pickle)?;
    let order = archive.byte_order()?;
    let provenance = archive.provenance()?;
    let checkpoint = views::materialise(members, order, file_length, |view: &View<'_>| {
        archive.entry(&format!("data/{}", view.storage_key), file_length)
    })?;
    Ok(Checkpoint { provenance, ..checkpoint })
}

struct Archive<R> {
    zip: ZipArchive<Budgeted<R>>,
    /// Prefix of every entry's name.
    prefix: String,
}

impl<R: Read + Seek> Archive<R> {
    fn open(reader: R, file_length: u64) -> Result<Self, CheckpointError> {
        // The budget first bounds the memory for the table of contents, whatever counts the file declares. Then it
        // bounds how often the same bytes can be read through overlapping entries.
        let budgeted = Budgeted { inner: reader, left: MAX_DIRECTORY_BYTES };
        let mut reader = ZipArchive::new(budgeted).map_err(damaged)?.into_inner();
        reader.left = MAX_DIRECTORY_BYTES + 2 * file_length;
        let zip = ZipArchive::new(reader).map_err(damaged)?;
        let prefix = zip.file_names_raw().filter_map(|name| str::from_utf8(name).ok()).find_map(|name| {
            name.strip_suffix("data.pkl").filter(|prefix| prefix.ends_with('/') && prefix.matches('/').count() == 1)
        });
        let prefix = prefix.ok_or(CheckpointError::NotACheckpoint)?.to_owned();
        Ok(Self { zip, prefix })
    }

    fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, CheckpointError> {
        let mut entry = self.zip.by_name(&format!("{}{name}", self.prefix)).map_err(damaged)?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(compressed());
        }
        if entry.size() > limit {
            return Err(CheckpointError::TooLarge { what: "entry in the zip archive", bytes: entry.size(), limit });
        }
        let mut content = Vec::with_capacity(entry.size().min(entry.compressed_size()) as usize);
        entry.read_to_end(&mut content).map_err(|error| damaged(ZipError::Io(error)))?;
        Ok(content)
    }

    /// Origin of the model, if this program wrote the file; `None` if it cannot be parsed.
    fn provenance(&mut self) -> Result<Option<Provenance>, CheckpointError> {
        let text = match self.entry(PROVENANCE, MAX_PROVENANCE_BYTES) {
            Err(error @ CheckpointError::Io(_)) => return Err(error),
            text => text.unwrap_or_default(),
        };
        let provenance = serde_json::from_slice(&text).ok();
        Ok(provenance.filter(|found: &Provenance| !found.origin.chars().any(char::is_control)))
    }

    fn byte_order(&mut self) -> Result<ByteOrder, CheckpointError> {
        if self.zip.index_for_name(&format!("{}byteorder", self.prefix)).is_none() {
            return Ok(ByteOrder::Little); // files written before PyTorch 2.1 have no such entry
        }
        match self.entry("byteorder", 16)?.as_slice() {
            b"little" => Ok(ByteOrder::Little),
            b"big" => Ok(ByteOrder::Big),
            _ => Err(CheckpointError::damaged("its byte order is neither little nor big")),
        }
    }
}

fn damaged(error: ZipError) -> CheckpointError {
    match error {
        // The disk or the network failed. An invalid seek position is an error of the archive.
        ZipError::Io(error) if error.raw_os_error().is_some() && error.kind() != io::ErrorKind::InvalidInput => {
            CheckpointError::Io(error)
        }
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => compressed(),
        other => CheckpointError::damaged(format!("its zip archive cannot be read ({other})")),
    }
}

fn compressed() -> CheckpointError {
    CheckpointError::unsupported("compressed or encrypted entries, which PyTorch does not write")
}

/// A reader that fails after a total number of bytes.
struct Budgeted<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "it declares more than the file contains"))?;
        Ok(read)
    }
}

impl<R: Seek> Seek for Budgeted<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
