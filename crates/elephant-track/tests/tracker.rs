//! The tracker from outside: small movies whose lineage is plain to see, corrections, and bad input.

#![allow(clippy::disallowed_methods)]

use elephant_track::{
    Constraints, Detections, Example, FitOptions, NearestOptions, Status, TrackError, TrackMethod, TrackOptions,
    Tracking, Weights, fill_gaps, fit, track,
};
use elephant_types::{CancelToken, Lineage, Link, SplitMix64, Spot, SpotId, TaskContext};

fn spot(t: usize, center_um: [f64; 3], radius_um: f64) -> Spot {
    let v = radius_um * radius_um;
    Spot { t, center_um, covariance_um2: [[v, 0.0, 0.0], [0.0, v, 0.0], [0.0, 0.0, v]], quality: 0.9 }
}

/// Nine cells that drift over `frames` timepoints; the cell in the middle divides after half of them. The spots, their intensities
/// and their lineage, with spots ordered by time.
fn movie(frames: usize) -> (Vec<Spot>, Vec<f64>, Lineage) {
    let mut random = SplitMix64::new(3);
    let (mut spots, mut intensities, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = [None; 10];
    let half = frames / 2;
    for t in 0..frames {
        for cell in 0..10_usize {
            let middle = cell == 4 || cell == 9;
            if cell == 9 && t < half {
                continue;
            }
            let home = [20.0, 15.0 * (cell % 9 / 3) as f64, 15.0 * (cell % 3) as f64];
            let (mut place, mut radius, mut light) = (home, 5.5, 80.0 + 15.0 * cell as f64);
            if cell == 9 {
                (place, light) = ([20.0, 15.0, 15.0], 140.0);
            }
            if middle {
                light = 140.0;
                let to_division = half as i64 - t as i64;
                if to_division > 0 && to_division <= 2 {
                    light *= if to_division == 1 { 1.7 } else { 1.35 };
                    radius *= if to_division == 1 { 0.9 } else { 0.95 };
                }
                if to_division <= 0 {
                    let age = (-to_division) as f64;
                    let sign = if cell == 4 { -1.0 } else { 1.0 };
                    place[2] += sign * (5.0 + 0.3 * age);
                    radius = 3.7 + 0.2 * age.min(4.0);
                    light *= 1.6 - 0.15 * age.min(4.0);
                }
            }
            let place = std::array::from_fn(|axis| place[axis] + 0.6 * t as f64 + 0.3 * (random.next_f64() - 0.5));
            let number = SpotId(spots.len() as u32);
            spots.push(spot(t, place, radius));
            intensities.push(light);
            let parent = if cell == 9 && t == half {
                last[4].and_then(|(_, before)| before)
            } else {
                last[cell].map(|(own, _)| own)
            };
            if let Some(source) = parent {
                links.push(Link { source, target: number });
            }
            last[cell] = Some((number, last[cell].map(|(own, _)| own)));
        }
    }
    let lineage = Lineage::new(spots.iter().map(|spot| spot.t as u32).collect(), links).unwrap();
    (spots, intensities, lineage)
}

fn run(spots: &[Spot], intensities: Option<&[f64]>, constraints: &Constraints) -> Result<Tracking, TrackError> {
    let detections = Detections { spots, intensities, ..Detections::default() };
    track(&detections, constraints, &TrackOptions::default(), &TaskContext::detached())
}

fn link(source: u32, target: u32) -> Link {
    Link { source: SpotId(source), target: SpotId(target) }
}

/// The movie without some spots; numbers change, so links are compared by the spots' positions.
fn without(spots: &[Spot], intensities: &[f64], gone: impl Fn(usize) -> bool) -> (Vec<Spot>, Vec<f64>) {
    let kept = (0..spots.len()).filter(|&index| !gone(index));
    kept.map(|index| (spots[index].clone(), intensities[index])).unzip()
}

#[test]
fn the_builtin_weights_are_valid() {
    Weights::builtin().validate().unwrap();
    assert!(!Weights::builtin().origin.is_empty());
}

#[test]
fn a_plain_movie_is_tracked_without_a_mistake() {
    let (spots, intensities, truth) = movie(10);
    let found = run(&spots, Some(&intensities), &Constraints::default()).unwrap();
    assert_eq!(found.lineage.links().collect::<Vec<_>>(), truth.links().collect::<Vec<_>>());
    assert_eq!(found.lineage.divisions().count(), 1);
    assert!(found.selected.iter().all(|selected| *selected));
    assert_eq!(found.status, Status::Optimal);
    assert!(found.link_scores.iter().all(|(_, score)| *score > 0.5 && *score <= 1.0));
}

#[test]
fn the_result_does_not_depend_on_threads_or_on_the_order_of_spots() {
    let (spots, intensities, truth) = movie(10);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&spots, Some(&intensities), &Constraints::default()).unwrap())
    };
    assert_eq!(on(1), on(3));
    let (mut turned, mut lights) = (spots.clone(), intensities.clone());
    turned.reverse();
    lights.reverse();
    let found = run(&turned, Some(&lights), &Constraints::default()).unwrap();
    let most = spots.len() as u32 - 1;
    let mut links: Vec<Link> = found.lineage.links().map(|l| link(most - l.source.0, most - l.target.0)).collect();
    links.sort_by_key(|link| link.target);
    assert_eq!(links, truth.links().collect::<Vec<_>>());
}

