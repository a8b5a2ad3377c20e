//! Movies of known truth as problems with a known solution.

use std::collections::{BTreeMap, BTreeSet};

use elephant_types::{CancelToken, Cancelled, Lineage, Spot, SpotId, TaskContext};

use super::{
    candidates::Finder,
    constraints::Given,
    detections::{Detections, Scene},
    features::{Kind, View},
    learn,
    motion::Motion,
    options::{Constraints, TrackOptions},
    statement::{ages, state},
    weights::Weights,
};
use crate::{DivisionCandidate, LinkCandidate, Node, Problem, TrackError, Variable, solve};

/// A movie to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What errors call it, for example the name of the project.
    pub name: String,
    /// The detections, as in [`Detections`].
    pub spots: Vec<Spot>,
    /// See [`Detections::intensities`].
    pub intensities: Option<Vec<f64>>,
    /// See [`Detections::displacements`].
    pub displacements: Option<Vec<[f64; 3]>>,
    /// See [`Detections::numbers`].
    pub numbers: Option<Vec<u64>>,
    /// The links that are known to be correct, between these spots. Where a detection is missing they skip timepoints.
    pub truth: Lineage,
    /// Whether there are no other correct links, so that spots without a link are spurious. Otherwise the rest is first completed
    /// by tracking around the known links (for a project in which some links are approved).
    pub complete: bool,
    /// What else people have decided, which this completion obeys: rejected links, confirmed and rejected spots.
    pub corrections: Constraints,
}

impl Example {
    pub(crate) fn detections(&self) -> Detections<'_> {
        Detections {
            spots: &self.spots,
            intensities: self.intensities.as_deref(),
            displacements: self.displacements.as_deref(),
            numbers: self.numbers.as_deref(),
        }
    }
}

/// A variable of a problem, with its features.
pub struct Row {
    pub variable: Variable,
    /// Index of the first feature among those of its kind.
    pub begin: usize,
    pub truth: bool,
}

/// A problem without costs, its correct solution, and the features of all variables.
pub struct Prepared {
    pub problem: Problem,
    pub rows: [Vec<Row>; 5],
    /// For each kind the features of its rows, one row after another.
    pub features: [Vec<f32>; 5],
}

/// The links and divisions of a lineage, as a solution contains them.
struct Truth {
    links: BTreeSet<(u32, u32)>,
    divisions: BTreeMap<u32, [u32; 2]>,
    spots: BTreeSet<u32>,
}

impl Truth {
    fn new(lineage: &Lineage, max_gap: u32) -> Self {
        let mut truth = Self { links: BTreeSet::new(), divisions: BTreeMap::new(), spots: BTreeSet::new() };
        for spot in lineage.spots() {
            let mut children: Vec<(u32, u32)> = lineage
                .children(spot)
                .map(|child| (lineage.timepoint(child) - lineage.timepoint(spot), child.0))
                .filter(|child| child.0 <= max_gap)
                .collect();
            children.sort_unstable();
            match children[..] {
                [] => {}
                [(_, a), (2, b)] | [(1, a), (1, b)] => {
                    truth.divisions.insert(spot.0, [a, b]);
                    truth.spots.extend([spot.0, a, b]);
                }
                [(_, child), ..] => {
                    truth.links.insert((spot.0, child));
                    truth.spots.extend([spot.0, child]);
                }
            }
        }
        truth
    }
}

/// Which candidates are kept: all true ones, and others whose cost under the weights is below a limit. Without weights one of
/// `every` others is.
#[derive(Clone, Copy)]
pub enum Keep<'a> {
    Sample { every: u64 },
    Plausible { weights: &'a Weights, cost: f64 },
}

/// The features of an example. `weights` are those with which motion and noise are found.
pub fn prepare(
    example: &Example,
    weights: Option<&Weights>,
    keep: Keep<'_>,
    options: &TrackOptions,
    context: &TaskContext,
) -> Result<Prepared, TrackError> {
    let named = |error| match error {
        TrackError::Stopped | TrackError::Cancelled(_) => Cancelled.into(),
        error => TrackError::Example { name: example.name.clone(), error: Box::new(error) },
    };
    prepared(example, weights, keep, options, context).map_err(named)
}

fn prepared(
    example: &Example,
    weights: Option<&Weights>,
    keep: Keep<'_>,
    options: &TrackOptions,
    context: &TaskContext,
) -> Result<Prepared, TrackError> {
    let scene = Scene::new(example.detections())?;
    if example.truth.len() != scene.len() {
        let (length, spots) = (example.truth.len(), scene.len());
        return Err(TrackError::UnequalLengths { what: "spots in the truth", length, spots });
    }
    let constraints = if example.complete {
        Constraints::default()
    } else {
        Constraints { links: example.truth.links().collect(), ..example.corrections.clone() }
    };
    let given = Given::new(&constraints, &scene)?;
    let mut motion = Motion::start(&scene);
    let mut completed = None;
    let quiet = TaskContext::new(context.cancel_token().clone(), |_| {});
    if let Some(weights) = weights {
        for _ in 1..options.passes.max(2) {
            let finder = Finder::new(View { scene: &scene, motion: &motion }, options);
            let problem = state(&finder, weights, options, &given, context.cancel_token())?;
            let solution = solve(&problem, &options.solver, &quiet)?;
            context.check()?;
            learn(&scene, &mut motion, &problem, &solution);
            completed = Some(super::result(&scene, &given, options, weights, &problem, &solution)?.lineage);
        }
    }
    let lineage = completed.as_ref().filter(|_| !example.complete).unwrap_or(&example.truth);
    let truth = Truth::new(lineage, options.max_gap);
    let finder = Finder::new(View { scene: &scene, motion: &motion }, options);
    Collector { finder: &finder, truth: &truth, keep, prepared: empty() }.collect(context.cancel_token())
}

