//! Errors of a network.

use elephant_types::{Cancelled, Coded, ErrorCode};

/// A failure of a network, of the image it reads or of what takes its result; the message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    code: ErrorCode,
    message: String,
    brief: Option<String>,
}

impl ModelError {
    /// A failure with a message that says what to do.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), brief: None }
    }

    /// The same failure with another error's code and texts.
    pub fn from_coded(error: &impl Coded) -> Self {
        Self { code: error.code(), message: error.to_string(), brief: error.brief() }
    }
}

impl From<Cancelled> for ModelError {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(ErrorCode::Cancelled, cancelled.to_string())
    }
}

impl Coded for ModelError {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn brief(&self) -> Option<String> {
        self.brief.clone()
    }
}
