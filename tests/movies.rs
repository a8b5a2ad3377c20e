//! Movies as they occur in practice, uploaded and converted as by the Java client: check, generate, on 204 upload and
//! generate again, and the check before the next action. The content of each movie is described in
//! `tests/golden/field/make_field.py`.

#![allow(clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::BINARY;
use elephant_testkit::{Reply, TestServer, golden};
use elephant_volume::{ArrayStore, Store};
use ndarray::ArrayD;
use serde_json::json;
use tempfile::TempDir;

/// Size of all golden movies (z, y, x).
const FRAME: [usize; 3] = [3, 6, 8];

fn start() -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (TestServer::start(BINARY, folder.path(), &[]), folder)
}

fn movie(path: &str) -> PathBuf {
    golden("field").join(path)
}

/// The value of all voxels of a timepoint id and setup.
fn value(id: u32, setup: u32) -> u16 {
    (1 + id % 50 + 100 * setup) as u16
}

/// A dataset from a client's point of view.
struct Client<'a> {
    server: &'a TestServer,
    dataset: &'a str,
}

impl Client<'_> {
    /// The reply to the check of a movie of `timepoints` timepoints.
    fn check(&self, timepoints: usize) -> String {
        let [z, y, x] = FRAME;
        self.check_shape(&[timepoints, z, y, x])
    }

    fn check_shape(&self, shape: &[usize]) -> String {
        let reply = self.server.post_json("/dataset/check", &json!({"dataset_name": self.dataset, "shape": shape}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["message"].as_str().unwrap().to_owned()
    }

    fn generate(&self) -> Reply {
        self.server.post_json("/dataset/generate", &json!({"dataset_name": self.dataset, "is_2d": false}))
    }

    /// Uploads the file under its own name, as one padded piece.
    fn upload(&self, file: &Path) {
        self.upload_as(file, file.file_name().unwrap().to_str().unwrap());
    }

    fn upload_as(&self, file: &Path, name: &str) {
        self.server.upload(self.dataset, name, &fs::read(file).unwrap(), 200_000);
    }

    /// Does what the client does before an action if the user agrees to everything. Returns whether it uploaded, and
    /// the last reply to generate.
    fn prepare(&self, timepoints: usize, files: &[PathBuf]) -> (bool, Reply) {
        self.check(timepoints);
        let first = self.generate();
        if first.status != 204 {
            return (false, first);
        }
        for file in files {
            self.upload(file);
        }
        (true, self.generate())
    }

    fn folder(&self) -> PathBuf {
        self.server.workspace().join("datasets").join(self.dataset)
    }

    /// Copies files into the dataset's folder, as a user with access to it.
    fn put(&self, files: &[&str]) {
        fs::create_dir_all(self.folder()).unwrap();
        for file in files {
            fs::copy(movie(file), self.folder().join(Path::new(file).file_name().unwrap())).unwrap();
        }
    }

    /// One voxel of each frame.
    fn frames(&self) -> Vec<u16> {
        let images = ArrayStore::open(&self.folder().join(Store::Images.folder())).unwrap();
        let mut voxels = ArrayD::<u16>::zeros(images.shape());
        images.read_as(&[0; 4], voxels.view_mut(), |value: u8| u16::from(value)).unwrap();
        voxels.outer_iter().map(|frame| frame[[1, 2, 3]]).collect()
    }

    /// Writes a label, which shows later whether the stores were replaced.
    fn label(&self) {
        let labels = ArrayStore::open(&self.folder().join(Store::SegLabels.folder())).unwrap();
        let shape = [&[1], &FRAME[..]].concat();
        labels.write(&[0; 4], ArrayD::<u8>::ones(shape).view()).unwrap();
    }

    fn is_labelled(&self) -> bool {
        let labels = ArrayStore::open(&self.folder().join(Store::SegLabels.folder())).unwrap();
        let mut voxels = ArrayD::<u8>::zeros([&[1], &FRAME[..]].concat());
        labels.read(&[0; 4], voxels.view_mut()).unwrap();
        voxels.iter().all(|&voxel| voxel == 1)
    }
}

#[test]
fn frames_are_counted_as_the_client_counts_them() {
    let (server, _folder) = start();
    let ids = |ids: &[u32]| ids.iter().map(|&id| value(id, 0)).collect::<Vec<_>>();
    let with_setup = |setup: u32, ids: &[u32]| ids.iter().map(|&id| value(id, setup)).collect::<Vec<_>>();
    for (index, (file, expected)) in [
        ("ids/from_5.h5", ids(&[5, 6, 7])),
        ("ids/only_18.h5", ids(&[18])),
        ("ids/every_second.h5", ids(&[0, 2, 4, 6, 8])),
        ("ids/dates.h5", ids(&[20_210_603, 20_210_604, 20_210_607])),
        // With blank frames.
        ("ids/every_second_without_4.h5", vec![value(0, 0), value(2, 0), 0, value(6, 0), value(8, 0)]),
        ("ids/from_5_without_7.h5", vec![value(5, 0), value(6, 0), 0, value(8, 0), value(9, 0)]),
        ("ids/from_0_without_2.h5", vec![value(0, 0), value(1, 0), 0, value(3, 0), value(4, 0)]),
        ("ids/from_2_of_4.h5", vec![0, 0, value(2, 0), value(3, 0)]),
        ("setups/begins_later.h5", vec![0, 0, value(2, 0), value(3, 0)]),
        // The lowest setup.
        ("setups/from_8.h5", with_setup(8, &[0, 1]).iter().map(|value| value & 0xff).collect()),
        ("setups/first_is_empty.h5", with_setup(1, &[0, 1])),
        ("links/soft.h5", ids(&[0, 0, 0])),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("d{index}");
        let client = Client { server: &server, dataset: &name };
        let (uploaded, reply) = client.prepare(expected.len(), &[movie(file)]);
        assert!(uploaded && reply.status == 200, "{file}: {}", reply.text());
        assert_eq!(client.check(expected.len()), "ready", "{file}");
        if file != "setups/from_8.h5" {
            assert_eq!(client.frames(), expected, "{file}");
        }
    }
}

#[test]
fn frames_of_2d_movies_are_counted_in_the_same_way() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "flat" };
    let generate =
        |is_2d: bool| server.post_json("/dataset/generate", &json!({"dataset_name": "flat", "is_2d": is_2d}));
    client.check_shape(&[5, 6, 8]);
    assert_eq!(generate(true).status, 204);
    client.upload(&movie("ids/from_5_without_7.h5"));
    let reply = generate(false);
    assert_eq!(reply.status, 400);
    assert!(
        reply.error().contains("its timepoints are numbered 5 to 9), but (5, 6, 8) was asked for"),
        "{}",
        reply.error()
    );
    assert_eq!(generate(true).status, 200);
    assert_eq!(client.check_shape(&[5, 6, 8]), "ready");
}

