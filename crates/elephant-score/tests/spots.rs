//! Spots: scores equal those recorded in `tests/golden/scores/spots.json`.

#![allow(clippy::disallowed_methods)]

use elephant_score::{Annotated, Gaps, MatchRadius, Mistake, MistakeKind, ScoreError, ScoreOptions, score_spots};
use elephant_testkit::{golden, read_json};
use elephant_types::{CancelToken, Coded, ErrorCode, Lineage, Link, Spot, SpotId, TaskContext};
use serde_json::Value;

const UNIT: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

fn spot(t: usize, x: f64) -> Spot {
    Spot { t, center_um: [0.0, 0.0, x], covariance_um2: UNIT, quality: 1.0 }
}

fn lineage(spots: &[Spot], links: &[(u32, u32)]) -> Lineage {
    let links = links.iter().map(|&(source, target)| Link { source: SpotId(source), target: SpotId(target) });
    Lineage::new(spots.iter().map(|spot| spot.t as u32).collect(), links).unwrap()
}

/// Spots and lineage of the golden file, whose links are (frame, index in frame) twice.
fn read(value: &Value) -> (Vec<Spot>, Lineage) {
    let (mut spots, mut starts) = (Vec::new(), Vec::new());
    for (t, frame) in value["spots"].as_array().unwrap().iter().enumerate() {
        starts.push(spots.len());
        for (index, place) in frame.as_array().unwrap().iter().enumerate() {
            let covariance = &value["covariances"][t][index];
            spots.push(Spot {
                t,
                center_um: serde_json::from_value(place.clone()).unwrap(),
                covariance_um2: serde_json::from_value(covariance.clone()).unwrap_or(UNIT),
                quality: 1.0,
            });
        }
    }
    let links: Vec<[usize; 4]> = serde_json::from_value(value["links"].clone()).unwrap();
    let links: Vec<(u32, u32)> =
        links.iter().map(|&[t, i, u, j]| ((starts[t] + i) as u32, (starts[u] + j) as u32)).collect();
    let lineage = lineage(&spots, &links);
    (spots, lineage)
}

