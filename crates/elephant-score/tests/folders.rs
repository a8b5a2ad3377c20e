//! Label images: scores equal those of py-ctcmetrics on the same files (`tests/golden/scores`).

#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path};

use elephant_score::{MistakeKind, Report, ScoreError, ScoreOptions, score_folders};
use elephant_testkit::{golden, read_json};
use elephant_types::{CancelToken, TaskContext, VoxelSize};
use tempfile::TempDir;

fn try_score(truth: &Path, result: &Path) -> Result<Report, ScoreError> {
    let voxel_size = VoxelSize::new([2.0, 1.0, 1.0]).unwrap();
    score_folders(truth, result, voxel_size, false, &ScoreOptions::default(), &TaskContext::detached())
}

fn score(case: &str) -> Report {
    let result = golden("scores").join(case);
    try_score(&result.parent().unwrap().join("GT"), &result).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Scores by the names that py-ctcmetrics gives them.
fn by_name(report: &Report) -> Vec<(String, Option<f64>)> {
    let (challenge, biology, association, operations) =
        (&report.challenge, &report.biology, &report.association, &report.operations);
    let mut scores = vec![
        ("DET", challenge.det),
        ("SEG", challenge.seg),
        ("TRA", challenge.tra),
        ("LNK", challenge.lnk),
        ("OP_CSB", challenge.op_csb),
        ("OP_CTB", challenge.op_ctb),
        ("AOGM", Some(challenge.aogm)),
        ("AOGM_0", Some(challenge.aogm_of_nothing)),
        ("AOGM_NS", Some(operations.splits as f64)),
        ("AOGM_FN", Some(operations.missed as f64)),
        ("AOGM_FP", Some(operations.spurious as f64)),
        ("AOGM_ED", Some(operations.links_deleted as f64)),
        ("AOGM_EA", Some(operations.links_added as f64)),
        ("AOGM_EC", Some(operations.links_changed as f64)),
        ("CHOTA", association.chota),
        ("HOTA", association.hota),
        ("IDF1", association.idf1),
        ("IDP", association.idp),
        ("IDR", association.idr),
        ("MOTA", association.mota),
        ("IDSW", Some(association.identity_switches as f64)),
        ("FAF", association.false_alarms_per_frame),
        ("MT_defined", association.mostly_tracked),
        ("ML_defined", association.mostly_lost),
        ("CT", biology.ct),
        ("TF", Some(biology.tf)),
        ("CCA", biology.cca),
    ]
    .into_iter()
    .map(|(name, score)| (name.to_owned(), score))
    .collect::<Vec<_>>();
    for i in 0..elephant_score::TOLERANCES {
        scores.push((format!("BC({i})"), biology.bc[i]));
        scores.push((format!("BIO({i})"), biology.bio[i]));
    }
    scores
}

#[test]
fn scores_equal_those_of_py_ctcmetrics() {
    let expected = read_json(&golden("scores/expected.json"));
    let cases = expected.as_object().unwrap();
    assert!(cases.len() > 20);
    let mut wrong = Vec::new();
    for (case, expected) in cases {
        assert_eq!(expected["Valid"].as_f64(), Some(1.0), "{case}");
        for (name, score) in by_name(&score(case)) {
            let other = expected[&name].as_f64();
            let same = match (score, other) {
                (Some(score), Some(other)) => (score - other).abs() <= 1e-12 * other.abs().max(1.0),
                (None, None) => true,
                _ => false,
            };
            if !same {
                wrong.push(format!("{case} {name}: {score:?}, not {other:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_perfect_result_has_no_mistakes() {
    for case in ["embryo/perfect", "colony/perfect"] {
        let report = score(case);
        assert_eq!(report.mistakes, []);
        assert_eq!((report.cells.f1, report.links.f1), (Some(1.0), Some(1.0)));
        assert!(report.divisions.iter().all(|score| score.rates.f1 == Some(1.0)));
    }
}

#[test]
fn every_mistake_is_in_the_list() {
    for (case, kind) in [
        ("colony/missed", MistakeKind::MissedCell),
        ("colony/spurious", MistakeKind::SpuriousCell),
        ("colony/merged", MistakeKind::MergedCells),
        ("colony/swapped", MistakeKind::MissedLink),
        ("colony/swapped", MistakeKind::WrongLink),
        ("colony/undivided", MistakeKind::MissedDivision),
        ("colony/false_divisions", MistakeKind::SpuriousDivision),
    ] {
        let report = score(case);
        let count = |kind| report.mistakes.iter().filter(|mistake| mistake.kind == kind).count();
        assert!(count(kind) > 0, "{case}");
        assert!(report.mistakes.is_sorted_by_key(|mistake| mistake.frame), "{case}");
        assert_eq!(count(MistakeKind::MissedCell), report.operations.missed, "{case}");
        assert_eq!(count(MistakeKind::SpuriousCell), report.operations.spurious, "{case}");
        assert_eq!(count(MistakeKind::MergedCells), report.operations.merged, "{case}");
        assert_eq!(count(MistakeKind::WrongLink), report.operations.links_deleted, "{case}");
        let divisions = report.division(1).unwrap();
        assert_eq!(count(MistakeKind::MissedDivision), divisions.false_negatives, "{case}");
        assert_eq!(count(MistakeKind::SpuriousDivision), divisions.false_positives, "{case}");
    }
}

#[test]
fn scores_do_not_depend_on_the_number_of_threads() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| score("embryo/mixed1"))
    };
    assert_eq!(with(1), with(5));
}

/// A copy of a golden case and its ground truth, to damage.
fn copy_of(case: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let result = golden("scores").join(case);
    let truth = result.parent().unwrap().join("GT");
    for (from, to) in [(result, "RES"), (truth.join("TRA"), "GT/TRA"), (truth.join("SEG"), "GT/SEG")] {
        fs::create_dir_all(root.path().join(to)).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), root.path().join(to).join(entry.file_name())).unwrap();
        }
    }
    root
}

