//! Requests from foreign web pages, and requests with foreign names for the server's address: all are refused. The
//! tests send byte by byte what a browser would send.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::Path,
};

use common::{BINARY, demo_dataset};
use elephant_testkit::TestServer;
use serde_json::json;

const FOREIGN: &str = "Origin: https://evil.example\r\n";

/// The complete reply to a request with these headers, each with its line end.
fn ask(server: &TestServer, request_line: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = elephant_testkit::connect(server.address());
    let length = body.len();
    write!(stream, "{request_line} HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.write_all(body).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

fn status(reply: &str) -> &str {
    reply.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {reply:?}"))
}

/// A form with a file, which a page can send without a preflight request: its content type and its body.
fn form(fields: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, content) in fields {
        write!(body, "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").unwrap();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    ("Content-Type: multipart/form-data; boundary=b\r\n".into(), body)
}

/// Every file in a workspace except the state, with its content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.contains("elephant.db") {
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn forms_of_foreign_pages_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--cors-origin", "https://lab.example.org"]);
    demo_dataset(&server, "fly");
    server.post_json("/seg/reset", &json!({"model_name": "other.pth", "url": null, "seed": 7}));
    let other = server.post_json("/download/model", &json!({"model_name": "other.pth"})).body;
    let before = files(folder.path());
    let data = br#"{"model_name": "detection.pth", "is_3d": true, "url": null}"#;
    let (kind, reset) = form(&[("data", data), ("file", &other)]);
    let (_, upload) =
        form(&[("action", b"init"), ("dataset_name", b"fly"), ("file", b"stolen"), ("filename", b"movie.h5")]);
    let own = format!("Host: {}\r\n", server.address());
    let rebound = "Host: evil.example\r\nOrigin: http://evil.example\r\n".to_owned();
    for (case, headers) in [
        ("another origin", own.clone() + FOREIGN),
        ("no origin to be named", own.clone() + "Origin: null\r\n"),
        ("another port", own.clone() + "Origin: http://127.0.0.1:1\r\n"),
        ("another name of the server", rebound),
        ("another name, as in a navigation", "Host: evil.example:8080\r\n".into()),
    ] {
        let headers = headers + &kind;
        for (path, body) in
            [("/seg/reset", &reset), ("/reset/seg", &reset), ("/upload/image", &upload), ("/upload", &upload)]
        {
            let reply = ask(&server, &format!("POST {path}"), &headers, body);
            assert_eq!(status(&reply), "403", "{case}: {path}: {reply}");
        }
        let simple = headers.replace(&kind, "Content-Type: text/plain\r\n");
        for path in ["/state/process", "/params", "/dataset/generate", "/seg/train"] {
            assert_eq!(status(&ask(&server, &format!("POST {path}"), &simple, b"{\"state\": 1}")), "403", "{case}");
        }
    }
    assert_eq!(files(folder.path()), before, "no file has changed");
    assert_eq!(server.get("/state/process").json()["state"], 0);
    // The same form from allowed pages, and from programs.
    for page in [format!("Origin: {}\r\n", server.url()), "Origin: https://lab.example.org\r\n".into(), String::new()] {
        let reply = ask(&server, "POST /seg/reset", &(own.clone() + &page + &kind), &reset);
        assert_eq!(status(&reply), "200", "{page}: {reply}");
    }
    assert_eq!(server.post_json("/download/model", &json!({"model_name": "detection.pth"})).body, other);
}

#[test]
fn foreign_pages_are_refused_on_every_route_and_method() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let own = format!("Host: {}\r\n", server.address());
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        for path in ["/", "/docs/", "/swagger.json", "/state/gpus", "/seg/reset", "/api/v1/jobs/1", "/health/livez"]
            .into_iter()
            .chain(["/health/readyz", "/metrics", "/events", "/ws/events", "/nowhere", "*"])
        {
            let request_line = format!("{method} {path}");
            for headers in [own.clone() + FOREIGN, "Host: evil.example\r\n".into()] {
                let reply = ask(&server, &request_line, &headers, b"");
                assert!(status(&reply) == "403" || path == "*", "{request_line}: {reply}");
                assert!(!reply.to_ascii_lowercase().contains("access-control"), "{request_line}: {reply}");
            }
        }
    }
    // The reason is in the place that the client shows.
    let reply = ask(&server, "GET /state/gpus", "Host: labserver:8080\r\n", b"");
    assert!(reply.starts_with("HTTP/1.1 403 start the server with --allowed-host labserver\r\n"), "{reply}");
    let reply = ask(&server, "GET /state/gpus", &(own + FOREIGN), b"");
    assert!(reply.starts_with("HTTP/1.1 403 start the server with --cors-origin https://evil.example"), "{reply}");
}

