//! State of the Adam optimiser, stored in a file beside the model's.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Checkpoint, CheckpointError, Dtype, StateDict, Tensor};

/// Identifies a model by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Checkpoint {
    /// Equal for equal parameters, whatever file they were read from.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for (name, tensor) in self.members.iter().flat_map(StateDict::iter) {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update([tensor.dtype() as u8]);
            hash.update((tensor.bytes().len() as u64).to_le_bytes());
            hash.update(tensor.bytes());
        }
        Fingerprint(hash.finalize().into())
    }
}

/// State of Adam. It is valid only for the parameters after the optimiser's last step.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Number of steps made.
    pub step: u64,
    /// For each member of the ensemble, the running mean of each parameter's gradient, by the parameter's name.
    pub first_moments: Vec<StateDict>,
    /// The same for the squared gradients.
    pub second_moments: Vec<StateDict>,
}

/// Names of the tensors in the first member of the file: the number of steps, and the model's fingerprint.
const STEP: &str = "step";
const MODEL: &str = "model";

impl OptimizerState {
    /// Writes the state that belongs to the parameters with this fingerprint, replacing `path` atomically. The file is
    /// a checkpoint: a head, then two members for each member of the model.
    ///
    /// # Errors
    /// When the file cannot be written; an old file is then unchanged.
    pub fn write(&self, model: Fingerprint, path: &Path) -> Result<(), CheckpointError> {
        let head = [
            (STEP.to_owned(), Tensor::new(Dtype::I64, vec![1], self.step.to_le_bytes().to_vec())?),
            (MODEL.to_owned(), Tensor::new(Dtype::U8, vec![32], model.0.to_vec())?),
        ];
        let moments = self.first_moments.iter().zip(&self.second_moments).flat_map(|(first, second)| [first, second]);
        let members = std::iter::once(head.into_iter().collect()).chain(moments.cloned()).collect();
        Checkpoint::new(members).write(path)
    }

    /// The state in a file, if it belongs to these parameters (fingerprint, names and shapes); otherwise `None`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a checkpoint.
    pub fn read(model: &Checkpoint, path: &Path) -> Result<Option<Self>, CheckpointError> {
        let file = Checkpoint::read(path)?;
        let Some((head, moments)) = file.members.split_first() else { return Ok(None) };
        let is_models = head.get(MODEL).is_some_and(|tensor| tensor.bytes() == model.fingerprint().0);
        let step = head.get(STEP).and_then(|tensor| tensor.bytes().try_into().ok().map(u64::from_le_bytes));
        let (Some(step), true) = (step, is_models && moments.len() == 2 * model.members.len()) else { return Ok(None) };
        let fits = moments.chunks_exact(2).zip(&model.members).all(|(moments, parameters)| {
            parameters.iter().all(|(name, parameter)| {
                moments.iter().all(|dict| dict.get(name).is_some_and(|tensor| tensor.shape() == parameter.shape()))
            })
        });
        let take = |which: usize| moments.iter().skip(which).step_by(2).cloned().collect();
        Ok(fits.then(|| Self { step, first_moments: take(0), second_moments: take(1) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_for_its_model_only() {
        let dict = |value: f32| -> StateDict {
            [("a".to_owned(), Tensor::from_f32(vec![2], &[value, 2.0]).unwrap())].into_iter().collect()
        };
        let model = Checkpoint::new(vec![dict(1.0), dict(3.0)]);
        let state = OptimizerState {
            step: 1 << 40,
            first_moments: vec![dict(4.0), dict(5.0)],
            second_moments: vec![dict(6.0), dict(7.0)],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.adam");
        state.write(model.fingerprint(), &path).unwrap();
        assert_eq!(OptimizerState::read(&model, &path).unwrap(), Some(state));
        let other = Checkpoint::new(vec![dict(1.0), dict(3.5)]);
        assert_eq!(OptimizerState::read(&other, &path).unwrap(), None);
        model.write(&path).unwrap();
        assert_eq!(OptimizerState::read(&model, &path).unwrap(), None, "a model is not a state");
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        OptimizerState::read(&model, &path).unwrap_err();
    }
}
