//! Work that blocks, off the async threads.

use tokio::task::spawn_blocking;
use tracing::Span;

use crate::ApiError;

/// Runs short work that may block, within the caller's span.
///
/// # Errors
/// Those of `work`, and when it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let result = spawn_blocking(move || span.in_scope(work)).await;
    result.unwrap_or_else(|panic| Err(ApiError::internal(format!("the request crashed: {panic}"))))
}
