//! Traits that the use cases need from outside, besides those of `elephant-model`.

use std::io::Read;

use elephant_model::ModelError;

/// Fetches model files from the network.
pub trait ModelDownload: Send + Sync {
    /// The content at `url`.
    ///
    /// # Errors
    /// When the URL is not allowed or cannot be fetched; the message says what to do.
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError>;
}
