//! The solver against all consistent choices of small problems, and its methods against each other on larger ones.

use elephant_track::{
    DivisionCandidate, LinkCandidate, Method, Node, Problem, Solution, SolveOptions, Status, TrackError, Variable,
    solve,
};
use elephant_types::{CancelToken, SplitMix64, TaskContext};
use proptest::prelude::*;

const TOLERANCE: f64 = 1e-6;

/// A random problem of `frames` frames with up to `most` nodes each.
fn random_problem(seed: u64, frames: u32, most: u64, density: f64) -> Problem {
    let mut random = SplitMix64::new(seed);
    let mut chance = |below: f64| random.next_f64() < below;
    let mut problem = Problem::default();
    let mut rng = SplitMix64::new(seed ^ 0x5eed);
    let mut number = |low: f64, high: f64| low + (high - low) * rng.next_f64();
    for frame in 0..frames {
        for _ in 0..number(1.0, most as f64 + 1.0) as u64 {
            problem.nodes.push(Node {
                frame,
                cost: number(-2.0, 2.0),
                appearance: if frame == 0 { 0.0 } else { number(0.0, 4.0) },
                disappearance: number(-0.5, 4.0),
            });
        }
    }
    let count = problem.nodes.len() as u32;
    let frame = |node: u32| problem.nodes[node as usize].frame;
    for source in 0..count {
        for target in 0..count {
            let gap = frame(target).saturating_sub(frame(source));
            if (gap == 1 && chance(density)) || (gap == 2 && chance(density / 3.0)) {
                problem.links.push(LinkCandidate { source, target, cost: number(-6.0, 3.0) });
            }
            for other in target + 1..count {
                if gap == 1 && frame(other) == frame(target) && chance(density / 2.0) {
                    problem.divisions.push(DivisionCandidate {
                        source,
                        targets: [target, other],
                        cost: number(-9.0, 2.0),
                    });
                }
            }
        }
    }
    for first in 0..count {
        let mut clique = vec![first];
        clique.extend((first + 1..count).filter(|&other| frame(other) == frame(first) && chance(0.3)));
        if clique.len() > 1 && chance(0.4) {
            problem.conflicts.push(clique);
        }
    }
    problem
}

/// Fixes some variables of a problem at random.
fn fix_some(problem: &mut Problem, seed: u64, count: u64) {
    let mut random = SplitMix64::new(seed ^ 0xf1);
    for _ in 0..count {
        let mut below = |bound: usize| (random.next_f64() * bound as f64) as u32;
        let (nodes, links, divisions) = (problem.nodes.len(), problem.links.len(), problem.divisions.len());
        let variable = match below(6) {
            0 => Variable::Node(below(nodes)),
            1 => Variable::Appearance(below(nodes)),
            2 => Variable::Disappearance(below(nodes)),
            3 if links > 0 => Variable::Link(below(links)),
            4 if divisions > 0 => Variable::Division(below(divisions)),
            _ if links > 0 => {
                let link = problem.links[below(links) as usize];
                problem.fix_parent(link.source, link.target);
                continue;
            }
            _ => Variable::Node(below(nodes)),
        };
        let value = below(2) == 0;
        problem.fixed.push((variable, value));
    }
}

/// The cost of a choice of nodes, links and divisions, or what is wrong with it. Written from the definition alone.
fn cost(problem: &Problem, nodes: &[bool], links: &[bool], divisions: &[bool]) -> Result<f64, String> {
    let mut ways_in = vec![0; nodes.len()];
    let mut ways_out = vec![0; nodes.len()];
    let mut sum = 0.0;
    for (link, _) in problem.links.iter().zip(links).filter(|(_, chosen)| **chosen) {
        ways_out[link.source as usize] += 1;
        ways_in[link.target as usize] += 1;
        sum += link.cost;
    }
    for (division, _) in problem.divisions.iter().zip(divisions).filter(|(_, chosen)| **chosen) {
        ways_out[division.source as usize] += 1;
        division.targets.iter().for_each(|&target| ways_in[target as usize] += 1);
        sum += division.cost;
    }
    for (index, node) in problem.nodes.iter().enumerate() {
        if ways_in[index].max(ways_out[index]) > i32::from(nodes[index]) {
            return Err(format!("node {index} is entered {} times and left {} times", ways_in[index], ways_out[index]));
        }
        if nodes[index] {
            sum += node.cost;
            sum += if ways_in[index] == 0 { node.appearance } else { 0.0 };
            sum += if ways_out[index] == 0 { node.disappearance } else { 0.0 };
        }
    }
    for conflict in &problem.conflicts {
        if conflict.iter().filter(|&&member| nodes[member as usize]).count() > 1 {
            return Err(format!("more than one of {conflict:?} is chosen"));
        }
    }
    for &(variable, value) in &problem.fixed {
        let found = match variable {
            Variable::Node(node) => nodes[node as usize],
            Variable::Appearance(node) => nodes[node as usize] && ways_in[node as usize] == 0,
            Variable::Disappearance(node) => nodes[node as usize] && ways_out[node as usize] == 0,
            Variable::Link(link) => links[link as usize],
            Variable::Division(division) => divisions[division as usize],
        };
        if found != value {
            return Err(format!("{variable:?} is {found}"));
        }
    }
    Ok(sum)
}

