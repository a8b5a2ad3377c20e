//! Refused requests and a stopping server: what clients and the log show.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use common::BINARY;
use elephant_testkit::{TestServer, eventually, eventually_some};
use serde_json::json;

/// Sends the whole body before it reads the reply, as the Java client does.
fn send_all(address: &str, request_line: &str, headers: &str, beginning: &[u8], length: usize) -> String {
    let mut stream = elephant_testkit::connect(address);
    let head = format!("{request_line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(beginning).unwrap();
    let piece = vec![b' '; 1 << 16];
    let mut left = length - beginning.len();
    while left > 0 {
        let size = left.min(piece.len());
        stream.write_all(&piece[..size]).unwrap_or_else(|error| panic!("{request_line}: {error}, {left} bytes to go"));
        left -= size;
    }
    // Reads the head and as many bytes of the body as it announces.
    let mut reply = BufReader::new(stream);
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        assert!(reply.read_line(&mut text).unwrap() > 0, "{request_line}: the reply breaks off: {text}");
    }
    let announced = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; announced];
    reply.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

#[test]
fn a_refusal_arrives_while_the_client_is_still_sending() {
    const LENGTH: usize = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let form = "Content-Type: multipart/form-data; boundary=b\r\n";
    for (request_line, headers, expected) in [
        ("POST /flow/unknown", form, "404 there is no POST /flow/unknown on this server"),
        ("PUT /seg/reset", form, "405 /seg/reset does not answer to PUT"),
        ("POST /seg/reset", "Content-Type: application/json\r\n", "413 "),
        ("POST /seg/reset", "Content-Type: multipart/form-data\r\n", "400 "),
        ("POST /params", "Content-Type: text/plain\r\n", "400 Content-Type should be application/json"),
        ("POST /seg/reset", "Origin: https://evil.example\r\nContent-Type: text/plain\r\n", "403 "),
    ] {
        for _ in 0..3 {
            let reply = send_all(server.address(), request_line, headers, b"", LENGTH);
            assert!(reply.starts_with(&format!("HTTP/1.1 {expected}")), "{request_line}: {reply}");
            let body = reply.split_once("\r\n\r\n").unwrap().1;
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].is_string(), "{request_line}: {body}");
        }
    }
    // A body that is found to be too long while it is read.
    let file = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let reply = send_all(server.address(), "POST /seg/reset", form, file, 300 << 20);
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    let locked = TestServer::start(BINARY, folder.path().join("other").as_path(), &["--token", "s3cret"]);
    for _ in 0..3 {
        let reply = send_all(locked.address(), "POST /seg/reset", form, file, LENGTH);
        assert!(reply.starts_with("HTTP/1.1 401 this server requires a token"), "{reply}");
    }
}

#[test]
fn a_client_that_expects_100_continue_is_refused_before_sending() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let ask = |path: &str| {
        let mut stream = elephant_testkit::connect(server.address());
        let head = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2";
        write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut reply = BufReader::new(stream);
        let mut line = String::new();
        reply.read_line(&mut line).unwrap();
        line
    };
    assert!(ask("/flow/unknown").starts_with("HTTP/1.1 404 "));
    assert_eq!(ask("/params"), "HTTP/1.1 100 Continue\r\n");
}

/// A server whose log and exit status are checked.
struct Observed {
    child: Child,
    address: String,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Observed {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.txt");
        let mut child = Command::new(BINARY)
            .args(["serve", "--bind", "127.0.0.1:0", "--workspace"])
            .arg(folder.path().join("workspace"))
            .args(arguments)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
        Self { child, address, log, _folder: folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        eventually_some("the server ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // Fails if a test has waited for its end already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_error_is_logged_once() {
    let server = Observed::start(&["--versatile-3d", "/nonexistent/versatile3d.pth"]);
    let body = json!({"model_name": "detection.pth", "url": "Versatile"}).to_string();
    let kind = "Content-Type: application/json\r\nConnection: close\r\n";
    let reply = send_all(&server.address, "POST /seg/reset", kind, body.as_bytes(), body.len());
    let status = reply[9..12].to_owned();
    let refused = send_all(&server.address, "POST /nowhere", kind, b"", 0);
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    let log = server.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("/nonexistent/versatile3d.pth"), 1, "{status}: {log}");
    assert_eq!(lines("there is no POST /nowhere"), 1, "{log}");
    assert_eq!(lines("ERROR"), usize::from(status.starts_with('5')), "{log}");
    // The original's log lines, which the client shows.
    for line in ["START POST /seg/reset".to_owned(), format!("DONE POST /seg/reset => [{status}")] {
        assert_eq!(lines(&line), 1, "{line}: {log}");
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Observed::start(&[]);
    // At the first signal the server waits for this request, whose body does not arrive.
    let mut stream = elephant_testkit::connect(&server.address);
    let head = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 10";
    write!(stream, "POST /params HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n", "the request is being read");
    server.signal();
    eventually("the log reports the first signal", || server.log().contains("a second signal ends the server at once"));
    server.signal();
    assert_eq!(server.wait().code(), Some(128 + 15));
}
