//! Fixtures for tests and benchmarks: paths and readers of reference data, servers and services in child processes,
//! Python peers, and [`eventually`] to wait with a deadline. It is a development dependency only.

#![allow(clippy::disallowed_methods)]

mod broker;
mod golden;
mod npy;
mod patience;
mod peer;
mod redis;
mod server;
mod skip;

use std::path::{Path, PathBuf};

pub use broker::Broker;
pub use golden::{golden_number, golden_parameter};
pub use npy::read_npy;
pub use patience::{eventually, eventually_some};
pub use peer::{Peer, peer_python};
pub use redis::RedisServer;
pub use server::{Reply, TestServer, connect};
pub use skip::skip;

/// The project's root folder.
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/ is two levels below the root").to_owned()
}

/// A file of the project's own golden data, `tests/golden/PATH`.
pub fn golden(path: &str) -> PathBuf {
    project_root().join("tests/golden").join(path)
}

/// A file beside the checkout, `../shared/PATH` (reference data computed by the originals, real movies). `None`, and the
/// test is [skipped](skip()), if this machine does not have it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = project_root().join("../shared").join(path);
    if file.symlink_metadata().is_ok() {
        return Some(file);
    }
    skip(&format!("../shared/{path} is missing"));
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
