use proptest::prelude::*;

use crate::{Lineage, LineageError, Link, SpotId, TrackId, TrackRow};

fn link(source: u32, target: u32) -> Link {
    Link { source: SpotId(source), target: SpotId(target) }
}

fn row(id: u32, begin: u32, end: u32, parent: u32) -> TrackRow {
    TrackRow { id: TrackId::new(id).unwrap(), begin, end, parent: TrackId::new(parent) }
}

fn numbers(spots: impl IntoIterator<Item = SpotId>) -> Vec<u32> {
    spots.into_iter().map(|spot| spot.0).collect()
}

/// One cell that divides at timepoint 1 and one that does not and skips timepoint 2.
fn two_cells() -> Lineage {
    let links = [link(2, 4), link(0, 2), link(1, 3), link(2, 5), link(3, 6)];
    Lineage::new(vec![0, 0, 1, 1, 2, 2, 3], links).unwrap()
}

#[test]
fn a_lineage_knows_parents_children_roots_and_divisions() {
    let lineage = two_cells();
    assert_eq!(numbers(lineage.roots()), [0, 1]);
    assert_eq!(numbers(lineage.divisions()), [2]);
    assert_eq!(numbers(lineage.children(SpotId(2))), [4, 5]);
    assert_eq!(lineage.parent(SpotId(6)), Some(SpotId(3)));
    assert_eq!(lineage.timepoint(SpotId(6)), 3);
    let links: Vec<Link> = lineage.links().collect();
    assert_eq!(links, [link(0, 2), link(1, 3), link(2, 4), link(2, 5), link(3, 6)]);
}

#[test]
fn tracks_are_cut_at_divisions() {
    let lineage = two_cells();
    let tracks = lineage.tracks();
    let spots: Vec<Vec<u32>> = tracks.iter().map(|track| numbers(track.spots.iter().copied())).collect();
    assert_eq!(spots, [vec![0, 2], vec![1, 3, 6], vec![4], vec![5]]);
    let rows: Vec<TrackRow> = tracks.rows(&lineage).collect();
    assert_eq!(rows, [row(1, 0, 1, 0), row(2, 0, 3, 0), row(3, 2, 2, 1), row(4, 2, 2, 1)]);
    assert_eq!(rows[2].to_string(), "3 2 2 1");
    assert_eq!(tracks.of_spot(SpotId(6)).get(), 2);
    assert!(tracks.get(TrackId::new(5).unwrap()).is_none());
    assert!(tracks.get(TrackId::new(u32::MAX).unwrap()).is_none());
    assert!(Lineage::default().tracks().is_empty());
}

#[test]
fn links_that_no_cells_have_are_refused() {
    let refused = |links: &[Link]| Lineage::new(vec![0, 1, 1, 0], links.iter().copied()).unwrap_err();
    assert_eq!(refused(&[link(0, 4)]), LineageError::UnknownSpot { link: link(0, 4), spots: 4 });
    assert_eq!(refused(&[link(1, 2)]), LineageError::NotForward { link: link(1, 2), timepoints: [1, 1] });
    assert_eq!(
        refused(&[link(1, 0)]).to_string(),
        "the link from spot 1 (timepoint 1) to spot 0 (timepoint 0) must go forward in time"
    );
    let parents = [SpotId(0), SpotId(3)];
    assert_eq!(refused(&[link(0, 1), link(3, 1)]), LineageError::TwoParents { spot: SpotId(1), parents });
}

