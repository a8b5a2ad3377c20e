use super::*;

fn spot(x: f64) -> Spot {
    Spot {
        t: 3,
        center_um: [5.0, 5.0, x],
        covariance_um2: [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]],
        quality: 0.5,
    }
}

fn known(key: u64, x: f64, detection: DetectionTag) -> ProjectSpot {
    let tracking = TrackingTag::Unlabeled;
    ProjectSpot { key: SpotKey(key), spot: spot(x), detection, tracking, flags: 0, author: 0, changed: 1 }
}

/// What becomes of the tag of a spot at x = 10 when cells are found at these places.
fn turned(tag: DetectionTag, found: &[f64]) -> DetectionTag {
    let predicted: Vec<Spot> = found.iter().map(|x| spot(*x)).collect();
    let changes = merge_prediction(&[known(1, 10.0, tag)], &predicted, None, SUPPRESSION_UM);
    let mut tags = changes.iter().filter_map(|change| match change {
        PredictionChange::Tag { tag, .. } => Some(*tag),
        _ => None,
    });
    tags.next_back().unwrap_or(tag)
}

#[test]
fn tags_turn_by_whether_the_cell_is_found() {
    use DetectionTag::{FalseBorder, FalseNegative, FalsePositive, TrueBorder, TrueNegative, TruePositive};
    for (tag, missed, found) in [
        (TruePositive, FalseNegative, TruePositive),
        (FalseNegative, FalseNegative, TruePositive),
        (FalsePositive, TrueNegative, FalsePositive),
        (TrueNegative, TrueNegative, FalsePositive),
        (FalseBorder, TrueBorder, FalseBorder),
        (TrueBorder, TrueBorder, FalseBorder),
    ] {
        assert_eq!(turned(tag, &[]), missed, "{tag}");
        assert_eq!(turned(tag, &[12.9]), found, "{tag}");
        assert_eq!(turned(tag, &[13.0]), missed, "{tag}: the distance is not included");
        assert_eq!(turned(tag, &[9.0, 11.0]), found, "{tag}: the second one changes nothing");
    }
}

#[test]
fn unlabeled_spots_go_unless_they_are_approved() {
    let mut approved = known(2, 30.0, DetectionTag::Unlabeled);
    approved.tracking = TrackingTag::Approved;
    let existing = [known(1, 10.0, DetectionTag::Unlabeled), approved];
    let changes = merge_prediction(&existing, &[spot(10.5), spot(31.0), spot(50.0)], None, SUPPRESSION_UM);
    // The one at 31 is suppressed by the approved one.
    assert_eq!(changes, [PredictionChange::Remove(SpotKey(1)), PredictionChange::Add(0), PredictionChange::Add(2)]);
}

#[test]
fn outside_the_box_nothing_changes_but_spots_suppress() {
    use DetectionTag::{FalseNegative, TruePositive, Unlabeled};
    let inside = BoxUm { min_um: [0.0; 3], max_um: [20.0; 3] };
    let existing = [
        known(1, 25.0, Unlabeled),
        known(2, 30.0, TruePositive),
        known(3, 21.0, FalseNegative),
        known(4, 5.0, TruePositive),
    ];
    let changes = merge_prediction(&existing, &[spot(19.0)], Some(&inside), SUPPRESSION_UM);
    assert_eq!(
        changes,
        [
            PredictionChange::Tag { key: SpotKey(3), tag: TruePositive },
            PredictionChange::Tag { key: SpotKey(4), tag: FalseNegative },
        ]
    );
    assert!(inside.contains([0.0; 3]) && !inside.contains([0.0, 0.0, 20.0]));
}

#[test]
fn of_two_predicted_spots_that_are_close_the_first_stays() {
    let changes = merge_prediction(&[], &[spot(10.0), spot(12.0), spot(14.0)], None, SUPPRESSION_UM);
    assert_eq!(changes, [PredictionChange::Add(0), PredictionChange::Add(2)]);
    let changes = merge_prediction(&[], &[spot(10.0), spot(12.0)], None, 0.0);
    assert_eq!(changes.len(), 2, "without suppression both stay");
}

