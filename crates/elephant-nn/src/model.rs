//! A checkpoint that is known to fit a network.

use std::path::Path;

use elephant_checkpoint::{Checkpoint, Fingerprint, StateDict};
use elephant_types::NetworkKind;

use crate::{
    NnError,
    spec::{self, NetworkSpec, Task},
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
        Self::new(spec::random(NetworkSpec::detection(kind), seed)?.into())
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

    /// The network's specification, which must be for this task.
    ///
    /// # Errors
    /// [`NnError::WrongKind`] naming both.
    pub(crate) fn require(&self, task: Task) -> Result<&'static NetworkSpec, NnError> {
        if self.spec.task == task {
            return Ok(self.spec);
        }
        let requested = match task {
            Task::Detection => NetworkSpec::detection(self.spec.dims),
            Task::Flow => NetworkSpec::flow(self.spec.dims),
        };
        Err(NnError::WrongKind { model: self.spec.name(), requested: requested.name() })
    }

    /// The network's specification, which must be of a detection network of this kind.
    ///
    /// # Errors
    /// [`NnError::WrongKind`] naming both.
    pub(crate) fn require_detection(&self, dims: NetworkKind) -> Result<&'static NetworkSpec, NnError> {
        let spec = self.require(Task::Detection)?;
        if spec.dims != dims {
            return Err(NnError::WrongKind { model: spec.dims.dims().into(), requested: dims.dims().into() });
        }
        Ok(spec)
    }

    pub(crate) fn members(&self) -> &[StateDict] {
        &self.checkpoint.members
    }
}
