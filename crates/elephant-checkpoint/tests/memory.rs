//! Small files that would expand to many times their size cause an error and need little memory. This is the only test
//! of its process, because it measures the peak memory of the process.

use std::{fs, io::Cursor, io::Write};

use elephant_checkpoint::{Checkpoint, CheckpointError};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Memory that reading a file of at most 4 MiB may need, in bytes.
const LIMIT: u64 = 100 << 20;

/// An `OrderedDict()` call, and the parts of a tensor of no elements.
const DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";

/// `X`: a text.
fn text(text: &[u8]) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text].concat()
}

/// A call that rebuilds a float tensor of no elements; `key` and `shape` are opcodes that leave one value each.
fn tensor(key: &[u8], shape: &[u8]) -> Vec<u8> {
    let storage = [b"(", &text(b"storage")[..], b"ctorch\nFloatStorage\n", key, &text(b"cpu"), b"K\x00tQ"].concat();
    [REBUILD, b"(", &storage, b"K\x00", shape, shape, b"\x89", DICT, b"tR"].concat()
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", b"")] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `head`, then as many `unit`s as fit into `len` bytes, then `tail`.
fn filled(head: &[u8], unit: &[u8], tail: &[u8], len: usize) -> Vec<u8> {
    let times = (len - head.len() - tail.len()) / unit.len();
    [head, &unit.repeat(times), tail].concat()
}

/// Peak memory of the process, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// A list that refers to a dict of `items` many times, of `size` bytes.
fn list_of_one_dict(items: usize, size: usize) -> Vec<u8> {
    let empty = tensor(&text(b"0"), b"K\x00\x85");
    let dict = [DICT, b"(", &text(b"a"), b"q\x01", &empty, b"q\x02", &b"h\x01h\x02".repeat(items), b"uq\x03"].concat();
    filled(&[b"\x80\x02](", &dict[..]].concat(), b"h\x03", b"e.", size)
}

#[test]
fn a_value_that_is_referred_to_many_times_is_created_once() {
    const FULL: usize = 4 << 20;
    let empty = tensor(&text(b"0"), b"K\x00\x85");
    let long = vec![b'n'; 1 << 20];
    let repeated = |head: &[u8], unit: &[u8]| filled(&[b"\x80\x02", DICT, b"(", head].concat(), unit, b"u.", FULL);
    let cases: [(&str, Vec<u8>); 10] = [
        ("20 KB of one dict", list_of_one_dict(5000, 20_000 + 5000)),
        ("4 MiB of one dict", list_of_one_dict(300_000, FULL)),
        ("one tensor under one name", repeated(&[&text(b"a")[..], b"q\x01", &empty, b"q\x02"].concat(), b"h\x01h\x02")),
        // Fewer tensors than the limit, each with the same long text.
        (
            "a long name",
            [b"\x80\x02", DICT, b"(", &text(&long), b"q\x01", &empty, b"q\x02", &b"h\x01h\x02".repeat(90_000), b"u."]
                .concat(),
        ),
        ("a long key", {
            let long_key = tensor(&[&text(&long)[..], b"q\x01"].concat(), b"K\x00\x85");
            [b"\x80\x02", DICT, b"(", &text(b"a"), b"q\x03", &long_key, b"q\x02", &b"h\x03h\x02".repeat(90_000), b"u."]
                .concat()
        }),
        ("many axes", {
            let shape = [b"(", &b"K\x00".repeat(400_000)[..], b"tq\x01"].concat();
            let many = tensor(&text(b"0"), &shape);
            [b"\x80\x02", DICT, b"(", &text(b"a"), b"q\x03", &many, b"q\x02", &b"h\x03h\x02".repeat(90_000), b"u."]
                .concat()
        }),
        ("empty tuples", filled(b"\x80\x02", b")", b".", FULL)),
        ("nested tuples", filled(b"\x80\x02N", b"\x85", b".", FULL)),
        ("lists of one", filled(b"\x80\x02", b"]Na", b".", FULL)),
        ("remembered values", filled(b"\x80\x04N", b"\x94", b".", FULL)),
    ];
    let files = cases.map(|(name, pickle)| (name, archive(&pickle)));
    let before = peak_memory();
    for (name, file) in &files {
        let error = Checkpoint::read_from(Cursor::new(file)).unwrap_err();
        let grown = peak_memory() - before;
        println!("{name}: {} bytes, {} MiB, {error}", file.len(), grown >> 20);
        assert!(!matches!(error, CheckpointError::Io(_)), "{name}: {error}");
        assert!(grown < LIMIT, "{name}: {} MiB for {} bytes", grown >> 20, file.len());
    }
}
