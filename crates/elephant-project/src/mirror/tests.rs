use elephant_fs::Root;
use elephant_types::SpotTag;

use super::*;

struct Fixture {
    mirror: Mirror,
    dataset: DatasetName,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("fly")).unwrap();
    let projects = Projects::new(&Root::open(folder.path()).unwrap());
    Fixture { mirror: Mirror::new(&projects), dataset: "fly".parse().unwrap(), _folder: folder }
}

const COVARIANCE: [[f64; 3]; 3] = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]];

fn spot(t: usize, x: f64) -> Spot {
    Spot { t, center_um: [5.0, 5.0, x], covariance_um2: COVARIANCE, quality: 0.5 }
}

fn tagged(t: usize, x: f64, tag: SpotTag) -> TaggedSpot {
    TaggedSpot { t, center_um: [5.0, 5.0, x], covariance_um2: COVARIANCE, tag, label: "1".into() }
}

impl Fixture {
    /// Number, place along x, and tag of the spots of a frame.
    fn spots(&self, t: u32) -> Vec<(u64, f64, &'static str)> {
        let view = self.mirror.project(&self.dataset).unwrap().view(t, t).unwrap();
        view.spots.iter().map(|spot| (spot.key.0, spot.spot.center_um[2], spot.detection.as_str())).collect()
    }
}

#[test]
fn a_session_is_followed() {
    let fixture = fixture();
    let (mirror, dataset) = (&fixture.mirror, &fixture.dataset);
    mirror.predicted(dataset, 1, None, &[spot(1, 10.0), spot(1, 20.0), spot(1, 30.0)]);
    assert_eq!(fixture.spots(1), [(1, 10.0, "unlabeled"), (2, 20.0, "unlabeled"), (3, 30.0, "unlabeled")]);
    // The second one was moved a little and approved, the third one is wrong, and one was missed.
    let tags = [
        tagged(1, 20.5, SpotTag::TruePositive),
        tagged(1, 30.0, SpotTag::FalsePositive),
        tagged(1, 50.0, SpotTag::FalseNegative),
    ];
    mirror.tagged(dataset, &tags, false);
    assert_eq!(fixture.spots(1), [(1, 10.0, "unlabeled"), (2, 20.5, "tp"), (3, 30.0, "fp"), (4, 50.0, "fn")]);
    mirror.tagged(dataset, &tags[..1], true);
    assert_eq!(fixture.spots(1)[3].2, "fn", "others were not visible");
    mirror.tagged(dataset, &tags[..2], false);
    assert_eq!(fixture.spots(1)[3].2, "unlabeled", "its tag was taken away");
    mirror.predicted(dataset, 1, None, &[spot(1, 21.0)]);
    assert_eq!(fixture.spots(1), [(2, 20.5, "tp"), (3, 30.0, "tn")]);
    let project = mirror.project(dataset).unwrap();
    assert_eq!(project.kind(), ProjectKind::Mirror);
    let error = project.append(&"Ann".parse().unwrap(), None, &[Operation::Delete { spots: vec![SpotKey(2)] }]);
    assert!(matches!(error, Err(ProjectError::ReadOnly(_))));
}

#[test]
fn candidates_are_recognised_by_their_places() {
    let fixture = fixture();
    let (mirror, dataset) = (&fixture.mirror, &fixture.dataset);
    mirror.predicted(dataset, 2, None, &[spot(2, 10.0), spot(2, 14.0)]);
    // Two are near the spot at 14; it is the nearer one.
    let keys = mirror.candidates(dataset, 2, &[spot(2, 40.0), spot(2, 12.5), spot(2, 13.9)]);
    assert_eq!(keys, [3, 4, 2].map(|key| Some(SpotKey(key))));
}

#[test]
fn approved_links_are_links_of_the_project() {
    let fixture = fixture();
    let (mirror, dataset) = (&fixture.mirror, &fixture.dataset);
    mirror.predicted(dataset, 0, None, &[spot(0, 10.0)]);
    mirror.predicted(dataset, 1, None, &[spot(1, 9.0), spot(1, 13.0)]);
    let link = |to: f64| ApprovedLink {
        t: 0,
        target_t: None,
        center_um: [5.0, 5.0, to],
        displacement_um: [0.0, 0.0, 10.0 - to],
        covariance_um2: COVARIANCE,
    };
    mirror.approved_links(dataset, &[link(9.0), link(13.0)]);
    let view = mirror.project(dataset).unwrap().view_all().unwrap();
    assert_eq!(view.lineage().unwrap().divisions().count(), 1);
    assert_eq!(view.constraints().approved_links.len(), 2);
    mirror.approved_links(dataset, &[link(9.0)]);
    let view = mirror.project(dataset).unwrap().view_all().unwrap();
    assert_eq!(view.constraints().approved_links.len(), 1, "the other one was taken back");
    // An earlier frame that the server has not seen.
    let unseen = ApprovedLink { t: 4, ..link(80.0) };
    mirror.approved_links(dataset, &[unseen]);
    assert_eq!((fixture.spots(4).len(), fixture.spots(5).len()), (1, 1));
}

#[test]
fn what_cannot_be_mirrored_is_left_out() {
    let fixture = fixture();
    let (mirror, dataset) = (&fixture.mirror, &fixture.dataset);
    let mut wrong = spot(0, f64::NAN);
    wrong.center_um[0] = f64::INFINITY;
    let keys = mirror.candidates(dataset, 0, &[wrong, spot(0, 1.0)]);
    assert_eq!(keys, [None, Some(SpotKey(1))]);
    let nobody: DatasetName = "nobody".parse().unwrap();
    assert_eq!(mirror.candidates(&nobody, 0, &[spot(0, 1.0)]), [None]);
    mirror.predicted(dataset, usize::MAX, None, &[]);
}