#[test]
fn an_xml_beside_an_uploaded_movie_declares_missing_timepoints() {
    let (server, _folder) = start();
    // A seventh timepoint has no image, and the first file of the microscope is called timepoint 1.
    let text = fs::read_to_string(movie("subset/movie.xml")).unwrap();
    let text =
        text.replace(r#""range"><first>2</first><last>5</last>"#, r#""pattern"><integerpattern>1-7</integerpattern>"#);
    let text = text.replace("<MissingViews>", r#"<MissingViews><MissingView timepoint="6" setup="1"/>"#);
    let text = text.replace("<MissingViews>", r#"<MissingViews><MissingView timepoint="7" setup="1"/>"#);
    let client = Client { server: &server, dataset: "fly" };
    let (uploaded, reply) = client.prepare(7, &[movie("subset/movie.h5")]);
    assert!(uploaded && reply.status == 400, "the file alone cannot give seven frames");
    server.upload("fly", "movie.xml", text.as_bytes(), text.len());
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.check(7), "ready");
    assert_eq!(client.frames(), [value(1, 1), value(2, 1), 0, value(4, 1), value(5, 1), 0, 0]);
}

#[test]
fn an_xml_of_another_movie_changes_nothing() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "fly" };
    // It has the movie's name, but lists other timepoints and setups.
    client.put(&["subset/movie.xml"]);
    client.check(3);
    client.upload_as(&movie("ids/from_5.h5"), "movie.h5");
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames(), [5, 6, 7].map(|id| value(id, 0)));
    assert_eq!(client.check(3), "ready");
}

