//! Python programs that tests and benchmarks compare with.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{project_root, skip};

/// Environment variable with the Python of the peers; `make bench` sets it after `make peers`.
const PYTHON: &str = "ELEPHANT_PEER_PYTHON";

/// The Python of the peers. `None`, and the test is [skipped](skip()), if none is set.
pub fn peer_python() -> Option<OsString> {
    let python = env::var_os(PYTHON);
    if python.is_none() {
        skip("ELEPHANT_PEER_PYTHON is not set; `make peers` installs a Python for it");
    }
    python
}

/// A running script that answers each line on its standard input with one line.
pub struct Peer {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `benches/peers/SCRIPT` with `arguments`; `None` without a Python ([`peer_python`]).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(script: &str, arguments: &[impl AsRef<OsStr>]) -> io::Result<Option<Self>> {
        let Some(python) = peer_python() else { return Ok(None) };
        let script = project_root().join("benches/peers").join(script);
        let mut command = Command::new(python);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let answers = process.stdout.take().ok_or_else(|| io::Error::other("the peer has no standard output"))?;
        Ok(Some(Self { process, answers: BufReader::new(answers) }))
    }

    /// Sends a line and returns the answer, without its line feed.
    ///
    /// # Errors
    /// When the peer has ended.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        let ended = || io::Error::other("the peer has ended; its messages are on standard error");
        let input = self.process.stdin.as_mut().ok_or_else(ended)?;
        writeln!(input, "{line}")?;
        input.flush()?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer)? {
            0 => Err(ended()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The peer ends when its standard input ends.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
