//! Movies are tracked into projects, the client's linking is answered from tracks, and tracks are exported.

#![allow(clippy::disallowed_methods)]

use std::fs;

use elephant_pipeline::{
    ExportFormat, ExportRequest, FlowSpot, ImportRequest, PipelineError, PredictFlowRequest, PredictRequest,
    QualityRequest, Request, SteerRequest, Task, TrackRequest, TrackSummary, answer_flow, export_project,
    import_project, quality, testing::TestWorkspace,
};
use elephant_project::{Author, DetectionTag, LinkState, Operation, ProjectId, ProjectKind, TrackingTag, View};
use elephant_score::{MistakeKind, ScoreOptions};
use elephant_types::{CancelToken, Coded, ErrorCode, Spot, TaskContext, VoxelSize};
use serde_json::{Value, json};

/// Bright enough to be the middle of a nucleus of the synthetic embryo.
const THRESHOLD: f64 = 0.3;

fn request(more: &Value) -> TrackRequest {
    let mut request = json!({"dataset": "fly", "detection": {"threshold": THRESHOLD, "center_ratio": 0.8}});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(request).unwrap()
}

fn track(workspace: &TestWorkspace, more: &Value) -> Result<TrackSummary, PipelineError> {
    let request = request(more);
    request.validate()?;
    request.run(&workspace.use_cases, &TaskContext::detached())
}

fn id(project: &str) -> ProjectId {
    ProjectId::new("fly".parse().unwrap(), project.parse().unwrap())
}

#[test]
fn a_movie_becomes_lineages_and_what_people_say_is_kept_to() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    // The voxel size is in the movie's .xml file.
    let first = track(&workspace, &json!({})).unwrap();
    assert!(first.is_optimal && first.frames > 3 && first.links > 10, "{first:?}");
    assert_eq!(first.cells, first.links + first.tracks - 2 * first.divisions, "{first:?}");
    let project = workspace.use_cases.workspace.projects().get(&id("tracking")).unwrap();
    let view = project.view(0, u32::MAX).unwrap();
    assert_eq!(view.links.len(), first.links);
    assert_eq!(view.spots.len(), first.cells + first.left_out);
    assert!(view.links.iter().all(|link| link.score.is_some_and(|score| (0.0..=1.0).contains(&score))));

    // The same again, from the cells that are there.
    let seq = project.info().unwrap().seq;
    assert_eq!(track(&workspace, &json!({"detect": "none"})).unwrap(), first);
    assert_eq!(project.info().unwrap().seq, seq, "nothing has changed");

    let link = *view.links.iter().find(|link| link.score > Some(0.5)).unwrap();
    let rejected =
        Operation::Approve { spots: Vec::new(), links: vec![(link.source, link.target)], state: LinkState::Rejected };
    let author: Author = "Ann".parse().unwrap();
    project.append(&author, None, &[rejected]).unwrap();
    track(&workspace, &json!({"detect": "none"})).unwrap();
    let view = project.view(0, u32::MAX).unwrap();
    let of_pair: Vec<LinkState> = view
        .links
        .iter()
        .filter(|other| (other.source, other.target) == (link.source, link.target))
        .map(|link| link.state)
        .collect();
    assert_eq!(of_pair, [LinkState::Rejected]);

    let nearest = track(&workspace, &json!({"project": "nearest", "tracking": {"method": "nearest"}})).unwrap();
    assert!(nearest.links > 10 && nearest.left_out + nearest.cells == first.cells + first.left_out, "{nearest:?}");
}

#[test]
fn a_cancelled_tracking_keeps_the_cells_it_has_found() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let cancel = CancelToken::default();
    let after_two = cancel.clone();
    let context = TaskContext::new(cancel, move |progress| {
        if progress.done == 2 {
            after_two.cancel();
        }
    });
    let error = request(&json!({})).run(&workspace.use_cases, &context).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    let project = workspace.use_cases.workspace.projects().get(&id("tracking")).unwrap();
    let frames: Vec<u32> = project.info().unwrap().frames.into_iter().map(|(t, _)| t).collect();
    assert_eq!(frames, [0, 1]);
}