#[test]
fn without_a_check_the_xml_or_the_file_decides() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "alone" };
    client.put(&["ids/from_5_without_7.h5"]);
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames(), [5, 6, 8, 9].map(|id| value(id, 0)), "in order");

    let client = Client { server: &server, dataset: "described" };
    client.put(&["subset/movie.h5", "subset/movie.xml"]);
    assert_eq!(client.generate().status, 200);
    let expected = [value(2, 1), 0, value(4, 1), value(5, 1)];
    assert_eq!(client.frames(), expected, "timepoint 3 is declared missing");
    // The number of frames asked for has priority; setup and missing views are still those of the XML.
    assert_eq!(client.check(4), "ready");
    let client = Client { server: &server, dataset: "asked" };
    client.put(&["subset/movie.h5", "subset/movie.xml"]);
    client.check(6);
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames(), [value(0, 1), value(1, 1), value(2, 1), 0, value(4, 1), value(5, 1)]);
}

#[test]
fn a_movie_of_another_shape_is_replaced_by_an_upload() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "dataset" };
    assert_eq!(client.prepare(2, &[movie("exported/a.h5")]).1.status, 200);
    client.label();
    // The movie was exported again, under another name or the same one.
    let (uploaded, reply) = client.prepare(3, &[movie("exported/z.h5")]);
    assert!(uploaded && reply.status == 200, "{}", reply.text());
    assert_eq!(client.check(3), "ready");
    assert_eq!(client.frames(), [0, 1, 2].map(|id| value(id, 0)));
    assert!(!client.is_labelled(), "labels of the other movie are erased");
    // Generating the same dataset again needs no upload.
    client.label();
    assert_eq!(client.check(3), "ready");
    assert_eq!(client.generate().status, 200);
    assert!(!client.is_labelled());

    let again = Client { server: &server, dataset: "again" };
    assert_eq!(again.prepare(2, &[movie("exported/a.h5")]).1.status, 200);
    again.check(3);
    assert_eq!(again.generate().status, 204);
    again.upload_as(&movie("exported/z.h5"), "a.h5");
    assert_eq!(again.generate().status, 200);
    assert_eq!(again.check(3), "ready");
}

#[test]
fn a_movie_of_the_wrong_shape_changes_nothing_and_is_asked_for_once() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "fly" };
    assert_eq!(client.prepare(2, &[movie("exported/a.h5")]).1.status, 200);
    client.label();
    let other_frame = [2, 4, 6, 8];
    for _ in 0..2 {
        // The client's movie has four timepoints, but the file still two, or three.
        for file in ["exported/a.h5", "exported/z.h5"] {
            let (uploaded, reply) = client.prepare(4, &[movie(file)]);
            assert!(uploaded, "the client can replace the movie each time");
            assert_eq!(reply.status, 400);
            let found = if file == "exported/a.h5" { "(2, 3, 6, 8)" } else { "(3, 3, 6, 8)" };
            assert!(reply.error().contains(found) && reply.error().contains("(4, 3, 6, 8)"), "{}", reply.error());
            let message = client.check(4);
            assert!(message.starts_with("Invalid shape for imgs.zarr\nExpected: (4, 3, 6, 8) Found: (2, 3, 6, 8)\n"));
            assert!(message.contains("The last attempt failed: ") && message.contains(found), "{message}");
        }
    }
    // All axes are compared.
    client.upload(&movie("exported/a.h5"));
    client.check_shape(&other_frame);
    assert_eq!(client.generate().status, 204);
    assert_eq!(client.generate().status, 400, "nothing was uploaded");
    assert!(client.is_labelled(), "nothing was touched");
    assert_eq!(client.check(2), "ready");
    // The last upload is the movie, also after the failures.
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.check(2), "ready");
}

