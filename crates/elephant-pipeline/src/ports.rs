//! What the use cases need from outside and do not know how to do: the network and the download.

use std::{io::Read, path::Path};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_types::{
    CancelToken, Coded, ErrorCode, LossValues, NetworkKind, Numerics, SegmentationOptions, SegmentationRequest,
    TaskContext, TrainingBatch, TrainingOptions,
};
use ndarray::Array4;

/// A failure behind a port.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    code: ErrorCode,
    message: String,
}

impl PortError {
    /// A failure of this kind; the message says what to do.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Coded for PortError {
    fn code(&self) -> ErrorCode {
        self.code
    }
}

/// A network that tells background, border and centre of cells apart (contract section 6.2).
pub trait SegmentationModel: Send + Sync {
    /// Class probabilities (c, z, y, x) of one image by the network in the `.pth` file `model`, the mean over an
    /// ensemble. Waits for its turn on the device.
    ///
    /// # Errors
    /// When the file is not such a network, the device fails, or the task is cancelled.
    fn segment(
        &self,
        model: &Path,
        request: SegmentationRequest,
        context: &TaskContext,
    ) -> Result<Array4<f32>, PortError>;

    /// Memory of this computer, in bytes, that [`segment`](Self::segment) takes while it is its turn, for an image of
    /// `shape` (z, y, x), besides the image and the probabilities.
    ///
    /// # Errors
    /// When such an image cannot be segmented so, or there is no device.
    fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, PortError>;

    /// Which kind of network every member of the checkpoint is.
    ///
    /// # Errors
    /// When a parameter is missing, superfluous or of the wrong shape; the message names it.
    fn identify(&self, checkpoint: &Checkpoint) -> Result<NetworkKind, PortError>;

    /// Whether every member of the checkpoint is a network of this kind.
    ///
    /// # Errors
    /// As [`identify`](Self::identify), and when it is of the other kind.
    fn verify(&self, checkpoint: &Checkpoint, kind: NetworkKind) -> Result<(), PortError> {
        let found = self.identify(checkpoint)?;
        if found == kind {
            return Ok(());
        }
        let message = format!("the file holds a {} network but a {} one is needed", found.dims(), kind.dims());
        Err(PortError::new(ErrorCode::InvalidArgument, message))
    }

    /// A network with random parameters; the same seed gives the same parameters.
    ///
    /// # Errors
    /// When the device fails.
    fn initialise(&self, kind: NetworkKind, seed: u64) -> Result<Checkpoint, PortError>;
}

/// A network that can be trained.
pub trait TrainableModel: Send + Sync {
    /// Among how many devices a batch is shared out.
    ///
    /// # Errors
    /// When there is no device.
    fn device_count(&self) -> Result<usize, PortError>;

    /// Memory of this computer, in bytes, that a step takes while it is its turn, for crops with so many voxels in all.
    ///
    /// # Errors
    /// When there is no device.
    fn step_bytes(&self, voxels: u64, numerics: Numerics) -> Result<u64, PortError>;

    /// Puts a model on the device to be trained. `state` is what an optimiser remembers of it.
    ///
    /// # Errors
    /// When the checkpoint is no such network, the device fails, or the task is cancelled.
    fn begin(
        &self,
        model: Checkpoint,
        options: TrainingOptions,
        state: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, PortError>;

    /// From now on, predictions by the model file `path` use these parameters while the file has this version, until they
    /// are [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// When they are not such a network.
    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), PortError>;

    /// From now on, predictions by the model file `path` use what is in the file.
    fn withdraw(&self, path: &Path);
}

/// A model on the device. Predictions find their turn between two steps.
pub trait ModelInTraining {
    /// One step of the optimiser, and the loss before it. Cancelled or failed, it has changed nothing.
    ///
    /// # Errors
    /// When the batch cannot be learnt from, the loss is not finite, the device fails, or the task is cancelled.
    fn step(&self, batch: TrainingBatch, learning_rate: f64, cancel: &CancelToken) -> Result<LossValues, PortError>;

    /// The parameters and what the optimiser remembers, after the last step that was completed.
    ///
    /// # Errors
    /// When a parameter is not finite or the device fails.
    fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), PortError>;
}

/// Fetches model files from the network.
pub trait ModelDownload: Send + Sync {
    /// The content at `url`.
    ///
    /// # Errors
    /// When the URL is not allowed or cannot be fetched; the message says what to do.
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, PortError>;
}