/// The smallest cost of all consistent choices, found by trying them all.
fn brute_force(problem: &Problem) -> Option<f64> {
    let (links, arcs) = (problem.links.len(), problem.links.len() + problem.divisions.len());
    let bits = |number: u32, count: usize| -> Vec<bool> { (0..count).map(|bit| number >> bit & 1 == 1).collect() };
    let mut best: Option<f64> = None;
    for subset in 0..1_u32 << arcs {
        let chosen = bits(subset, arcs);
        for subset in 0..1_u32 << problem.nodes.len() {
            let nodes = bits(subset, problem.nodes.len());
            if let Ok(cost) = cost(problem, &nodes, &chosen[..links], &chosen[links..]) {
                best = Some(best.map_or(cost, |best| best.min(cost)));
            }
        }
    }
    best
}

/// Thousands of links between cells that wander in a square, with detections that are missed, that are spurious, or that are
/// second versions of the same cell.
fn movie(seed: u64) -> Problem {
    let mut random = SplitMix64::new(seed);
    let mut number = |low: f64, high: f64| low + (high - low) * random.next_f64();
    let mut cells: Vec<[f64; 2]> = (0..40).map(|_| [number(0.0, 20.0), number(0.0, 20.0)]).collect();
    let mut problem = Problem::default();
    let mut places = Vec::new();
    for frame in 0..20 {
        let mut seen = Vec::new();
        let mut next = Vec::new();
        for [y, x] in cells {
            next.push([y + number(-1.0, 1.0), x + number(-1.0, 1.0)]);
            if number(0.0, 1.0) < 0.05 {
                next.push([y + number(-2.0, 2.0), x + number(-2.0, 2.0)]);
            }
            let versions = if number(0.0, 1.0) < 0.05 { 0 } else { 1 + u32::from(number(0.0, 1.0) < 0.3) };
            let first = problem.nodes.len() as u32 + seen.len() as u32;
            seen.extend((0..versions).map(|_| [y + number(-0.5, 0.5), x + number(-0.5, 0.5)]));
            if versions == 2 {
                problem.conflicts.push(vec![first, first + 1]);
            }
        }
        seen.extend((0..2).map(|_| [number(0.0, 20.0), number(0.0, 20.0)]));
        for place in seen {
            let begin = if frame == 0 { 0.0 } else { 5.0 };
            let cost = number(-0.5, 0.5);
            problem.nodes.push(Node { frame, cost, appearance: begin, disappearance: 5.0 });
            places.push(place);
        }
        cells = next;
    }
    let distance = |one: usize, other: usize| {
        let ([y, x], [v, u]) = (places[one], places[other]);
        (y - v).powi(2) + (x - u).powi(2)
    };
    for source in 0..places.len() {
        let frame = problem.nodes[source].frame;
        let near = |gap: u32| {
            let nodes = source + 1..places.len();
            nodes
                .filter(|&target| problem.nodes[target].frame == frame + gap && distance(source, target) < 9.0)
                .collect::<Vec<_>>()
        };
        let (next, later) = (near(1), near(2));
        for (index, &target) in next.iter().enumerate() {
            let link = |cost| LinkCandidate { source: source as u32, target: target as u32, cost };
            problem.links.push(link(distance(source, target) - 7.0));
            for &other in &next[index + 1..] {
                let cost = 0.5 * (distance(source, target) + distance(source, other)) - 9.0;
                let targets = [target as u32, other as u32];
                problem.divisions.push(DivisionCandidate { source: source as u32, targets, cost });
            }
        }
        for target in later {
            let cost = distance(source, target) / 2.0 - 4.0;
            problem.links.push(LinkCandidate { source: source as u32, target: target as u32, cost });
        }
    }
    problem
}

