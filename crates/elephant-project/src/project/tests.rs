use std::path::PathBuf;

use elephant_types::{Coded, ErrorCode, SpotId};

use super::*;
use crate::{Covariance, DetectionTag, LinkState, NewLink, NewSpot, TrackingTag};

struct Fixture {
    folder: tempfile::TempDir,
    project: Project,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::create(&folder.path().join("projects/main.sqlite"), ProjectKind::Normal).unwrap();
        Self { folder, project }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("projects/main.sqlite")
    }
}

fn author(name: &str) -> Author {
    name.parse().unwrap()
}

pub(crate) fn new_spot(t: u32, x: f64) -> NewSpot {
    NewSpot {
        key: None,
        t,
        center_um: [1.0, 2.0, x],
        covariance_um2: Covariance([4.0, 0.0, 0.0, 4.0, 0.0, 4.0]),
        quality: 0.5,
        detection: DetectionTag::Unlabeled,
        tracking: TrackingTag::Unlabeled,
        flags: 0,
        parent: None,
    }
}

fn link(source: u64, target: u64) -> NewLink {
    NewLink { source: SpotKey(source), target: SpotKey(target), state: LinkState::Unlabeled, score: Some(0.75) }
}

fn tag(key: u64, tag: DetectionTag) -> Operation {
    Operation::Tag { spots: vec![SpotKey(key)], detection: Some(tag), tracking: None }
}

/// Spots 1 to 4 in frames 0 to 2, 1 dividing into 2 and 3, 4 after 3.
fn family(project: &Project) {
    let spots = vec![new_spot(0, 0.0), new_spot(1, 10.0), new_spot(1, 20.0), new_spot(2, 30.0)];
    let added = project.append(&author("Ann"), None, &[Operation::Add { spots }]).unwrap();
    assert_eq!(added.added, [1, 2, 3, 4].map(SpotKey));
    let links = vec![link(1, 2), link(1, 3), link(3, 4)];
    project.append(&author("Ann"), None, &[Operation::Link { links, replace: false }]).unwrap();
}

