//! Time, gap and peak memory of the solver on synthetic movies, with `HiGHS` alone beside it.
//!
//! `cargo bench -p elephant-track`. Every measurement is a process of its own, so that its peak memory is its own. A single one:
//! `cargo bench -p elephant-track --bench solver -- one FRAMES CELLS HYPOTHESES METHOD SECONDS`, METHOD
//! `primal-dual`, `exact` or `auto`.

use std::{error::Error, process::Command, time::Instant};

use elephant_track::{DivisionCandidate, LinkCandidate, Method, Node, Problem, Solution, SolveOptions, solve};
use elephant_types::{SplitMix64, TaskContext};

type AnyResult<T> = Result<T, Box<dyn Error>>;

/// Frames, cells, hypotheses for each detection (in conflict with each other), method, time limit in seconds.
const RUNS: [(u32, usize, usize, &str, u32); 9] = [
    (20, 200, 1, "primal-dual", 60),
    (20, 200, 1, "exact", 60),
    (20, 200, 3, "primal-dual", 60),
    (20, 200, 3, "exact", 60),
    (100, 1000, 1, "primal-dual", 60),
    (100, 1000, 1, "exact", 300),
    (200, 1000, 1, "primal-dual", 300),
    (100, 5000, 1, "primal-dual", 600),
    (500, 2000, 1, "primal-dual", 600),
];

fn main() -> AnyResult<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let ["one", frames, cells, hypotheses, method, seconds] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    {
        let method = match *method {
            "exact" => Method::Exact,
            "auto" => Method::Auto,
            _ => Method::PrimalDual,
        };
        return one(&movie(frames.parse()?, cells.parse()?, hypotheses.parse()?), method, seconds.parse()?);
    }
    for (frames, cells, hypotheses, method, seconds) in RUNS {
        let numbers = [frames.to_string(), cells.to_string(), hypotheses.to_string()];
        let mut run = Command::new(std::env::current_exe()?);
        let status = run.arg("one").args(numbers).arg(method).arg(seconds.to_string()).status()?;

        if !status.success() {
            return Err(format!("the measurement ended with {status}").into());
        }
    }
    Ok(())
}

fn one(problem: &Problem, method: Method, time_limit_s: f64) -> AnyResult<()> {
    let before = peak_memory_mib();
    let start = Instant::now();
    let options = SolveOptions { method, time_limit_s, ..SolveOptions::default() };
    let solution = solve(problem, &options, &TaskContext::detached())?;
    let seconds = start.elapsed().as_secs_f64();
    let Solution { objective, bound, status, .. } = &solution;
    println!(
        "tracking {} frames ({} nodes, {} links, {} divisions, {} conflicts), {method:?}: {seconds:.1} s ({:.0} s of CPU), \
         {status:?}, objective {objective:.2}, bound {bound:.2}, gap {:.4} %, peak memory {} MiB ({before} with the problem alone)",
        problem.nodes.last().map_or(0, |node| node.frame + 1),
        problem.nodes.len(),
        problem.links.len(),
        problem.divisions.len(),
        problem.conflicts.len(),
        cpu_seconds(),
        100.0 * solution.gap(),
        peak_memory_mib(),
    );
    Ok(())
}

/// CPU time of this process, in user mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<f64>().ok());
    ticks.unwrap_or(0.0) / 100.0
}

fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Radius of a cell, distance between cells and root-mean-square motion along an axis, in µm.
const RADIUS: f64 = 4.0;
const SPACING: f64 = 10.0;
const MOTION: f64 = 1.6;
const GATE: f64 = 5.5 * MOTION;
const CANDIDATES: usize = 6;
/// Costs in the manner of negative logarithms of likelihoods: reward of a link, and prices of what interrupts a track.
const REWARD: f64 = 7.0;
const ENDING: f64 = 5.0;
const DIVISION: f64 = 4.0;
const SKIP: f64 = 3.0;

struct Random(SplitMix64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0.next_f64()
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn vector(&mut self, length: f64) -> [f64; 3] {
        let direction = [self.normal(), self.normal(), self.normal()];
        let norm = distance(direction, [0.0; 3]).max(1e-9);
        direction.map(|value| value / norm * length)
    }
}

/// The tracking problem of a movie: cells that wander, divide and disappear; 5 % are missed and 5 % are spurious.
fn movie(frames: u32, cells: usize, hypotheses: usize) -> Problem {
    let mut random = Random(SplitMix64::new(1));
    let side = (cells as f64).cbrt() * SPACING;
    let anywhere = |random: &mut Random| [0; 3].map(|_: i32| random.uniform() * side);
    let mut present: Vec<[f64; 3]> = (0..cells).map(|_| anywhere(&mut random)).collect();
    let mut detections: Vec<Vec<[f64; 3]>> = Vec::new();
    for _ in 0..frames {
        let mut seen: Vec<[f64; 3]> = present.iter().copied().filter(|_| random.uniform() >= 0.05).collect();
        for _ in 0..cells / 20 {
            let place = if random.uniform() < 0.5 {
                let cell = present[(random.uniform() * present.len() as f64) as usize];
                let distance = RADIUS * (0.8 + 0.8 * random.uniform());
                add(cell, random.vector(distance))
            } else {
                anywhere(&mut random)
            };
            seen.push(place);
        }
        let versions = seen.into_iter().flat_map(|place| {
            let jitter = |random: &mut Random| add(place, [0; 3].map(|_: i32| 0.2 * RADIUS * random.normal()));
            let others: Vec<[f64; 3]> = (1..hypotheses).map(|_| jitter(&mut random)).collect();
            std::iter::once(place).chain(others)
        });
        detections.push(versions.collect());
        let mut next = Vec::with_capacity(present.len());
        for cell in present {
            let moved = add(cell, [0; 3].map(|_: i32| MOTION * random.normal()));
            let moved = moved.map(|value| if value < 0.0 { -value } else { side - (side - value).abs() });
            match random.uniform() {
                chance if chance < 0.01 => {
                    let half = random.vector(0.725 * RADIUS);
                    next.extend([add(moved, half), add(moved, half.map(|value| -value))]);
                }
                chance if chance < 0.02 => {}
                _ => next.push(moved),
            }
        }
        present = next;
    }
    candidates(&detections, hypotheses, side, &mut random)
}

