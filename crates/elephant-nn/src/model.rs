//! A checkpoint that is known to fit the detection network.

use std::path::Path;

use elephant_checkpoint::{Checkpoint, Fingerprint, StateDict};
use elephant_types::NetworkKind;

use crate::{NnError, architecture};

/// The weights of a detection network, or of an ensemble of them.
#[derive(Clone, Debug)]
pub struct Model {
    checkpoint: Checkpoint,
    kind: NetworkKind,
    fingerprint: Fingerprint,
}

impl Model {
    /// Checks every parameter's name and shape.
    ///
    /// # Errors
    /// [`NnError::WrongModel`] naming the first parameter that does not fit.
    pub fn new(checkpoint: Checkpoint) -> Result<Self, NnError> {
        let wrong = |reason: &str| NnError::WrongModel { reason: reason.into() };
        let kinds = checkpoint.members.iter().map(architecture::identify).collect::<Result<Vec<_>, _>>()?;
        let kind = *kinds.first().ok_or_else(|| wrong("it is empty"))?;
        if kinds.iter().any(|other| *other != kind) {
            return Err(wrong("it mixes 2-D and 3-D networks"));
        }
        let fingerprint = checkpoint.fingerprint();
        Ok(Self { checkpoint, kind, fingerprint })
    }

    /// Reads a `.pth` file.
    ///
    /// # Errors
    /// When the file is no checkpoint ([`NnError::Checkpoint`]) or one of another network ([`NnError::WrongModel`]).
    pub fn read(path: &Path) -> Result<Self, NnError> {
        Self::new(Checkpoint::read(path)?)
    }

    /// A network that has learnt nothing: random weights, the same for the same seed.
    ///
    /// # Errors
    /// Never, unless this crate contradicts itself.
    pub fn random(kind: NetworkKind, seed: u64) -> Result<Self, NnError> {
        Self::new(architecture::random(kind, seed)?.into())
    }

    /// The weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether the network is 2-D or 3-D.
    pub fn kind(&self) -> NetworkKind {
        self.kind
    }

    /// Equal for equal weights.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn members(&self) -> &[StateDict] {
        &self.checkpoint.members
    }
}
