//! Labels in a dataset's stores: replaced, erased, cancelled, and read while they change.

#![allow(clippy::disallowed_methods)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use elephant_memory::Memory;
use elephant_pipeline::{Labels, PipelineError, UpdateLabels, Workspace};
use elephant_types::{CancelToken, Coded, ErrorCode, Numerics, SpotTag, TaggedSpot, TaskContext, VoxelSize};
use elephant_volume::{DataType, Dataset, DatasetShape, Store};
use ndarray::{Array4, ArrayD, Axis, IxDyn};
use serde_json::{Value, json};

const SHAPE: DatasetShape = DatasetShape { timepoints: 12, frame: [8, 40, 50], is_3d: true };

struct Fixture {
    labels: Labels,
    dataset: Dataset,
    folder: tempfile::TempDir,
}

fn fixture(shape: DatasetShape) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    let dataset = Dataset::create(&workspace.dataset(&"fly".parse().unwrap()).unwrap(), shape, DataType::U8).unwrap();
    Fixture { labels: Labels::new(&workspace, Memory::default(), Numerics::Corrected), dataset, folder }
}

fn spot(t: usize, zyx: [f64; 3], tag: SpotTag) -> TaggedSpot {
    let covariance_um2 = [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]];
    TaggedSpot { t, center_um: zyx, covariance_um2, tag, label: format!("cell {t}").into() }
}

fn request(spots: Vec<TaggedSpot>) -> UpdateLabels {
    UpdateLabels {
        dataset: "fly".parse().unwrap(),
        spots,
        voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
        center_ratio: 0.4,
        background_threshold: 0.0,
        is_live: false,
    }
}

impl Fixture {
    fn update(&self, spots: Vec<TaggedSpot>) -> Result<Vec<usize>, PipelineError> {
        self.labels.update(&request(spots), &TaskContext::detached())
    }

    fn frame(&self, store: Store, t: usize) -> ArrayD<u8> {
        let store = self.dataset.store(store);
        let mut size = store.shape().to_vec();
        size[0] = 1;
        let mut start = vec![0; size.len()];
        start[0] = t;
        let mut frame = ArrayD::zeros(IxDyn(&size));
        store.read(&start, frame.view_mut()).unwrap();
        frame.index_axis_move(Axis(0), 0)
    }

    fn labelled(&self) -> Vec<usize> {
        self.labels.centroids(&"fly".parse().unwrap()).unwrap().into_keys().collect()
    }

    /// Chunks that have a file.
    fn files(&self, store: Store) -> usize {
        let workspace = self.folder.path().join("datasets/fly").join(store.folder());
        workspace
            .read_dir()
            .unwrap()
            .filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
            .count()
    }
}

fn count(frame: &ArrayD<u8>, label: u8) -> usize {
    frame.iter().filter(|&&found| found == label).count()
}

#[test]
fn a_timepoint_is_replaced_and_others_stay() {
    let fixture = fixture(SHAPE);
    let cell = |t, x| spot(t, [4.0, 20.0, x], SpotTag::TruePositive);
    assert_eq!(fixture.update(vec![cell(10, 20.0), cell(1, 20.0), cell(1, 40.0)]).unwrap(), [1, 10]);
    let before = fixture.frame(Store::SegLabels, 1);
    assert!(count(&before, 3) >= 18 && count(&before, 2) > 100);
    fixture.update(vec![spot(10, [4.0, 20.0, 20.0], SpotTag::FalsePositive)]).unwrap();
    assert_eq!(fixture.frame(Store::SegLabels, 1), before);
    let replaced = fixture.frame(Store::SegLabels, 10);
    assert_eq!(count(&replaced, 4), replaced.iter().filter(|&&label| label > 0).count());
    let centroids = fixture.labels.centroids(&"fly".parse().unwrap()).unwrap();
    assert_eq!(centroids[&1], [[4, 20, 20], [4, 20, 40]]);
    assert_eq!(centroids[&10], [[4, 20, 20]]);
    let attributes = fixture.dataset.store(Store::SegLabels).attributes().unwrap();
    assert_eq!(
        serde_json::to_value(attributes).unwrap(),
        json!({
            "label.indices.1": [[4, 20, 20], [4, 20, 40]], "label.indices.10": [[4, 20, 20]], "updated": true
        })
    );
    // Five planes of timepoint 1 and 10, with two and one colours; not the rest of the eight planes.
    assert!(fixture.files(Store::SegLabels) <= 10, "{}", fixture.files(Store::SegLabels));
    let colors = fixture.frame(Store::SegLabelsVis, 10);
    for (label, color) in replaced.iter().zip(colors.as_slice().unwrap().chunks_exact(3)) {
        assert_eq!(color, if *label == 4 { [127, 0, 0] } else { [0, 0, 0] });
    }
}

