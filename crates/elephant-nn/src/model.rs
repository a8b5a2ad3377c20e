//! A checkpoint that is known to fit a network.

use std::path::Path;

use elephant_checkpoint::{Checkpoint, Fingerprint, StateDict};
use elephant_types::{NetworkKind, NetworkType};

use crate::{
    NnError,
    spec::{self, NetworkSpec},
};

/// The weights of a network, or of an ensemble of networks of the same kind.
#[derive(Clone, Debug)]
pub struct Model {
    checkpoint: Checkpoint,
    spec: &'static NetworkSpec,
    fingerprint: Fingerprint,
}

impl Model {
    /// Checks every parameter's name and shape.
    ///
    /// # Errors
    /// [`NnError::WrongModel`] naming the first parameter that does not fit.
    pub fn new(checkpoint: Checkpoint) -> Result<Self, NnError> {
        let wrong = |reason: &str| NnError::WrongModel { reason: reason.into() };
        let specs = checkpoint.members.iter().map(spec::identify).collect::<Result<Vec<_>, _>>()?;
        let spec = *specs.first().ok_or_else(|| wrong("it is empty"))?;
        if let Some(other) = specs.iter().find(|other| **other != spec) {
            return Err(wrong(&format!("it mixes {} and {} networks", spec.name(), other.name())));
        }
        let fingerprint = checkpoint.fingerprint();
        Ok(Self { checkpoint, spec, fingerprint })
    }

    /// Reads a `.pth` file.
    ///
    /// # Errors
    /// When the file is not a checkpoint ([`NnError::Checkpoint`]) or is one of another network ([`NnError::WrongModel`]).
    pub fn read(path: &Path) -> Result<Self, NnError> {
        Self::new(Checkpoint::read(path)?)
    }

    /// A detection network with random weights, the same for the same seed.
    ///
    /// # Errors
    /// Never, unless this crate contradicts itself.
    pub fn random(kind: NetworkKind, seed: u64) -> Result<Self, NnError> {
        Self::random_of(NetworkType::detection(kind), seed)
    }

    /// A network of this type with random weights, the same for the same seed.
    ///
    /// # Errors
    /// Never, unless this crate contradicts itself.
    pub fn random_of(network: NetworkType, seed: u64) -> Result<Self, NnError> {
        Self::new(spec::random(NetworkSpec::of(network), seed)?.into())
    }

    /// The weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether the network is 2-D or 3-D.
    pub fn kind(&self) -> NetworkKind {
        self.spec.dims
    }

    /// Equal for equal weights.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its task and its dimensions.
    pub fn network_type(&self) -> NetworkType {
        self.spec.network_type()
    }

    /// The network's specification.
    pub(crate) fn spec(&self) -> &'static NetworkSpec {
        self.spec
    }

    /// Checks that it is a network of this type.
    ///
    /// # Errors
    /// [`NnError::WrongKind`] naming both: the dimensions alone where the task is the same.
    pub(crate) fn require_type(&self, network: NetworkType) -> Result<(), NnError> {
        let found = self.network_type();
        if found == network {
            return Ok(());
        }
        let (model, requested) = if found.task == network.task {
            (found.kind.dims().into(), network.kind.dims().into())
        } else {
            (found.to_string(), network.to_string())
        };
        Err(NnError::WrongKind { model, requested })
    }

    pub(crate) fn members(&self) -> &[StateDict] {
        &self.checkpoint.members
    }
}
