//! What is exported is what the other program finds in it; what another program wrote is read as it meant it.

#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path};

use elephant_export::{
    CtcTracks, ExportError, ImportedMovie, TrackedMovie, read_ctc, read_geff, read_spot_table, write_ctc, write_geff,
    write_mastodon, write_napari, write_trackmate,
};
use elephant_image::Dims;
use elephant_testkit::{Peer, golden, shared, skip};
use elephant_types::{CancelToken, Coded, ErrorCode, Lineage, Link, Spot, SpotId, TaskContext, VoxelSize};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A movie that owns its parts.
struct Movie {
    spots: Vec<Spot>,
    lineage: Lineage,
    names: Vec<Box<str>>,
    tags: Vec<Box<str>>,
    scores: Vec<f64>,
}

const VOXEL_UM: [f64; 3] = [2.0, 0.5, 0.5];

impl Movie {
    /// Balls of 4 µm at these timepoints and x, linked by index.
    fn new(cells: &[(usize, f64)], links: &[(u32, u32)]) -> Self {
        let spot = |&(t, x): &(usize, f64)| Spot {
            t,
            center_um: [10.0, 15.5, x],
            covariance_um2: [[16.0, 0.0, 0.0], [0.0, 9.0, 1.0], [0.0, 1.0, 16.0]],
            quality: 0.75,
        };
        let link = |&(source, target): &(u32, u32)| Link { source: SpotId(source), target: SpotId(target) };
        let lineage = Lineage::new(cells.iter().map(|cell| cell.0 as u32).collect(), links.iter().map(link)).unwrap();
        Self {
            spots: cells.iter().map(spot).collect(),
            lineage,
            names: (0..cells.len()).map(|index| format!("cell \"{index}\", <&>").into()).collect(),
            tags: (0..cells.len()).map(|index| if index % 2 == 0 { "tp".into() } else { "".into() }).collect(),
            scores: (0..cells.len()).map(|index| if index == 1 { f64::NAN } else { index as f64 / 8.0 }).collect(),
        }
    }

    /// A cell that divides, one that skips a timepoint, and one alone.
    fn example() -> Self {
        let cells = [(0, 12.0), (1, 12.0), (2, 10.0), (2, 22.0), (0, 40.0), (2, 40.0), (1, 30.0), (3, 41.0)];
        Self::new(&cells, &[(0, 1), (1, 2), (1, 3), (4, 5), (5, 7)])
    }

    fn tracked(&self) -> TrackedMovie<'_> {
        TrackedMovie {
            name: "example",
            spots: &self.spots,
            lineage: &self.lineage,
            voxel_size: VoxelSize::new(VOXEL_UM).unwrap(),
            shape: [4, 12, 64, 100],
            dims: Dims::ThreeD,
            names: Some(&self.names),
            tags: Some(&self.tags),
            link_scores: Some(&self.scores),
        }
    }
}

fn task() -> TaskContext {
    TaskContext::detached()
}

/// Links as pairs of (timepoint, x rounded), in order.
fn links(spots: &[Spot], lineage: &Lineage) -> Vec<[(usize, i64); 2]> {
    let place = |id: SpotId| (spots[id.index()].t, spots[id.index()].center_um[2].round() as i64);
    let mut links: Vec<_> = lineage.links().map(|link| [place(link.source), place(link.target)]).collect();
    links.sort_unstable();
    links
}

fn same_links(movie: &Movie, read: &ImportedMovie) {
    assert_eq!(links(&read.spots, &read.lineage), links(&movie.spots, &movie.lineage));
}

#[test]
fn ctc_cuts_tracks_at_gaps_and_reads_them_back() {
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let summary = write_ctc(&movie.tracked(), folder.path(), &task()).unwrap();
    assert_eq!((summary.frames, summary.tracks, summary.skipped), (4, 6, 0));
    let table = fs::read_to_string(folder.path().join("res_track.txt")).unwrap();
    assert_eq!(table, "1 0 1 0\n2 2 2 1\n3 2 2 1\n4 0 0 0\n5 2 3 4\n6 1 1 0\n");
    let read = read_ctc(folder.path(), VoxelSize::new(VOXEL_UM).unwrap(), &task()).unwrap();
    same_links(&movie, &read);
    for spot in &read.spots {
        let truth =
            movie.spots.iter().find(|truth| truth.t == spot.t && (truth.center_um[2] - spot.center_um[2]).abs() < 1.0);
        let truth = truth.unwrap();
        for axis in 0..3 {
            let (found, expected) = (spot.covariance_um2[axis][axis], truth.covariance_um2[axis][axis]);
            assert!((found / expected - 1.0).abs() < 0.15, "axis {axis}: {found} is not near {expected}");
        }
    }
    // An earlier export is replaced, a longer one is not mixed with the new.
    write_ctc(&movie.tracked(), folder.path(), &task()).unwrap();
    let shorter = Movie::new(&[(0, 12.0)], &[]);
    let mut tracked = shorter.tracked();
    tracked.shape[0] = 2;
    let error = write_ctc(&tracked, folder.path(), &task()).unwrap_err();
    assert!(matches!(&error, ExportError::Occupied { .. }), "{error}");
    assert_eq!(read_ctc(folder.path(), VoxelSize::new(VOXEL_UM).unwrap(), &task()).unwrap().spots.len(), 8);
}

