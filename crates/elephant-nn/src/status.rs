//! State of the device's thread, which can be read without waiting for the thread.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use crate::{DeviceInfo, NnError};

/// Failures of libtorch on a GPU in a row that make the device unready: after a fault, CUDA fails until the process ends.
const FAILURES: u32 = 3;

/// Why there is no device.
#[derive(Clone, Debug)]
pub(crate) enum NoDevice {
    /// The one that was asked for is not there.
    Missing { device: String, reason: String },
    /// The thread ended before it had found one.
    ThreadEnded,
}

impl From<NoDevice> for NnError {
    fn from(absent: NoDevice) -> Self {
        match absent {
            NoDevice::Missing { device, reason } => Self::NoDevice { device, reason },
            NoDevice::ThreadEnded => Self::Stopped,
        }
    }
}

/// State of the device's thread.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Set once.
    found: OnceLock<Result<DeviceInfo, NoDevice>>,
    has_ended: AtomicBool,
    /// Failures of a GPU since something last succeeded on it.
    failures: AtomicU32,
}

/// Marks the thread as ended when dropped, so that nobody waits for it.
pub(crate) struct EndWithThis<'a>(&'a Status);

impl Drop for EndWithThis<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        // Does nothing where the thread had found out.
        let _ = self.0.found.set(Err(NoDevice::ThreadEnded));
    }
}

impl Status {
    /// Marks the end of the thread, however it comes about.
    pub(crate) fn end_with_this(&self) -> EndWithThis<'_> {
        EndWithThis(self)
    }

    /// Tells what the thread found; the first call counts.
    pub(crate) fn set(&self, found: Result<DeviceInfo, NoDevice>) {
        let _ = self.found.set(found);
    }

    /// What the thread found, once it has.
    pub(crate) fn wait(&self) -> Result<DeviceInfo, NnError> {
        Ok(self.found.wait().clone()?)
    }

    /// Why the thread has ended.
    pub(crate) fn ended(&self) -> NnError {
        self.found.get().and_then(|found| found.clone().err()).unwrap_or(NoDevice::ThreadEnded).into()
    }

    /// Notes how a command ended: with an error, or well.
    pub(crate) fn note(&self, error: Option<&NnError>) {
        match error {
            None => self.failures.store(0, Ordering::Relaxed),
            Some(NnError::Torch { .. } | NnError::Panicked) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            // Requests that do not fit and the like say nothing of the device.
            Some(_) => {}
        }
    }

    /// Whether commands can be expected to succeed.
    pub(crate) fn health(&self) -> Result<(), NnError> {
        if self.has_ended.load(Ordering::Acquire) {
            return Err(self.ended());
        }
        let info = self.found.get().ok_or(NnError::Starting)?.clone()?;
        let failures = self.failures.load(Ordering::Relaxed);
        if info.gpu.is_some() && failures >= FAILURES {
            return Err(NnError::Failing { device: info.name, failures });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    fn device(gpu: Option<usize>) -> DeviceInfo {
        let name = if gpu.is_some() { "cuda:0" } else { "cpu" };
        DeviceInfo { name: name.into(), gpu, threads: 1, precision: Precision::F32, training_devices: 1 }
    }

    #[test]
    fn a_gpu_that_fails_again_and_again_is_unready_until_it_succeeds() {
        let failure = NnError::Torch { message: "CUDA error: an illegal memory access was encountered".into() };
        let other = NnError::InvalidRequest { reason: "the image is empty".into() };
        for gpu in [Some(0), None] {
            let status = Status::default();
            assert!(matches!(status.health(), Err(NnError::Starting)));
            status.set(Ok(device(gpu)));
            status.health().unwrap();
            status.note(Some(&failure));
            status.note(Some(&failure));
            status.note(Some(&other));
            status.health().unwrap();
            status.note(Some(&failure));
            assert_eq!(matches!(status.health(), Err(NnError::Failing { failures: 3, .. })), gpu.is_some());
            status.note(None);
            status.health().unwrap();
        }
    }

    #[test]
    fn a_thread_that_has_ended_is_unready() {
        let status = Status::default();
        status.set(Ok(device(None)));
        drop(status.end_with_this());
        assert!(matches!(status.health(), Err(NnError::Stopped)));
        assert_eq!(status.wait().unwrap(), device(None));
        let missing = Status::default();
        missing.set(Err(NoDevice::Missing { device: "cuda:0".into(), reason: "there are 0".into() }));
        drop(missing.end_with_this());
        assert!(matches!(missing.health(), Err(NnError::NoDevice { .. })));
    }
}
