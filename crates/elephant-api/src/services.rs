//! What the handlers need.

use std::{fmt, sync::Arc};

use elephant_jobs::Jobs;
use elephant_pipeline::{Labels, Models, Predictor, Trainer, Uploads, Workspace};
use tokio_util::sync::CancellationToken;

use crate::{json::LargeBodies, queue::Queue};

/// The use cases and the jobs, shared by all handlers.
#[derive(Clone)]
pub struct Services {
    pub(crate) workspace: Workspace,
    pub(crate) jobs: Jobs,
    pub(crate) uploads: Uploads,
    pub(crate) models: Arc<Models>,
    pub(crate) predictor: Arc<Predictor>,
    pub(crate) predictions: Queue,
    pub(crate) labels: Labels,
    pub(crate) trainer: Arc<Trainer>,
    pub(crate) large_bodies: LargeBodies,
    pub(crate) closing: CancellationToken,
    pub(crate) broker: Broker,
    pub(crate) device: DeviceHealth,
}

/// Tells whether the device of the network takes work, or why not, without waiting for it.
#[derive(Clone)]
pub(crate) struct DeviceHealth(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl DeviceHealth {
    pub(crate) fn new(health: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(health))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        (self.0)()
    }
}

/// Tells how the message broker is.
#[derive(Clone)]
pub(crate) struct Broker(Arc<dyn Fn() -> String + Send + Sync>);

impl fmt::Display for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&(self.0)())
    }
}

impl Services {
    #[expect(clippy::too_many_arguments, reason = "one for each use case")]
    /// Joins the use cases. Endless replies end when `closing` is cancelled.
    pub fn new(
        workspace: Workspace,
        jobs: Jobs,
        uploads: Uploads,
        models: Arc<Models>,
        predictor: Predictor,
        labels: Labels,
        trainer: Trainer,
        closing: CancellationToken,
    ) -> Self {
        Self {
            workspace,
            jobs,
            uploads,
            models,
            predictor: Arc::new(predictor),
            predictions: Queue::default(),
            labels,
            trainer: Arc::new(trainer),
            large_bodies: LargeBodies::default(),
            closing,
            broker: Broker(Arc::new(|| "off".into())),
            device: DeviceHealth::new(|| Ok(())),
        }
    }

    /// Lets health checks show what `state` says of the message broker.
    #[must_use]
    pub fn with_broker(self, state: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { broker: Broker(Arc::new(state)), ..self }
    }

    /// Lets health checks and metrics ask `health` whether the device takes work. It must not wait.
    #[must_use]
    pub fn with_device_health(self, health: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { device: DeviceHealth::new(health), ..self }
    }
}
