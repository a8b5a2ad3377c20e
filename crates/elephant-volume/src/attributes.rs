//! Attributes of an array: the JSON object in its `.zattrs` file (Zarr specification v2, "Attributes").

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
};

use elephant_fs::{FsError, replace_unflushed, write_atomic};
use serde_json::value::RawValue;

use crate::{ArrayStore, VolumeError};

const FILE: &str = ".zattrs";
/// Longest file that is read or written, in bytes: the places of some thirty million spots.
const MAX_BYTES: u64 = 512 << 20;

/// Attributes of an array by name. Values are JSON texts, so that a reader parses only those it needs.
pub type Attributes = BTreeMap<String, Box<RawValue>>;

impl ArrayStore {
    /// The array's attributes; none when it has no file of them.
    ///
    /// # Errors
    /// When the file cannot be read, is not a JSON object, or is longer than 512 MiB.
    pub fn attributes(&self) -> Result<Attributes, VolumeError> {
        let path = self.folder().join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attributes::new()),
            Err(error) => return Err(FsError::io("open", path)(error).into()),
        };
        let damaged = |reason: String| VolumeError::Attributes { store: self.name().to_owned(), reason };
        let mut text = Vec::new();
        let length = file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(FsError::io("read", path))?;
        if length as u64 > MAX_BYTES {
            return Err(damaged(format!("they are longer than {} MiB", MAX_BYTES >> 20)));
        }
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
    }

    /// Replaces all attributes at once. Readers see the old ones or the new ones, also after a crash.
    ///
    /// # Errors
    /// When the file cannot be written, or would be longer than 512 MiB; the old one stays then.
    pub fn replace_attributes(&self, attributes: &Attributes) -> Result<(), VolumeError> {
        self.check_length(attributes)?;
        let write = |file: &mut io::BufWriter<&File>| {
            serde_json::to_writer(&mut *file, attributes)?;
            file.write_all(b"\n")
        };
        Ok(write_atomic(&self.folder().join(FILE), write)?)
    }

    /// As [`replace_attributes`](Self::replace_attributes), but leaves it to the operating system when they reach the disk, as
    /// it is with chunks: they survive a kill, but a power failure may lose them.
    ///
    /// # Errors
    /// As [`replace_attributes`](Self::replace_attributes).
    pub fn replace_attributes_unflushed(&self, attributes: &Attributes) -> Result<(), VolumeError> {
        self.check_length(attributes)?;
        let path = self.folder().join(FILE);
        let text = serde_json::to_vec(attributes).map_err(|error| FsError::io("write", &path)(error.into()))?;
        Ok(replace_unflushed(&path, &text)?)
    }

    fn check_length(&self, attributes: &Attributes) -> Result<(), VolumeError> {
        let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum();
        if (bytes as u64) < MAX_BYTES {
            return Ok(());
        }
        let reason = format!("attributes of more than {} MiB are not written", MAX_BYTES >> 20);
        Err(VolumeError::Access { store: self.name().to_owned(), reason })
    }
}
