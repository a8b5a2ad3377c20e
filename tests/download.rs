//! Downloads a model over https as from a company's own server: with its own certificate authority, and with redirects.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Command,
    sync::Arc,
    thread,
};

use common::BINARY;
use elephant_testkit::{Reply, TestServer, golden};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;

/// A valid model.
fn model() -> Vec<u8> {
    include_bytes!("../models/nuclei-2d.pth").to_vec()
}

/// Serves `/a/model.pth` on `https://localhost`, and redirects to it; returns the port.
fn https_server() -> u16 {
    let certificate = CertificateDer::from_pem_file(golden("tls/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(golden("tls/localhost.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            // A client may refuse the certificate and disconnect.
            let _ = answer(BufReader::new(StreamOwned::new(tls, socket.unwrap())), port);
        }
    });
    port
}

fn answer(mut stream: BufReader<impl std::io::Read + Write>, port: u16) -> std::io::Result<()> {
    let mut request = String::new();
    stream.read_line(&mut request)?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
    }
    let (status, location, body) = match request.split(' ').nth(1).unwrap_or_default() {
        "/a/model.pth" => ("200 OK", String::new(), model()),
        "/path" => ("302 Found", "/a/model.pth".into(), Vec::new()),
        "/a/name" => ("302 Found", "model.pth".into(), Vec::new()),
        "/host" => ("302 Found", format!("//localhost:{port}/path"), Vec::new()),
        "/other/host" => ("302 Found", format!("https://127.0.0.1:{port}/a/model.pth"), Vec::new()),
        "/plain" => ("302 Found", format!("http://localhost:{port}/a/model.pth"), Vec::new()),
        "/round" => ("302 Found", "/round".into(), Vec::new()),
        "/nowhere" => ("302 Found", String::new(), Vec::new()),
        _ => ("404 Not Found", String::new(), Vec::new()),
    };
    let stream = stream.get_mut();
    let location = if location.is_empty() { location } else { format!("Location: {location}\r\n") };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\n{location}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&body)?;
    stream.flush()
}

fn reset(server: &TestServer, url: &str) -> Reply {
    server.post_json("/seg/reset", &json!({"model_name": "m.pth", "is_3d": false, "url": url}))
}

#[test]
fn models_are_downloaded_from_a_companys_own_server() {
    let port = https_server();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.env("SSL_CERT_FILE", golden("tls/ca.pem")).env_remove("SSL_CERT_DIR");
    let server = TestServer::start_by(command, folder.path(), &["--model-hosts", "localhost"]);
    for path in ["/a/model.pth", "/path", "/a/name", "/host"] {
        let reply = reset(&server, &format!("https://localhost:{port}{path}"));
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    for (path, status, reason) in [
        ("/other/host", 400, "the model's host is not allowed: 127.0.0.1"),
        ("/plain", 400, "must start with https"),
        ("/round", 503, "too many redirects"),
        ("/nowhere", 503, "a redirect without a target"),
        ("/missing", 503, "404"),
    ] {
        let reply = reset(&server, &format!("https://localhost:{port}{path}"));
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(reply.error().contains(reason), "{path}: {}", reply.error());
    }
}

#[test]
fn a_server_with_an_unknown_authority_is_refused() {
    let port = https_server();
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &["--model-hosts", "localhost"]);
    let reply = reset(&server, &format!("https://localhost:{port}/a/model.pth"));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.error().contains("certificate"), "{}", reply.error());
}
