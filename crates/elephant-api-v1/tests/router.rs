//! The project's own interface without sockets and without libtorch.

use elephant_api_core::{EventFeed, LargeBodies, testing::TestRouter};
use elephant_api_v1::V1Api;
use elephant_pipeline::testing::TestWorkspace;
use elephant_testkit::eventually;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Fixture {
    router: TestRouter,
    workspace: TestWorkspace,
}

fn fixture() -> Fixture {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let events = EventFeed::new(workspace.runner.jobs(), CancellationToken::new());
    let api = V1Api::new(workspace.use_cases.clone(), workspace.runner.clone(), events, LargeBodies::default());
    let router = TestRouter::new(vec![api.family()], &workspace.runner, workspace.path());
    Fixture { router, workspace }
}

fn predict() -> Value {
    let request =
        json!({"dataset": "fly", "timepoint": 0, "voxel_size": [2, 1, 1], "threshold": 0.6, "min_radius_um": 1});
    json!({"predict": request})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_and_followed() {
    let fixture = fixture();
    let reset = json!({"reset": {"model": "m.pth", "kind": "3d", "source": {"random": {"seed": 3}}}});
    let submitted = fixture.router.post("/v1/jobs", &reset).await;
    assert_eq!((submitted.status.as_u16(), &submitted.headers["location"]), (202, &"/v1/jobs/1".parse().unwrap()));
    let record = submitted.json();
    assert_eq!(
        (&record["kind"], &record["subject"], &record["status"]),
        (&json!("reset"), &json!("m.pth"), &json!("running"))
    );
    let jobs = fixture.workspace.runner.jobs();
    eventually("it is done", || jobs.details(1).unwrap().record.ended_at.is_some());
    assert_eq!(fixture.router.get("/v1/jobs/1").await.json()["status"], "completed");
    assert!(fixture.workspace.path().join("models/m.pth").metadata().is_ok());
    for path in ["/v1/jobs?status=completed&kind=reset", "/api/v1/jobs"] {
        assert_eq!(fixture.router.get(path).await.json().as_array().unwrap().len(), 1, "{path}");
    }
    let models = fixture.router.get("/v1/models").await.json();
    let names: Vec<&str> =
        models["models"].as_array().unwrap().iter().filter_map(|model| model["name"].as_str()).collect();
    assert_eq!(names, ["detection.pth", "m.pth"]);
}

#[tokio::test]
async fn a_caller_may_wait_for_the_result() {
    let fixture = fixture();
    let reply = fixture.router.post("/v1/jobs?wait=true", &predict()).await;
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    assert_eq!(reply["job"]["status"], "completed");
    let spots = reply["result"]["spots"].as_array().unwrap();
    assert!(!spots.is_empty() && spots[0]["center_um"].as_array().unwrap().len() == 3, "{reply}");
}

#[tokio::test]
async fn a_request_may_list_many_spots() {
    let fixture = fixture();
    let spot =
        json!({"t": 0, "center_um": [2, 8, 8], "covariance_um2": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "tag": "tp"});
    let update = json!({"update": {"dataset": "nobody", "voxel_size": [2, 1, 1], "spots": vec![spot; 20_000]}});
    assert!(update.to_string().len() > 1 << 20);
    let refused = fixture.router.post("/v1/jobs?wait=true", &update).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (404, &json!("not_found")), "{}", refused.json());
}

#[tokio::test]
async fn refusals_have_a_code_and_a_message() {
    let fixture = fixture();
    let mut unknown = predict();
    unknown["predict"]["p_thresh"] = json!(0.5);
    let mut negative = predict();
    negative["predict"]["timepoint"] = json!(-1);
    for (path, body, status, code, message) in [
        ("/v1/jobs", json!({"cook": {}}), 400, "bad_request", "unknown variant `cook`"),
        ("/v1/jobs", unknown, 400, "bad_request", "predict.p_thresh: unknown field `p_thresh`"),
        ("/v1/jobs", negative, 400, "bad_request", "predict.timepoint: invalid value: integer `-1`"),
        ("/v1/jobs?patience=1", predict(), 400, "bad_request", "unknown query parameter \"patience\"; known are wait"),
        ("/v1/jobs?wait=1", predict(), 400, "bad_request", "wait must be true or false, not \"1\""),
        ("/v1", predict(), 404, "not_found", "there is no POST /v1 on this server"),
        ("/v1/nowhere", predict(), 404, "not_found", "there is no POST /v1/nowhere on this server"),
    ] {
        let refused = fixture.router.post(path, &body).await;
        let body = refused.json();
        assert_eq!((refused.status.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
    let mut missing = predict();
    missing["predict"]["dataset"] = json!("nobody");
    let failed = fixture.router.post("/v1/jobs?wait=true", &missing).await;
    assert_eq!((failed.status.as_u16(), &failed.json()["code"]), (404, &json!("not_found")));
    assert_eq!(fixture.router.get("/v1/jobs/1").await.json()["status"], "failed");
    assert_eq!(fixture.router.get("/v1/jobs/x").await.json()["code"], "not_found");
    let refused = fixture.router.get("/v1/jobs?limit=0").await;
    assert_eq!(refused.json()["message"], "limit must be 1 to 10000, not \"0\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_without_its_caller_until_it_is_cancelled() {
    let fixture = fixture();
    let gate = fixture.workspace.hold_predictions();
    let id = fixture.router.post("/v1/jobs", &predict()).await.json()["id"].clone();
    let _gate = tokio::task::spawn_blocking(move || {
        gate.wait_for_arrival();
        gate
    })
    .await
    .unwrap();
    let path = format!("/v1/jobs/{id}");
    assert_eq!(fixture.router.get(&path).await.json()["status"], "running");
    assert_eq!(fixture.router.call("DELETE", &path, "", "").await.status, 202);
    let jobs = fixture.workspace.runner.jobs();
    eventually("it is cancelled", || jobs.details(1).unwrap().record.ended_at.is_some());
    let again = fixture.router.call("DELETE", &path, "", "").await;
    assert_eq!((again.status.as_u16(), &again.json()["message"]), (409, &json!("job 1 has ended already: cancelled")));
}

#[tokio::test]
async fn the_documentation_has_the_form_of_errors() {
    let fixture = fixture();
    let document = fixture.router.get("/swagger.json").await.json();
    let responses = &document["paths"]["/v1/jobs"]["post"]["responses"];
    let schema = &responses["429"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(schema, "#/components/schemas/V1Error");
    let examples = &document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"];
    assert_eq!(examples["predict"]["value"]["predict"]["dataset"], "fly");
    assert!(document["components"]["schemas"]["V1Error"]["properties"]["code"].is_object());
}