fn refusal(result: Result<Appended, ProjectError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_was_written_is_there_after_opening() {
    let fixture = Fixture::new();
    family(&fixture.project);
    fixture.project.append(&author("Bob"), None, &[tag(2, DetectionTag::TruePositive)]).unwrap();
    let before = fixture.project.view_all().unwrap();
    let info = fixture.project.info().unwrap();
    let Fixture { folder, project } = fixture;
    drop(project);
    let again = Project::open(&folder.path().join("projects/main.sqlite")).unwrap();
    assert_eq!((again.view_all().unwrap(), again.info().unwrap()), (before.clone(), info.clone()));
    assert_eq!((info.seq, info.spots, info.links), (3, 4, 3));
    assert_eq!((info.frames, info.authors), (vec![(0, 1), (1, 2), (2, 1)], vec!["Ann".to_owned(), "Bob".into()]));
    let lineage = before.lineage().unwrap();
    assert!(lineage.is_division(SpotId(0)));
    assert_eq!(lineage.parent(SpotId(3)), Some(SpotId(2)));
    let part = again.view(1, 2).unwrap();
    assert_eq!(part.spots.iter().map(|spot| spot.key.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(part.links.len(), 1, "only links whose both ends are there");
    assert_eq!(again.view(3, 1).unwrap().spots, []);
}

#[test]
fn a_request_is_carried_out_as_a_whole() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    family(project);
    let before = project.view_all().unwrap();
    for (operations, reason) in [
        (vec![tag(1, DetectionTag::TruePositive), tag(9, DetectionTag::TruePositive)], "there is no spot 9"),
        (vec![Operation::Delete { spots: vec![SpotKey(3), SpotKey(3)] }], "there is no spot 3"),
        (vec![Operation::Link { links: vec![link(2, 4)], replace: false }], "spot 4 has the parent 3 (unlabeled)"),
        (vec![Operation::Link { links: vec![link(4, 1)], replace: true }], "does not go forward in time"),
        (vec![Operation::Link { links: vec![link(2, 2)], replace: false }], "does not go forward in time"),
        (vec![Operation::Unlink { links: vec![(SpotKey(2), SpotKey(4))] }], "there is no link from spot 2 to spot 4"),
        (vec![Operation::Move { spot: SpotKey(1), center_um: [f64::NAN; 3] }], "center_um must be"),
        (
            vec![Operation::Approve { spots: vec![SpotKey(1)], links: vec![], state: LinkState::Rejected }],
            "spots cannot be rejected",
        ),
        (
            vec![Operation::Add { spots: vec![NewSpot { key: Some(SpotKey(7)), ..new_spot(0, 0.0) }] }],
            "the key of a new",
        ),
        (vec![Operation::Add { spots: vec![NewSpot { quality: 1.5, ..new_spot(0, 0.0) }] }], "quality must be 0 to 1"),
        (vec![Operation::Add { spots: vec![new_spot(2_000_000, 0.0)] }], "t must be at most"),
    ] {
        // Something that would work comes first.
        let mut all = vec![tag(4, DetectionTag::FalseNegative), Operation::Add { spots: vec![new_spot(5, 5.0)] }];
        all.extend(operations);
        let refused = refusal(project.append(&author("Eve"), None, &all));
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(project.view_all().unwrap(), before, "{reason}");
    }
    let added = project.append(&author("Ann"), None, &[Operation::Add { spots: vec![new_spot(5, 5.0)] }]).unwrap();
    assert_eq!((added.seq, added.added), (3, vec![SpotKey(5)]), "no number is lost");
}

#[test]
fn a_repeated_request_changes_nothing() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    let id: ClientId = "tab1-17".parse().unwrap();
    let add = [Operation::Add { spots: vec![new_spot(0, 0.0)] }];
    let first = project.append(&author("Ann"), Some(&id), &add).unwrap();
    let again = project.append(&author("Ann"), Some(&id), &add).unwrap();
    assert_eq!(again, Appended { is_repeated: true, ..first.clone() });
    assert_eq!(project.info().unwrap().spots, 1);
    let error = project.append(&author("Bob"), Some(&id), &add).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    let same = project.append(&author("Ann"), None, &[tag(1, DetectionTag::Unlabeled)]).unwrap();
    assert_eq!((same.seq, same.changes), (first.seq, 0), "nothing had to be changed");
}

#[test]
fn clients_choose_numbers_of_their_own() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    let key = SpotKey(SpotKey::FIRST_OF_CLIENTS.0 + 99);
    let spots = vec![new_spot(0, 0.0), NewSpot { key: Some(key), parent: Some(SpotKey(1)), ..new_spot(1, 1.0) }];
    let add = [Operation::Add { spots }];
    let added = project.append(&author("Ann"), None, &add).unwrap();
    assert_eq!(added.added, [SpotKey(1), key]);
    assert_eq!(project.view_all().unwrap().links.len(), 1);
    let error = project.append(&author("Ann"), None, &add).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains(&key.to_string())), (ErrorCode::Conflict, true));
    let next = project.append(&author("Ann"), None, &[Operation::Add { spots: vec![new_spot(0, 0.0)] }]).unwrap();
    assert_eq!(next.added, [SpotKey(2)]);
}

#[test]
fn undo_takes_back_ones_own_last_entry() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    let (ann, bob) = (author("Ann"), author("Bob"));
    family(project);
    let whole = project.view_all().unwrap();
    project.append(&ann, None, &[Operation::Delete { spots: vec![SpotKey(1), SpotKey(3)] }]).unwrap();
    assert_eq!(project.view_all().unwrap().links, []);
    project.append(&bob, None, &[tag(2, DetectionTag::TruePositive)]).unwrap();
    let undone = project.undo(&ann, None).unwrap();
    assert_eq!(undone.seq, 5);
    let now = project.view_all().unwrap();
    assert_eq!(now.links, whole.links);
    assert_eq!(now.spots.iter().map(|spot| spot.key).collect::<Vec<_>>(), [1, 2, 3, 4].map(SpotKey));
    assert_eq!(now.spots[1].detection, DetectionTag::TruePositive, "what Bob did stays");
    project.redo(&ann, None).unwrap();
    assert_eq!(project.info().unwrap().spots, 2);
    project.undo(&ann, None).unwrap();
    // Bob has tagged spot 2 since it was added.
    project.undo(&ann, None).unwrap();
    let refused = project.undo(&ann, None).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Conflict);
    assert!(refused.to_string().contains("Bob has changed spot 2 since (entry 4)"), "{refused}");
    assert!(refusal(project.undo(&author("Eve"), None)).contains("Eve has nothing to undo"));
    assert!(!project.info().unwrap().authors.contains(&"Eve".into()));
    // Undo survives a restart.
    let again = Project::open(&fixture.path()).unwrap();
    again.undo(&bob, None).unwrap();
    again.undo(&ann, None).unwrap_err();
    assert_eq!(project.view_all().unwrap().spots[1].detection, DetectionTag::Unlabeled);
}