fn candidates(detections: &[Vec<[f64; 3]>], hypotheses: usize, side: f64, random: &mut Random) -> Problem {
    let mut problem = Problem::default();
    let last = detections.len() - 1;
    let mut first_of = Vec::new();
    for (frame, places) in detections.iter().enumerate() {
        first_of.push(problem.nodes.len() as u32);
        let appearance = if frame == 0 { 0.0 } else { ENDING };
        let disappearance = if frame == last { 0.0 } else { ENDING };
        let node = Node { frame: frame as u32, cost: 0.0, appearance, disappearance };
        if hypotheses == 1 {
            problem.nodes.extend(places.iter().map(|_| node));
            continue;
        }
        for _ in 0..places.len() / hypotheses {
            let first = problem.nodes.len() as u32;
            problem.conflicts.push((first..first + hypotheses as u32).collect());
            problem.nodes.extend((0..hypotheses).map(|_| Node { cost: random.normal(), ..node }));
        }
    }
    let grids: Vec<Grid> = detections.iter().map(|places| Grid::new(places, side)).collect();
    for (frame, places) in detections.iter().enumerate() {
        for gap in (1..=2).filter(|gap| frame + gap <= last) {
            let targets = &detections[frame + gap];
            let reach = GATE * (gap as f64).sqrt();
            for (source, &place) in (first_of[frame]..).zip(places) {
                let near = grids[frame + gap].nearest(targets, place, reach, CANDIDATES * hypotheses);
                for &(distance, target) in &near {
                    let skip = if gap == 2 { SKIP } else { 0.0 };
                    let cost = distance.powi(2) / (2.0 * MOTION.powi(2) * gap as f64) + skip - REWARD;
                    if cost < 2.0 * ENDING {
                        problem.links.push(LinkCandidate { source, target: first_of[frame + gap] + target, cost });
                    }
                }
                for (index, &(_, one)) in near.iter().enumerate().filter(|_| gap == 1) {
                    for &(_, other) in &near[index + 1..] {
                        let daughters = [targets[one as usize], targets[other as usize]];
                        let middle = add(daughters[0], daughters[1]).map(|value| value / 2.0);
                        let spread = (distance(daughters[0], daughters[1]) - 1.45 * RADIUS) / (0.35 * RADIUS);
                        let cost =
                            distance(middle, place).powi(2) / (2.0 * MOTION.powi(2)) + spread.powi(2) / 2.0 + DIVISION
                                - 2.0 * REWARD;
                        if cost < 2.0 * ENDING {
                            let targets = [one, other].map(|target| first_of[frame + 1] + target);
                            problem.divisions.push(DivisionCandidate { source, targets, cost });
                        }
                    }
                }
            }
        }
    }
    problem
}

/// Places by the cube that they are in.
struct Grid {
    width: usize,
    cubes: Vec<Vec<u32>>,
}

impl Grid {
    fn new(places: &[[f64; 3]], side: f64) -> Self {
        let width = (side / SPACING).ceil() as usize + 1;
        let mut grid = Self { width, cubes: vec![Vec::new(); width.pow(3)] };
        for (index, place) in (0..).zip(places) {
            let [z, y, x] = place.map(|value| grid.cell(value));
            grid.cubes[(z * width + y) * width + x].push(index);
        }
        grid
    }

    fn cell(&self, value: f64) -> usize {
        ((value / SPACING).max(0.0) as usize).min(self.width - 1)
    }

    /// The nearest places within `reach`, at most `most`, as (distance, index).
    fn nearest(&self, places: &[[f64; 3]], center: [f64; 3], reach: f64, most: usize) -> Vec<(f64, u32)> {
        let range = center.map(|value| self.cell(value - reach)..=self.cell(value + reach));
        let mut near = Vec::new();
        for z in range[0].clone() {
            for y in range[1].clone() {
                for x in range[2].clone() {
                    let found = self.cubes[(z * self.width + y) * self.width + x].iter();
                    near.extend(found.map(|&index| (distance(places[index as usize], center), index)));
                }
            }
        }
        near.retain(|(distance, _)| *distance <= reach);
        near.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        near.truncate(most);
        near
    }
}

fn add(one: [f64; 3], other: [f64; 3]) -> [f64; 3] {
    [one[0] + other[0], one[1] + other[1], one[2] + other[2]]
}

fn distance(one: [f64; 3], other: [f64; 3]) -> f64 {
    one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}