/// Cancels a tracking as soon as so many of its steps, three for each frame, are finished.
fn track_until(workspace: &TestWorkspace, more: &Value, steps: u64) -> PipelineError {
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    let context = TaskContext::new(cancel, move |progress| {
        if progress.done >= steps {
            stop.cancel();
        }
    });
    request(more).run(&workspace.use_cases, &context).unwrap_err()
}

#[test]
fn a_tracking_that_is_cancelled_while_it_links_does_not_spoil_links() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let frames = workspace.use_cases.dataset_info(&"fly".parse().unwrap()).unwrap().shape[0] as u64;
    // All cells are found and measured, and the first of three passes is over.
    let error = track_until(&workspace, &json!({}), 2 * frames + frames / 3);
    assert_eq!(error.code(), ErrorCode::Cancelled);
    let project = workspace.use_cases.workspace.projects().get(&id("tracking")).unwrap();
    assert!(project.info().unwrap().links > 10, "links are better than none");
    track(&workspace, &json!({"detect": "none"})).unwrap();
    let complete = project.view(0, u32::MAX).unwrap().links;
    let error = track_until(&workspace, &json!({"detect": "none"}), 2 * frames);
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert_eq!(project.view(0, u32::MAX).unwrap().links, complete);
}

#[test]
fn part_of_a_movie_is_tracked_without_a_change_to_the_rest() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    track(&workspace, &json!({})).unwrap();
    let project = workspace.use_cases.workspace.projects().get(&id("tracking")).unwrap();
    let whole = project.view(0, u32::MAX).unwrap();
    let part = track(&workspace, &json!({"detect": "none", "timepoints": [1, 2]})).unwrap();
    assert_eq!(part.frames, 2);
    let outside = |view: &View| {
        let t: std::collections::HashMap<_, _> = view.spots.iter().map(|spot| (spot.key, spot.spot.t)).collect();
        let ends = view.links.iter().map(|link| (link.source, link.target));
        ends.filter(|(source, target)| t[source] < 1 || t[target] > 2).collect::<Vec<_>>()
    };
    assert!(!outside(&whole).is_empty());
    assert_eq!(outside(&project.view(0, u32::MAX).unwrap()), outside(&whole));
}

#[test]
fn contradictory_approvals_are_named_by_the_projects_numbers() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    track(&workspace, &json!({})).unwrap();
    let project = workspace.use_cases.workspace.projects().get(&id("tracking")).unwrap();
    let link = project.view(0, u32::MAX).unwrap().links[0];
    let author: Author = "Ann".parse().unwrap();
    let approve =
        Operation::Approve { spots: Vec::new(), links: vec![(link.source, link.target)], state: LinkState::Approved };
    let tag = Operation::Tag { spots: vec![link.target], detection: Some(DetectionTag::FalsePositive), tracking: None };
    project.append(&author, None, &[approve, tag]).unwrap();
    let error = track(&workspace, &json!({"detect": "none"})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    let said = format!("spot {} is rejected", link.target);
    assert!(error.to_string().contains(&said), "{error}");
}