#[test]
fn links_are_judged() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    let ann = author("Ann");
    family(project);
    let approve = |links: &[(u64, u64)], state| {
        let links = links.iter().map(|(source, target)| (SpotKey(*source), SpotKey(*target))).collect();
        project.append(&ann, None, &[Operation::Approve { spots: vec![], links, state }])
    };
    approve(&[(1, 2)], LinkState::Approved).unwrap();
    approve(&[(1, 3), (2, 4)], LinkState::Rejected).unwrap();
    let view = project.view_all().unwrap();
    let constraints = view.constraints();
    assert_eq!(constraints.approved_links.len(), 1);
    assert_eq!(constraints.rejected_links.len(), 2);
    assert_eq!(constraints.required, [SpotId(0), SpotId(1)]);
    assert_eq!(view.lineage().unwrap().links().count(), 2);
    // A tracker links anew; what was judged stays.
    let links = vec![link(1, 2), link(1, 3), link(2, 4)];
    project.append(&author("tracker"), None, &[Operation::Relink { first: 0, last: 2, links }]).unwrap();
    let ends: Vec<_> =
        project.view_all().unwrap().links.iter().map(|link| (link.source.0, link.target.0, link.state)).collect();
    assert_eq!(ends, [(1, 2, LinkState::Approved), (1, 3, LinkState::Rejected), (2, 4, LinkState::Rejected)]);
    project.undo(&author("tracker"), None).unwrap();
    assert_eq!(project.view_all().unwrap(), View { seq: 6, ..with_stamps_of(view, &project.view_all().unwrap()) });
    assert!(refusal(approve(&[(2, 3)], LinkState::Approved)).contains("there is no link"));
    // Approving a rejected link makes it one again, if the place is free.
    assert!(refusal(approve(&[(2, 4)], LinkState::Approved)).contains("spot 4 has the parent 3"));
    approve(&[(1, 3)], LinkState::Approved).unwrap();
    project.append(&ann, None, &[Operation::Delete { spots: vec![SpotKey(2)] }]).unwrap();
    assert_eq!(project.view_all().unwrap().links.len(), 2, "the rejected link to the spot is gone with it");
}

#[test]
fn links_from_other_frames_are_not_replaced() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    family(project);
    let relink = |links| project.append(&author("tracker"), None, &[Operation::Relink { first: 1, last: 2, links }]);
    assert!(refusal(relink(vec![link(1, 2)])).contains("spot 1 is in frame 0, not in 1 to 2"));
    relink(vec![link(2, 4)]).unwrap();
    let links: Vec<_> = project.view_all().unwrap().links.iter().map(|link| (link.source.0, link.target.0)).collect();
    assert_eq!(links, [(1, 2), (1, 3), (2, 4)]);
}

/// The view with the sequence numbers and authors of another one.
fn with_stamps_of(mut view: View, other: &View) -> View {
    view.authors.clone_from(&other.authors);
    for (spot, other) in view.spots.iter_mut().zip(&other.spots) {
        spot.changed = other.changed;
    }
    view
}

#[test]
fn two_open_projects_see_each_other() {
    let fixture = Fixture::new();
    let other = Project::open(&fixture.path()).unwrap();
    family(&fixture.project);
    assert_eq!(other.info().unwrap().spots, 4);
    let added = other.append(&author("Bob"), None, &[Operation::Add { spots: vec![new_spot(0, 9.0)] }]).unwrap();
    assert_eq!(added.added, [SpotKey(5)]);
    assert_eq!(fixture.project.view_all().unwrap(), other.view_all().unwrap());
}

#[test]
fn many_writers_lose_nothing() {
    let fixture = Fixture::new();
    let path = fixture.path();
    std::thread::scope(|scope| {
        for name in ["Ann", "Bob", "Eve"] {
            let path = path.clone();
            scope.spawn(move || {
                let project = Project::open(&path).unwrap();
                for x in 0..30 {
                    let spots = vec![new_spot(x % 4, x as f64)];
                    project.append(&author(name), None, &[Operation::Add { spots }]).unwrap();
                }
            });
        }
    });
    let info = fixture.project.info().unwrap();
    assert_eq!((info.seq, info.spots, info.authors.len()), (90, 90, 3));
}