#[test]
fn labels_do_not_outlive_their_tags() {
    let fixture = fixture(SHAPE);
    let cell = |t| spot(t, [4.0, 20.0, 20.0], SpotTag::TruePositive);
    fixture.update((0..8).map(cell).collect()).unwrap();
    // The client sends timepoints 2 to 5 now; all tags at 3 and 4 were removed.
    assert_eq!(fixture.update(vec![cell(2), cell(5)]).unwrap(), [2, 5]);
    assert_eq!(fixture.labelled(), [0, 1, 2, 5, 6, 7]);
    for t in [3, 4] {
        assert!(fixture.frame(Store::SegLabels, t).iter().all(|&label| label == 0));
        assert!(fixture.frame(Store::SegLabelsVis, t).iter().all(|&label| label == 0));
    }
    fixture.labels.reset(&"fly".parse().unwrap()).unwrap();
    assert!(fixture.labelled().is_empty());
    assert_eq!((fixture.files(Store::SegLabels), fixture.files(Store::SegLabelsVis)), (0, 0));
    fixture.labels.reset(&"fly".parse().unwrap()).unwrap();
}

#[test]
fn background_comes_from_normalised_intensities() {
    let fixture = fixture(SHAPE);
    // 100 to 199: a threshold of 0.25 is 124.75.
    let image = Array4::from_shape_fn((1, 8, 40, 50), |(_, _, y, x)| 100 + ((y * 50 + x) % 100) as u8);
    fixture.dataset.store(Store::Images).write(&[2, 0, 0, 0], image.view().into_dyn()).unwrap();
    let mut request = request(vec![spot(2, [4.0, 20.0, 20.0], SpotTag::TrueBorder)]);
    request.background_threshold = 0.25;
    fixture.labels.update(&request, &TaskContext::detached()).unwrap();
    let labels = fixture.frame(Store::SegLabels, 2);
    for (label, voxel) in labels.iter().zip(&image) {
        assert!(*label == 2 || *label == u8::from(*voxel < 125), "{label} for {voxel}");
    }
    assert!(count(&labels, 2) > 90);
}

#[test]
fn what_cannot_be_drawn_changes_nothing() {
    let fixture = fixture(SHAPE);
    let good = spot(1, [4.0, 20.0, 20.0], SpotTag::TruePositive);
    fixture.update(vec![good.clone()]).unwrap();
    let before = fixture.frame(Store::SegLabels, 1);
    let refused = |bad: TaggedSpot, word: &str| {
        let error = fixture.update(vec![spot(1, [1.0; 3], SpotTag::FalseBorder), bad]).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        error.code()
    };
    let invalid = ErrorCode::InvalidArgument;
    let many = (0..30).map(|number| TaggedSpot {
        label: format!("bad {number}.").into(),
        ..spot(number % 12, [4.0, 20.0, 90.0], SpotTag::TruePositive)
    });
    let error = fixture.update(many.collect()).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.code(), invalid);
    assert!((0..20).all(|number| message.contains(&format!("bad {number}."))), "{message}");
    assert!(message.ends_with("; and 10 more spots") && !message.contains("bad 20."), "{message}");
    assert_eq!(refused(spot(2, [4.0, 20.0, 90.0], SpotTag::TruePositive), "cell 2"), invalid);
    assert_eq!(refused(TaggedSpot { covariance_um2: [[0.0; 3]; 3], ..good.clone() }, "cell 1"), invalid);
    assert_eq!(refused(spot(12, [4.0; 3], SpotTag::TruePositive), "no timepoint 12"), ErrorCode::NotFound);
    assert_eq!(fixture.frame(Store::SegLabels, 1), before);
    assert_eq!(fixture.labelled(), [1]);

    let invalid = |request: UpdateLabels, word: &str| {
        let error = fixture.labels.update(&request, &TaskContext::detached()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    };
    invalid(request(vec![]), "nothing to update");
    let two = request(vec![good.clone(), spot(2, [1.0; 3], SpotTag::TrueBorder)]);
    invalid(UpdateLabels { is_live: true, ..two }, "Livemode should update only a single timepoint");
    for center_ratio in [0.0, -1.0, 1.5, f64::NAN] {
        invalid(UpdateLabels { center_ratio, ..request(vec![good.clone()]) }, "c_ratio");
    }
    for background_threshold in [-0.1, 1.1, f64::NAN] {
        invalid(UpdateLabels { background_threshold, ..request(vec![good.clone()]) }, "auto_bg_thresh");
    }
    invalid(UpdateLabels { dataset: "nothing".parse().unwrap(), ..request(vec![good]) }, "POST /dataset/generate");
    assert!(!fixture.folder.path().join("datasets/nothing").exists());
}

