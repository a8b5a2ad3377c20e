//! Finding the GPU.
//!
//! CUDA's kernels live in a library of their own that nothing links to, so that one binary runs with and without a GPU.
//! It must be in the process before the first tensor operation, which is when libtorch looks for kernels.

use tch::{Cuda, Device};

use crate::DeviceChoice;

const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// The device that `choice` means on this machine.
///
/// # Errors
/// Which device was asked for by number but is not there, and why.
pub(crate) fn choose(choice: DeviceChoice) -> Result<Device, (String, String)> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    let loaded = load();
    let gpus = match loaded {
        Ok(()) if Cuda::is_available() => Cuda::device_count(),
        _ => 0,
    };
    let index = match choice {
        DeviceChoice::Cuda(index) => index,
        DeviceChoice::Auto | DeviceChoice::Cpu | DeviceChoice::AllCuda => 0,
    };
    if (index as i64) < gpus {
        return Ok(Device::Cuda(index));
    }
    if choice == DeviceChoice::Auto {
        return Ok(Device::Cpu);
    }
    let reason = match loaded {
        Err(reason) => format!("{CUDA_LIBRARY} cannot be loaded ({reason}); run the set-up with CUDA=1"),
        Ok(()) => format!("there are {gpus} usable GPUs; see nvidia-smi"),
    };
    Err((format!("cuda:{index}"), reason))
}

/// The devices that share the crops of a training step; the first is the `chosen` one.
pub(crate) fn for_training(choice: DeviceChoice, chosen: Device) -> Vec<Device> {
    match choice {
        DeviceChoice::AllCuda => (0..Cuda::device_count() as usize).map(Device::Cuda).collect(),
        _ => vec![chosen],
    }
}

fn load() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[allow(unsafe_code, reason = "loading a library runs its initialisers; this one is part of libtorch itself")]
    // SAFETY: the library is found along libtorch's own search path, and its initialisers only register kernels.
    let library = unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) };
    // Its kernels stay registered until the process ends, so it must never be unloaded.
    library.map(std::mem::forget).map_err(|error| error.to_string())
}