#[test]
fn a_missed_detection_is_bridged_and_filled() {
    let (spots, intensities, _) = movie(10);
    let missed = spots.iter().position(|spot| spot.t == 3).unwrap();
    let (spots, intensities) = without(&spots, &intensities, |index| index == missed);
    let found = run(&spots, Some(&intensities), &Constraints::default()).unwrap();
    let skips = |lineage: &Lineage| {
        lineage.links().filter(|l| lineage.timepoint(l.target) - lineage.timepoint(l.source) > 1).count()
    };
    assert_eq!(skips(&found.lineage), 1);
    let filled = fill_gaps(&spots, &found.lineage).unwrap();
    assert_eq!((filled.given, filled.spots.len(), skips(&filled.lineage)), (spots.len(), spots.len() + 1, 0));
    let added = filled.spots.last().unwrap();
    assert_eq!(added.t, 3);
    let parent = filled.lineage.parent(SpotId(spots.len() as u32)).unwrap();
    assert_eq!(spots[parent.index()].t, 2);
}

#[test]
fn a_single_spurious_spot_is_dropped_unless_it_is_confirmed() {
    let (mut spots, mut intensities, _) = movie(10);
    spots.push(spot(4, [20.0, 60.0, 60.0], 5.0));
    intensities.push(20.0);
    let last = spots.len() as u32 - 1;
    let found = run(&spots, Some(&intensities), &Constraints::default()).unwrap();
    assert!(!found.selected[last as usize]);
    let constraints = Constraints { required: vec![SpotId(last)], ..Constraints::default() };
    assert!(run(&spots, Some(&intensities), &constraints).unwrap().selected[last as usize]);
}

#[test]
fn corrections_are_obeyed() {
    let (spots, intensities, truth) = movie(10);
    let wrong = link(0, 11); // cell 0 becomes cell 2
    let constraints = Constraints {
        links: vec![wrong],
        forbidden: vec![link(3, 12)],
        excluded: vec![SpotId(40)],
        ..Constraints::default()
    };
    assert!(!truth.links().any(|l| l == wrong));
    let found = run(&spots, Some(&intensities), &constraints).unwrap();
    let links: Vec<Link> = found.lineage.links().collect();
    assert!(links.contains(&wrong) && !links.contains(&link(3, 12)));
    assert!(links.iter().all(|l| l.source.0 != 40 && l.target.0 != 40));
    assert!(!found.selected[40]);
    assert!(found.link_scores.contains(&(wrong, 1.0)));

    // A division over any distance and gap.
    let far = Constraints { links: vec![link(0, 35), link(0, 44)], ..Constraints::default() };
    let found = run(&spots, Some(&intensities), &far).unwrap();
    assert_eq!(found.lineage.children(SpotId(0)).collect::<Vec<_>>(), [SpotId(35), SpotId(44)]);
}

