//! The computer's memory: refusing predictions that do not fit, and keeping activations in memory that was used before.
//!
//! A layer of the network needs hundreds of megabytes for a moment. By default glibc maps each such block anew and hands
//! it back at once, so that every page is zeroed again for every layer, which takes a quarter of a prediction. Here
//! blocks come from the heap and stay there until [`release`].

use crate::NnError;

/// Refuses a prediction that needs more bytes at once than this computer has free: Linux would rather end the server than
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
    release();
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

/// Keeps large blocks for reuse from now on, in the whole process.
pub(crate) fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code, reason = "glibc's settings have no safe interface")]
        // SAFETY: both calls only set numbers that malloc reads; glibc takes its own lock for it.
        let accepted =
            unsafe { [libc::mallopt(libc::M_MMAP_MAX, 0), libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX)] };
        if accepted.contains(&0) {
            tracing::warn!("glibc refused to keep large blocks; predictions on the CPU are slower");
        }
    }
}

/// Hands unused memory back to the system.
pub(crate) fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code, reason = "glibc's heap has no safe interface")]
        // SAFETY: it only releases pages that no allocation uses.
        let released = unsafe { libc::malloc_trim(0) };
        tracing::debug!(released, "handed unused memory back");
    }
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