#[test]
fn wrong_requests_are_refused() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    for (more, code, word) in [
        (json!({"dataset": "bee"}), ErrorCode::NotFound, "bee"),
        (json!({"timepoints": [0, 1000]}), ErrorCode::NotFound, "timepoint 1000"),
        (json!({"timepoints": [3, 2]}), ErrorCode::InvalidArgument, "timepoints"),
        (json!({"tracking": {"max_gap": 9}}), ErrorCode::InvalidArgument, "max_gap"),
        (json!({"detection": {"threshold": 2.0}}), ErrorCode::InvalidArgument, "p_thresh"),
    ] {
        let error = track(&workspace, &more).unwrap_err();
        assert_eq!(error.code(), code, "{more}: {error}");
        assert!(error.to_string().contains(word), "{more}: {error}");
    }
    for text in
        [r#"{"track": {"dataset": "fly", "method": "nearest"}}"#, r#"{"track": {"dataset": "fly", "motion": "x"}}"#]
    {
        serde_json::from_str::<Task>(text).unwrap_err();
    }
    fs::remove_file(workspace.path().join("datasets/fly/movie.xml")).unwrap();
    let error = track(&workspace, &json!({})).unwrap_err().to_string();
    assert!(error.contains("voxel_size"), "{error}");
    let mirror = workspace.use_cases.workspace.projects().create(&id("mastodon"), ProjectKind::Mirror).unwrap();
    let error = track(&workspace, &json!({"project": "mastodon", "voxel_size": [1, 1, 1]})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    assert_eq!(mirror.info().unwrap().spots, 0);
}

/// What the client does: predicts all frames. Returns their cells.
fn predict_all(workspace: &TestWorkspace, voxel_size: VoxelSize) -> Vec<Vec<Spot>> {
    let count = workspace.use_cases.dataset_info(&"fly".parse().unwrap()).unwrap().shape[0];
    let predict = |timepoint: usize| {
        let request: PredictRequest = serde_json::from_value(json!({"dataset": "fly", "timepoint": timepoint,
            "voxel_size": voxel_size, "threshold": THRESHOLD, "center_ratio": 0.8, "min_radius_um": 1}))
        .unwrap();
        let spots = request.run(&workspace.use_cases, &TaskContext::detached()).unwrap();
        request.mirror(&workspace.use_cases, &spots);
        spots
    };
    (0..count).map(predict).collect()
}

fn asked(timepoint: usize, voxel_size: VoxelSize, spots: &[Spot]) -> PredictFlowRequest {
    let spots = spots.iter().zip(100..).map(|(spot, id)| FlowSpot {
        id,
        center_um: spot.center_um,
        covariance_um2: spot.covariance_um2,
    });
    serde_json::from_value(json!({"dataset": "fly", "timepoint": timepoint, "voxel_size": voxel_size,
        "spots": spots.collect::<Vec<_>>()}))
    .unwrap()
}

#[test]
fn tracking_answers_the_clients_linking_where_it_is_asked_to() {
    let workspace = TestWorkspace::new();
    let voxel_size = workspace.add_dataset("fly");
    let frames = predict_all(&workspace, voxel_size);
    let (use_cases, context) = (&workspace.use_cases, TaskContext::detached());
    let steer = |tracking: &Value| {
        let request: SteerRequest = serde_json::from_value(json!({"dataset": "fly", "tracking": tracking})).unwrap();
        request.validate().unwrap();
        request.run(use_cases, &context).unwrap();
    };
    let last = frames.len() - 1;
    let request = asked(last, voxel_size, &frames[last]);
    steer(&json!({}));
    assert_eq!(workspace.network.displacement_calls(), 0);
    let mut answered = 0;
    for t in (1..=last).rev() {
        let request = asked(t, voxel_size, &frames[t]);
        for answer in answer_flow(use_cases, &request, &context).unwrap() {
            let spot = &request.spots[(answer.id - 100) as usize];
            let squared: f64 = (0..3).map(|d| (answer.center_um[d] - spot.center_um[d]).powi(2)).sum();
            assert!((squared - answer.squared_um2).abs() < 1e-9);
            assert!(frames[t - 1].iter().any(|parent| parent.center_um == answer.center_um), "the exact place");
            answered += 1;
        }
    }
    let tracked = track(
        &workspace,
        &json!({"voxel_size": voxel_size, "detection": {"threshold": THRESHOLD,
        "center_ratio": 0.8, "min_radius_um": 1}}),
    )
    .unwrap();
    assert!(answered > 10 && answered <= tracked.links, "{answered} of {tracked:?}");
    assert_eq!(workspace.network.displacement_calls(), 0, "the flow network was not asked");

    steer(&Value::Null);
    let answers = answer_flow(use_cases, &request, &context).unwrap();
    assert_eq!(answers.len(), request.spots.len(), "the network answers for all cells");
    assert!(workspace.network.displacement_calls() > 0);
}

#[test]
fn tracks_are_exported() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let tracked = track(&workspace, &json!({})).unwrap();
    let export = |format, name: &str, with_unlinked| {
        let request = ExportRequest { project: id("tracking"), format, with_unlinked, voxel_size: None };
        let path = workspace.path().join(name);
        (export_project(&workspace.use_cases.workspace, &request, &path, &TaskContext::detached()).unwrap(), path)
    };
    let (written, path) = export(ExportFormat::Napari, "tracks.csv", false);
    let rows = fs::read_to_string(path).unwrap().lines().count() - 1;
    assert_eq!((rows, written.spots - written.interpolated), (written.spots, tracked.cells));
    let (all, _) = export(ExportFormat::Mastodon, "spots.csv", true);
    assert_eq!(all.spots, written.spots + tracked.left_out);
    for (format, name, made) in [
        (ExportFormat::Ctc, "ctc", "res_track.txt"),
        (ExportFormat::Geff, "tracks.geff", "zarr.json"),
        (ExportFormat::TrackMate, "tracks.xml", ""),
    ] {
        let (_, path) = export(format, name, false);
        assert!(path.join(made).exists() || path.is_file(), "{name}");
    }
    let unknown =
        ExportRequest { project: id("none"), format: ExportFormat::Ctc, with_unlinked: false, voxel_size: None };
    let error =
        export_project(&workspace.use_cases.workspace, &unknown, &workspace.path().join("x"), &TaskContext::detached());
    assert_eq!(error.unwrap_err().code(), ErrorCode::NotFound);
}