#[test]
fn stores_of_the_wrong_kind_are_named() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 5] = [
        (
            "missing",
            |folder| std::fs::remove_dir_all(folder.join("seg_labels.zarr")).unwrap(),
            "seg_labels.zarr is missing",
        ),
        ("shape", |folder| replace_in(&folder.join("seg_labels_vis.zarr/.zarray"), "40", "41"), "seg_labels_vis.zarr"),
        ("dtype", |folder| replace_in(&folder.join("seg_labels.zarr/.zarray"), "|u1", "<u2"), "seg_labels.zarr"),
        ("chunks", |folder| set_chunks(&folder.join("seg_labels.zarr/.zarray")), "has chunks of"),
        (
            "attributes",
            |folder| std::fs::write(folder.join("seg_labels.zarr/.zattrs"), "[]").unwrap(),
            "reset the labels",
        ),
    ];
    for (name, damage, word) in damages {
        let fixture = fixture(SHAPE);
        damage(&fixture.folder.path().join("datasets/fly"));
        let error = fixture.update(vec![spot(1, [4.0, 20.0, 20.0], SpotTag::TruePositive)]).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(word) && (message.contains("again") || message.contains("reset")),
            "{name}: {message}"
        );
        assert!(matches!(error.code(), ErrorCode::InvalidArgument | ErrorCode::NotFound), "{name}");
    }
}

fn replace_in(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn set_chunks(path: &Path) {
    let mut metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    metadata["chunks"] = json!([1, 2, 40, 50]);
    std::fs::write(path, metadata.to_string()).unwrap();
}

#[test]
fn places_noted_by_the_original_are_moved_inside() {
    let fixture = fixture(SHAPE);
    let attributes = json!({"label.indices.3": [[-5, 10, 99]], "label.indices.4": [], "label.indices.12": [[0, 0, 0]],
        "label.indices.x": 5, "other": null});
    let replace = |attributes: &Value| {
        let attributes = serde_json::from_value(attributes.clone()).unwrap();
        fixture.dataset.store(Store::SegLabels).replace_attributes(&attributes).unwrap();
    };
    replace(&attributes);
    let centroids = fixture.labels.centroids(&"fly".parse().unwrap()).unwrap();
    assert_eq!(centroids.into_iter().collect::<Vec<_>>(), [(3, vec![[0, 10, 49]])]);
    for damaged in
        [json!({"label.indices.3": 5}), json!({"label.indices.3": [[1, 2]]}), json!({"label.indices.3": [[1, 2, "x"]]})]
    {
        replace(&damaged);
        assert!(fixture.labels.centroids(&"fly".parse().unwrap()).is_err(), "{damaged}");
    }
}

#[test]
fn planes_are_labelled_with_ellipses() {
    let fixture = fixture(DatasetShape { timepoints: 2, frame: [1, 40, 50], is_3d: false });
    let flat = TaggedSpot {
        covariance_um2: [[0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 25.0]],
        ..spot(1, [7.0, 20.0, 30.0], SpotTag::FalseNegative)
    };
    fixture.update(vec![flat]).unwrap();
    let labels = fixture.frame(Store::SegLabels, 1);
    assert_eq!(labels.shape(), [40, 50]);
    assert_eq!((labels[[20, 30]], labels[[20, 34]], labels[[24, 30]]), (6, 5, 0));
    assert_eq!(fixture.frame(Store::SegLabelsVis, 1)[[20, 30, 2]], 127);
    let attributes = fixture.dataset.store(Store::SegLabels).attributes().unwrap();
    assert_eq!(attributes["label.indices.1"].get(), "[[20,30]]");
    assert_eq!(fixture.labels.centroids(&"fly".parse().unwrap()).unwrap()[&1], [[0, 20, 30]]);
}

#[test]
fn a_cancelled_update_keeps_what_is_done() {
    let fixture = fixture(SHAPE);
    let cells = |tag| (0..6).map(|t| spot(t, [4.0, 20.0, 20.0], tag)).collect();
    let cancelled = |spots| {
        let token = CancelToken::default();
        let context = TaskContext::new(token.clone(), move |progress| {
            if progress.done == 2 {
                token.cancel();
            }
        });
        let error = fixture.labels.update(&request(spots), &context).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
    };
    cancelled(cells(SpotTag::TruePositive));
    assert_eq!(fixture.labelled(), [0, 1]);
    assert!(count(&fixture.frame(Store::SegLabels, 1), 3) > 0);
    fixture.update(cells(SpotTag::TruePositive)).unwrap();
    cancelled(cells(SpotTag::FalsePositive));
    assert_eq!(fixture.labelled(), [0, 1, 2, 3, 4, 5], "labels that were not touched stay listed");
    assert!(count(&fixture.frame(Store::SegLabels, 1), 4) > 0 && count(&fixture.frame(Store::SegLabels, 2), 3) > 0);
}

#[test]
fn a_timepoint_is_listed_only_while_its_labels_are_there() {
    let fixture = Arc::new(fixture(DatasetShape { timepoints: 80, frame: [1, 8, 8], is_3d: true }));
    let cell = |t| spot(t, [0.0, 4.0, 4.0], SpotTag::TruePositive);
    // As a kill at that moment would leave it.
    let listed = |fixture: &Fixture| {
        let attributes = fixture.dataset.store(Store::SegLabels).attributes().unwrap();
        let mut timepoints: Vec<usize> =
            attributes.keys().filter_map(|key| key.strip_prefix("label.indices.")?.parse().ok()).collect();
        timepoints.sort_unstable();
        timepoints
    };
    let watch = |spots: Vec<TaggedSpot>| {
        let (sender, seen) = std::sync::mpsc::channel();
        let watched = fixture.clone();
        let context = TaskContext::new(CancelToken::default(), move |_| sender.send(listed(&watched)).unwrap());
        fixture.labels.update(&request(spots), &context).unwrap();
        seen.try_iter().collect::<Vec<_>>()
    };
    let first = watch((0..80).map(cell).collect());
    assert!(first[0].is_empty() && first[15].is_empty(), "nothing is listed while it is drawn");
    assert_eq!(first[16], (0..16).collect::<Vec<_>>(), "what is done is listed soon");
    assert_eq!(listed(&fixture), (0..80).collect::<Vec<_>>());
    // Two are drawn again, the one between them is erased.
    let second = watch(vec![cell(4), cell(6)]);
    assert!(second.iter().all(|listed| [4, 5, 6].iter().all(|t| !listed.contains(t)) && listed.contains(&3)));
    assert_eq!(listed(&fixture).len(), 79);
}

#[test]
fn readers_of_labels_wait_while_labels_are_drawn() {
    let fixture = &fixture(SHAPE);
    let cell = || vec![spot(3, [4.0, 20.0, 20.0], SpotTag::TruePositive)];
    fixture.update(cell()).unwrap();
    let (sender, drawn) = std::sync::mpsc::sync_channel(0);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            drawn.recv().unwrap();
            fixture.labelled()
        });
        // The timepoint is drawn now, but not listed.
        let context = TaskContext::new(CancelToken::default(), move |_| sender.send(()).unwrap());
        fixture.labels.update(&request(cell()), &context).unwrap();
        assert_eq!(reader.join().unwrap(), [3]);
    });
}