fn error_after(damage: impl Fn(&Path)) -> String {
    let root = copy_of("colony/perfect");
    damage(root.path());
    try_score(&root.path().join("GT"), &root.path().join("RES")).unwrap_err().to_string()
}

#[test]
fn contradictions_are_named_with_file_and_frame() {
    let table = |root: &Path, change: &dyn Fn(&str) -> String| {
        let path = root.join("RES/res_track.txt");
        fs::write(&path, change(&fs::read_to_string(&path).unwrap())).unwrap();
    };
    let first_line = golden("scores/colony/perfect/res_track.txt");
    let first_line = fs::read_to_string(first_line).unwrap().lines().next().unwrap().to_owned();
    for (change, parts) in [
        (
            Box::new(|text: &str| text.lines().skip(1).collect::<Vec<_>>().join("\n")) as Box<dyn Fn(&str) -> String>,
            &["track 1, has no row"] as &[&str],
        ),
        (Box::new(|text: &str| format!("{text}77 2 3 0\n")), &["has track 77 in frame 2", "no voxel of label 77"]),
        (Box::new(|text: &str| format!("{text}77 2 12 0\n")), &["77 2 12 0", "only 12 frames"]),
        (Box::new(|text: &str| format!("{text}77 3 2 0\n")), &["the track ends before it begins"]),
        (Box::new(|text: &str| format!("{text}77 0 1 1\n")), &["does not end before it begins"]),
        (Box::new(|text: &str| text.replacen(&first_line, "1 1 1 0", 1)), &["(frame 0) has label 1"]),
    ] {
        let message = error_after(|root| table(root, &change));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let message = error_after(|root| fs::remove_file(root.join("RES/mask011.tif")).unwrap());
    assert_eq!(message, "the result has 11 frames and the ground truth 12; score the same frames of both");
    let message = error_after(|root| fs::remove_file(root.join("RES/mask004.tif")).unwrap());
    assert!(message.contains("no label image of timepoint 4"), "{message}");
    let message = error_after(|root| fs::write(root.join("GT/SEG/man_seg_x.tif"), "").unwrap());
    assert!(message.contains("man_seg_x.tif cannot be used: its name must be"), "{message}");
    let message =
        error_after(|root| fs::rename(root.join("GT/SEG/man_seg004.tif"), root.join("GT/SEG/man_seg099.tif")).unwrap());
    assert!(message.contains("man_seg099.tif is for frame 99, which the result does not have"), "{message}");
    let message = error_after(|root| {
        for frame in 0..12 {
            let from = golden(&format!("scores/embryo/perfect/mask{:03}.tif", frame % 8));
            fs::copy(from, root.join(format!("RES/mask{frame:03}.tif"))).unwrap();
        }
    });
    assert!(message.contains("frame 0: the result's image is [32, 24, 24] voxels"), "{message}");
}

#[test]
fn planes_of_outlines_are_compared_with_their_planes() {
    let root = copy_of("embryo/perfect");
    let outlines = root.path().join("GT/SEG");
    let full = try_score(&root.path().join("GT"), &root.path().join("RES")).unwrap();
    assert_eq!(full.challenge.seg, Some(1.0));
    // A plane of another movie: one image of 24 × 24 voxels would fit, those of the colony do not.
    fs::copy(golden("scores/colony/GT/SEG/man_seg004.tif"), outlines.join("man_seg_002_005.tif")).unwrap();
    let message = try_score(&root.path().join("GT"), &root.path().join("RES")).unwrap_err().to_string();
    assert!(message.contains("[1, 24, 24]") && message.contains("man_seg_002_005.tif"), "{message}");
    fs::rename(outlines.join("man_seg_002_005.tif"), outlines.join("man_seg_002_032.tif")).unwrap();
    let message = try_score(&root.path().join("GT"), &root.path().join("RES")).unwrap_err().to_string();
    assert!(message.contains("frame 2, plane 32, which the result does not have"), "{message}");
}

#[test]
fn cancellation_and_progress_are_per_frame() {
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    let context = TaskContext::new(cancel, move |progress| {
        assert_eq!(progress.total, 12);
        if progress.done == 3 {
            stop.cancel();
        }
        assert!(progress.done <= 3);
    });
    let folder = golden("scores/colony");
    let voxel_size = VoxelSize::new([1.0; 3]).unwrap();
    let options = ScoreOptions::default();
    let stopped =
        score_folders(&folder.join("GT"), &folder.join("late"), voxel_size, false, &options, &context).unwrap_err();
    assert!(matches!(stopped, ScoreError::Cancelled(_)));
}