#[test]
fn the_nearest_spot_decides() {
    use DetectionTag::{FalseNegative, TrueNegative, TruePositive};
    let existing = [known(1, 10.0, FalseNegative), known(2, 12.0, TrueNegative)];
    let changes = merge_prediction(&existing, &[spot(10.9)], None, SUPPRESSION_UM);
    assert_eq!(changes, [PredictionChange::Tag { key: SpotKey(1), tag: TruePositive }]);
}

#[test]
fn the_same_prediction_again_changes_nothing() {
    use DetectionTag::Unlabeled;
    let existing = [known(1, 10.0, Unlabeled), known(2, 20.0, Unlabeled)];
    assert_eq!(merge_prediction(&existing, &[spot(10.0), spot(20.0)], None, SUPPRESSION_UM), []);
    let mut other = spot(20.0);
    other.quality = 0.75;
    let changes = merge_prediction(&existing, &[spot(10.0), other], None, SUPPRESSION_UM);
    assert_eq!(changes, [PredictionChange::Remove(SpotKey(2)), PredictionChange::Add(1)]);
}

/// The rules word by word, without a grid.
fn slowly(existing: &[ProjectSpot], predicted: &[Spot], suppression: f64) -> Vec<(f64, DetectionTag)> {
    use DetectionTag::{FalseBorder, FalseNegative, FalsePositive, TrueBorder, TrueNegative, TruePositive, Unlabeled};
    let mut spots: Vec<(f64, DetectionTag)> = existing
        .iter()
        .filter(|spot| spot.detection != Unlabeled)
        .map(|spot| {
            let tag = match spot.detection {
                TruePositive => FalseNegative,
                FalsePositive => TrueNegative,
                FalseBorder => TrueBorder,
                other => other,
            };
            (spot.spot.center_um[2], tag)
        })
        .collect();
    for spot in predicted {
        let distance = |other: &(f64, DetectionTag)| (other.0 - spot.center_um[2]).abs();
        let nearest = (0..spots.len()).min_by(|&a, &b| distance(&spots[a]).total_cmp(&distance(&spots[b])));
        match nearest.filter(|&nearest| distance(&spots[nearest]) < suppression) {
            Some(nearest) => {
                spots[nearest].1 = match spots[nearest].1 {
                    FalseNegative => TruePositive,
                    TrueNegative => FalsePositive,
                    TrueBorder => FalseBorder,
                    other => other,
                };
            }
            None => spots.push((spot.center_um[2], Unlabeled)),
        }
    }
    spots.sort_by(|a, b| a.0.total_cmp(&b.0));
    spots
}

proptest::proptest! {
    #[test]
    fn the_result_is_that_of_the_rules(
        known_spots in proptest::collection::vec((0.0..40.0_f64, 0_usize..7), 0..12),
        found in proptest::collection::vec(0.0..40.0_f64, 0..12),
        suppression in 0.5..6.0_f64,
    ) {
        let existing: Vec<ProjectSpot> = (0..).zip(&known_spots)
            .map(|(key, (x, tag))| known(key, *x, DetectionTag::ALL[*tag])).collect();
        let predicted: Vec<Spot> = found.iter().map(|x| spot(*x)).collect();
        let mut spots: std::collections::BTreeMap<u64, (f64, DetectionTag)> =
            existing.iter().map(|spot| (spot.key.0, (spot.spot.center_um[2], spot.detection))).collect();
        for change in merge_prediction(&existing, &predicted, None, suppression) {
            match change {
                PredictionChange::Tag { key, tag } => spots.get_mut(&key.0).unwrap().1 = tag,
                PredictionChange::Remove(key) => drop(spots.remove(&key.0).unwrap()),
                PredictionChange::Add(index) => {
                    spots.insert(1000 + index as u64, (predicted[index].center_um[2], DetectionTag::Unlabeled));
                }
            }
        }
        let mut result: Vec<_> = spots.into_values().collect();
        result.sort_by(|a, b| a.0.total_cmp(&b.0));
        proptest::prop_assert_eq!(result, slowly(&existing, &predicted, suppression));
    }
}
