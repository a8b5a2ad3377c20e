//! Errors of building, running and training a network.

use elephant_checkpoint::CheckpointError;
use elephant_fs::FsError;
use elephant_model::ModelError;
use elephant_types::{Cancelled, Coded, ErrorCode};
use tch::TchError;

/// A network that could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is not a network that this server runs.
    #[error(
        "the model does not fit the detection network: {reason}; use a model that an ELEPHANT server has trained or reset"
    )]
    WrongModel {
        /// Which parameter differs, and how.
        reason: String,
    },
    /// A model of another kind was given: 2-D for 3-D data or the reverse, or for another task.
    #[error(
        "the model is a {model} network, but a {requested} one was asked for; choose another model, or reset this one"
    )]
    WrongKind {
        /// The network in the checkpoint.
        model: String,
        /// The network that the request needs.
        requested: String,
    },
    /// The version of a model's file cannot be read.
    #[error("cannot use the model: {0}")]
    File(#[from] FsError),
    /// The image could not be read, or the result could not be used.
    #[error(transparent)]
    Caller(ModelError),
    /// The request is invalid.
    #[error("cannot predict: {reason}")]
    InvalidRequest {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A network cannot be trained with what was given.
    #[error("cannot train: {reason}")]
    InvalidTraining {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The numbers of a training became infinite or undefined.
    #[error(
        "the training diverged: its loss or its gradient is no longer finite; choose a smaller learning rate, or reset the model if that does not help"
    )]
    Diverged,
    /// The operation was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The device has too little memory.
    #[error(
        "out of memory on {device}; choose a smaller patch size or batch size, or stop other programs that use the device"
    )]
    OutOfMemory {
        /// Name of the device.
        device: String,
    },
    /// libtorch refused an operation.
    #[error("the network failed: {message}")]
    Torch {
        /// The first line of libtorch's message.
        message: String,
    },
    /// The device was asked for but is not there.
    #[error("cannot use {device}: {reason}")]
    NoDevice {
        /// Name of the device.
        device: String,
        /// The reason.
        reason: String,
    },
    /// The operation panicked; others go on.
    #[error("an operation of the network failed unexpectedly; please report this with the server's log")]
    Panicked,
    /// The device is still being looked for.
    #[error("the device is starting; try again in a moment")]
    Starting,
    /// Everything fails on the device.
    #[error(
        "the last {failures} operations on {device} failed; look for the reason in the server's log, then restart the server"
    )]
    Failing {
        /// Name of the device.
        device: String,
        /// Operations that failed since the last one that did not.
        failures: u32,
    },
    /// The device's thread has ended.
    #[error(
        "the thread of the device has ended, so that nothing is predicted or trained any more; restart the server, and please report this with its log"
    )]
    Stopped,
}

impl From<TchError> for NnError {
    fn from(error: TchError) -> Self {
        let message = match error {
            TchError::Torch(message) => message,
            other => other.to_string(),
        };
        // CUDA's allocator says "CUDA out of memory", the CPU's "DefaultCPUAllocator: can't allocate memory".
        if message.contains("CUDA out of memory") {
            return Self::OutOfMemory { device: "the GPU".into() };
        }
        if message.contains("can't allocate memory") || message.contains("not enough memory") {
            return Self::OutOfMemory { device: "this computer".into() };
        }
        Self::Torch { message: message.lines().next().unwrap_or_default().to_owned() }
    }
}

impl From<NnError> for ModelError {
    fn from(error: NnError) -> Self {
        match error {
            NnError::Caller(error) => error,
            other => Self::from_coded(&other),
        }
    }
}

impl Coded for NnError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Checkpoint(error) => error.code(),
            Self::File(error) => error.code(),
            Self::Caller(error) => error.code(),
            Self::WrongModel { .. }
            | Self::WrongKind { .. }
            | Self::InvalidRequest { .. }
            | Self::InvalidTraining { .. }
            | Self::Diverged => ErrorCode::InvalidArgument,
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::OutOfMemory { .. } => ErrorCode::TooLarge,
            Self::NoDevice { .. } | Self::Starting | Self::Failing { .. } | Self::Stopped => ErrorCode::Unavailable,
            Self::Torch { .. } | Self::Panicked => ErrorCode::Internal,
        }
    }
}
