//! `elephant-server`: one program instead of a web server, a task queue, a broker and a Python environment.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod config;
mod demo;
mod devices;
mod download;
mod job;
mod pretrain;
mod serve;
mod state;
mod telemetry;
mod terminal;
mod wiring;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use config::{Cli, Command};

/// The allocator of the whole process: libtorch, HDF5 and Blosc call its `malloc` too. glibc's would map every large block
/// anew, so that each layer of the network waits for fresh pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options. Freed pages stay for ten seconds, so that the next layer finds them, and are then handed back by a
/// thread of jemalloc's own. Without the last option, blocks of 8 MiB and more would be handed back at once.
#[allow(unsafe_code, reason = "jemalloc reads its options from a symbol of this name")]
// SAFETY: nothing else in the process defines the symbol, and it points to text that ends with a zero byte, as jemalloc wants.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 82] =
    b"dirty_decay_ms:10000,muzzy_decay_ms:0,background_thread:true,oversize_threshold:0\0";

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Job(args) => job::run(&args),
        Command::Demo(args) => demo::write(&args),
        Command::Pretrain(args) => pretrain::pretrain(&args),
        Command::Score(args) => pretrain::score(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("elephant-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
