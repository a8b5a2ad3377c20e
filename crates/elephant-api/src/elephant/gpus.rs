//! `/state/gpus`: the devices, polled by every client each second (contract section 1.2).
//!
//! It always answers with a valid list: the original's client stops polling for good when it does not.

use std::sync::OnceLock;

use axum::Json as Reply;
use nvml_wrapper::{Nvml, error::NvmlError};
use serde::Serialize;
use sysinfo::{MemoryRefreshKind, System};
use utoipa::ToSchema;

use crate::problem::Problem;

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

/// The devices and their memory
#[utoipa::path(get, path = "/state/gpus", tag = "state", responses((status = 200, body = Vec<Gpu>)))]
pub(crate) async fn list() -> Result<Reply<Vec<Gpu>>, Problem> {
    crate::job::blocking(|| Ok(Reply(rows()))).await
}

fn rows() -> Vec<Gpu> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    let gpus = NVML.get_or_init(|| Nvml::init().ok()).as_ref().map(nvidia_rows);
    match gpus {
        Some(Ok(rows)) if !rows.is_empty() => rows,
        _ => vec![cpu_row()],
    }
}

fn nvidia_rows(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let row = |index| {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        Ok(Gpu {
            id: index.to_string(),
            name: device.name()?,
            mem_total: memory.total >> 20,
            mem_used: memory.used >> 20,
        })
    };
    (0..nvml.device_count()?).map(row).collect()
}

fn cpu_row() -> Gpu {
    let memory = System::new().map(|mut system| {
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        (system.total_memory() >> 20, system.used_memory() >> 20)
    });
    let (mem_total, mem_used) = memory.unwrap_or_default();
    Gpu { id: "GPU is not available".into(), name: "CPU is used".into(), mem_total, mem_used }
}
