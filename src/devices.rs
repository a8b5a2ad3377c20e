//! The devices of this machine: NVIDIA GPUs, or else the processor.

use std::sync::OnceLock;

use elephant_api_core::{Device, Devices};
use nvml_wrapper::{Nvml, error::NvmlError};
use sysinfo::{MemoryRefreshKind, System};

/// The devices of this machine, with the health that `H` tells of the network's device.
pub struct MachineDevices<H>(pub H);

impl<H: Fn() -> Result<(), String> + Send + Sync + 'static> Devices for MachineDevices<H> {
    fn list(&self) -> Vec<Device> {
        static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
        let gpus = NVML.get_or_init(|| Nvml::init().ok()).as_ref().map(nvidia_gpus);
        match gpus {
            Some(Ok(gpus)) if !gpus.is_empty() => gpus,
            _ => vec![processor()],
        }
    }

    fn health(&self) -> Result<(), String> {
        (self.0)()
    }
}

fn nvidia_gpus(nvml: &Nvml) -> Result<Vec<Device>, NvmlError> {
    let gpu = |index| {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        Ok(Device {
            id: index.to_string(),
            name: device.name()?,
            total_mib: memory.total >> 20,
            used_mib: memory.used >> 20,
        })
    };
    (0..nvml.device_count()?).map(gpu).collect()
}

/// In the original's words, which its client shows.
fn processor() -> Device {
    let memory = System::new().map(|mut system| {
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        (system.total_memory() >> 20, system.used_memory() >> 20)
    });
    let (total_mib, used_mib) = memory.unwrap_or_default();
    Device { id: "GPU is not available".into(), name: "CPU is used".into(), total_mib, used_mib }
}