#[test]
fn scores_equal_those_of_the_reference_figures() {
    let file = read_json(&golden("scores/spots.json"));
    let (truth, truth_lineage) = read(&file["reference"]);
    let reference = Annotated { spots: &truth, lineage: &truth_lineage };
    let mut wrong = Vec::new();
    for (number, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let (spots, lineage) = read(case);
        let result = Annotated { spots: &spots, lineage: &lineage };
        for (drop_unlinked, expected) in [(false, &case["all"]), (true, &case["linked"])] {
            let options = ScoreOptions { drop_unlinked, ..ScoreOptions::default() };
            let report = score_spots(&reference, &result, &options, &TaskContext::detached()).unwrap();
            for (name, score) in [
                ("link", report.links.f1),
                ("div0", report.division(0).unwrap().f1),
                ("div1", report.division(1).unwrap().f1),
                ("TRA", report.challenge.tra),
                ("DET", report.challenge.det),
                ("LNK", report.challenge.lnk),
                ("CHOTA", report.association.chota),
            ] {
                let other = expected[name].as_f64().unwrap();
                if score.is_none_or(|score| (score - other).abs() > 1e-12) {
                    wrong.push(format!("case {number}, {drop_unlinked}, {name}: {score:?}, not {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Frame, kind, and cells in the result and in the ground truth.
type PlainMistake = (usize, MistakeKind, Vec<Option<u32>>, Vec<Option<u32>>);

fn mistakes(
    truth: &[Spot],
    truth_links: &[(u32, u32)],
    spots: &[Spot],
    links: &[(u32, u32)],
    gaps: Gaps,
) -> Vec<PlainMistake> {
    let (truth_lineage, lineage) = (lineage(truth, truth_links), lineage(spots, links));
    let options = ScoreOptions { gaps, ..ScoreOptions::default() };
    let report = score_spots(
        &Annotated { spots: truth, lineage: &truth_lineage },
        &Annotated { spots, lineage: &lineage },
        &options,
        &TaskContext::detached(),
    );
    let plain = |one: Mistake| (one.frame, one.kind, one.result, one.reference);
    report.unwrap().mistakes.into_iter().map(plain).collect()
}

#[test]
fn a_gap_is_interpolated_or_a_missed_cell() {
    let truth = [spot(0, 0.0), spot(1, 1.0), spot(2, 2.0)];
    let spots = [spot(0, 0.0), spot(2, 2.0)];
    assert_eq!(mistakes(&truth, &[(0, 1), (1, 2)], &spots, &[(0, 1)], Gaps::Interpolate), []);
    assert_eq!(
        mistakes(&truth, &[(0, 1), (1, 2)], &spots, &[(0, 1)], Gaps::Keep),
        [
            (1, MistakeKind::MissedCell, vec![], vec![Some(1)]),
            (2, MistakeKind::WrongLink, vec![Some(0), Some(1)], vec![Some(0), Some(2)]),
        ]
    );
}

#[test]
fn mistakes_name_the_spots_of_both() {
    // One cell divides, another stays; the result gives a daughter to the other one and has one spot too many.
    let truth = [spot(0, 0.0), spot(0, 10.0), spot(1, -3.0), spot(1, 3.0), spot(1, 10.0)];
    let spots = [spot(1, 10.0), spot(0, 10.0), spot(1, 3.1), spot(0, 0.1), spot(1, -3.0), spot(1, 40.0)];
    let found = mistakes(&truth, &[(0, 2), (0, 3), (1, 4)], &spots, &[(3, 4), (1, 0), (1, 2)], Gaps::Keep);
    assert_eq!(
        found,
        [
            (0, MistakeKind::MissedDivision, vec![Some(3), Some(4), Some(2)], vec![Some(0), Some(2), Some(3)]),
            (0, MistakeKind::SpuriousDivision, vec![Some(1), Some(0), Some(2)], vec![Some(1), Some(4), Some(3)]),
            (1, MistakeKind::SpuriousCell, vec![Some(5)], vec![]),
            (1, MistakeKind::MissedLink, vec![Some(3), Some(2)], vec![Some(0), Some(3)]),
            (1, MistakeKind::WrongLink, vec![Some(1), Some(2)], vec![Some(1), Some(3)]),
        ]
    );
}

#[test]
fn an_empty_result_scores_zero_and_an_empty_truth_nothing() {
    let (truth, none) = ([spot(0, 0.0), spot(1, 0.0)], []);
    let (truth_lineage, nothing) = (lineage(&truth, &[(0, 1)]), lineage(&none, &[]));
    let (full, empty) =
        (Annotated { spots: &truth, lineage: &truth_lineage }, Annotated { spots: &none, lineage: &nothing });
    let score =
        |reference, result| score_spots(reference, result, &ScoreOptions::default(), &TaskContext::detached()).unwrap();
    let report = score(&full, &empty);
    assert_eq!(
        (report.challenge.det, report.challenge.tra, report.association.chota),
        (Some(0.0), Some(0.0), Some(0.0))
    );
    assert_eq!((report.cells.recall, report.cells.precision), (Some(0.0), None));
    let report = score(&empty, &full);
    assert_eq!((report.challenge.det, report.challenge.tra, report.biology.ct), (None, None, Some(0.0)));
    assert_eq!(report.mistakes.len(), 2);
    let report = score(&empty, &empty);
    assert_eq!((report.frames, report.association.chota, report.mistakes.len()), (0, None, 0));
}

#[test]
fn invalid_input_is_named() {
    let good = [spot(0, 0.0), spot(1, 0.0)];
    let links = lineage(&good, &[(0, 1)]);
    let fails = |truth: &[Spot], spots: &[Spot], lineage: &Lineage, options: &ScoreOptions| {
        let (reference, result) = (Annotated { spots: truth, lineage: &links }, Annotated { spots, lineage });
        score_spots(&reference, &result, options, &TaskContext::detached()).unwrap_err().to_string()
    };
    let options = ScoreOptions::default();
    let message = fails(&good, &good[..1], &links, &options);
    assert_eq!(message, "the result has 1 spots but a lineage of 2; pass the lineage of these spots");
    let message = fails(&good, &[spot(0, f64::NAN), spot(1, 0.0)], &links, &options);
    assert!(message.starts_with("spot 0 of the result has the centre"), "{message}");
    let mut flat = good.to_vec();
    flat[1].covariance_um2[0][0] = 0.0;
    let message = fails(&flat, &good, &links, &options);
    assert!(message.starts_with("spot 1 of the ground truth has no volume"), "{message}");
    let message = fails(&good, &[spot(3, 0.0), spot(1, 0.0)], &links, &options);
    assert!(message.contains("at timepoint 3, but in the lineage at 0"), "{message}");
    let far = [spot(0, 0.0), spot(1 << 30, 0.0)];
    let message = fails(&good, &far, &lineage(&far, &[(0, 1)]), &options);
    assert!(message.contains("more than 1048576 frames"), "{message}");
    for radius in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = ScoreOptions { radius: MatchRadius::Micrometres(radius), ..options };
        assert!(fails(&good, &good, &links, &options).contains("it must be a positive number"));
    }
    let fixed = ScoreOptions { radius: MatchRadius::Micrometres(1.0), ..options };
    let (reference, result) =
        (Annotated { spots: &flat, lineage: &links }, Annotated { spots: &good, lineage: &links });
    assert!(score_spots(&reference, &result, &fixed, &TaskContext::detached()).is_ok());
    let cancel = CancelToken::default();
    cancel.cancel();
    let stopped = score_spots(&result, &result, &options, &TaskContext::new(cancel, |_| {})).unwrap_err();
    assert!(matches!(stopped, ScoreError::Cancelled(_)) && stopped.code() == ErrorCode::Cancelled);
}

#[test]
fn many_interpolated_cells_are_refused() {
    let spots: Vec<Spot> = (0..200).flat_map(|_| [spot(0, 0.0), spot(1_000_000, 0.0)]).collect();
    let links: Vec<(u32, u32)> = (0..200).map(|pair| (2 * pair, 2 * pair + 1)).collect();
    let lineage = lineage(&spots, &links);
    let one = Annotated { spots: &spots, lineage: &lineage };
    let message = score_spots(&one, &one, &ScoreOptions::default(), &TaskContext::detached()).unwrap_err().to_string();
    assert!(message.contains("keep the gaps instead"), "{message}");
}
