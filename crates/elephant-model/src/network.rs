//! Checkpoints of all kinds of networks: telling them apart, checking them, making new ones.

use elephant_checkpoint::Checkpoint;
use elephant_types::{ErrorCode, NetworkType};

use crate::ModelError;

/// The networks whose checkpoints can be told apart and made.
pub trait NetworkCatalogue: Send + Sync {
    /// The type of network that every member of the checkpoint is.
    ///
    /// # Errors
    /// When a parameter is missing, superfluous or of the wrong shape; the message names it.
    fn identify(&self, checkpoint: &Checkpoint) -> Result<NetworkType, ModelError>;

    /// Checks that every member of the checkpoint is a network of this type.
    ///
    /// # Errors
    /// As [`identify`](Self::identify), and when it is of another type.
    fn verify(&self, checkpoint: &Checkpoint, network: NetworkType) -> Result<(), ModelError> {
        let found = self.identify(checkpoint)?;
        if found == network {
            return Ok(());
        }
        let message = format!("the file holds a {found} network but a {network} one is needed");
        Err(ModelError::new(ErrorCode::InvalidArgument, message))
    }

    /// A network with random parameters; the same seed gives the same parameters.
    ///
    /// # Errors
    /// When the device fails.
    fn initialise(&self, network: NetworkType, seed: u64) -> Result<Checkpoint, ModelError>;
}
