//! Fixtures for tests: where the oracle's files are, how to read their arrays, and servers in child processes. For tests and
//! benchmarks only.

#![allow(clippy::disallowed_methods)]

mod broker;
mod golden;
mod npy;
mod patience;
mod redis;
mod server;

use std::path::{Path, PathBuf};

pub use broker::Broker;
pub use golden::{golden_number, golden_parameter};
pub use npy::read_npy;
pub use patience::{eventually, eventually_some};
pub use redis::RedisServer;
pub use server::{Reply, TestServer};

/// The project's root folder.
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/ is two below the root").to_owned()
}

/// A file of the project's own golden data, `tests/golden/PATH`.
pub fn golden(path: &str) -> PathBuf {
    project_root().join("tests/golden").join(path)
}

/// A file beside the checkout, `../shared/PATH` (the originals' numbers and real movies), or `None`, said on standard
/// error, where this machine does not have it: such tests then pass without having tested anything.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = project_root().join("../shared").join(path);
    if file.symlink_metadata().is_ok() {
        return Some(file);
    }
    eprintln!("skipped: ../shared/{path} is not on this machine");
    None
}

/// Reads a JSON file.
///
/// # Panics
/// When the file cannot be read or is not JSON.
pub fn read_json(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
