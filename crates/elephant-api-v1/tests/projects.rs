//! Datasets and projects over HTTP, without sockets and without libtorch.

use axum::http::{Request, header};
use elephant_api_core::{EventFeed, LargeBodies, testing::TestRouter};
use elephant_api_v1::V1Api;
use elephant_pipeline::testing::TestWorkspace;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Fixture {
    router: TestRouter,
    workspace: TestWorkspace,
}

const MAIN: &str = "/v1/projects/lab%2Ffly%2Fmain";

fn fixture() -> Fixture {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("lab/fly");
    let events = EventFeed::new(workspace.runner.jobs(), CancellationToken::new());
    let api = V1Api::new(workspace.use_cases.clone(), workspace.runner.clone(), events, LargeBodies::default());
    let router = TestRouter::new(vec![api.family()], &workspace.runner, workspace.path());
    Fixture { router, workspace }
}

fn spot(t: u32, x: f64) -> Value {
    json!({"t": t, "center_um": [1, 2, x], "covariance_um2": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "quality": 0.5})
}

impl Fixture {
    async fn create(&self) {
        let made = self.router.post("/v1/projects", &json!({"project": "lab/fly/main"})).await;
        assert_eq!((made.status.as_u16(), made.headers["location"].to_str().unwrap()), (201, MAIN), "{}", made.json());
    }

    async fn operate(&self, author: &str, operations: Value) -> (u16, Value) {
        let body = json!({"author": author, "operations": operations});
        let reply = self.router.post(&format!("{MAIN}/operations"), &body).await;
        (reply.status.as_u16(), reply.json())
    }

    /// Spot 1 divides into 2 and 3.
    async fn family(&self) {
        self.create().await;
        let (status, reply) =
            self.operate("Ann", json!([{"add": {"spots": [spot(0, 0.0), spot(1, 1.5), spot(1, 9.0)]}}])).await;
        assert_eq!((status, &reply["added"]), (200, &json!([1, 2, 3])), "{reply}");
        let links = json!([{"source": 1, "target": 2, "score": 0.75}, {"source": 1, "target": 3}]);
        assert_eq!(self.operate("Ann", json!([{"link": {"links": links}}])).await.0, 200);
    }
}

#[tokio::test]
async fn datasets_are_listed_with_their_projects() {
    let fixture = fixture();
    fixture.create().await;
    assert_eq!(fixture.router.get("/v1/datasets").await.json(), json!(["lab/fly"]));
    let dataset = fixture.router.get("/v1/datasets/lab%2Ffly").await.json();
    assert_eq!(dataset["shape"].as_array().unwrap().len(), 4);
    assert_eq!((&dataset["projects"], &dataset["cells_per_frame"]), (&json!(["lab/fly/main"]), &Value::Null));
    assert_eq!(fixture.router.get("/v1/datasets/nobody").await.status, 404);
    assert_eq!(fixture.router.get("/v1/datasets/..%2Fx").await.status, 400);
    assert_eq!(fixture.router.get("/api/v1/projects").await.json(), json!(["lab/fly/main"]));
    // What the client's predictions say.
    let mirror = fixture.workspace.use_cases.workspace.mirror();
    let dataset = "lab/fly".parse().unwrap();
    let found = elephant_types::Spot {
        t: 1,
        center_um: [1.0; 3],
        covariance_um2: [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]],
        quality: 0.5,
    };
    mirror.predicted(&dataset, 1, None, &[found]);
    let dataset = fixture.router.get("/v1/datasets/lab%2Ffly").await.json();
    assert_eq!(dataset["cells_per_frame"][1], 1);
    let body = json!({"author": "Ann", "operations": [{"delete": {"spots": [1]}}]});
    let refused = fixture.router.post("/v1/projects/lab%2Ffly%2Fmastodon/operations", &body).await;
    assert_eq!(refused.status, 409);
    let copy = json!({"project": "lab/fly/copy", "copy_of": "lab/fly/mastodon"});
    let copied = fixture.router.post("/v1/projects", &copy).await;
    assert_eq!((copied.status.as_u16(), &copied.json()["kind"]), (201, &json!("normal")));
}