fn options(method: Method) -> SolveOptions {
    SolveOptions { method, relative_gap: 0.0, ..SolveOptions::default() }
}

/// Options with which movies are solved soon.
fn loose() -> SolveOptions {
    SolveOptions { method: Method::PrimalDual, relative_gap: 2e-3, ..SolveOptions::default() }
}

/// The method's solution, after checking that it is consistent and says the truth about its cost.
fn checked(problem: &Problem, method: Method) -> Result<Solution, TrackError> {
    let solution = solve(problem, &options(method), &TaskContext::detached())?;
    let cost = cost(problem, &solution.nodes, &solution.links, &solution.divisions).unwrap();
    assert!((cost - solution.objective).abs() < TOLERANCE, "{cost} is not {}", solution.objective);
    assert!(solution.bound <= solution.objective + TOLERANCE);
    Ok(solution)
}

/// A problem that is small enough to try all choices.
fn small_problem(seed: u64) -> Problem {
    let mut problem = random_problem(seed, 3, 2, 0.6);
    let divisions = 12_usize.saturating_sub(problem.links.len().min(8));
    problem.links.truncate(8);
    problem.divisions.truncate(divisions.min(4));
    problem
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn every_method_finds_the_optimum_of_small_problems(seed: u64, fixings in 0_u64..4) {
        let mut problem = small_problem(seed);
        fix_some(&mut problem, seed, fixings);
        match brute_force(&problem) {
            None => for method in [Method::Exact, Method::Auto, Method::PrimalDual] {
                let refused = matches!(checked(&problem, method), Err(TrackError::Infeasible { .. }));
                prop_assert!(refused, "{:?} solved what has no solution", method);
            },
            Some(optimum) => {
                let exact = checked(&problem, Method::Exact).unwrap();
                prop_assert!((exact.objective - optimum).abs() < TOLERANCE, "{} is not {optimum}", exact.objective);
                prop_assert_eq!(exact.status, Status::Optimal);
                let auto = checked(&problem, Method::Auto).unwrap();
                prop_assert!((auto.objective - optimum).abs() < TOLERANCE, "{} is not {optimum}", auto.objective);
                prop_assert_eq!(auto.status, Status::Optimal);
                let ours = checked(&problem, Method::PrimalDual).unwrap();
                prop_assert!((ours.objective - optimum).abs() < TOLERANCE, "{} is not {optimum}", ours.objective);
                prop_assert!(ours.bound < optimum + TOLERANCE, "the bound {} is above {optimum}", ours.bound);
            }
        }
    }
}

/// Compares the methods on a problem that is too large to try all choices.
fn compare_methods(seed: u64, fixings: u64) {
    let mut problem = random_problem(seed, 6, 8, 0.25);
    fix_some(&mut problem, seed, fixings);
    let Ok(exact) = checked(&problem, Method::Exact) else {
        let refused = matches!(checked(&problem, Method::PrimalDual), Err(TrackError::Infeasible { .. }));
        assert!(refused, "seed {seed}: a problem without solution was solved");
        return;
    };
    assert_eq!(exact.status, Status::Optimal, "seed {seed}");
    let ours = checked(&problem, Method::PrimalDual).unwrap();
    assert!(ours.bound <= exact.objective + TOLERANCE, "seed {seed}: {} > {}", ours.bound, exact.objective);
    assert!(ours.objective >= exact.objective - TOLERANCE, "seed {seed}: {} < {}", ours.objective, exact.objective);
    let excess = ours.objective - exact.objective;
    let most = 0.01 * (1.0 + exact.objective.abs());
    assert!(excess < most, "seed {seed}: {} is far above {}", ours.objective, exact.objective);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn bounds_of_the_dual_ascent_are_below_the_optimum(seed: u64, fixings in 0_u64..4) {
        compare_methods(seed, fixings);
    }
}

