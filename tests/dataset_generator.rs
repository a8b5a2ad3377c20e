//! The `dataset_generator` command: its command line, its messages, and its files after a kill.

#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use elephant_bdv::BdvWriter;
use elephant_testkit::{eventually, golden};
use elephant_types::{CancelToken, VoxelSize};
use elephant_volume::{FrameCache, FrameSource};
use ndarray::Array3;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_dataset_generator");
/// Longest time that a conversion may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn movie(name: &str) -> String {
    golden("dataset/h5").join(name).display().to_string()
}

#[test]
fn help_explains_the_options() {
    let help = text(&run(&["--help"]).stdout);
    for part in ["--uint16", "--divisor <D>", "--2d", "--setup <N>", "--level <N>", "Examples:", "labels are lost"] {
        assert!(help.contains(part), "{part} is missing from\n{help}");
    }
}

#[test]
fn a_conversion_reports_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let done = run(&["--uint16", &movie("gzip.h5"), &output]);
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(text(&done.stdout), format!("{output}: 2 timepoints of 9 × 7 × 5 voxels, 16 bit\n"));
    assert_eq!(text(&done.stderr), "", "no progress bar without a terminal");

    // The original's default is 8 bits, which is too small for this movie.
    let done = run(&["--2d", &movie("gzip.h5"), &output]);
    assert_eq!(text(&done.stdout), format!("{output}: 2 timepoints of 9 × 7 voxels, 8 bit\n"));
    assert!(text(&done.stderr).contains("lost their upper bits; use --uint16 or --divisor"), "{}", text(&done.stderr));
    let done = run(&["--divisor", "256", &movie("gzip.h5"), &output]);
    assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), ""));
    let done = run(&["--uint16", "--setup", "1", "--level=1", &movie("setups.h5"), &output]);
    assert_eq!(text(&done.stdout), format!("{output}: 2 timepoints of 5 × 4 × 5 voxels, 16 bit\n"));
}

#[test]
fn failures_are_one_line_and_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("new").display().to_string();
    for (input, says) in [
        ("text.h5", "text.h5 is not an HDF5 file; give the .h5 file of a BigDataViewer .h5/.xml pair"),
        ("truncated.h5", "the file is damaged or incomplete, copy or upload it again"),
        ("nonexistent.h5", "cannot open nonexistent.h5"),
        ("bomb.h5", "a chunk is not valid gzip data of its size"),
        ("../../field/reading/not_closed.h5", "run h5clear -s not_closed.h5"),
        ("../../field/reading/level_1.h5", "has no resolution level 0; it has only level 1"),
        ("../../field/reading/xml/data/not_n5.xml", "images are in N5 (image loader \"bdv.n5\")"),
    ] {
        let failed = run(&[&movie(input), &output]);
        let message = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "{message}");
        assert!(message.starts_with("dataset_generator: ") && message.contains(says), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert_eq!(run(&[&movie("gzip.h5"), &output, "--divisor", "0"]).status.code(), Some(1));
    assert_eq!(run(&["--no-such-option"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

/// A movie of `tests/golden/field/reading/make_reading.py`.
fn field(name: &str) -> String {
    golden("field/reading").join(name).display().to_string()
}

#[test]
fn the_xml_chooses_timepoints_and_setup_and_may_point_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let sum = |name: &str, args: &[&str]| {
        let output = folder.path().join(name.replace('/', "_")).display().to_string();
        let done = run(&[&[field(name).as_str(), output.as_str()], args].concat());
        assert_eq!(done.status.code(), Some(0), "{name}: {}", text(&done.stderr));
        let frames = FrameSource::open(Path::new(&output), &FrameCache::default()).unwrap();
        let sum = |t| {
            let mut frame = Array3::zeros([3, 4, 5]);
            frames.read(t, [0; 3], frame.view_mut(), &CancelToken::default()).unwrap();
            frame.sum()
        };
        (0..frames.dataset().timepoint_count()).map(sum).collect::<Vec<f32>>()
    };
    let halves = |t: usize, setup: usize| {
        let voxel = |index: usize| (t * 100 + setup * 10 + index / 20 * 7 + index / 5 % 4 * 3 + index % 5) / 2;
        (0..60).map(voxel).sum::<usize>() as f32
    };
    let of_setup_1 = [halves(1, 1), halves(3, 1), halves(3, 1)];
    for name in ["xml/data/same.xml", "xml/above/up.xml", "xml/above/base.xml", "xml/down.xml", "xml/data/cp1252.xml"] {
        assert_eq!(sum(name, &[]), of_setup_1, "{name}");
    }
    assert_eq!(sum("xml/data/missing.xml", &[]), [halves(1, 1), 0.0, halves(3, 1)], "a missing view is blank");
    assert_eq!(sum("xml/data/same.xml", &["--setup=0"]), [halves(1, 0), halves(3, 0), halves(3, 0)]);
    let all = [0, 1, 2, 3, 3].map(|t| halves(t, 0));
    assert_eq!(sum("xml/data/movie.h5", &[]), all, "without an .xml, all timepoints in order");
    assert_eq!(sum("links/home/elsewhere.h5", &["--uint16"]).len(), 2, "parts in other folders are read for the user");
}

#[test]
fn changed_values_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let done = run(&[&field("values/fraction.h5"), &output]);
    assert!(text(&done.stdout).ends_with("voxels, 16 bit\n"), "{}", text(&done.stdout));
    let says = "dataset_generator: the values lie within 0 and 1: they were multiplied by 32768 and rounded down\n";
    assert_eq!(text(&done.stderr), says);
    let done = run(&[&field("xml/data/missing.xml"), &output]);
    let says = "dataset_generator: 1 of 3 frames are blank, because the movie has no image of them\n";
    assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), says));
    let done = run(&[&field("values/float.h5"), &output]);
    assert!(text(&done.stdout).ends_with("voxels, 16 bit\n") && done.stderr.is_empty(), "16 bits are needed");
    let done = run(&[&field("values/large.h5"), &output]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text(&done.stderr).contains("divide them by 3 or more (dataset_generator --divisor 3"),
        "{}",
        text(&done.stderr)
    );
}