#[test]
fn contradictory_corrections_name_the_spots() {
    let (spots, intensities, _) = movie(6);
    let message = |constraints: Constraints| run(&spots, Some(&intensities), &constraints).unwrap_err().to_string();
    let links = |links: &[Link]| Constraints { links: links.to_vec(), ..Constraints::default() };
    assert!(
        message(links(&[link(0, 9), link(0, 10), link(0, 11)]))
            .contains("spot 0 has three approved daughters, 9, 10 and 11")
    );
    assert!(message(links(&[link(0, 9), link(1, 9)])).contains("spot 9 has two approved parents, 0 and 1"));
    assert!(message(links(&[link(0, 9), link(9, 0)])).contains("from spot 9"), "a cycle");
    assert!(message(links(&[link(0, 99_999)])).contains("spot 99999"));
    let both = Constraints { forbidden: vec![link(0, 9)], ..links(&[link(0, 9)]) };
    assert!(message(both).contains("from spot 0 to spot 9 is both approved and rejected"));
    let rejected = Constraints { excluded: vec![SpotId(9)], ..links(&[link(0, 9)]) };
    assert!(message(rejected).contains("spot 9 is rejected"));
    let unsure = Constraints { required: vec![SpotId(3)], excluded: vec![SpotId(3)], ..Constraints::default() };
    assert!(message(unsure).contains("spot 3 is both confirmed and rejected"));
    // By the caller's numbers.
    let numbers: Vec<u64> = (0..spots.len() as u64).map(|index| 1000 + index).collect();
    let numbered = Detections { spots: &spots, numbers: Some(&numbers), ..Detections::default() };
    let two_parents = links(&[link(0, 9), link(1, 9)]);
    let error = track(&numbered, &two_parents, &TrackOptions::default(), &TaskContext::detached()).unwrap_err();
    assert!(error.to_string().contains("spot 1009 has two approved parents, 1000 and 1001"), "{error}");
}

#[test]
fn few_spots_and_strange_spots_are_handled() {
    for spots in
        [vec![], vec![spot(7, [0.0; 3], 3.0)], vec![spot(0, [0.0; 3], 3.0), spot(4_000_000_000, [0.0; 3], 3.0)]]
    {
        let found = run(&spots, None, &Constraints::default()).unwrap();
        assert_eq!(found.lineage.links().count(), 0);
    }
    // A thousand spots at one place, flat ellipsoids.
    let mut crowd: Vec<Spot> = (0..300).map(|number| spot(number / 100, [1.0; 3], 3.0)).collect();
    for spot in &mut crowd {
        spot.covariance_um2[0] = [0.0; 3];
    }
    run(&crowd, None, &Constraints::default()).unwrap();
    let message = |change: &dyn Fn(&mut Spot)| {
        let mut spots = vec![spot(0, [0.0; 3], 3.0), spot(1, [0.0; 3], 3.0)];
        change(&mut spots[1]);
        run(&spots, None, &Constraints::default()).unwrap_err().to_string()
    };
    assert!(message(&|spot| spot.center_um[1] = f64::NAN).starts_with("spot 1: its position"));
    assert!(message(&|spot| spot.covariance_um2[1][1] = f64::INFINITY).starts_with("spot 1: its covariance"));
    assert!(message(&|spot| spot.covariance_um2 = [[0.0; 3]; 3]).starts_with("spot 1: its covariance"));
    assert!(message(&|spot| spot.quality = f64::NAN).starts_with("spot 1: its quality"));
    let short = run(&crowd, Some(&[1.0]), &Constraints::default()).unwrap_err().to_string();
    assert_eq!(short, "there are 1 intensities for 300 spots; give one for each spot");
}

