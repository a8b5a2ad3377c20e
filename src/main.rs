//! `elephant-server`: one program instead of a web server, a task queue, a broker and a Python environment.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod config;
mod demo;
mod download;
mod pretrain;
mod serve;
mod state;
mod telemetry;
mod terminal;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use config::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
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