#[test]
fn the_newest_upload_is_the_movie_also_after_a_kill() {
    let (mut server, folder) = start();
    let dataset = "lab/fly";
    for file in ["exported/z.h5", "ids/from_5.h5"] {
        Client { server: &server, dataset }.upload(&movie(file));
    }
    Client { server: &server, dataset }.put(&["ids/dates.h5"]);
    server.kill();
    let mut server = TestServer::start(BINARY, folder.path(), &[]);
    let client = Client { server: &server, dataset };
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames(), [5, 6, 7].map(|id| value(id, 0)));
    // The requested shape is stored too, and that the client has uploaded.
    client.check(2);
    assert_eq!(client.generate().status, 204);
    client.upload(&movie("exported/z.h5"));
    server.kill();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let client = Client { server: &server, dataset };
    let reply = client.generate();
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("(3, 3, 6, 8)") && reply.error().contains("(2, 3, 6, 8)"), "{}", reply.error());
    assert_eq!(client.frames(), [5, 6, 7].map(|id| value(id, 0)));
}

#[test]
fn the_reason_reaches_the_next_check() {
    let (mut server, folder) = start();
    let nothing = "/workspace/datasets/fly/imgs.zarr is not found or broken.";
    for (file, timepoints, reason) in [
        ("refused/fiji.h5", 1, "fiji.h5 holds no timepoints"),
        ("refused/cut.h5", 3, "in cut.h5"),
        ("refused/sizes_differ.h5", 2, "timepoint 1 of the movie has [2, 6, 8] voxels"),
    ] {
        let client = Client { server: &server, dataset: "fly" };
        let (uploaded, reply) = client.prepare(timepoints, &[movie(file)]);
        assert!(uploaded && reply.status == 400 && reply.error().contains(reason), "{file}: {}", reply.text());
        let message = client.check(timepoints);
        let expected = format!("{nothing}\nThe last attempt failed: {}", reply.error());
        assert_eq!(message, expected, "{file}");
    }
    server.kill();
    let server = TestServer::start(BINARY, folder.path(), &[]);
    let client = Client { server: &server, dataset: "fly" };
    assert!(client.check(2).contains("\nThe last attempt failed: timepoint 1 of the movie"));
    assert_eq!(client.prepare(2, &[movie("exported/a.h5")]).1.status, 200);
    assert_eq!(client.check(2), "ready");
    assert_eq!(client.check(9), "Invalid shape for imgs.zarr\nExpected: (9, 3, 6, 8) Found: (2, 3, 6, 8)");
}

#[test]
fn a_request_for_a_missing_setup_or_level_is_refused_at_once() {
    let (server, _folder) = start();
    let client = Client { server: &server, dataset: "fly" };
    client.upload(&movie("exported/a.h5"));
    for wrong in [json!({"setup": 7}), json!({"level": 3}), json!({"divisor": 0}), json!({"setup": -1})] {
        client.check(2);
        let mut request = wrong.clone();
        request["dataset_name"] = "fly".into();
        assert_eq!(server.post_json("/dataset/generate", &request).status, 400, "{wrong}");
    }
    assert_eq!(client.generate().status, 200);
}

