//! The computer's memory: refusing what does not fit, and keeping activations in memory that was used before.
//!
//! A layer of the network needs hundreds of megabytes for a moment. By default glibc maps each such block anew and hands
//! it back at once, so that every page is zeroed again for every layer, which takes a quarter of a prediction. Here
//! blocks come from the heap and stay there until [`release`].

use std::ffi::c_int;

use crate::NnError;

/// glibc's own limits: the number of blocks, and the threshold that its adaptation ends at.
const DEFAULT_MMAP_MAX: c_int = 65_536;
const LARGEST_TRIM_THRESHOLD: c_int = 64 << 20;

/// Refuses a prediction or training step that needs more bytes at once than this computer has free: Linux would rather end the server than
/// fail an allocation.
///
/// # Errors
/// [`NnError::TooLarge`] with both numbers.
pub(crate) fn require(needed: u64) -> Result<(), NnError> {
    let is_enough = || free_bytes().is_none_or(|free| needed <= free);
    if is_enough() {
        return Ok(());
    }
    // What earlier predictions left for reuse counts as taken.
    trim();
    if is_enough() {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(NnError::TooLarge { needed_mib: mib(needed), free_mib: free_bytes().map_or(0, mib) })
}

/// Memory that can still be taken, within the limits of a container; `None` where the system does not say.
fn free_bytes() -> Option<u64> {
    let memory = sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    let system = sysinfo::System::new_with_specifics(memory).ok()?;
    let free = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory).min(system.available_memory());
    (free > 0).then_some(free)
}

/// Keeps large blocks for reuse until [`release`], in the whole process.
pub(crate) fn keep_large_blocks() {
    set_limits(0, c_int::MAX);
}

/// Hands unused memory back to the system, as is usual outside predictions.
pub(crate) fn release() {
    set_limits(DEFAULT_MMAP_MAX, LARGEST_TRIM_THRESHOLD);
    trim();
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code, reason = "glibc's heap has no safe interface")]
        // SAFETY: it only releases pages that no allocation uses.
        let released = unsafe { libc::malloc_trim(0) };
        tracing::debug!(released, "handed unused memory back");
    }
}

/// How many blocks glibc may map one by one, and from how many free bytes on it shortens the heap.
fn set_limits(mmap_max: c_int, trim_threshold: c_int) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code, reason = "glibc's settings have no safe interface")]
        // SAFETY: both calls only set numbers that malloc reads; glibc takes its own lock for it.
        let accepted = unsafe {
            [libc::mallopt(libc::M_MMAP_MAX, mmap_max), libc::mallopt(libc::M_TRIM_THRESHOLD, trim_threshold)]
        };
        if accepted.contains(&0) {
            tracing::warn!("glibc refused to keep large blocks; predictions on the CPU are slower");
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (mmap_max, trim_threshold);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_computer_has_is_refused() {
        require(1000).unwrap();
        let error = require(u64::MAX).unwrap_err();
        assert!(matches!(error, NnError::TooLarge { needed_mib, free_mib } if needed_mib > free_mib), "{error}");
    }
}
