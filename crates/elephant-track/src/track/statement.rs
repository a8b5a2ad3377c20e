//! The problem whose optimum is the lineage.

use elephant_types::CancelToken;
use rayon::prelude::*;

use super::{
    candidates::{Finder, Pair, Triple},
    constraints::Given,
    detections::Scene,
    features::{Cost, Rivals},
    options::TrackOptions,
    weights::Weights,
};
use crate::{DivisionCandidate, LinkCandidate, Node, Problem, TrackError, Variable};

/// States the problem. Its nodes are the spots, in their order.
///
/// # Errors
/// [`TrackError::Cancelled`], within a fraction of a frame.
pub fn state(
    finder: &Finder<'_>,
    weights: &Weights,
    options: &TrackOptions,
    given: &Given,
    cancel: &CancelToken,
) -> Result<Problem, TrackError> {
    let scene = finder.view.scene;
    let nodes: Vec<Node> =
        (0..scene.len() as u32).into_par_iter().map(|spot| node(finder, weights, options, spot)).collect();
    let found: Vec<(Vec<LinkCandidate>, Vec<DivisionCandidate>)> = (0..scene.frames.len())
        .into_par_iter()
        .map(|frame| {
            let (mut pairs, mut triples) = finder.frame(frame, cancel)?;
            add_given(finder, frame, given, &mut pairs, &mut triples);
            let links = pairs.iter().filter(|pair| given.allows(pair.source, pair.target));
            let links = links.map(|pair| link(finder, weights, options, pair));
            let links = links.filter(|link| {
                let apart = nodes[link.source as usize].disappearance + nodes[link.target as usize].appearance;
                link.cost < apart || given.is_approved(link.source, link.target)
            });
            let divisions = triples
                .iter()
                .filter(|triple| triple.daughters.iter().all(|&daughter| given.allows(triple.mother, daughter)));
            let divisions = divisions.map(|triple| division(finder, weights, options, triple));
            let divisions = divisions.filter(|division| {
                let [a, b] = division.targets.map(|target| nodes[target as usize].appearance);
                let apart = nodes[division.source as usize].disappearance + a + b;
                division.cost < apart
                    || division.targets.iter().all(|&target| given.is_approved(division.source, target))
            });
            let links = links.collect();
            cancel.check()?;
            Ok((links, divisions.collect()))
        })
        .collect::<Result<_, TrackError>>()?;
    let (links, divisions): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let mut problem = Problem { nodes, links: links.concat(), divisions: divisions.concat(), ..Problem::default() };
    problem.fixed.extend(given.required.iter().map(|&spot| (Variable::Node(spot), true)));
    problem.fixed.extend(given.excluded.iter().map(|&spot| (Variable::Node(spot), false)));
    for (&child, &parent) in &given.parents {
        problem.fix_parent(parent, child);
    }
    Ok(problem)
}

/// Whether a spot is in the first or last frame (0), or one beside (1).
pub fn ages(scene: &Scene<'_>, spot: u32) -> [u32; 2] {
    let time = scene.time(spot);
    let (first, last) = (scene.frames[0].time, scene.frames[scene.frames.len() - 1].time);
    [time - first, last - time]
}

fn node(finder: &Finder<'_>, weights: &Weights, options: &TrackOptions, spot: u32) -> Node {
    let view = finder.view;
    let mut cost = Cost::new(&weights.spot);
    view.spot(spot, finder.near[spot as usize], &mut cost);
    let [age, rest] = ages(view.scene, spot);
    let end = |weights: &[f64], age: u32, added: f64| {
        let mut cost = Cost::new(weights);
        view.end(spot, age, &mut cost);
        if age == 0 { 0.0 } else { cost.sum + added }
    };
    Node {
        frame: view.scene.places[spot as usize].0,
        cost: cost.sum + options.spot_cost - options.quality_weight * view.scene.quality[spot as usize],
        appearance: end(&weights.appearance, age, options.appearance_cost),
        disappearance: end(&weights.disappearance, rest, options.disappearance_cost),
    }
}

fn link(finder: &Finder<'_>, weights: &Weights, options: &TrackOptions, pair: &Pair) -> LinkCandidate {
    let &Pair { source, target, ref rivals, .. } = pair;
    let mut cost = Cost::new(&weights.link);
    finder.view.link(source, target, rivals, &mut cost);
    let skipped = finder.view.scene.time(target) - finder.view.scene.time(source) - 1;
    LinkCandidate { source, target, cost: cost.sum + options.link_cost + f64::from(skipped) * options.gap_cost }
}

fn division(finder: &Finder<'_>, weights: &Weights, options: &TrackOptions, triple: &Triple) -> DivisionCandidate {
    let &Triple { mother, daughters, next, ref rivals } = triple;
    let mut cost = Cost::new(&weights.division);
    finder.view.division(mother, daughters, next, rivals, &mut cost);
    DivisionCandidate { source: mother, targets: daughters, cost: cost.sum + options.division_cost }
}

/// Adds what is given but was not found as a candidate.
fn add_given(finder: &Finder<'_>, frame: usize, given: &Given, pairs: &mut Vec<Pair>, triples: &mut Vec<Triple>) {
    let scene = finder.view.scene;
    for &source in &scene.frames[frame].spots {
        let Some(children) = given.children.get(&source) else { continue };
        for &target in children {
            if !pairs.iter().any(|pair| pair.source == source && pair.target == target) {
                let distance = super::features::norm(finder.view.motion.offset(scene, source, target));
                let rivals = Rivals { other_target: f64::INFINITY, other_source: f64::INFINITY, ..Rivals::default() };
                pairs.push(Pair { source, target, distance, rivals });
            }
        }
        if let [a, b] = children[..] {
            let known = |triple: &Triple| triple.mother == source && [[a, b], [b, a]].contains(&triple.daughters);
            if !triples.iter().any(known) {
                let rivals = Rivals { other_target: f64::INFINITY, other_source: f64::INFINITY, ..Rivals::default() };
                let next = [finder.near[a as usize][1], finder.near[b as usize][1]];
                triples.push(Triple { mother: source, daughters: [a, b], next, rivals: [rivals; 2] });
            }
        }
    }
}