#[test]
fn a_cancelled_task_returns_what_is_given() {
    let (spots, intensities, _) = movie(6);
    let cancel = CancelToken::default();
    cancel.cancel();
    let detections = Detections { spots: &spots, intensities: Some(&intensities), ..Detections::default() };
    let constraints = Constraints { links: vec![link(0, 9)], ..Constraints::default() };
    let context = TaskContext::new(cancel, |_| {});
    let found = track(&detections, &constraints, &TrackOptions::default(), &context).unwrap();
    assert_eq!(found.status, Status::Feasible);
    assert!(found.lineage.links().eq([link(0, 9)]));
}

#[test]
fn given_displacements_link_a_fast_movie() {
    // Everything moves by one distance between cells, which nothing but a flow can tell.
    let spots: Vec<Spot> = (0..40).map(|n| spot(n / 10, [0.0, 0.0, 12.0 * ((n % 10) + n / 10) as f64], 5.0)).collect();
    let displacements = vec![[0.0, 0.0, -12.0]; spots.len()];
    let detections = Detections { spots: &spots, displacements: Some(&displacements), ..Detections::default() };
    let found =
        track(&detections, &Constraints::default(), &TrackOptions::default(), &TaskContext::detached()).unwrap();
    assert!(found.lineage.links().eq((10..40).map(|target| link(target - 10, target))));
}

#[test]
fn the_nearest_method_is_the_clients() {
    #[derive(serde::Deserialize)]
    struct Golden {
        threshold_um: f64,
        spots: Vec<(usize, f64, f64, f64)>,
        links: Vec<(u32, u32)>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tracking/nearest.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let spots: Vec<Spot> = golden.spots.iter().map(|&(t, z, y, x)| spot(t, [z, y, x], 5.0)).collect();
    let nearest = NearestOptions { threshold_um: golden.threshold_um, ..NearestOptions::default() };
    let options = TrackOptions { method: TrackMethod::Nearest, nearest, ..TrackOptions::default() };
    let detections = Detections { spots: &spots, ..Detections::default() };
    let found = track(&detections, &Constraints::default(), &options, &TaskContext::detached()).unwrap();
    let mut links: Vec<(u32, u32)> = found.lineage.links().map(|link| (link.source.0, link.target.0)).collect();
    links.sort_unstable();
    assert_eq!(links, golden.links);
}

#[test]
fn fitted_weights_track_the_example_and_few_links_are_enough_to_adapt() {
    let (spots, intensities, truth) = movie(10);
    let example = Example {
        name: "movie".to_owned(),
        spots: spots.clone(),
        intensities: Some(intensities.clone()),
        displacements: None,
        numbers: None,
        truth: truth.clone(),
        complete: true,
        corrections: Constraints::default(),
    };
    let context = TaskContext::detached();
    let options = FitOptions { rounds: 3, origin: "a test".to_owned(), ..FitOptions::default() };
    let weights = fit(std::slice::from_ref(&example), &options, &context).unwrap();
    weights.validate().unwrap();
    assert_eq!(weights, fit(std::slice::from_ref(&example), &options, &context).unwrap(), "the same again");
    let detections = Detections { spots: &spots, intensities: Some(&intensities), ..Detections::default() };
    let own = TrackOptions { weights: Some(weights), ..TrackOptions::default() };
    let found = track(&detections, &Constraints::default(), &own, &context).unwrap();
    assert!(found.lineage.links().eq(truth.links()));

    let some: Vec<Link> = truth.links().step_by(5).collect();
    let timepoints = spots.iter().map(|spot| spot.t as u32).collect();
    let partial = Example { truth: Lineage::new(timepoints, some).unwrap(), complete: false, ..example.clone() };
    let options = FitOptions { start: Some(Weights::builtin().clone()), rounds: 1, ..FitOptions::default() };
    fit(&[partial], &options, &context).unwrap().validate().unwrap();

    let none = Lineage::new(spots.iter().map(|spot| spot.t as u32).collect(), []).unwrap();
    let message = fit(&[Example { truth: none, ..example }], &FitOptions::default(), &context).unwrap_err().to_string();
    assert!(message.contains("no links"), "{message}");
}
