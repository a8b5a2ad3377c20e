//! What glibc's allocator costs the network; see `common/allocator.rs`.
//!
//! `cargo bench -p elephant-nn --bench allocator_glibc`

#[path = "common/allocator.rs"]
mod allocator;
#[allow(dead_code)]
mod common;

fn main() -> common::AnyResult<()> {
    allocator::measure("glibc")
}
