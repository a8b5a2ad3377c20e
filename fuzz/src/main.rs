//! Feeds damaged files to the readers of what comes from outside, and reports what they did with it.
//!
//! `elephant-fuzz TARGET SECONDS SEEDS...` takes the files SEEDS (folders are searched), damages one of them at a time and
//! lets the reader TARGET have it, for so many seconds. A panic, a reading of more than ten seconds and, in a build with
//! AddressSanitizer (`make fuzz`), an access of the C libraries outside their buffers end the run with an error; the file
//! that did it is kept beside the message. There is no guidance by coverage: files are damaged at random, from a seed that
//! is printed.

mod damage;
mod targets;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::targets::Target;

/// A reading that takes longer is a finding.
const TOO_LONG: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, seconds, seeds @ ..] = arguments.as_slice() else {
        eprintln!("usage: elephant-fuzz TARGET SECONDS SEEDS...; targets: {}", targets::NAMES.join(", "));
        return ExitCode::FAILURE;
    };
    let mut files = Vec::new();
    seeds.iter().for_each(|seed| collect(Path::new(seed), &mut files));
    files.sort();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (Some(target), Ok(seconds)) = (Target::new(target, &files, folder.path()), seconds.parse()) else {
        eprintln!("{target} is not a target with seeds ({}), or {seconds} not a number", targets::NAMES.join(", "));
        return ExitCode::FAILURE;
    };
    // One file at a time, in one thread: what a run does depends on its seed alone.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| run(&target, Duration::from_secs(seconds)))
}

/// Adds a file, or all files in a folder and below.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| collect(&entry.path(), files)),
        Err(_) => files.push(path.to_owned()),
    }
}

fn run(target: &Target, duration: Duration) -> ExitCode {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{}: {} seeds, FUZZ_SEED={seed}", target.name(), target.seeds());
    let mut random = fastrand::Rng::with_seed(seed);
    let executions = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&executions), target.input());
    let begin = Instant::now();
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    while begin.elapsed() < duration {
        target.write_input(&mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.read()));
        executions.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(outcome) => *outcomes.entry(kind(&outcome)).or_default() += 1,
            Err(_) => {
                eprintln!("{}: a panic; {}", target.name(), keep(&target.input()));
                return ExitCode::FAILURE;
            }
        }
    }
    let total = executions.load(Ordering::Relaxed);
    println!("{}: {total} files in {:.0} s, nothing found", target.name(), begin.elapsed().as_secs_f64());
    let mut outcomes: Vec<_> = outcomes.into_iter().collect();
    outcomes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (kind, count) in outcomes.iter().take(12) {
        println!("{:>10}  {kind}", count);
    }
    ExitCode::SUCCESS
}

/// Ends the program when one file takes too long.
fn watch(executions: Arc<AtomicU64>, input: PathBuf) {
    std::thread::spawn(move || {
        loop {
            let before = executions.load(Ordering::Relaxed);
            std::thread::sleep(TOO_LONG);
            if executions.load(Ordering::Relaxed) == before {
                eprintln!("a file takes more than {} s; {}", TOO_LONG.as_secs(), keep(&input));
                std::process::exit(1);
            }
        }
    });
}

/// Copies the input to where it stays, and says where.
fn keep(input: &Path) -> String {
    let path = std::env::temp_dir().join(format!("fuzz-finding-{}", fastrand::u64(..)));
    match fs::copy(input, &path) {
        Ok(_) => format!("the file is kept as {}", path.display()),
        Err(error) => format!("the file cannot be kept: {error}"),
    }
}

/// The kind of an outcome: the message without its numbers and names.
fn kind(outcome: &str) -> String {
    let plain = |character: char| if character.is_ascii_digit() { '#' } else { character };
    let mut kind: String = outcome.chars().map(plain).take(100).collect();
    while kind.contains("##") {
        kind = kind.replace("##", "#");
    }
    kind
}