#[test]
fn ctc_leaves_out_what_is_outside_the_image() {
    let movie = Movie::new(&[(0, 12.0), (1, -40.0), (2, 12.0)], &[(0, 1), (1, 2)]);
    let folder = tempfile::tempdir().unwrap();
    let summary = write_ctc(&movie.tracked(), folder.path(), &task()).unwrap();
    assert_eq!(summary.skipped, 1);
    let table = fs::read_to_string(folder.path().join("res_track.txt")).unwrap();
    assert_eq!(table, "1 0 0 0\n2 2 2 1\n");
    // A mother outside hands her own mother on.
    let movie = Movie::new(&[(0, 12.0), (1, -40.0), (2, 12.0), (2, 30.0)], &[(0, 1), (1, 2), (1, 3)]);
    let tracks = CtcTracks::new(&movie.tracked(), |spot| spot != 1);
    let rows: Vec<String> = tracks.rows.iter().map(ToString::to_string).collect();
    assert_eq!(rows, ["1 0 0 0", "2 2 2 1", "3 2 2 1"]);
    assert_eq!(tracks.of_spots, [1, 0, 2, 3]);
}

#[test]
fn more_tracks_than_16_bits_can_number_are_refused() {
    let cells: Vec<(usize, f64)> = (0..65_536).map(|index| (0, f64::from(index % 40))).collect();
    let movie = Movie::new(&cells, &[]);
    let folder = tempfile::tempdir().unwrap();
    let error = write_ctc(&movie.tracked(), folder.path(), &task()).unwrap_err();
    assert!(matches!(error, ExportError::TooManyTracks { tracks: 65_536 }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_synthetic_ground_truth_becomes_its_movie() {
    let Some(folder) = shared("data/embryo-tiny") else { return };
    let read = read_ctc(&folder, VoxelSize::new(VOXEL_UM).unwrap(), &task()).unwrap();
    let truth = read_spot_table(&folder.join("spots.csv")).unwrap();
    assert_eq!(read.spots.len(), truth.spots.len());
    let nearest = |spot: &Spot| {
        let distance =
            |other: &Spot| (0..3).map(|axis| (spot.center_um[axis] - other.center_um[axis]).powi(2)).sum::<f64>();
        let candidates = (0..truth.spots.len()).filter(|index| truth.spots[*index].t == spot.t);
        let nearest =
            candidates.min_by(|a, b| distance(&truth.spots[*a]).total_cmp(&distance(&truth.spots[*b]))).unwrap();
        assert!(distance(&truth.spots[nearest]).sqrt() < 1.5);
        SpotId(nearest as u32)
    };
    let places: Vec<SpotId> = read.spots.iter().map(nearest).collect();
    let mut found: Vec<Link> = read
        .lineage
        .links()
        .map(|link| Link { source: places[link.source.index()], target: places[link.target.index()] })
        .collect();
    let mut expected: Vec<Link> = truth.lineage.links().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn geff_is_read_back_with_all_that_it_holds() {
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.geff");
    for _ in 0..2 {
        write_geff(&movie.tracked(), &path, &task()).unwrap();
    }
    let read = read_geff(&path, None, 1.0).unwrap();
    assert_eq!(read.spots, movie.spots);
    assert_eq!(read.lineage, movie.lineage);
    assert_eq!(read.shape, Some([4, 12, 64, 100]));
    assert_eq!(read.voxel_size, VoxelSize::new(VOXEL_UM).ok());
    // A folder that is something else is not replaced.
    let other = folder.path().join("notes");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), "mine").unwrap();
    assert!(matches!(write_geff(&movie.tracked(), &other, &task()), Err(ExportError::Occupied { .. })));
    assert_eq!(fs::read_to_string(other.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn the_geff_package_finds_what_was_written() {
    let Some(mut peer) = geff_peer() else { return };
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.geff");
    write_geff(&movie.tracked(), &path, &task()).unwrap();
    let found = ask(&mut peer, &format!("read {}", path.display()));
    assert_eq!(found["directed"], true);
    assert_eq!(found["axes"], json!(["t", "z", "y", "x"]));
    assert_eq!(found["units"], json!(["frame", "micrometer", "micrometer", "micrometer"]));
    assert_eq!((&found["ellipsoid"], &found["sphere"]), (&json!("covariance"), &json!("radius")));
    assert_eq!(found["nodes"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    let props = &found["props"];
    assert_eq!(props["x"], json!([12.0, 12.0, 10.0, 22.0, 40.0, 40.0, 30.0, 41.0]));
    assert_eq!(props["t"], json!([0, 1, 2, 2, 0, 2, 1, 3]));
    assert_eq!(props["covariance"][3], json!([[16.0, 0.0, 0.0], [0.0, 9.0, 1.0], [0.0, 1.0, 16.0]]));
    assert_eq!(props["score"][0], 0.75);
    assert_eq!(props["track_id"], json!([1, 1, 2, 3, 4, 4, 5, 4]));
    assert_eq!(props["lineage_id"], json!([1, 1, 1, 1, 2, 2, 3, 2]));
    assert_eq!(props["tag_tp"], json!([true, false, true, false, true, false, true, false]));
    assert_eq!(found["edges"], json!([[0, 1], [1, 2], [1, 3], [4, 5], [5, 7]]));
    assert_eq!(found["edge_props"]["score"], json!([null, 0.25, 0.375, 0.625, 0.875]));
    // Without any spot, and in 2-D.
    let empty = Movie::new(&[], &[]);
    let mut tracked = empty.tracked();
    tracked.dims = Dims::TwoD;
    write_geff(&tracked, &path, &task()).unwrap();
    let found = ask(&mut peer, &format!("read {}", path.display()));
    assert_eq!((&found["axes"], &found["nodes"]), (&json!(["t", "y", "x"]), &json!([])));
}

#[test]
fn graphs_of_the_geff_package_are_read() {
    for version in ["v2", "v3"] {
        let path = golden(&format!("geff/{version}.geff"));
        let read = read_geff(&path, VoxelSize::new(VOXEL_UM).ok(), 1.0).unwrap();
        assert_eq!(read.numbers, [7, 3, 90]);
        // 0, 600 and 900 seconds are multiples of 300; z is in voxels of 2 µm.
        assert_eq!(read.spots.iter().map(|spot| spot.t).collect::<Vec<_>>(), [2, 0, 3]);
        assert_eq!(read.spots[2].center_um, [6.0, 3.0, 6.0]);
        assert_eq!(read.spots[1].quality, 0.25);
        // A radius of 2 pixels, 2 nm and 2 µm.
        assert_eq!(read.spots[0].covariance_um2[0][0], 16.0);
        assert_eq!(read.spots[0].covariance_um2[2][2], 4.0);
        let links: Vec<[u32; 2]> = read.lineage.links().map(|link| [link.source.0, link.target.0]).collect();
        assert_eq!(links, [[1, 0], [0, 2]]);
    }
}

#[test]
fn damaged_tables_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spots.csv");
    let header = "t,id,parent,track,x,y,z,c00,c01,c02,c10,c11,c12,c20,c21,c22";
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_spot_table(&path).map_err(|error| error.to_string())
    };
    let row =
        |t: &str, id: &str, parent: &str, x: &str| format!("{t},{id},{parent},1,{x},2,3,11,12,13,21,22,23,31,32,33");
    let good = read(&format!("{header}\n{}\n{}\n", row("0", "5", "-1", "1"), row("1", "5", "5", "1"))).unwrap();
    assert_eq!(good.spots[0].center_um, [3.0, 2.0, 1.0]);
    assert_eq!(good.spots[0].covariance_um2, [[33.0, 32.0, 31.0], [23.0, 22.0, 21.0], [13.0, 12.0, 11.0]]);
    assert_eq!(good.lineage.links().collect::<Vec<_>>(), [Link { source: SpotId(0), target: SpotId(1) }]);
    for (row, word) in [
        (row("0", "5", "-1", "NaN"), "line 2: x is \"NaN\", not a finite number"),
        (row("0", "5", "-1", "inf"), "not a finite number"),
        (row("-1", "5", "-1", "1"), "not a timepoint"),
        (row("0", "a", "-1", "1"), "not a number of a spot"),
        (row("1", "5", "4", "1"), "the parent 4 of spot 5 at timepoint 1 does not exist"),
        (row("0", "5", "4", "1"), "does not exist"),
        ("0,5".to_owned(), "parent is \"\""),
        (" ".repeat(1 << 15), "too long"),
        (format!("{}\n{}", row("0", "5", "-1", "1"), row("0", "5", "-1", "1")), "another spot 5 at timepoint 0"),
    ] {
        let message = read(&format!("{header}\n{row}\n")).unwrap_err();
        assert!(message.contains(word), "{message}");
    }
    assert!(read("t,id\n").unwrap_err().contains("no column parent"));
    assert!(read("").unwrap_err().contains("empty"));
}

#[test]
fn tables_that_contradict_the_masks_are_refused() {
    let movie = Movie::new(&[(0, 12.0), (1, 12.0), (1, 40.0)], &[(0, 1)]);
    let mut tracked = movie.tracked();
    tracked.shape[0] = 2;
    let folder = tempfile::tempdir().unwrap();
    write_ctc(&tracked, folder.path(), &task()).unwrap();
    for (table, word) in [
        ("1 0 1 0\n", "track 2 of timepoint 1 has no line"),
        ("1 0 0 0\n2 1 1 0\n", "track 1 has voxels at timepoint 1"),
        ("1 0 1 0\n2 1 1 7\n", "has no line"),
        ("1 0 1 0\n2 1 1 1\n", "does not end before it"),
        ("1 0 1 2\n2 1 1 1\n", "does not end before it"),
        ("1 0 1 3\n2 1 1 0\n3 0 0 0\n", "has no voxels"),
    ] {
        fs::write(folder.path().join("res_track.txt"), table).unwrap();
        let error = read_ctc(folder.path(), VoxelSize::new(VOXEL_UM).unwrap(), &task()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn damaged_graphs_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.geff");
    let reason = || match read_geff(&path, None, 1.0) {
        Ok(read) => panic!("{} spots", read.spots.len()),
        Err(error) => error.to_string(),
    };
    assert!(reason().contains("cannot list"));
    fs::create_dir(&path).unwrap();
    reason();
    for (array, from, to) in [
        ("nodes/ids/zarr.json", "\"shape\": [\n    3\n  ]", "\"shape\": [\n    9000000000000000000\n  ]"),
        ("nodes/ids/zarr.json", "uint16", "float32"),
        ("zarr.json", "\"geff\"", "\"gaff\""),
        ("zarr.json", "nanometer", "lightyear"),
        ("zarr.json", "\"space\"", "\"channel\""),
        ("nodes/props/x/values/zarr.json", "\"shape\": [\n    3\n  ]", "\"shape\": [\n    2\n  ]"),
        ("edges/ids/zarr.json", "", ""),
    ] {
        let _ = fs::remove_dir_all(&path);
        copy(&golden("geff/v3.geff"), &path);
        let file = path.join(array);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{array} has no {from}");
        fs::write(&file, if from.is_empty() { "{".to_owned() } else { text.replace(from, to) }).unwrap();
        assert_ne!(reason(), "", "{array} {to}");
    }
}

#[test]
fn trackmate_files_are_read_by_the_geff_package() {
    let Some(mut peer) = geff_peer() else { return };
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let (xml, path) = (folder.path().join("example.xml"), folder.path().join("example.geff"));
    write_trackmate(&movie.tracked(), &xml, &task()).unwrap();
    let found = ask(&mut peer, &format!("trackmate {} {}", xml.display(), path.display()));
    let nodes = found["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 8);
    let mut edges: Vec<[u64; 2]> = serde_json::from_value(found["edges"].clone()).unwrap();
    edges.sort_unstable();
    assert_eq!(edges, [[0, 1], [1, 2], [1, 3], [4, 5], [5, 7]]);
    let at = |id: u64| nodes.iter().position(|node| *node == id).unwrap();
    assert_eq!(found["props"]["POSITION_X"][at(3)], 22.0);
    assert_eq!(found["props"]["FRAME"][at(7)], 3);
    // The ball as large as the ellipsoid: (16 · (9 · 16 − 1))^(1/6).
    let radius = found["props"]["RADIUS"][at(0)].as_f64().unwrap();
    assert!((radius - (16.0_f64 * 143.0).powf(1.0 / 6.0)).abs() < 1e-9, "{radius}");
}

#[test]
fn trackmate_files_have_what_trackmate_reads() {
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.xml");
    write_trackmate(&movie.tracked(), &path, &task()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for part in [
        "<AllSpots nspots=\"8\">",
        "<SpotsInFrame frame=\"3\">",
        "name=\"cell &quot;3&quot;, &lt;&amp;&gt;\"",
        "<Track name=\"Track_1\" TRACK_INDEX=\"1\" TRACK_ID=\"1\">",
        "<Edge SPOT_SOURCE_ID=\"1\" SPOT_TARGET_ID=\"3\" LINK_COST=\"0.625\"/>",
        "<TrackID TRACK_ID=\"1\"/>",
        "width=\"100\" height=\"64\" nslices=\"12\" nframes=\"4\" pixelwidth=\"0.5\" pixelheight=\"0.5\" voxeldepth=\"2\"",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn tables_have_the_columns_of_their_readers() {
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let (napari, mastodon) = (folder.path().join("napari.csv"), folder.path().join("mastodon.csv"));
    write_napari(&movie.tracked(), &napari, &task()).unwrap();
    write_mastodon(&movie.tracked(), &mastodon, &task()).unwrap();
    let text = fs::read_to_string(&napari).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "track_id,t,z,y,x,id,parent_track_id,parent_id,radius,quality");
    assert!(lines[3].starts_with("2,2,10,15.5,10,2,1,1,"), "{}", lines[3]);
    assert_eq!(lines.len(), 9);
    let text = fs::read_to_string(&mastodon).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "x,y,z,frame,id,parent,radius,quality,label,tag");
    assert!(lines[1].starts_with("12,15.5,10,0,0,-1,3.6"), "{}", lines[1]);
    // The importer does not know quotes.
    assert!(lines[1].ends_with(",0.75,cell  0   <&>,tp"), "{}", lines[1]);
    assert!(lines.iter().all(|line| line.split(',').count() == 10));
}

#[test]
fn contradictions_are_refused_before_anything_is_written() {
    let movie = Movie::example();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut tracked = movie.tracked();
    tracked.shape[0] = 3;
    let mut broken = Movie::example();
    broken.spots[2].center_um[0] = f64::NAN;
    let mut shifted = Movie::example();
    shifted.spots[2].t = 1;
    for tracked in [tracked, broken.tracked(), shifted.tracked()] {
        for write in [write_ctc_only, write_geff, write_napari, write_mastodon, write_trackmate] {
            assert_eq!(write(&tracked, &path, &task()).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }
    assert!(!path.exists());
    let cancel = CancelToken::default();
    cancel.cancel();
    let cancelled = TaskContext::new(cancel, |_| {});
    for write in [write_ctc_only, write_geff, write_napari, write_mastodon, write_trackmate] {
        assert_eq!(write(&movie.tracked(), &path, &cancelled).unwrap_err().code(), ErrorCode::Cancelled);
    }
}

fn write_ctc_only(movie: &TrackedMovie<'_>, path: &Path, task: &TaskContext) -> Result<(), ExportError> {
    write_ctc(movie, path, task).map(|_| ())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// The geff package, if the peers' Python has it with a zarr that reads version 3.
fn geff_peer() -> Option<Peer> {
    let mut peer = Peer::start("geff_graph.py", &[] as &[&str]).unwrap()?;
    match peer.ask("version") {
        Ok(version) if version.parse().is_ok_and(|major: u32| major >= 3) => Some(peer),
        _ => {
            skip("the peers' Python has no geff package, or one with zarr 2");
            None
        }
    }
}

fn ask(peer: &mut Peer, line: &str) -> Value {
    serde_json::from_str(&peer.ask(line).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lineages_survive_the_round_trip(
        times in prop::collection::vec(0..6_usize, 0..30), parents in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        // Apart from each other, so that CTC shows each of them.
        let cells: Vec<(usize, f64)> = times.iter().enumerate().map(|(index, &t)| (t, 10.0 + 9.0 * index as f64)).collect();
        let mut links = Vec::new();
        for (target, &(t, _)) in cells.iter().enumerate() {
            let earlier: Vec<usize> = (0..cells.len()).filter(|&source| cells[source].0 < t).collect();
            if !earlier.is_empty() && target % 4 != 3 {
                links.push((earlier[parents[target].index(earlier.len())] as u32, target as u32));
            }
        }
        let movie = Movie::new(&cells, &links);
        let mut tracked = movie.tracked();
        tracked.shape = [6, 12, 64, 600];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("movie.geff");
        write_geff(&tracked, &path, &task()).unwrap();
        let read = read_geff(&path, None, 1.0).unwrap();
        prop_assert_eq!(&read.spots, &movie.spots);
        prop_assert_eq!(&read.lineage, &movie.lineage);
        let ctc = folder.path().join("ctc");
        write_ctc(&tracked, &ctc, &task()).unwrap();
        let read = read_ctc(&ctc, VoxelSize::new(VOXEL_UM).unwrap(), &task()).unwrap();
        same_links(&movie, &read);
    }
}
