//! What jemalloc, with the options of the server's binary, costs the network; see `common/allocator.rs`. Other options
//! come from the environment.
//!
//! `MALLOC_CONF=dirty_decay_ms:10000,muzzy_decay_ms:0,background_thread:true,oversize_threshold:0 \
//! cargo bench -p elephant-nn --bench allocator_jemalloc`

#[path = "common/allocator.rs"]
mod allocator;
#[allow(dead_code)]
mod common;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> common::AnyResult<()> {
    allocator::measure("jemalloc")
}
