use super::*;
use crate::{DetectionTag, NewLink, Operation, SpotKey, branches, pack_spots, project::tests::new_spot};

struct Fixture {
    projects: Projects,
    id: ProjectId,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("lab/fly")).unwrap();
    let projects = Projects::new(&Root::open(folder.path()).unwrap());
    Fixture { projects, id: "lab/fly/main".parse().unwrap(), folder }
}

impl Fixture {
    /// A project in which spot 1 divides into 2 and 3.
    fn family(&self) -> Arc<Project> {
        let project = self.projects.create(&self.id, ProjectKind::Normal).unwrap();
        let link = |target| NewLink {
            source: SpotKey(1),
            target: SpotKey(target),
            state: crate::LinkState::Unlabeled,
            score: Some(0.1),
        };
        let spots = vec![new_spot(0, 0.1), new_spot(1, 1.0 / 3.0), new_spot(1, 20.0)];
        let tag = Operation::Tag {
            spots: vec![SpotKey(2)],
            detection: Some(DetectionTag::TruePositive),
            tracking: Some(crate::TrackingTag::Approved),
        };
        let ann = "Ann".parse().unwrap();
        project.append(&ann, None, &[Operation::Add { spots }]).unwrap();
        let links = Operation::Link { links: vec![link(2), link(3)], replace: false };
        project.append(&"Bob".parse().unwrap(), Some(&"b-1".parse().unwrap()), &[links]).unwrap();
        project.append(&ann, None, &[tag]).unwrap();
        project.undo(&ann, None).unwrap();
        project.redo(&ann, None).unwrap();
        project
    }
}

#[test]
fn projects_are_made_listed_and_deleted() {
    let fixture = fixture();
    let (projects, id) = (&fixture.projects, &fixture.id);
    assert!(matches!(projects.get(id), Err(ProjectError::UnknownProject(_))));
    let project = fixture.family();
    let other: ProjectId = "lab/fly/other".parse().unwrap();
    projects.create(&other, ProjectKind::Normal).unwrap();
    assert!(matches!(projects.create(id, ProjectKind::Normal), Err(ProjectError::Exists(_))));
    assert!(Arc::ptr_eq(&projects.get(id).unwrap(), &project));
    assert_eq!(projects.of_dataset(&id.dataset).unwrap(), [id.clone(), other]);
    let nobody: ProjectId = "lab/nobody/main".parse().unwrap();
    assert!(matches!(projects.create(&nobody, ProjectKind::Normal), Err(ProjectError::UnknownDataset(_))));
    projects.delete(id).unwrap();
    assert!(matches!(projects.delete(id), Err(ProjectError::UnknownProject(_))));
    let error = project.undo(&"Ann".parse().unwrap(), None).unwrap_err();
    assert!(matches!(error, ProjectError::Deleted), "{error}");
    assert_eq!(fs::read_dir(fixture.folder.path().join("lab/fly/projects")).unwrap().count(), 3, "of the other one");
}

#[test]
fn a_copy_has_the_same_log() {
    let fixture = fixture();
    let project = fixture.family();
    project.set_voxel_size(elephant_types::VoxelSize::new([2.0, 0.3, 0.1]).unwrap()).unwrap();
    let copy_id: ProjectId = "lab/fly/copy".parse().unwrap();
    let copy = fixture.projects.copy(&fixture.id, &copy_id).unwrap();
    assert_eq!(copy.view_all().unwrap(), project.view_all().unwrap());
    assert_eq!(copy.voxel_size().unwrap(), project.voxel_size().unwrap());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    project.export(&mut first).unwrap();
    copy.export(&mut second).unwrap();
    assert_eq!(String::from_utf8(first).unwrap(), String::from_utf8(second).unwrap());
    copy.undo(&"Ann".parse().unwrap(), None).unwrap();
    assert_ne!(copy.view_all().unwrap(), project.view_all().unwrap());
}

#[test]
fn a_wrong_import_leaves_nothing() {
    let fixture = fixture();
    let project = fixture.family();
    let mut export = Vec::new();
    project.export(&mut export).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&export).unwrap().lines().collect();
    let without = |line: usize| {
        let kept = lines.iter().enumerate().filter(|(index, _)| *index != line).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n")
    };
    let huge = format!("{}\n{}", lines[0], "x".repeat(1 << 20));
    let id: ProjectId = "lab/fly/new".parse().unwrap();
    for (text, line) in [
        (String::new(), 1),
        ("{}".into(), 1),
        (lines[0].replace('1', "7"), 1),
        (without(1), 2),
        (without(2), 5),
        (lines[..3].join("\n"), 4),
        (without(5), 6),
        (huge, 2),
    ] {
        let error = fixture.projects.create_filled(&id, |project| project.import(text.as_bytes())).unwrap_err();
        assert!(matches!(error, ProjectError::Import { line: found, .. } if found == line), "line {line}: {error}");
        assert!(matches!(fixture.projects.get(&id), Err(ProjectError::UnknownProject(_))));
    }
}