#[test]
fn a_snapshot_is_used_only_for_its_own_log() {
    let fixture = Fixture::new();
    family(&fixture.project);
    let view = fixture.project.view_all().unwrap();
    let snapshot = fixture.path().with_extension("snapshot");
    let bytes = snapshot::to_bytes(&fixture.project.lock().state);
    std::fs::write(&snapshot, &bytes).unwrap();
    assert!(snapshot::read(&snapshot).is_some());
    fixture.project.append(&author("Bob"), None, &[tag(2, DetectionTag::TruePositive)]).unwrap();
    let opened = Project::open(&fixture.path()).unwrap();
    assert_eq!(opened.view_all().unwrap(), fixture.project.view_all().unwrap());
    opened.undo(&author("Bob"), None).unwrap();
    opened.undo(&author("Ann"), None).unwrap();
    for damage in [8, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[damage] ^= 1;
        std::fs::write(&snapshot, &damaged).unwrap();
        assert!(snapshot::read(&snapshot).is_none());
        assert_eq!(Project::open(&fixture.path()).unwrap().info().unwrap().seq, 5);
    }
    // Another log.
    std::fs::write(&snapshot, &bytes).unwrap();
    let other = fixture.folder.path().join("other.sqlite");
    Project::create(&other, ProjectKind::Normal).unwrap();
    std::fs::copy(&snapshot, other.with_extension("snapshot")).unwrap();
    assert_eq!(Project::open(&other).unwrap().info().unwrap().spots, 0);
    assert_eq!(view.spots.len(), 4);
}

#[test]
fn a_project_that_is_gone_is_not_written() {
    let fixture = Fixture::new();
    family(&fixture.project);
    std::fs::remove_file(fixture.path()).unwrap();
    let error = fixture.project.append(&author("Ann"), None, &[tag(1, DetectionTag::TruePositive)]).unwrap_err();
    assert!(matches!(error, ProjectError::Deleted), "{error}");
    assert!(fixture.project.view_all().is_err());
}

#[test]
fn damage_is_found_and_said() {
    let fixture = Fixture::new();
    family(&fixture.project);
    fixture.project.append(&author("Bob"), None, &[tag(2, DetectionTag::TruePositive)]).unwrap();
    let path = fixture.path();
    drop(fixture.project);
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE log SET author = 'Eve' WHERE seq = 2", []).unwrap();
    drop(connection);
    let error = Project::open(&path).unwrap_err();
    assert!(matches!(error, ProjectError::Damaged { intact: 1, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::Conflict);
    let text = path.with_file_name("text.sqlite");
    std::fs::write(&text, "no project").unwrap();
    assert!(Project::open(&text).unwrap_err().to_string().contains("the file is damaged"));
}

#[test]
fn predictions_follow_the_rules_and_can_be_undone() {
    let fixture = Fixture::new();
    let project = &fixture.project;
    let model = author("detection.pth");
    let predict = |places: &[f64]| Operation::Predict {
        t: 1,
        inside: None,
        spots: places.iter().map(|x| new_spot(0, *x)).collect(),
        suppression_um: 3.0,
    };
    family(project);
    project.append(&author("Ann"), None, &[tag(2, DetectionTag::FalseNegative)]).unwrap();
    let before = project.view_all().unwrap();
    let done = project.append(&model, None, &[predict(&[11.0, 40.0])]).unwrap();
    assert_eq!(done.added, [SpotKey(5)]);
    let view = project.view(1, 1).unwrap();
    let tags: Vec<_> = view.spots.iter().map(|spot| (spot.key.0, spot.detection)).collect();
    assert_eq!(tags, [(2, DetectionTag::TruePositive), (5, DetectionTag::Unlabeled)]);
    assert_eq!(project.view_all().unwrap().links.len(), 1, "the links of spot 3 are gone with it");
    project.undo(&model, None).unwrap();
    let after = project.view_all().unwrap();
    assert_eq!(View { seq: 0, ..after.clone() }, View { seq: 0, ..with_stamps_of(before, &after) });
}
