//! A server in a child process, and requests as the Java client sends them.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use ureq::Agent;

use crate::eventually;

/// A running server; killed when dropped.
pub struct TestServer {
    child: Child,
    _output: BufReader<ChildStdout>,
    url: String,
    workspace: PathBuf,
    agent: Agent,
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `error` of a JSON body.
    ///
    /// # Panics
    /// When there is none.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {}", self.text())).to_owned()
    }
}

impl TestServer {
    /// Starts `binary serve` on a free port of the loopback interface, and waits until it listens.
    ///
    /// # Panics
    /// When the server does not start; its log is on standard error.
    pub fn start(binary: &str, workspace: &Path, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary), workspace, arguments)
    }

    /// As [`start`](Self::start), with a command that ends in the binary's name: `unshare … elephant-server`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_by(mut command: Command, workspace: &Path, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--bind", "127.0.0.1:0", "--workspace"])
            .arg(workspace)
            .args(arguments)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut output = BufReader::new(child.stdout.take().expect("the output is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the output is text");
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("the server did not start: {line:?}")).to_owned();
        // The server may close a connection after a refusal, so connections are not reused.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(5)))
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .build();
        Self { child, _output: output, url, workspace: workspace.to_owned(), agent: config.into() }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// Never.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("the URL begins so")
    }

    /// The workspace folder.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET path`.
    ///
    /// # Panics
    /// When no reply comes.
    pub fn get(&self, path: &str) -> Reply {
        let response = self.agent.get(format!("{}{path}", self.url)).call();
        reply(response.unwrap_or_else(|error| panic!("GET {path}: {error}")))
    }

    /// Waits until `/state/process` says 0 (idle), 1 (training) or 2 (predicting or updating labels).
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_for_state(&self, state: u8) {
        eventually(&format!("the state is {state}"), || self.get("/state/process").json()["state"] == state);
    }

    /// `DELETE path`.
    ///
    /// # Panics
    /// When no reply comes.
    pub fn delete(&self, path: &str) -> Reply {
        let response = self.agent.delete(format!("{}{path}", self.url)).call();
        reply(response.unwrap_or_else(|error| panic!("DELETE {path}: {error}")))
    }

    /// `POST path` with any body.
    ///
    /// # Panics
    /// When no reply comes.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Reply {
        let request = self.agent.post(format!("{}{path}", self.url)).header("content-type", content_type);
        reply(request.send(body).unwrap_or_else(|error| panic!("POST {path}: {error}")))
    }

    /// `POST path` with a JSON body.
    ///
    /// # Panics
    /// When no reply comes.
    pub fn post_json(&self, path: &str, body: &Value) -> Reply {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// `POST path` with parts in the given order; a part's name may be followed by `:` and a file name.
    ///
    /// # Panics
    /// When no reply comes.
    pub fn post_parts(&self, path: &str, parts: &[(&str, &[u8])]) -> Reply {
        const BOUNDARY: &str = "bXJvZmlsZQ-elephant-3f1c";
        let mut body = Vec::new();
        for (name, content) in parts {
            let disposition = match name.split_once(':') {
                Some((name, file)) => {
                    format!("name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: application/octet-stream")
                }
                None => format!("name=\"{name}\""),
            };
            body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").bytes());
            body.extend_from_slice(content);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{BOUNDARY}--\r\n").bytes());
        self.post(path, &format!("multipart/form-data; boundary={BOUNDARY}; charset=UTF-8"), &body)
    }

    /// Sends a file as the Java client does: `init` and `append` with pieces of `chunk` bytes, the last one padded with
    /// stale bytes of the one before, then `complete` (docs/protocol.md, "POST /upload/image").
    ///
    /// # Panics
    /// When a request is refused.
    pub fn upload(&self, dataset: &str, name: &str, content: &[u8], chunk: usize) {
        let mut buffer = vec![0; chunk];
        for (index, piece) in content.chunks(chunk).enumerate() {
            buffer[..piece.len()].copy_from_slice(piece);
            let action: &[u8] = if index == 0 { b"init" } else { b"append" };
            let parts: [(&str, &[u8]); 4] = [
                ("action", action),
                ("dataset_name", dataset.as_bytes()),
                ("file:elephant123.h5", &buffer),
                ("filename", name.as_bytes()),
            ];
            let reply = self.post_parts("/upload/image", &parts);
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let form = format!("action=complete&dataset_name={dataset}&filename={name}");
        let reply = self.post("/upload/image", "application/x-www-form-urlencoded; charset=UTF-8", form.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.body.is_empty());
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server is our child");
        self.child.wait().expect("the server is our child");
    }

    /// Sends SIGTERM, waits for the end, and returns whether the process succeeded.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn terminate(mut self) -> bool {
        let signal = Command::new("kill").arg(self.pid().to_string()).status().expect("kill is everywhere");
        assert!(signal.success());
        self.child.wait().expect("the server is our child").success()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Fails after `kill` and `terminate`, when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to `address`. Reads and writes fail after two minutes, so that a server that hangs fails a test.
///
/// # Panics
/// When nothing listens there.
pub fn connect(address: &str) -> TcpStream {
    const PATIENCE: Duration = Duration::from_mins(2);
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

fn reply(response: ureq::http::Response<ureq::Body>) -> Reply {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    response.into_body().into_reader().read_to_end(&mut body).expect("the body arrives whole");
    Reply { status, body }
}
