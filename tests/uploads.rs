//! Uploads that lose a piece, from a client that ignores the replies: no incomplete file is put in place.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::PathBuf,
};

use common::{BINARY, demo_movie};
use elephant_testkit::{Reply, TestServer, eventually};
use serde_json::json;
use tempfile::TempDir;

const DATASET: &str = "lab/fly";

/// A server with a good movie, and a client that uploads a new version of it.
struct Fixture {
    server: TestServer,
    movie: Vec<u8>,
    shape: [usize; 4],
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = TestServer::start(BINARY, folder.path(), &[]);
        let movie = demo_movie();
        server.upload(DATASET, "fly.h5", &movie.content, 1 << 20);
        let fixture = Self { server, movie: movie.content, shape: movie.shape, _folder: folder };
        // The content without the padding.
        fs::write(fixture.path("fly.h5"), &fixture.movie).unwrap();
        fixture
    }

    /// A third of the movie, the last one padded as by the client.
    fn piece(&self, index: usize) -> Vec<u8> {
        let length = self.movie.len() / 3 + 1;
        let mut piece = self.movie[index * length..self.movie.len().min((index + 1) * length)].to_vec();
        piece.resize(length, 7);
        piece
    }

    fn send(&self, index: usize) -> Reply {
        let action: &[u8] = if index == 0 { b"init" } else { b"append" };
        let parts: [(&str, &[u8]); 4] = [
            ("action", action),
            ("dataset_name", DATASET.as_bytes()),
            ("file:elephant123.h5", &self.piece(index)),
            ("filename", b"fly.h5"),
        ];
        self.server.post_parts("/upload/image", &parts)
    }

    fn form(&self, action: &str) -> Reply {
        let form = format!("action={action}&dataset_name={DATASET}&filename=fly.h5");
        self.server.post("/upload/image", "application/x-www-form-urlencoded; charset=UTF-8", form.as_bytes())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.server.workspace().join("datasets").join(DATASET).join(file)
    }

    fn check(&self) -> String {
        let check = json!({"dataset_name": DATASET, "shape": self.shape});
        self.server.post_json("/dataset/check", &check).json()["message"].as_str().unwrap().to_owned()
    }

    fn generate(&self) -> Reply {
        self.server.post_json("/dataset/generate", &json!({"dataset_name": DATASET, "is_2d": false}))
    }

    /// Checks the end of an upload that lost a piece.
    fn assert_ended(&self) {
        for reply in [self.send(2), self.form("complete")] {
            assert_eq!(reply.status, 404, "{}", reply.text());
            assert!(reply.error().contains("action=init"), "{}", reply.error());
        }
        assert_eq!(fs::read(self.path("fly.h5")).unwrap(), self.movie, "the old file stays");
        assert!(!self.path(".upload-fly.h5").exists());
        let message = self.check();
        assert!(message.contains("\nThe last attempt failed: the upload of "), "{message}");
    }

    /// Checks that a new upload works.
    fn assert_begins_anew(&self) {
        for index in 0..3 {
            assert_eq!(self.send(index).status, 200);
        }
        assert_eq!(self.form("complete").status, 200);
        assert_eq!(fs::read(self.path("fly.h5")).unwrap(), [0, 1, 2].map(|index| self.piece(index)).concat());
        assert_eq!(self.generate().status, 200);
        assert_eq!(self.check(), "ready");
        // Restores the initial state.
        fs::remove_dir_all(self.path("imgs.zarr")).unwrap();
        fs::write(self.path("fly.h5"), &self.movie).unwrap();
    }

    /// Sends the second piece up to the middle of the file part, before the file's name.
    fn send_half_a_piece(&self) -> TcpStream {
        let head = "--b\r\nContent-Disposition: form-data; name=\"action\"\r\n\r\nappend\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"dataset_name\"\r\n\r\nlab/fly\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"elephant123.h5\"\r\n\r\n";
        let piece = self.piece(1);
        let mut stream = elephant_testkit::connect(self.server.address());
        let length = head.len() + piece.len() + 200;
        write!(stream, "POST /upload/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n").unwrap();
        write!(stream, "Content-Type: multipart/form-data; boundary=b\r\n\r\n{head}").unwrap();
        stream.write_all(&piece[..piece.len() / 2]).unwrap();
        stream
    }
}

