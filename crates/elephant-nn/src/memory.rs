//! Keeping the CPU's activations in memory that was used before.
//!
//! A layer of the network needs hundreds of megabytes for a moment. By default glibc maps each such block anew and hands
//! it back at once, so that every page is zeroed again for every layer, which takes a quarter of a prediction. Here
//! blocks come from the heap and stay there until [`release`].

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
