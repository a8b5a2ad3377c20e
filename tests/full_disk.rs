//! A full disk: requests are refused with this reason, and nothing is lost.

mod common;

use common::{demo_dataset, demo_movie, server_on_small_disk, training};
use serde_json::json;

#[test]
fn data_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server_on_small_disk(folder.path(), 16) else { return };
    let reset =
        |is_3d: bool| server.post_json("/seg/reset", &json!({"model_name": "m.pth", "is_3d": is_3d, "url": null}));
    let download = || server.post_json("/download/model", &json!({"model_name": "m.pth"}));

    // A 2-D network takes 8 MB, a 3-D one 24 MB.
    assert_eq!(reset(false).status, 200);
    let model = download().body;
    let refused = reset(true);
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(download().body, model, "the old model stays");

    let movie = demo_movie();
    server.upload("fly", "fly.h5", &movie.content, 1 << 20);
    let send = |action: &[u8], mib: usize| {
        let piece = vec![7; mib << 20];
        let parts: [(&str, &[u8]); 4] =
            [("action", action), ("dataset_name", b"fly"), ("file:f", &piece), ("filename", b"fly.h5")];
        server.post_parts("/upload/image", &parts)
    };
    let complete = || {
        let form = "action=complete&dataset_name=fly&filename=fly.h5";
        server.post("/upload/image", "application/x-www-form-urlencoded", form.as_bytes())
    };
    // About 7 MiB are free: the first piece does not fit twice (where it arrives, and with the other pieces), and the
    // second one not even once.
    for mib in [4, 12] {
        assert_eq!(send(b"init", 1).status, 200);
        let refused = send(b"append", mib);
        assert_eq!(refused.status, 507, "{}", refused.text());
        assert!(refused.error().contains("No space left"), "{}", refused.error());
        // The client continues as if the piece had been stored.
        assert_eq!(send(b"append", 1).status, 404);
        assert_eq!(complete().status, 404);
        assert_eq!(send(b"init", mib).status, 507, "the piece alone does not fit either");
        assert_eq!(complete().status, 404);
    }

    let generate = || server.post_json("/dataset/generate", &json!({"dataset_name": "fly"}));
    let check = || server.post_json("/dataset/check", &json!({"dataset_name": "fly", "shape": movie.shape})).json();
    assert_eq!(generate().status, 200, "the old movie is still there, and there is space again");
    assert_eq!(check()["message"], "ready");
    assert_eq!(download().body, model);
    assert!(server.terminate());
}

#[test]
fn a_model_that_cannot_be_saved_ends_its_training() {
    let folder = tempfile::tempdir().unwrap();
    // Space for the model of 24 MB, and for a temporary second copy, but not for a third one.
    let Some(server) = server_on_small_disk(folder.path(), 40) else { return };
    let movie = demo_dataset(&server, "fly");
    let download = || server.post_json("/download/model", &json!({"model_name": "detection.pth"})).body;
    let model = download();
    let refused = server.post_json("/seg/train", &training(&movie, 2));
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.error().contains("No space left"), "{}", refused.error());
    assert_eq!(download(), model, "the old model stays");
    assert_eq!(server.get("/state/process").json()["state"], 0);
    assert_eq!(server.get("/api/v1/jobs?kind=train").json()[0]["status"], "failed");
}