#[test]
fn a_start_is_not_returned_as_the_optimum() {
    // HiGHS solves parts of the first two, or the whole of the third, in its presolve.
    for seed in [2424, 2466, 2971] {
        compare_methods(seed, 0);
    }
}

#[test]
fn a_proven_optimum_is_said_to_be_one() {
    // HiGHS ends with a bound that is below this optimum by its own tolerance.
    let mut problem = random_problem(6_607_612_609_901_351_082, 6, 8, 0.25);
    fix_some(&mut problem, 6_607_612_609_901_351_082, 2);
    assert_eq!(checked(&problem, Method::Exact).unwrap().status, Status::Optimal);
}

#[test]
fn movies_are_solved_to_the_gap_that_was_asked_for() {
    for seed in [21, 22] {
        let problem = movie(seed);
        let exact = checked(&problem, Method::Exact).unwrap();
        assert_eq!(exact.status, Status::Optimal);
        let options = SolveOptions { method: Method::PrimalDual, relative_gap: 1e-3, ..SolveOptions::default() };
        let ours = solve(&problem, &options, &TaskContext::detached()).unwrap();
        println!(
            "{} links, exact {}, ours {} with bound {}",
            problem.links.len(),
            exact.objective,
            ours.objective,
            ours.bound
        );
        assert_eq!(ours.status, Status::Optimal);
        assert!(ours.bound <= exact.objective + TOLERANCE && exact.objective <= ours.objective + TOLERANCE);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let problem = movie(11);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| solve(&problem, &loose(), &TaskContext::detached()).unwrap())
    };
    let one = with(1);
    assert!(one.links.iter().any(|chosen| *chosen) && one.divisions.iter().any(|chosen| *chosen));
    assert_eq!(one, with(2));
    assert_eq!(one, with(7));
}

#[test]
fn a_cancelled_search_returns_what_it_has() {
    let problem = movie(12);
    for method in [Method::Exact, Method::PrimalDual] {
        let token = CancelToken::default();
        let cancelled = token.clone();
        // The first report comes after the first ascent.
        let context = TaskContext::new(token, move |_| cancelled.cancel());
        let found = solve(&problem, &options(method), &context).unwrap();
        let cost = cost(&problem, &found.nodes, &found.links, &found.divisions).unwrap();
        let best = solve(&problem, &loose(), &TaskContext::detached()).unwrap();
        assert_eq!(found.status, Status::Feasible);
        assert!((cost - found.objective).abs() < TOLERANCE);
        assert!(found.bound <= best.objective && best.objective <= found.objective);
        assert!(found.objective < 0.0, "it is better than nothing");
    }
}

#[test]
fn a_search_without_time_returns_a_consistent_choice() {
    let problem = movie(13);
    for method in [Method::Exact, Method::Auto, Method::PrimalDual] {
        let options = SolveOptions { time_limit_s: 0.0, ..options(method) };
        let found = solve(&problem, &options, &TaskContext::detached()).unwrap();
        assert_eq!(found.status, Status::Feasible);
        cost(&problem, &found.nodes, &found.links, &found.divisions).unwrap();
    }
}

#[test]
fn nothing_is_chosen_where_there_is_nothing() {
    let solution = checked(&Problem::default(), Method::Auto).unwrap();
    assert_eq!((solution.objective, solution.bound, solution.status), (0.0, 0.0, Status::Optimal));
}

#[test]
fn contradictions_are_refused() {
    let mut problem = random_problem(14, 3, 3, 1.0);
    let [first, second] = [problem.links[0], problem.links[1]];
    assert_eq!(first.source, second.source, "the first two links of this problem have one source");
    problem.fixed = vec![(Variable::Link(0), true), (Variable::Link(1), true)];
    let error = solve(&problem, &SolveOptions::default(), &TaskContext::detached()).unwrap_err();
    let expected = "the fixed nodes, links and divisions contradict each other at node 0: release one of them";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn options_out_of_range_are_refused() {
    for (time_limit_s, relative_gap) in [(f64::NAN, 0.0), (-1.0, 0.0), (1e300, 0.0), (1.0, -0.1), (1.0, f64::NAN)] {
        let options = SolveOptions { time_limit_s, relative_gap, ..SolveOptions::default() };
        let error = solve(&Problem::default(), &options, &TaskContext::detached()).unwrap_err();
        assert!(matches!(error, TrackError::InvalidOption { .. }), "{error}");
    }
}