#[test]
fn what_is_before_the_damage_is_recovered() {
    let fixture = fixture();
    let project = fixture.family();
    let before = project.entries(0, 3, 100).unwrap();
    let path = project.path().to_owned();
    drop(project);
    let connection = elephant_sqlite::rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE log SET payload = x'00' WHERE seq = 4", []).unwrap();
    drop(connection);
    let fresh = Projects::new(&Root::open(fixture.folder.path()).unwrap());
    let error = fresh.get(&fixture.id).unwrap_err();
    assert!(error.to_string().contains("damaged after entry 3"), "{error}");
    let recovered = fresh.recover(&fixture.id).unwrap();
    assert_eq!((recovered.seq, recovered.damage.is_some()), (3, true));
    let kept = recovered.damaged_file.unwrap();
    let original = fs::read(&kept).unwrap();
    let again = fresh.get(&fixture.id).unwrap();
    assert_eq!(again.entries(0, 100, 100).unwrap(), before);
    assert_eq!(again.info().unwrap().spots, 3);
    again.append(&"Ann".parse().unwrap(), None, &[Operation::Delete { spots: vec![SpotKey(3)] }]).unwrap();
    let whole = fresh.recover(&fixture.id).unwrap();
    assert_eq!((whole.seq, whole.damage, whole.damaged_file), (4, None, None), "the log is whole");
    assert_eq!(fs::read(&kept).unwrap(), original, "the damaged file is kept");
    assert!(again.is_current());

    // Damaged once more: both damaged files are kept.
    drop((again, fresh));
    let connection = elephant_sqlite::rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE log SET payload = x'00' WHERE seq = 2", []).unwrap();
    drop(connection);
    let fresh = Projects::new(&Root::open(fixture.folder.path()).unwrap());
    let second = fresh.recover(&fixture.id).unwrap();
    assert_eq!((second.seq, second.damaged_file), (1, Some(path.with_extension("damaged-2"))));
    assert_eq!(fs::read(&kept).unwrap(), original);
    assert_eq!(fresh.get(&fixture.id).unwrap().info().unwrap().seq, 1);
}

#[test]
fn damage_of_the_database_itself_is_survived() {
    let fixture = fixture();
    let project = fixture.projects.create(&fixture.id, ProjectKind::Normal).unwrap();
    let ann = "Ann".parse().unwrap();
    for t in 0..200 {
        let spots = (0..20).map(|x| new_spot(t, f64::from(x) * 10.0)).collect();
        project.append(&ann, None, &[Operation::Add { spots }]).unwrap();
    }
    let path = project.path().to_owned();
    fixture.projects.delete(&"lab/fly/none".parse().unwrap()).unwrap_err();
    drop(project);
    drop(fixture.projects);
    // The last connection has moved the journal into the file.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() * 3 / 4 / 8192 * 8192;
    bytes[at..at + 3 * 8192].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let _ = fs::remove_file(path.with_extension("snapshot"));
    let fresh = Projects::new(&Root::open(fixture.folder.path()).unwrap());
    assert!(fresh.get(&fixture.id).is_err());
    let recovered = fresh.recover(&fixture.id).unwrap();
    assert!(recovered.seq > 50 && recovered.seq < 200, "{recovered:?}");
    assert_eq!(fresh.get(&fixture.id).unwrap().info().unwrap().spots as u64, recovered.seq * 20);
}

#[test]
fn branches_and_packed_spots_agree() {
    let fixture = fixture();
    let view = fixture.family().view_all().unwrap();
    let branches = branches(&view).unwrap();
    let shape: Vec<_> = branches.iter().map(|it| (it.id, it.parent, it.t0, it.t1, it.order)).collect();
    assert_eq!(shape, [(1, None, 0, 0, 0.5), (2, Some(1), 1, 1, 0.0), (3, Some(1), 1, 1, 1.0)]);
    assert_eq!((branches[1].tags[1], branches[1].approved), (1, 1));
    let bytes = pack_spots(&view, &view.lineage().unwrap());
    assert_eq!(bytes.len(), 3 * crate::PACKED_BYTES);
    let spot = &bytes[64..128];
    let u32_at = |at: usize| u32::from_le_bytes(spot[at..at + 4].try_into().unwrap());
    let f32_at = |at: usize| f32::from_bits(u32_at(at));
    assert_eq!(u64::from_le_bytes(spot[..8].try_into().unwrap()), 2);
    assert_eq!((u32_at(8), f32_at(12), f32_at(16), f32_at(20)), (1, 1.0, 2.0, 1.0_f32 / 3.0));
    assert_eq!([24, 28, 32, 36, 40, 44].map(f32_at), [4.0, 0.0, 0.0, 4.0, 0.0, 4.0]);
    assert_eq!((f32_at(48), spot[52], spot[53], u32_at(56), u32_at(60)), (0.5, 1, 1, 2, 0));
}

