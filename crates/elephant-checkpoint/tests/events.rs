//! Event files: reads PyTorch's, and lets TensorBoard read ours.

#![allow(clippy::disallowed_methods)]

use std::{fs, process::Command};

use elephant_checkpoint::{EventWriter, last_step};
use elephant_testkit::{golden, peer_python};

#[test]
fn steps_of_pytorch_are_continued() {
    assert_eq!(last_step(&golden("events")).unwrap(), Some(104));
}

#[test]
fn a_folder_without_events_has_no_step() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(last_step(folder.path()).unwrap(), None);
    assert_eq!(last_step(&folder.path().join("missing")).unwrap(), None);
    fs::write(folder.path().join("events.out.tfevents.1.h.2.0"), "no events at all, but long enough").unwrap();
    fs::write(folder.path().join("events.out.tfevents.1.h.2.1"), "").unwrap();
    fs::create_dir(folder.path().join("events.out.tfevents.1.h.2.2")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("events.out.tfevents.1.h.2.3")).unwrap();
    let _writer = EventWriter::create(folder.path()).unwrap();
    assert_eq!(last_step(folder.path()).unwrap(), None);
}

#[test]
fn a_partial_last_record_hides_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(folder.path()).unwrap();
    for step in 0..10 {
        writer.scalar("train_loss", step, 0.5).unwrap();
    }
    let path = folder.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("events.out.tfevents.") && name.split('.').count() >= 7, "{name}");
    let whole = fs::read(&path).unwrap();
    for cut in 1..60 {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let last = last_step(folder.path()).unwrap().unwrap();
        assert!((7..9).contains(&last), "{cut}: {last}");
    }
    // The next training writes to its own file.
    EventWriter::create(folder.path()).unwrap().scalar("train_loss", 9, 0.25).unwrap();
    assert_eq!(last_step(folder.path()).unwrap(), Some(9));
}

#[test]
fn tensorboard_reads_what_is_written_here() {
    let Some(python) = peer_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut first = EventWriter::create(folder.path()).unwrap();
    first.scalar("train_loss", 0, 0.75).unwrap();
    first.scalar("nll_loss", 0, 1.0 / 3.0).unwrap();
    let mut second = EventWriter::create(folder.path()).unwrap();
    second.scalar("train_loss", 300, f64::NAN).unwrap();
    second.scalar("train_loss", 1 << 40, -1e-20).unwrap();
    let script = r"
import math, struct, sys, time
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
assert events.file_version == 2, events.file_version
assert sorted(events.Tags()['scalars']) == ['nll_loss', 'train_loss'], events.Tags()
single = lambda value: struct.unpack('f', struct.pack('f', value))[0]
found = [(e.step, e.value) for e in events.Scalars('train_loss')]
assert found[0] == (0, 0.75) and found[2] == (1 << 40, single(-1e-20)), found
assert found[1][0] == 300 and math.isnan(found[1][1]), found
assert [(e.step, e.value) for e in events.Scalars('nll_loss')] == [(0, single(1 / 3))]
assert all(abs(e.wall_time - time.time()) < 600 for e in events.Scalars('train_loss'))
";
    let output = Command::new(python).args(["-c", script]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
