//! What the handlers need.

use std::sync::Arc;

use elephant_jobs::Jobs;
use elephant_pipeline::{Models, Predictor, Uploads, Workspace};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::job::PREDICTIONS_AT_ONCE;

/// The use cases and the jobs, shared by all handlers.
#[derive(Clone)]
pub struct Services {
    pub(crate) workspace: Workspace,
    pub(crate) jobs: Jobs,
    pub(crate) uploads: Uploads,
    pub(crate) models: Arc<Models>,
    pub(crate) predictor: Arc<Predictor>,
    pub(crate) predictions: Arc<Semaphore>,
    pub(crate) closing: CancellationToken,
}

impl Services {
    /// Joins the use cases. Endless replies end when `closing` is cancelled.
    pub fn new(
        workspace: Workspace,
        jobs: Jobs,
        uploads: Uploads,
        models: Arc<Models>,
        predictor: Predictor,
        closing: CancellationToken,
    ) -> Self {
        let predictions = Arc::new(Semaphore::new(PREDICTIONS_AT_ONCE));
        Self { workspace, jobs, uploads, models, predictor: Arc::new(predictor), predictions, closing }
    }
}
