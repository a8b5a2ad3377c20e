//! Memory of parallel workers that each have buffers of their own.

/// Smallest number of items that each parallel worker must take, so that the buffers of all workers together stay within
/// `limit_bytes`; a single worker may exceed it. `worker_bytes` is what one worker's buffers take, `threads` the number of
/// workers there may be. The result is at least 1, and fits `with_min_len` of rayon.
pub fn items_per_worker(items: usize, worker_bytes: usize, limit_bytes: usize, threads: usize) -> usize {
    let workers = (limit_bytes / worker_bytes.max(1)).max(1);
    if workers < threads { items.div_ceil(workers).max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_workers_share_the_items_when_buffers_are_large() {
        let per_worker = |items, worker_bytes| items_per_worker(items, worker_bytes, 128 << 20, 16);
        assert_eq!(per_worker(100, 64 << 10), 1, "all threads work");
        assert_eq!(per_worker(100, 32 << 20), 25, "four of them");
        assert_eq!(per_worker(100, 768 << 20), 100, "one of them");
        assert_eq!(per_worker(0, 768 << 20), 1);
        assert_eq!(per_worker(100, 0), 1);
    }
}