#[test]
fn rows_become_spots_by_timepoint() {
    let (lineage, tracks) = Lineage::from_rows(&[row(7, 1, 2, 0), row(9, 4, 4, 7), row(8, 3, 3, 7)]).unwrap();
    let times: Vec<u32> = lineage.spots().map(|spot| lineage.timepoint(spot)).collect();
    assert_eq!(times, [1, 2, 3, 4]);
    assert_eq!(tracks.iter().map(|track| track.get()).collect::<Vec<_>>(), [7, 7, 8, 9]);
    assert_eq!(lineage.links().collect::<Vec<_>>(), [link(0, 1), link(1, 2), link(1, 3)]);
    // A parent with one child is the same track.
    let (lineage, _) = Lineage::from_rows(&[row(1, 0, 2, 0), row(2, 5, 6, 1)]).unwrap();
    assert_eq!(lineage.tracks().rows(&lineage).collect::<Vec<_>>(), [row(1, 0, 6, 0)]);
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let invalid = |rows: &[TrackRow], words: &str| {
        let message = Lineage::from_rows(rows).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    invalid(&[row(1, 3, 2, 0)], "\"1 3 2 0\" is invalid: the track ends before it begins");
    invalid(&[row(1, 0, 2, 0), row(1, 4, 5, 0)], "another row");
    invalid(&[row(1, 0, 2, 5)], "no row");
    invalid(&[row(1, 0, 2, 0), row(2, 2, 3, 1)], "does not end before");
    invalid(&[row(1, 1, 2, 1)], "does not end before");
    invalid(&[row(1, 0, u32::MAX, 0)], "more than 1073741824 spots");
}

/// A forest over spots in the order of their timepoints: each spot's parent, if any, is one of the earlier ones.
fn forest() -> impl Strategy<Value = Lineage> {
    prop::collection::vec((0..3_u32, any::<prop::sample::Index>(), 0..4_u8), 0..60).prop_map(|spots| {
        let timepoints: Vec<u32> = spots
            .iter()
            .scan(0, |timepoint, (step, ..)| {
                *timepoint += step;
                Some(*timepoint)
            })
            .collect();
        let links = spots.iter().enumerate().filter_map(|(target, (_, parent, kind))| {
            let earlier = timepoints.partition_point(|&timepoint| timepoint < timepoints[target]);
            let has_parent = earlier > 0 && *kind > 0;
            has_parent.then(|| link(parent.index(earlier) as u32, target as u32))
        });
        let links: Vec<Link> = links.collect();
        Lineage::new(timepoints, links).unwrap()
    })
}

proptest! {
    #[test]
    fn links_make_the_same_lineage_again(lineage in forest()) {
        let timepoints: Vec<u32> = lineage.spots().map(|spot| lineage.timepoint(spot)).collect();
        let links: Vec<Link> = lineage.links().collect();
        prop_assert_eq!(&Lineage::new(timepoints, links.into_iter().rev()).unwrap(), &lineage);
        let children: usize = lineage.spots().map(|spot| lineage.children(spot).count()).sum();
        prop_assert_eq!(children, lineage.links().count());
        prop_assert_eq!(children + lineage.roots().count(), lineage.len());
    }

    #[test]
    fn every_spot_is_in_one_track(lineage in forest()) {
        let tracks = lineage.tracks();
        let mut seen = vec![0; lineage.len()];
        for track in tracks.iter() {
            prop_assert!(track.spots.windows(2).all(|pair| lineage.parent(pair[1]) == Some(pair[0])));
            prop_assert!(track.spots.iter().rev().skip(1).all(|&spot| lineage.children(spot).count() == 1));
            for &spot in track.spots {
                seen[spot.index()] += 1;
                prop_assert_eq!(tracks.of_spot(spot), track.id);
            }
            let mother = lineage.parent(track.spots[0]);
            prop_assert!(mother.is_none_or(|mother| lineage.is_division(mother)));
            prop_assert_eq!(track.parent, mother.map(|mother| tracks.of_spot(mother)));
        }
        prop_assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn rows_survive_a_round_trip(lineage in forest()) {
        let tracks = lineage.tracks();
        let rows: Vec<TrackRow> = tracks.rows(&lineage).collect();
        let (again, of_spots) = Lineage::from_rows(&rows).unwrap();
        // Gaps are filled, so that only tracks can be compared; they are numbered by first timepoint and row.
        let mut found: Vec<TrackRow> = again.tracks().rows(&again).collect();
        let name = |id: TrackId| of_spots[again.tracks().get(id).unwrap().spots[0].index()];
        for row in &mut found {
            (row.id, row.parent) = (name(row.id), row.parent.map(name));
        }
        found.sort_by_key(|row| row.id);
        prop_assert_eq!(found, rows);
    }
}