fn empty() -> Prepared {
    Prepared { problem: Problem::default(), rows: Default::default(), features: Default::default() }
}

struct Collector<'a> {
    finder: &'a Finder<'a>,
    truth: &'a Truth,
    keep: Keep<'a>,
    prepared: Prepared,
}

impl Collector<'_> {
    fn collect(mut self, cancel: &CancelToken) -> Result<Prepared, TrackError> {
        let view = self.finder.view;
        let scene = view.scene;
        let (mut has_parent, mut has_child) = (BTreeSet::new(), BTreeSet::new());
        for frame in 0..scene.frames.len() {
            let (pairs, triples) = self.finder.frame(frame, cancel)?;
            for pair in &pairs {
                let truth = self.truth.links.contains(&(pair.source, pair.target));
                let mut features = Vec::new();
                view.link(pair.source, pair.target, &pair.rivals, &mut features);
                let number = self.prepared.problem.links.len() as u32;
                if self.add(Kind::Link, Variable::Link(number), truth, &features) {
                    let link = LinkCandidate { source: pair.source, target: pair.target, cost: 0.0 };
                    self.prepared.problem.links.push(link);
                }
                if truth {
                    has_parent.insert(pair.target);
                    has_child.insert(pair.source);
                }
            }
            for triple in &triples {
                let [a, b] = triple.daughters;
                let truth =
                    self.truth.divisions.get(&triple.mother).is_some_and(|&pair| pair == [a, b] || pair == [b, a]);
                let mut features = Vec::new();
                view.division(triple.mother, triple.daughters, triple.next, &triple.rivals, &mut features);
                let number = self.prepared.problem.divisions.len() as u32;
                if self.add(Kind::Division, Variable::Division(number), truth, &features) {
                    let division = DivisionCandidate { source: triple.mother, targets: triple.daughters, cost: 0.0 };
                    self.prepared.problem.divisions.push(division);
                }
                if truth {
                    has_parent.extend([a, b]);
                    has_child.insert(triple.mother);
                }
            }
        }
        for spot in 0..scene.len() as u32 {
            let real = self.truth.spots.contains(&spot);
            let mut features = Vec::new();
            view.spot(spot, self.finder.near[spot as usize], &mut features);
            self.add(Kind::Spot, Variable::Node(spot), real, &features);
            let [age, rest] = ages(scene, spot);
            for (kind, variable, age, held) in [
                (Kind::Appearance, Variable::Appearance(spot), age, &has_parent),
                (Kind::Disappearance, Variable::Disappearance(spot), rest, &has_child),
            ] {
                // Nothing can be known of the time before the first frame and after the last.
                if age > 0 {
                    let mut features = Vec::new();
                    view.end(spot, age, &mut features);
                    self.add(kind, variable, real && !held.contains(&spot), &features);
                }
            }
            let frame = scene.places[spot as usize].0;
            self.prepared.problem.nodes.push(Node { frame, cost: 0.0, appearance: 0.0, disappearance: 0.0 });
        }
        Ok(self.prepared)
    }

    fn add(&mut self, kind: Kind, variable: Variable, truth: bool, features: &[f32]) -> bool {
        let candidate = matches!(kind, Kind::Link | Kind::Division);
        let kept = match self.keep {
            Keep::Sample { every } => {
                let (Variable::Link(number) | Variable::Division(number) | Variable::Node(number)) = variable else {
                    return self.store(kind, variable, truth, features);
                };
                let seed = self.prepared.features[kind as usize].len() as u64
                    ^ (u64::from(number) << 32)
                    ^ features_hash(features);
                kind != Kind::Division || elephant_types::SplitMix64::mix(seed).is_multiple_of(every)
            }
            Keep::Plausible { weights, cost } => dot(weights.of(kind), features) < cost,
        };
        if truth || kept || !candidate { self.store(kind, variable, truth, features) } else { false }
    }

    fn store(&mut self, kind: Kind, variable: Variable, truth: bool, features: &[f32]) -> bool {
        let stored = &mut self.prepared.features[kind as usize];
        self.prepared.rows[kind as usize].push(Row { variable, begin: stored.len(), truth });
        stored.extend_from_slice(features);
        true
    }
}

fn features_hash(features: &[f32]) -> u64 {
    features.iter().fold(0, |hash, value| elephant_types::SplitMix64::mix(hash ^ u64::from(value.to_bits())))
}

pub fn dot(weights: &[f64], features: &[f32]) -> f64 {
    weights.iter().zip(features).map(|(weight, feature)| weight * f64::from(*feature)).sum()
}

/// The number of spots with at least one link.
pub fn linked(lineage: &Lineage) -> usize {
    lineage
        .spots()
        .filter(|&spot: &SpotId| lineage.parent(spot).is_some() || lineage.children(spot).next().is_some())
        .count()
}