#[test]
fn a_project_that_cannot_be_filled_leaves_nothing() {
    let fixture = fixture();
    let dataset = fixture.folder.path().join("lab/fly");
    let entries = || fs::read_dir(&dataset).unwrap().count();
    let before = entries();
    let refuse = |project: &Project| -> Result<(), ProjectError> {
        assert!(fixture.projects.get(&fixture.id).is_err(), "it is not seen before it is complete");
        project.append(&"Ann".parse().unwrap(), None, &[Operation::Add { spots: vec![new_spot(0, 1.0)] }])?;
        Err(ProjectError::Invalid("no".into()))
    };
    fixture.projects.create_filled(&fixture.id, refuse).unwrap_err();
    assert_eq!(entries(), before);

    let fill = |project: &Project| -> Result<(), ProjectError> {
        project.append(&"Ann".parse().unwrap(), None, &[Operation::Add { spots: vec![new_spot(0, 1.0)] }])?;
        Ok(())
    };
    // Another one makes it meanwhile: the first stays.
    let late = fixture.projects.create_filled(&fixture.id, |project| {
        fixture.projects.create_filled(&fixture.id, fill)?;
        fill(project)
    });
    assert!(matches!(late, Err(ProjectError::Exists(_))), "{late:?}");
    assert_eq!(fixture.projects.get(&fixture.id).unwrap().info().unwrap().spots, 1);
    let files: Vec<_> = fs::read_dir(dataset.join("projects")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name.to_string_lossy().starts_with("main.sqlite")), "{files:?}");
}

#[test]
fn recovering_a_whole_project_disturbs_nobody_who_writes_to_it() {
    let fixture = fixture();
    fixture.projects.create(&fixture.id, ProjectKind::Normal).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = ["Ann", "Bob"]
            .map(|name| {
                let (projects, id) = (&fixture.projects, &fixture.id);
                scope.spawn(move || {
                    for t in 0..100 {
                        let spots = vec![new_spot(t, 1.0)];
                        let project = projects.get(id).unwrap();
                        project.append(&name.parse().unwrap(), None, &[Operation::Add { spots }]).unwrap();
                    }
                })
            })
            .into();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(fixture.projects.recover(&fixture.id).unwrap().damage, None);
        }
    });
    assert_eq!(fixture.projects.get(&fixture.id).unwrap().info().unwrap().spots, 200);
}

#[test]
fn a_file_that_is_no_project_is_damaged_and_not_an_empty_project() {
    let fixture = fixture();
    let project = fixture.family();
    let path = project.path().to_owned();
    drop(project);
    let whole = fs::read(&path).unwrap();
    let mut garbage = whole.clone();
    garbage[..100].fill(0xa5);
    for content in [&[][..], &garbage, &whole[..whole.len() / 2], b"text"] {
        for companion in companions(&path) {
            let _ = fs::remove_file(companion);
        }
        fs::write(&path, content).unwrap();
        let fresh = Projects::new(&Root::open(fixture.folder.path()).unwrap());
        let error = fresh.get(&fixture.id).unwrap_err();
        assert!(matches!(error, ProjectError::Damaged { intact: 0, .. }), "{} bytes: {error}", content.len());
        assert!(error.to_string().contains("put a copy of the file in its place"), "{error}");
        let unsaved = fresh.recover(&fixture.id).unwrap_err();
        assert!(matches!(unsaved, ProjectError::Damaged { .. }), "{} bytes: {unsaved}", content.len());
        assert_eq!(fs::read(&path).unwrap(), content, "nothing was changed");
        assert!(!path.with_extension("rescued.sqlite").exists());
    }
}

#[test]
fn the_mirrors_name_is_reserved() {
    let fixture = fixture();
    let mirror = crate::Mirror::id(&fixture.id.dataset);
    let error = fixture.projects.create(&mirror, ProjectKind::Normal).unwrap_err();
    assert!(error.to_string().contains("choose another name"), "{error}");
    assert!(fixture.projects.create_filled(&mirror, |_| Ok::<(), ProjectError>(())).is_err());
    fixture.projects.create(&mirror, ProjectKind::Mirror).unwrap();
}
