//! A Redis server for one test, which can be killed, paused and restarted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::eventually;

/// Environment variable that `make test` sets. Without it, tests over Redis are skipped if `redis-server` is not
/// installed.
const ADDRESS: &str = "ELEPHANT_TEST_REDIS_URL";

/// A running `redis-server` that listens on a Unix socket only; killed when dropped.
pub struct RedisServer {
    folder: TempDir,
    child: Child,
}

impl RedisServer {
    /// Starts an empty server; `None`, and the test is [skipped](crate::skip()), if Redis is not installed.
    ///
    /// # Panics
    /// When Redis is not installed although `make test` has set the address.
    pub fn start() -> Option<Self> {
        let is_installed = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_installed {
            assert!(std::env::var_os(ADDRESS).is_none(), "{ADDRESS} is set, but redis-server is not installed");
            crate::skip("redis-server is not installed; `make test` installs it");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let child = spawn(&folder);
        let server = Self { folder, child };
        server.wait_until_it_answers();
        Some(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// `kill -9`: data that was not [saved](Self::save) is lost.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again after [`kill`](Self::kill), with the data that was saved last.
    pub fn restart(&mut self) {
        self.child = spawn(&self.folder);
        self.wait_until_it_answers();
    }

    /// Saves all data to a file, which a restart reads.
    pub fn save(&self) {
        assert_eq!(self.command(&["SAVE"]), "OK");
    }

    /// Lets it hang: connections are accepted, but there is no reply.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is everywhere").success());
    }

    /// Runs a command and returns its reply: a status, a number or a text; empty for nil.
    ///
    /// # Panics
    /// When the reply is anything else.
    pub fn command(&self, words: &[&str]) -> String {
        self.ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn ask(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        write!(stream, "*{}\r\n", words.len())?;
        for word in words {
            write!(stream, "${}\r\n{word}\r\n", word.len())?;
        }
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", value)) => Ok(value.to_owned()),
            Some(("$", "-1")) => Ok(String::new()),
            Some(("$", length)) => {
                let mut text = vec![0; length.parse().map_err(std::io::Error::other)?];
                reader.read_exact(&mut text)?;
                String::from_utf8(text).map_err(std::io::Error::other)
            }
            _ => Err(std::io::Error::other(line.to_owned())),
        }
    }

    fn wait_until_it_answers(&self) {
        eventually("Redis answers", || self.ask(&["PING"]).is_ok());
    }
}

fn spawn(folder: &TempDir) -> Child {
    let socket = folder.path().join("redis.sock");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(socket);
    command.arg("--dir").arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Fails after `kill`, when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
