//! Costs of tracking are learnt from projects, and used by their names.

#![allow(clippy::disallowed_methods)]

use std::fs;

use elephant_pipeline::{
    FitRequest, FitSummary, PipelineError, Request, SteerRequest, TrackRequest, TrackSummary, testing::TestWorkspace,
};
use elephant_project::{Author, DetectionTag, LinkState, Operation, Project, ProjectId};
use elephant_track::Weights;
use elephant_types::{CancelToken, Coded, ErrorCode, TaskContext};
use serde_json::{Value, json};

fn fit(workspace: &TestWorkspace, request: Value) -> Result<FitSummary, PipelineError> {
    let request: FitRequest = serde_json::from_value(request).unwrap();
    request.validate()?;
    request.run(&workspace.use_cases, &TaskContext::detached())
}

/// Tracks the dataset `fly`.
fn track(workspace: &TestWorkspace, more: &Value) -> Result<TrackSummary, PipelineError> {
    let mut request = json!({"dataset": "fly", "detection": {"threshold": 0.3, "center_ratio": 0.8}});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let request: TrackRequest = serde_json::from_value(request).unwrap();
    request.validate()?;
    request.run(&workspace.use_cases, &TaskContext::detached())
}

/// A workspace with a tracked dataset, and its project.
fn tracked() -> (TestWorkspace, std::sync::Arc<Project>) {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    track(&workspace, &json!({})).unwrap();
    let id: ProjectId = "fly/tracking".parse().unwrap();
    let project = workspace.use_cases.workspace.projects().get(&id).unwrap();
    (workspace, project)
}

fn ann() -> Author {
    "Ann".parse().unwrap()
}

fn approve(project: &Project, count: usize) {
    let view = project.view(0, u32::MAX).unwrap();
    let links = view.links[..count].iter().map(|link| (link.source, link.target)).collect();
    let approve = Operation::Approve { spots: Vec::new(), links, state: LinkState::Approved };
    project.append(&ann(), None, &[approve]).unwrap();
}

#[test]
fn what_a_complete_project_teaches_is_used_by_name() {
    let (workspace, project) = tracked();
    let view = project.view(0, u32::MAX).unwrap();
    let summary =
        fit(&workspace, json!({"weights": "lab/fly.json", "complete": ["fly/tracking"], "rounds": 2})).unwrap();
    assert_eq!(summary.examples, 4, "as it is, and with three kinds of mistakes");
    assert!(summary.links > 2 * view.links.len() && summary.links < 4 * view.links.len(), "{summary:?}");
    let written: Weights =
        serde_json::from_slice(&fs::read(workspace.path().join("models/lab/fly.json")).unwrap()).unwrap();
    assert!(
        written.origin.ends_with("2 rounds from the weights that ship, seed 0: complete fly/tracking"),
        "{}",
        written.origin
    );
    assert_ne!(written.link, Weights::builtin().link);

    let links = |project: &str| {
        let id: ProjectId = format!("fly/{project}").parse().unwrap();
        let view = workspace.use_cases.workspace.projects().get(&id).unwrap().view(0, u32::MAX).unwrap();
        view.links.iter().map(|link| (link.source.0, link.target.0, link.score.unwrap())).collect::<Vec<_>>()
    };
    track(&workspace, &json!({"project": "named", "weights": "lab/fly.json"})).unwrap();
    track(&workspace, &json!({"project": "inline", "tracking": {"weights": written}})).unwrap();
    assert_eq!(links("named"), links("inline"));
    assert_ne!(links("named"), links("tracking"), "scores, at least");

    let steer = json!({"dataset": "fly", "tracking": {}, "weights": "lab/fly.json"});
    let steer: SteerRequest = serde_json::from_value(steer).unwrap();
    steer.validate().unwrap();
    steer.run(&workspace.use_cases, &TaskContext::detached()).unwrap();
    assert_eq!(fs::read_dir(workspace.path().join("models/lab")).unwrap().count(), 1, "no temporary files");
}