#[test]
fn movies_may_have_any_extension() {
    let (server, _folder) = start();
    for (index, extension) in ["hdf5", "hdf", "H5", "HDF5", "h5.bak"].into_iter().enumerate() {
        for by_hand in [false, true] {
            let name = format!("d{index}{by_hand}");
            let client = Client { server: &server, dataset: &name };
            if by_hand {
                fs::create_dir_all(client.folder()).unwrap();
                fs::copy(movie("exported/a.h5"), client.folder().join(format!("movie.{extension}"))).unwrap();
                client.check(2);
            } else {
                client.check(2);
                assert_eq!(client.generate().status, 204);
                client.upload_as(&movie("exported/a.h5"), &format!("movie.{extension}"));
            }
            assert_eq!(client.generate().status, 200, "{extension}, {by_hand}");
            assert_eq!(client.check(2), "ready");
        }
    }
}

#[test]
fn the_movie_among_other_files_is_found() {
    let (server, _folder) = start();
    let master = ["master/Cam_00000.lux.h5", "master/Cam_00001.lux.h5", "master/master.h5"];
    for (dataset, xml) in [("with", &["master/master.xml"][..]), ("without", &[])] {
        let client = Client { server: &server, dataset };
        client.put(&[&master, xml].concat());
        client.check(2);
        assert_eq!(client.generate().status, 200, "{dataset}");
        assert_eq!(client.check(2), "ready");
        assert_eq!(client.frames(), [0, 1].map(|id| value(id, 0)));
    }
    // Two movies copied there by hand: the one of the right shape is used, else the first.
    let client = Client { server: &server, dataset: "two" };
    client.put(&["exported/a.h5", "exported/z.h5"]);
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames().len(), 2);
    client.check(3);
    assert_eq!(client.generate().status, 200);
    assert_eq!(client.frames().len(), 3);
    // An XML without its HDF5 file is not a movie.
    let client = Client { server: &server, dataset: "xml" };
    client.put(&["subset/movie.xml"]);
    assert_eq!(client.generate().status, 204);
    client.check(4);
    assert_eq!(client.generate().status, 204);
}

#[test]
fn two_simultaneous_clients_get_the_movies_they_sent() {
    let (server, _folder) = start();
    std::thread::scope(|scope| {
        for user in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let name = format!("user{}", user % 2);
                let client = Client { server, dataset: &name };
                for _ in 0..5 {
                    client.check(3);
                    if client.generate().status == 204 {
                        client.upload_as(&movie("ids/from_5.h5"), &format!("from_{user}.h5"));
                    }
                    let reply = client.generate();
                    // The other client's generation may be running.
                    assert!([200, 409].contains(&reply.status), "{}", reply.text());
                }
            });
        }
    });
    for dataset in ["user0", "user1"] {
        let client = Client { server: &server, dataset };
        assert_eq!(client.check(3), "ready");
        assert_eq!(client.frames(), [5, 6, 7].map(|id| value(id, 0)));
    }
}

#[test]
fn a_kill_at_any_moment_leaves_one_movie_or_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let movies = [(2, "exported/a.h5"), (3, "exported/z.h5")];
    for round in 0..8 {
        let server = TestServer::start(BINARY, folder.path(), &[]);
        let client = Client { server: &server, dataset: "fly" };
        let (timepoints, file) = movies[round % 2];
        std::thread::scope(|scope| {
            let session = scope.spawn(|| client.prepare(timepoints, &[movie(file)]));
            // A different moment each time: after a number of checks of the dataset's folder.
            for _ in 0..round * 60 {
                let _ = fs::read_dir(client.folder()).map(Iterator::count);
            }
            let killed = std::process::Command::new("kill").args(["-9", &server.pid().to_string()]).status();
            assert!(killed.unwrap().success());
            // Its requests are interrupted.
            let _ = session.join();
        });
        drop(server);
        let server = TestServer::start(BINARY, folder.path(), &[]);
        let client = Client { server: &server, dataset: "fly" };
        let (_, reply) = client.prepare(timepoints, &[movie(file)]);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(client.check(timepoints), "ready");
        assert_eq!(client.frames().len(), timepoints);
    }
}