#[test]
fn it_is_not_linked_to_libtorch() {
    let Ok(listed) = Command::new("ldd").arg(BINARY).output() else { return };
    assert!(!text(&listed.stdout).contains("torch"), "{}", text(&listed.stdout));
}

/// A movie that takes some time: 100 timepoints; every voxel of a timepoint is its number times `factor`.
fn long_movie(folder: &Path, factor: u16) -> PathBuf {
    let path = folder.join(format!("movie{factor}.h5"));
    let mut writer = BdvWriter::create(&path, [4, 64, 64], VoxelSize::new([1.0; 3]).unwrap()).unwrap();
    for t in 0..100 {
        writer.append(Array3::from_elem((4, 64, 64), t * factor).view()).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn start(movie: &Path, output: &Path) -> Child {
    let args = ["--uint16".as_ref(), movie.as_os_str(), output.as_os_str()];
    Command::new(BINARY).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Number of chunks that a running conversion has written; `None` before its begin and after its end.
fn chunks_written(output: &Path) -> Option<usize> {
    let staging = fs::read_dir(output)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(".staging"))?;
    Some(fs::read_dir(staging.path().join("imgs.zarr")).ok()?.count())
}

/// The files of the stores with their content; `None` without an image store.
fn dataset(output: &Path) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    fs::read_dir(output.join("imgs.zarr")).ok()?;
    let mut files = Vec::new();
    for store in
        fs::read_dir(output).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".zarr"))
    {
        for file in fs::read_dir(store.path()).unwrap().flatten() {
            files.push((file.path().strip_prefix(output).unwrap().to_owned(), fs::read(file.path()).unwrap()));
        }
    }
    files.sort();
    Some(files)
}

/// The dataset of an uninterrupted conversion.
fn undisturbed(movie: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    assert!(start(movie, folder.path()).wait().unwrap().success());
    dataset(folder.path()).unwrap()
}

fn nothing_half_made_stays(output: &TempDir) {
    assert_eq!(chunks_written(output.path()), None);
}

#[test]
fn a_kill_leaves_the_old_dataset_or_nothing() {
    let movies = tempfile::tempdir().unwrap();
    let (old_movie, new_movie) = (long_movie(movies.path(), 1), long_movie(movies.path(), 2));
    let (old, new) = (undisturbed(&old_movie), undisturbed(&new_movie));
    let output = tempfile::tempdir().unwrap();
    let kill_when = |is_time: &mut dyn FnMut() -> bool| {
        let mut child = start(&new_movie, output.path());
        let begun = Instant::now();
        // Without pauses, because a publication is short.
        while child.try_wait().unwrap().is_none() && !is_time() {
            assert!(begun.elapsed() < PATIENCE, "the conversion does not continue");
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    };
    let kill_after = |chunks: usize| {
        kill_when(&mut || chunks_written(output.path()).is_some_and(|written| written >= chunks));
    };
    for chunks in [0, 200] {
        kill_after(chunks);
        assert_eq!(dataset(output.path()), None, "killed after {chunks} chunks");
    }
    for looks in 0..3 {
        assert!(start(&old_movie, output.path()).wait().unwrap().success());
        nothing_half_made_stays(&output);
        kill_after(100 * looks);
        assert!(dataset(output.path()).as_ref() == Some(&old), "killed after {} chunks", 100 * looks);
        // The publication begins by removing the old images. A few checks later, it is at some later point.
        let mut seen = 0;
        kill_when(&mut || {
            seen += usize::from(!output.path().join("imgs.zarr").is_dir());
            seen > 10 * looks
        });
        let found = dataset(output.path());
        assert!(found.is_none() || found.as_ref() == Some(&new), "killed while publishing");
    }
    assert!(start(&new_movie, output.path()).wait().unwrap().success());
    assert!(dataset(output.path()).as_ref() == Some(&new));
    nothing_half_made_stays(&output);
}

#[test]
fn an_interrupt_cleans_up() {
    let movies = tempfile::tempdir().unwrap();
    let movie = long_movie(movies.path(), 1);
    let output = tempfile::tempdir().unwrap();
    let mut child = start(&movie, output.path());
    eventually("20 chunks are written", || {
        child.try_wait().unwrap().is_some() || chunks_written(output.path()).is_some_and(|written| written >= 20)
    });
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(dataset(output.path()), None);
    nothing_half_made_stays(&output);
}