#[tokio::test]
async fn a_project_is_changed_and_read() {
    let fixture = fixture();
    fixture.family().await;
    let spots = fixture.router.get(&format!("{MAIN}/spots?t=1")).await.json();
    assert_eq!((&spots["seq"], spots["spots"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!((&spots["spots"][0]["key"], &spots["spots"][0]["center_um"]), (&json!(2), &json!([1.0, 2.0, 1.5])));
    let links = fixture.router.get(&format!("{MAIN}/links")).await.json();
    assert_eq!(links["links"][0], json!({"source": 1, "target": 2, "state": "unlabeled", "score": 0.75}));
    let lineage = fixture.router.get(&format!("{MAIN}/lineage")).await.json();
    assert_eq!((lineage["branches"].as_array().unwrap().len(), &lineage["branches"][2]["parent"]), (3, &json!(1)));
    let request = Request::get(format!("{MAIN}/spots?t=0..1")).header(header::ACCEPT, "application/octet-stream");
    let packed = fixture.router.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(packed.headers()["x-project-seq"], "2");
    assert_eq!(axum::body::to_bytes(packed.into_body(), 1000).await.unwrap().len(), 3 * 64);
    let info = fixture.router.get(MAIN).await.json();
    assert_eq!((&info["spots"], &info["links"], &info["frames"]), (&json!(3), &json!(2), &json!([[0, 1], [1, 2]])));
    let entries = fixture.router.get(&format!("{MAIN}/operations?since=1")).await.json();
    assert_eq!((entries.as_array().unwrap().len(), &entries[0]["kind"]), (1, &json!({"operation": "link"})));
    assert_eq!(entries[0]["changes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_request_may_be_sent_again() {
    let fixture = fixture();
    fixture.create().await;
    let body = json!({"author": "Ann", "client_id": "t-1", "operations": [{"add": {"spots": [spot(0, 0.0)]}}]});
    let path = format!("{MAIN}/operations");
    let first = fixture.router.post(&path, &body).await.json();
    let again = fixture.router.post(&path, &body).await.json();
    assert_eq!((&again["seq"], &again["is_repeated"]), (&first["seq"], &json!(true)));
}

#[tokio::test]
async fn undo_is_ones_own_and_refused_with_a_reason() {
    let fixture = fixture();
    fixture.family().await;
    assert_eq!(fixture.operate("Bob", json!([{"tag": {"spots": [2], "detection": "tp"}}])).await.0, 200);
    let undo = format!("{MAIN}/undo");
    assert_eq!(fixture.router.post(&undo, &json!({"author": "Ann"})).await.status, 200, "the links");
    let refused = fixture.router.post(&undo, &json!({"author": "Ann"})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.json()["message"].as_str().unwrap().contains("Bob has changed spot 2"), "{}", refused.json());
    assert_eq!(fixture.router.post(&format!("{MAIN}/redo"), &json!({"author": "Ann"})).await.status, 200);
    assert_eq!(fixture.router.post(&undo, &json!({"author": "Eve"})).await.status, 409);
}

#[tokio::test]
async fn a_project_leaves_and_comes_back() {
    let fixture = fixture();
    fixture.family().await;
    let export = fixture.router.get(&format!("{MAIN}/export")).await;
    let import = |name: &str| format!("/v1/projects/lab%2Ffly%2F{name}/import");
    let made = fixture.router.call("POST", &import("second"), "application/x-ndjson", export.body.clone()).await;
    assert_eq!((made.status.as_u16(), &made.json()["spots"]), (201, &json!(3)));
    let again = fixture.router.get("/v1/projects/lab%2Ffly%2Fsecond/export").await;
    assert_eq!(again.body, export.body);
    assert_eq!(fixture.router.call("POST", &import("second"), "", export.body.clone()).await.status, 409);
    let half = export.body[..export.body.len() / 2].to_vec();
    let refused = fixture.router.call("POST", &import("third"), "", half).await;
    assert_eq!(refused.status, 400, "{}", refused.json());
    assert_eq!(fixture.router.get("/v1/projects/lab%2Ffly%2Fthird").await.status, 404);
    assert_eq!(fixture.router.call("DELETE", MAIN, "", "").await.status, 204);
    assert_eq!(fixture.router.get(MAIN).await.status, 404);
    let whole = fixture.router.call("POST", "/v1/projects/lab%2Ffly%2Fsecond/recover", "", "").await;
    assert_eq!((whole.status.as_u16(), whole.json()), (200, json!({"seq": 2, "damage": null})));
}

#[tokio::test]
async fn what_the_caller_did_is_never_a_500() {
    let fixture = fixture();
    fixture.family().await;
    for (operation, status) in [
        (json!({"cook": {}}), 400),
        (json!({"add": {"spots": [{"t": 0}]}}), 400),
        (
            json!({"add": {"spots": [{"t": 0, "center_um": [1, 2, 3], "covariance_um2": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]}]}}),
            400,
        ),
        (
            json!({"add": {"spots": [{"t": 0, "center_um": [1, 2, 1e300], "covariance_um2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}]}}),
            400,
        ),
        (json!({"tag": {"spots": [99], "detection": "tp"}}), 404),
        (json!({"tag": {"spots": [1], "detection": "xx"}}), 400),
        (json!({"tag": {"spots": [-1], "detection": "tp"}}), 400),
        (json!({"delete": {"spots": [18_446_744_073_709_551_615_u64]}}), 404),
        (json!({"link": {"links": [{"source": 2, "target": 3}]}}), 400),
        (json!({"link": {"links": [{"source": 3, "target": 1}]}}), 400),
        (json!({"link": {"links": [{"source": 1, "target": 1}]}}), 400),
        (json!({"link": {"links": [{"source": 1, "target": 2, "score": 7}]}}), 400),
        (json!({"unlink": {"links": [[2, 3]]}}), 404),
        (json!({"approve": {"spots": [1], "state": "rejected"}}), 400),
        (json!({"predict": {"t": 0, "spots": [], "suppression_um": -1}}), 400),
        (json!({"relink": {"first": 0, "last": 0, "links": [{"source": 1, "target": 2}]}}), 400),
    ] {
        let (found, reply) = fixture.operate("Ann", json!([operation])).await;
        assert_eq!(found, status, "{operation}: {reply}");
        assert!(reply["message"].is_string(), "{reply}");
    }
    let second_parent = json!([{"add": {"spots": [spot(0, 50.0)]}}, {"link": {"links": [{"source": 4, "target": 3}]}}]);
    let (status, reply) = fixture.operate("Ann", second_parent).await;
    assert_eq!(status, 409, "{reply}");
    assert_eq!(fixture.router.get(MAIN).await.json()["seq"], 2, "nothing was changed");
    for (path, status) in [
        ("/v1/projects/nobody%2Fmain", 404),
        ("/v1/projects/main", 400),
        ("/v1/projects/..%2Fmain", 400),
        ("/v1/projects/lab%2Ffly%2Fa.b", 400),
        ("/v1/projects?page=2", 400),
        (&format!("{MAIN}/spots?t=x"), 400),
        (&format!("{MAIN}/spots?t=7..3"), 400),
        (&format!("{MAIN}/spots?t=99999999999"), 400),
        (&format!("{MAIN}/operations?since=-1"), 400),
        (&format!("{MAIN}/operations?limit=5000"), 400),
        (&format!("{MAIN}/lineage?x=1"), 400),
    ] {
        let reply = fixture.router.get(path).await;
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.json());
    }
    for (body, status) in [
        (json!({"project": "nobody/main"}), 404),
        (json!({"project": "lab/fly/main"}), 409),
        (json!({"project": "lab/fly/a b"}), 400),
        (json!({"project": "lab/fly/x", "copy_of": "lab/fly/none"}), 404),
        (json!({"project": "lab/fly/x", "voxel_size_um": [0, 1, 1]}), 400),
        (json!({}), 400),
    ] {
        assert_eq!(fixture.router.post("/v1/projects", &body).await.status.as_u16(), status, "{body}");
    }
    for name in ["", "a\nb"] {
        assert_eq!(fixture.operate(name, json!([])).await.0, 400);
    }
}

#[tokio::test]
async fn a_project_is_scored_against_another_one() {
    let fixture = fixture();
    fixture.family().await;
    let made =
        fixture.router.post("/v1/projects", &json!({"project": "lab/fly/truth", "copy_of": "lab/fly/main"})).await;
    assert_eq!(made.status, 201);
    // One daughter is lost, and with her the division.
    fixture.operate("Ann", json!([{"delete": {"spots": [3]}}])).await;
    let reply = fixture.router.get(&format!("{MAIN}/quality?truth=truth&tolerance=0")).await.json();
    assert_eq!(reply["scores"]["cells"]["false_negatives"], 1, "{reply}");
    assert_eq!(
        reply["scores"]["by_frame"][1]["links"],
        json!({"true_positives": 1, "false_positives": 0,
        "false_negatives": 1, "precision": 1.0, "recall": 0.5, "f1": 2.0 / 3.0})
    );
    assert_eq!(reply["mistake_count"], 2);
    assert_eq!(
        reply["mistakes"][0],
        json!({"frame": 0, "place_um": [1.0, 2.0, 0.0], "kind": "missed_division",
        "result": [1, 2, null], "truth": [1, 2, 3]})
    );
    assert_eq!(reply["mistakes"][1]["truth"], json!([3]));
    let short = fixture.router.get(&format!("{MAIN}/quality?truth=truth&mistakes=1&radius_um=0.5")).await.json();
    assert_eq!((short["mistakes"].as_array().unwrap().len(), &short["mistake_count"]), (1, &json!(2)));
    for (query, status) in [
        ("", 400),
        ("?truth=..%2Fx", 400),
        ("?truth=nobody", 404),
        ("?truth=truth&radius_um=-1", 400),
        ("?truth=truth&radius_um=nan", 400),
        ("?truth=truth&tolerance=-1", 400),
        ("?truth=truth&other=1", 400),
    ] {
        assert_eq!(fixture.router.get(&format!("{MAIN}/quality{query}")).await.status, status, "{query}");
    }
    fixture.router.post("/v1/projects", &json!({"project": "lab/fly/empty"})).await;
    let empty = fixture.router.get(&format!("{MAIN}/quality?truth=empty")).await;
    assert_eq!((empty.status.as_u16(), &empty.json()["code"]), (400, &json!("bad_request")));
}
