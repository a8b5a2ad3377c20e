//! PyTorch checkpoint files (`.pth`), read without executing them, and TensorBoard event files.
//!
//! A `.pth` file is a pickle, and unpickling can run any code (for example CVE-2025-32434). This crate reads only the
//! small part of the format that describes named tensors: it lists the values that the pickle *would* build and then
//! looks for tensors in that list. No function is ever called. `torch.load(weights_only=True)` can read the files that
//! it writes.
//!
//! The crate does not know any network: the user of a [`StateDict`] checks names and shapes.
//!
//! Memory is bounded by a small multiple of the file's length, whatever sizes the file declares.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod archive;
mod error;
mod events;
mod interpret;
mod legacy;
mod optimizer;
mod pickle;
mod tensor;
mod views;
mod write;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use elephant_fs::FsError;
use serde::{Deserialize, Serialize};

pub use error::CheckpointError;
pub use events::{EventWriter, last_step};
pub use optimizer::{Fingerprint, OptimizerState};
pub use tensor::{Dtype, StateDict, Tensor};

/// Largest file that is read, 2 GiB: about eighty 3-D U-Nets.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// A checkpoint: one state dict for a single network, several for an ensemble.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The members, in the file's order; never empty in a checkpoint that was read.
    pub members: Vec<StateDict>,
    /// Origin of the parameters; `None` in files of other programs.
    pub provenance: Option<Provenance>,
}

/// Origin of a model. It is stored in the file, so that it stays with the file; PyTorch ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Initial parameters in a few words: random, a file, a URL, or a built-in network.
    pub origin: String,
    /// Total number of training steps by this program, including those of a built-in network.
    pub steps: u64,
}

impl Checkpoint {
    /// A checkpoint of these members, of unknown origin.
    pub fn new(members: Vec<StateDict>) -> Self {
        Self { members, provenance: None }
    }

    /// Reads a `.pth` file: a state dict or a list of them, in PyTorch's zip format (1.6 and later) or in the older one.
    ///
    /// # Errors
    /// [`CheckpointError`] when the file cannot be read, is not a checkpoint, is damaged, requires code to be run, or
    /// contains anything but named tensors.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(FsError::io("open", path))?;
        Self::read_from(file)
    }

    /// Reads a checkpoint from anything that can be read and sought; see [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_from(mut reader: impl Read + Seek) -> Result<Self, CheckpointError> {
        let length = reader.seek(SeekFrom::End(0))?;
        if length > MAX_FILE_BYTES {
            return Err(CheckpointError::TooLarge { what: "file", bytes: length, limit: MAX_FILE_BYTES });
        }
        reader.seek(SeekFrom::Start(0))?;
        let mut start = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut start)?;
        reader.seek(SeekFrom::Start(0))?;
        match start.as_slice() {
            b"PK\x03\x04" => archive::read(reader, length),
            [0x80, ..] => legacy::read(reader, length),
            _ => Err(CheckpointError::NotACheckpoint),
        }
    }

    /// Number of elements of the tensors of all members.
    pub fn value_count(&self) -> u64 {
        let count = |tensor: &Tensor| tensor.shape().iter().map(|&edge| edge as u64).product::<u64>();
        self.members.iter().flat_map(StateDict::iter).map(|(_, tensor)| count(tensor)).sum()
    }

    /// The same parameters in half precision (IEEE 754 binary16).
    #[must_use]
    pub fn to_half(&self) -> Self {
        let half = |dict: &StateDict| dict.iter().map(|(name, tensor)| (name.to_owned(), tensor.to_half())).collect();
        Self { members: self.members.iter().map(half).collect(), provenance: self.provenance.clone() }
    }

    /// Writes the checkpoint in PyTorch's zip format, replacing `path` atomically. One member is written as a state
    /// dict, several as a list. Equal checkpoints give equal bytes.
    ///
    /// # Errors
    /// When the file cannot be written; an old file is then unchanged.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        Ok(elephant_fs::write_atomic(path, |file| write::write(self, file))?)
    }
}

impl From<StateDict> for Checkpoint {
    fn from(member: StateDict) -> Self {
        Self::new(vec![member])
    }
}