#[test]
fn what_was_exported_is_imported_and_the_same() {
    let workspace = TestWorkspace::new();
    workspace.add_dataset("fly");
    let tracked = track(&workspace, &json!({})).unwrap();
    let (place, context) = (&workspace.use_cases.workspace, TaskContext::detached());
    let import = |path: &str, project: &str, is_approved| {
        let request = ImportRequest { project: id(project), voxel_size: None, is_approved };
        import_project(place, &request, &workspace.path().join(path), &context)
    };
    for (format, path, project) in [(ExportFormat::Geff, "geff", "graph"), (ExportFormat::Ctc, "ctc", "masks")] {
        let request = ExportRequest { project: id("tracking"), format, with_unlinked: false, voxel_size: None };
        let written = export_project(place, &request, &workspace.path().join(path), &context).unwrap();
        let imported = import(path, project, true).unwrap();
        assert_eq!((imported.spots, imported.tracks), (written.spots, written.tracks));
        let compared = QualityRequest { project: id(project), truth: id("tracking"), options: ScoreOptions::default() };
        let found = quality(place, &compared, &context).unwrap();
        assert_eq!(found.report.links.f1, Some(1.0), "{project}: {:?}", found.mistakes);
        assert_eq!(found.report.cells.true_positives, written.spots);
        let view = place.projects().get(&id(project)).unwrap().view_all().unwrap();
        assert!(view.links.iter().all(|link| link.state == LinkState::Approved));
        assert!(view.spots.iter().all(|spot| spot.tracking == TrackingTag::Approved));
    }
    assert_eq!(import("geff", "graph", false).unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(import("nothing", "other", false).unwrap_err().code(), ErrorCode::NotFound);

    // A cell behind the last frame, a parent that is none, and a table that is none: there is no project then.
    let header = "t,id,parent,x,y,z,c00,c01,c02,c10,c11,c12,c20,c21,c22";
    for (row, reason) in [
        ("999,0,-1,1,1,1,4,0,0,0,4,0,0,0,4", "a cell at timepoint 999"),
        ("1,0,7,1,1,1,4,0,0,0,4,0,0,0,4", "the parent 7"),
        ("1,0,-1,1,1,inf,4,0,0,0,4,0,0,0,4", "not a finite number"),
    ] {
        fs::write(workspace.path().join("spots.csv"), format!("{header}\n{row}\n")).unwrap();
        let error = import("spots.csv", "other", false).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    fs::write(workspace.path().join("spots.csv"), format!("{header}\n0,0,-1,9,9,9,4,0,0,0,4,0,0,0,4\n")).unwrap();
    import("spots.csv", "other", false).unwrap();

    // Mistakes are named by the spots of the projects.
    let compared = QualityRequest { project: id("other"), truth: id("tracking"), options: ScoreOptions::default() };
    let found = quality(place, &compared, &context).unwrap();
    let missed = found.mistakes.iter().filter(|mistake| mistake.kind == MistakeKind::MissedCell).count();
    assert_eq!(missed, found.report.operations.reference_cells - found.report.cells.true_positives);
    assert!(missed >= tracked.cells + tracked.left_out - 1, "{missed}");
    let known = place.projects().get(&id("tracking")).unwrap().view_all().unwrap().ids();
    assert!(found.mistakes.iter().flat_map(|mistake| &mistake.truth).flatten().all(|key| known.contains_key(key)));
    let frames: usize = found.report.by_frame.iter().map(|frame| frame.cells.false_negatives).sum();
    assert_eq!(frames, missed);
}
