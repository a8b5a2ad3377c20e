//! Tests that cannot run on this machine.

use std::{env, fs::OpenOptions, io::Write, path::Path, thread};

/// Environment variable with the file that lists skipped tests; `make test` sets it.
const LIST: &str = "ELEPHANT_SKIPPED_TESTS";

/// Records that the test of this thread, or a part of it, is skipped, and why. The test then passes without having
/// tested anything, so `make test` counts and names skipped tests at the end.
///
/// # Panics
/// When the list of skipped tests cannot be written.
pub fn skip(reason: &str) {
    // The test runner captures this line unless the test fails.
    eprintln!("skipped: {reason}");
    let Some(list) = env::var_os(LIST) else { return };
    // One call of `write` per line: several test binaries may append at the same time.
    let line = format!("{}\t{reason}\n", test_name());
    let mut list =
        OpenOptions::new().append(true).create(true).open(list).expect("the list of skipped tests is writable");
    list.write_all(line.as_bytes()).expect("the list of skipped tests is writable");
}

/// `BINARY::TEST`. The test runner names a test's thread after the test.
fn test_name() -> String {
    let program = env::args().next().unwrap_or_default();
    let binary = Path::new(&program).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Cargo appends a hash to the binary's name.
    let binary = binary.rsplit_once('-').map_or(binary.as_str(), |(name, _)| name);
    format!("{binary}::{}", thread::current().name().unwrap_or("?"))
}