#[test]
fn approved_links_are_enough_and_are_needed() {
    let (workspace, project) = tracked();
    let request = json!({"weights": "fly.json", "approved": ["fly/tracking"], "rounds": 1});
    let error = fit(&workspace, request.clone()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("fly/tracking has no approved links"), "{error}");
    approve(&project, 3);
    let summary = fit(&workspace, request.clone()).unwrap();
    assert_eq!((summary.examples, summary.links), (1, 3));

    // One of them ends at a spot that somebody has rejected.
    let target = project.view(0, u32::MAX).unwrap().links[0].target;
    let tag = Operation::Tag { spots: vec![target], detection: Some(DetectionTag::FalsePositive), tracking: None };
    project.append(&ann(), None, &[tag]).unwrap();
    let error = fit(&workspace, request).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    let said = error.to_string();
    assert!(said.starts_with("fly/tracking: ") && said.contains(&format!("spot {target} is rejected")), "{said}");
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let of = |more: Value| {
        let mut request = json!({"weights": "fly.json"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fit(&workspace, request).unwrap_err()
    };
    for (more, code, word) in [
        (json!({}), ErrorCode::InvalidArgument, "nothing to learn from"),
        (json!({"complete": ["fly/none"]}), ErrorCode::NotFound, "none"),
        (json!({"complete": ["bee/none"]}), ErrorCode::NotFound, "bee"),
        (
            json!({"complete": ["fly/a"], "approved": ["fly/a"]}),
            ErrorCode::InvalidArgument,
            "both complete and approved",
        ),
        (json!({"approved": ["fly/a"], "from_scratch": true}), ErrorCode::InvalidArgument, "from_scratch"),
        (json!({"synthetic": 101}), ErrorCode::InvalidArgument, "synthetic must be 0 to 100"),
        (json!({"synthetic": 1, "rounds": 0}), ErrorCode::InvalidArgument, "rounds must be 1 to 100"),
        (json!({"synthetic": 1, "weights": "detection.pth"}), ErrorCode::InvalidArgument, "end in .json"),
    ] {
        let error = of(more.clone());
        assert_eq!(error.code(), code, "{more}: {error}");
        assert!(error.to_string().contains(word), "{more}: {error}");
    }
    let empty: ProjectId = "fly/empty".parse().unwrap();
    workspace.use_cases.workspace.projects().create(&empty, elephant_project::ProjectKind::Normal).unwrap();
    let error = of(json!({"complete": ["fly/empty"]}));
    assert!(error.to_string().contains("fly/empty has no links"), "{error}");
    assert!(!workspace.path().join("models/fly.json").exists());
}

#[test]
fn weights_that_cannot_be_used_are_named() {
    let (workspace, _) = tracked();
    let put = |name: &str, text: &str| fs::write(workspace.path().join("models").join(name), text).unwrap();
    put("text.json", "weights");
    let mut shorter = Weights::builtin().clone();
    shorter.link.pop();
    put("shorter.json", &serde_json::to_string(&shorter).unwrap());
    let message = |more: Value| {
        let error = track(&workspace, &more).unwrap_err();
        assert_ne!(error.code(), ErrorCode::Internal, "{error}");
        error.to_string()
    };
    let missing = message(json!({"weights": "none.json"}));
    assert_eq!(missing, "there are no weights none.json among the models; fit them first");
    let damaged = message(json!({"weights": "text.json"}));
    assert!(damaged.contains("text.json: the file has no weights of this version"), "{damaged}");
    let shorter = message(json!({"weights": "shorter.json"}));
    assert!(shorter.contains("shorter.json: there are ") && shorter.contains("fit them again"), "{shorter}");
    let network = message(json!({"weights": "detection.pth"}));
    assert!(network.contains("end in .json"), "{network}");
    let twice = message(json!({"weights": "a.json", "tracking": {"weights": Weights::builtin()}}));
    assert!(twice.contains("given twice"), "{twice}");
    let steer = json!({"dataset": "fly", "tracking": null, "weights": "a.json"});
    let error = serde_json::from_value::<SteerRequest>(steer).unwrap().validate().unwrap_err();
    assert!(error.to_string().contains("weights need tracking"), "{error}");
}

#[test]
fn a_cancelled_fitting_writes_nothing() {
    let (workspace, _) = tracked();
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    // The first step is the project, the others are of the fitting.
    let context = TaskContext::new(cancel, move |progress| {
        if progress.done == 2 {
            stop.cancel();
        }
    });
    let request = json!({"weights": "fly.json", "complete": ["fly/tracking"]});
    let request: FitRequest = serde_json::from_value(request).unwrap();
    let error = request.run(&workspace.use_cases, &context).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert!(!workspace.path().join("models/fly.json").exists());
}