#[test]
fn a_lost_connection_ends_the_upload() {
    let fixture = Fixture::new();
    // The client gets a reply, because it has only stopped sending.
    assert_eq!(fixture.send(0).status, 200);
    let mut stream = fixture.send_half_a_piece();
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_string(&mut String::new());
    fixture.wait_for_the_end();
    fixture.assert_ended();
    fixture.assert_begins_anew();

    // The client has disconnected.
    assert_eq!(fixture.send(0).status, 200);
    drop(fixture.send_half_a_piece());
    fixture.wait_for_the_end();
    fixture.assert_ended();
    fixture.assert_begins_anew();
}

impl Fixture {
    /// Waits until the server has noticed that a client has disconnected.
    fn wait_for_the_end(&self) {
        eventually("the upload ends", || !self.path(".upload-fly.h5").exists());
        // The reason is written after the file is removed.
        eventually("the check reports a reason", || self.check().contains("failed"));
    }
}

#[test]
fn a_refused_piece_ends_the_upload() {
    let fixture = Fixture::new();
    for parts in [
        // No piece.
        &[("action", &b"append"[..]), ("dataset_name", b"lab/fly"), ("filename", b"fly.h5")][..],
        // A field that is not text, after the piece.
        &[("action", b"append"), ("dataset_name", b"lab/fly"), ("file:a", b"x"), ("filename", b"\xff")],
    ] {
        assert_eq!(fixture.send(0).status, 200);
        let refused = fixture.server.post_parts("/upload/image", parts);
        assert_eq!(refused.status, 400, "{}", refused.text());
        fixture.assert_ended();
    }
    // A refused piece of another file does not end it.
    assert_eq!(fixture.send(0).status, 200);
    let other: [(&str, &[u8]); 3] = [("action", b"append"), ("dataset_name", b"lab/fly"), ("filename", b"other.h5")];
    assert_eq!(fixture.server.post_parts("/upload/image", &other).status, 400);
    assert_eq!((fixture.send(1).status, fixture.send(2).status, fixture.form("complete").status), (200, 200, 200));
}

#[test]
fn a_missing_piece_is_noticed_at_the_end() {
    let fixture = Fixture::new();
    for pieces in [&[0, 2][..], &[0, 1], &[0, 1, 1, 2]] {
        for &index in pieces {
            assert_eq!(fixture.send(index).status, 200);
        }
        let refused = fixture.form("complete");
        assert_eq!(refused.status, 400, "{pieces:?}");
        assert!(refused.error().contains("; upload it again"), "{}", refused.error());
        fixture.assert_ended();
        fixture.assert_begins_anew();
    }
}

#[test]
fn a_truncated_movie_is_asked_for_again() {
    let fixture = Fixture::new();
    // As earlier versions could put it in place.
    let half = fixture.movie.len() / 2;
    for length in [half, 2 * half / 3] {
        fs::write(fixture.path("fly.h5"), &fixture.movie[..length]).unwrap();
        fixture.check();
        for attempt in 0..3 {
            assert_eq!(fixture.generate().status, 204, "{attempt}");
        }
        assert!(fixture.check().contains("truncated"), "{}", fixture.check());
        fixture.assert_begins_anew();
    }
}

#[test]
fn a_cancelled_upload_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let check = json!({"dataset_name": "new/fly", "shape": [1, 1, 1, 1]});
    assert_eq!(server.post_json("/dataset/check", &check).status, 200);
    assert_eq!(server.post_json("/dataset/generate", &json!({"dataset_name": "new/fly"})).status, 204);
    let parts: [(&str, &[u8]); 4] =
        [("action", b"init"), ("dataset_name", b"new/fly"), ("file:f", b"x"), ("filename", b"fly.h5")];
    assert_eq!(server.post_parts("/upload/image", &parts).status, 200);
    assert!(folder.path().join("datasets/new/fly").exists());
    let form = "action=cancel&dataset_name=new/fly&filename=fly.h5";
    assert_eq!(server.post("/upload/image", "application/x-www-form-urlencoded", form.as_bytes()).status, 200);
    let left = fs::read_dir(folder.path().join("datasets")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), [".uploads"]);
}