/// Labels are large enough that a torn or half-replaced chunk would show: every plane is one class throughout.
#[test]
fn readers_and_second_writers_beside_a_writer() {
    let fixture = Arc::new(fixture(DatasetShape { timepoints: 1, frame: [4, 300, 300], is_3d: true }));
    let everything = |tag| TaggedSpot {
        covariance_um2: [[1e6, 0.0, 0.0], [0.0, 1e6, 0.0], [0.0, 0.0, 1e6]],
        ..spot(0, [2.0, 150.0, 150.0], tag)
    };
    let stop = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (fixture, stop) = (fixture.clone(), stop.clone());
        move || {
            let mut seen = 0;
            while !stop.load(Ordering::Acquire) {
                for plane in fixture.frame(Store::SegLabels, 0).outer_iter() {
                    let first = plane.first().copied().unwrap();
                    assert!(plane.iter().all(|&label| label == first));
                    seen += 1;
                }
                fixture.labels.centroids(&"fly".parse().unwrap()).unwrap();
            }
            seen
        }
    });
    let writers: Vec<_> = [SpotTag::TrueBorder, SpotTag::FalsePositive]
        .into_iter()
        .map(|tag| {
            let fixture = fixture.clone();
            thread::spawn(move || {
                let results: Vec<_> = (0..20).map(|_| fixture.update(vec![everything(tag)])).collect();
                for error in results.iter().filter_map(|result| result.as_ref().err()) {
                    assert_eq!(error.to_string(), "Last update is ongoing");
                    assert_eq!(error.code(), ErrorCode::InvalidArgument);
                }
                results.iter().filter(|result| result.is_ok()).count()
            })
        })
        .collect();
    let updates: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    stop.store(true, Ordering::Release);
    assert!(updates >= 1 && reader.join().unwrap() > 0);
    let last = fixture.frame(Store::SegLabels, 0);
    assert!(last.iter().all(|&label| label == last[[0, 0, 0]]) && [2, 4].contains(&last[[0, 0, 0]]));
}
