//! `elephant-server`: the server and its command line.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod config;
mod demo;
mod devices;
mod download;
mod evaluate;
mod export;
mod fit;
mod import;
mod job;
mod pretrain;
mod serve;
mod signals;
mod state;
mod telemetry;
mod terminal;
mod track;
mod wiring;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use config::{Cli, Command};

/// The allocator of the whole process: libtorch, HDF5 and Blosc call its `malloc` too. glibc's allocator would map
/// every large block anew, so that each layer of the network would wait for new pages (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options. Freed pages are kept for ten seconds for the next layers, and are then returned to the system by
/// a thread of jemalloc. Without the last option, blocks of 8 MiB and more would be returned at once.
#[allow(unsafe_code, reason = "jemalloc reads its options from a symbol of this name")]
// SAFETY: nothing else in the process defines the symbol, and it points to a text that ends with a zero byte, as
// jemalloc requires.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 82] =
    b"dirty_decay_ms:10000,muzzy_decay_ms:0,background_thread:true,oversize_threshold:0\0";

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Job(args) => job::run(&args),
        Command::Track(args) => track::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Export(args) => export::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Import(args) => import::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::write(&args).map(|()| ExitCode::SUCCESS),
        Command::Pretrain(args) => pretrain::pretrain(&args).map(|()| ExitCode::SUCCESS),
        Command::Score(args) => pretrain::score(&args).map(|()| ExitCode::SUCCESS),
        Command::Evaluate(args) => evaluate::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("elephant-server: {error:#}");
        ExitCode::FAILURE
    })
}
