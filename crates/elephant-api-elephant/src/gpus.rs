//! `/state/gpus`: the devices, polled by every client each second (docs/protocol.md, "GET /state/gpus").
//!
//! It always answers with a valid list: the original's client stops polling for good when it does not.

use axum::{Json as Reply, extract::State};
use elephant_api_core::{ApiError, Device, blocking};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ElephantApi;

/// A device.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Gpu {
    id: String,
    name: String,
    /// MiB.
    mem_total: u64,
    /// MiB.
    mem_used: u64,
}

impl From<Device> for Gpu {
    fn from(device: Device) -> Self {
        let Device { id, name, total_mib, used_mib } = device;
        Self { id, name, mem_total: total_mib, mem_used: used_mib }
    }
}

/// The devices and their memory
#[utoipa::path(get, path = "/state/gpus", tag = "state", responses((status = 200, body = Vec<Gpu>)))]
pub(crate) async fn list(State(api): State<ElephantApi>) -> Result<Reply<Vec<Gpu>>, ApiError> {
    blocking(move || Ok(Reply(api.devices.list().into_iter().map(Gpu::from).collect()))).await
}