#[test]
fn clients_reach_the_server_by_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--allowed-host", "lab.example.org,", "--allowed-host", "10.0.0.1"];
    let server = TestServer::start(BINARY, folder.path(), &options);
    let port = server.address().rsplit(':').next().unwrap();
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "lab.example.org", "10.0.0.1"] {
        // A tunnel or a published port may have another port number.
        for port in [port, "1", "443"] {
            let reply = ask(&server, "GET /state/gpus", &format!("Host: {host}:{port}\r\n"), b"");
            assert_eq!(status(&reply), "200", "{host}: {reply}");
        }
        let page = format!("Host: {host}\r\nOrigin: https://{}\r\n", host.to_lowercase());
        assert_eq!(status(&ask(&server, "POST /params", &page, b"")), "400", "its own page, behind a proxy with TLS");
    }
    let mut stream = elephant_testkit::connect(server.address());
    write!(stream, "GET /state/gpus HTTP/1.0\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(status(&reply), "200", "no name at all: {reply}");
    for (headers, expected) in [("Host: a b\r\n", "400"), ("Host: localhost\r\nHost: localhost\r\n", "400")] {
        assert_eq!(status(&ask(&server, "GET /state/gpus", headers, b"")), expected);
    }
    let absolute = |host: &str| format!("GET http://{host}/state/gpus");
    assert_eq!(status(&ask(&server, &absolute("localhost:1"), "Host: localhost:1\r\n", b"")), "200");
    assert_eq!(status(&ask(&server, &absolute("evil.example"), "Host: localhost\r\n", b"")), "403");
    assert_eq!(status(&ask(&server, &absolute("localhost"), "Host: evil.example\r\n", b"")), "403");
}

#[test]
fn allowed_pages_pass_the_preflight_request() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(
        BINARY,
        folder.path(),
        &["--token", "s3cret", "--cors-origin", "https://lab.example.org/", "--cors-origin", "http://localhost:3000"],
    );
    // With a token, host names are not checked: a page with a redirected name does not know the token.
    for host in [server.address(), "anything.example"] {
        for page in ["https://lab.example.org", "http://localhost:3000"] {
            let headers = format!("Host: {host}\r\nOrigin: {page}\r\n");
            let preflight =
                "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: authorization\r\n";
            let allowed = format!("access-control-allow-origin: {page}\r\n");
            let reply = ask(&server, "OPTIONS /api/v1/jobs/1", &(headers.clone() + preflight), b"");
            assert!(status(&reply) == "200" && reply.contains(&allowed), "{reply}");
            let reply = ask(&server, "GET /state/gpus", &headers, b"");
            assert!(status(&reply) == "401" && reply.contains(&allowed), "the page can read why: {reply}");
            let reply = ask(&server, "GET /state/gpus", &(headers + "Authorization: Bearer s3cret\r\n"), b"");
            assert!(status(&reply) == "200" && reply.contains(&allowed), "{reply}");
        }
        let foreign = format!("Host: {host}\r\n{FOREIGN}Authorization: Bearer s3cret\r\n");
        assert_eq!(status(&ask(&server, "GET /state/gpus", &foreign, b"")), "403");
    }
}
